"""Start a run: ``python -m train_scripts.anomaly [PRESET] [--field value]``."""

import sys

from train_scripts.cli import main

sys.exit(main(["run", "anomaly", *sys.argv[1:]]))
