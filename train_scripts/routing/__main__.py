"""Start a run: ``python -m train_scripts.routing [PRESET] [--field value]``."""

import sys

from train_scripts.cli import main

sys.exit(main(["run", "routing", *sys.argv[1:]]))
