"""Start a run: ``python -m train_scripts.reasoning [PRESET] [--field value]``."""

import sys

from train_scripts.cli import main

sys.exit(main(["run", "reasoning", *sys.argv[1:]]))
