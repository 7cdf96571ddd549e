"""Keep a plot of a run for a page: ``python docs/figures/keep.py PLOT NAME``.

Figures are stored in the repository, so they get a palette, a fifth of the bytes.
"""

import sys
from pathlib import Path

from PIL import Image

COLOURS = 64


def main(plot: str, name: str) -> None:
    """Copy a plot to ``docs/figures/NAME.png``.

    Args:
      plot: a PNG file in the folder of a run.
      name: of the figure.
    """
    path = Path(plot)
    if path.suffix != ".png" or not path.is_file():
        raise SystemExit(f"{path}: expected a plot of a run, a PNG file")
    target = Path(__file__).with_name(f"{name}.png")
    with Image.open(path) as image:
        image.convert("RGB").quantize(COLOURS).save(target, optimize=True)
    print(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
