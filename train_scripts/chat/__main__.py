"""Start a chat: ``python -m train_scripts.chat``."""

import sys

from train_scripts.chat.run import main

sys.exit(main())
