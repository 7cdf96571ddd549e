"""Start a run: ``python -m train_scripts.yodo [PRESET] [--field value]``."""

import sys

from train_scripts.cli import main

sys.exit(main(["run", "yodo", *sys.argv[1:]]))
