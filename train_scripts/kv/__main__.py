"""Start a run: ``python -m train_scripts.kv [PRESET] [--field value]``."""

import sys

from train_scripts.cli import main

sys.exit(main(["run", "kv", *sys.argv[1:]]))
