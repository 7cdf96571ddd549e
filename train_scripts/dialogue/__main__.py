"""Start a run: ``python -m train_scripts.dialogue [PRESET] [--field value]``."""

import sys

from train_scripts.cli import main

sys.exit(main(["run", "dialogue", *sys.argv[1:]]))
