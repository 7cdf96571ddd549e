"""Start the command line: ``python -m train_scripts COMMAND``."""

import sys

from train_scripts.cli import main

sys.exit(main(sys.argv[1:]))
