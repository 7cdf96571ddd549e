"""Start a run: ``python -m train_scripts.gre [PRESET] [--field value]``."""

import sys

from train_scripts.cli import main

sys.exit(main(["run", "gre", *sys.argv[1:]]))
