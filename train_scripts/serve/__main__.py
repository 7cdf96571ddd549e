"""Start a server: ``python -m train_scripts.serve``."""

import sys

from train_scripts.serve.run import main

sys.exit(main())
