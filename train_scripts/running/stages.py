"""Print the stage of a long run on standard error."""

import sys
import time

__all__ = ["say"]


def say(where: str, progress: bool, text: str) -> None:
    """Print a stage with the time.

    Args:
      where: position in the run, such as "seed 1 of 3".
      progress: whether to print anything.
      text: the stage.
    """
    if progress:
        print(
            f"{time.strftime('%H:%M:%S')} {where}: {text}", file=sys.stderr, flush=True
        )
