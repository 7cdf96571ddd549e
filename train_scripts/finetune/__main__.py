"""Start fine-tuning: ``python -m train_scripts.finetune``."""

import sys

from train_scripts.finetune.run import main

sys.exit(main())
