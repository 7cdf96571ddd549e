"""What a long run is doing, told on standard error."""

import sys
import time

__all__ = ["say"]


def say(where: str, progress: bool, text: str) -> None:
    """Tell a stage, with the time.

    Args:
      where: such as "seed 1 of 3".
      progress: whether to tell it at all.
      text: the stage.
    """
    if progress:
        print(
            f"{time.strftime('%H:%M:%S')} {where}: {text}", file=sys.stderr, flush=True
        )
