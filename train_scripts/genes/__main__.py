"""Start a run: ``python -m train_scripts.genes [PRESET] [--field value]``."""

import sys

from train_scripts.cli import main

sys.exit(main(["run", "genes", *sys.argv[1:]]))
