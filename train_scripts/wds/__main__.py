"""Start a run: ``python -m train_scripts.wds [PRESET] [--field value]``."""

import sys

from train_scripts.cli import main

sys.exit(main(["run", "wds", *sys.argv[1:]]))
