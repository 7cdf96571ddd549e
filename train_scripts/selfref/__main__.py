"""Start a run: ``python -m train_scripts.selfref [PRESET] [--field value]``."""

import sys

from train_scripts.cli import main

sys.exit(main(["run", "selfref", *sys.argv[1:]]))
