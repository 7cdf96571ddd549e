"""Read the plots of a run for the page."""

import base64
import dataclasses
import re
import struct
from pathlib import Path

from jeff import files

__all__ = ["Figure", "read", "readable"]

_PNG_HEADER = b"\x89PNG\r\n\x1a\n"
# A plot of jeff takes 0.1 MB; the page holds all of them.
_MOST_BYTES = 16 << 20


@dataclasses.dataclass(frozen=True)
class Figure:
    """A plot: caption, PNG in base64, and size in pixels."""

    caption: str
    data: str
    width: int
    height: int


def read(path: Path) -> Figure:
    """Read a plot.

    Args:
      path: the file; its name becomes the caption.

    Returns:
      The plot.

    Raises:
      OSError: if the file cannot be read.
      ValueError: if it is not a PNG image, or larger than 16 MiB; names the file.
    """
    # Opening a pipe would wait for someone to write to it.
    if not path.is_file():
        raise ValueError(f"{path}: expected a PNG image, came no regular file")
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise ValueError(
            f"{path}: expected a PNG image of at most {_MOST_BYTES:,} bytes, came "
            f"{size:,}"
        )
    data = files.read_bytes(path, "a PNG image")
    if len(data) < 24 or not data.startswith(_PNG_HEADER):
        raise ValueError(f"{path}: expected a PNG image, came {data[:8]!r}")
    # The header chunk comes first in a PNG; its size in pixels starts at byte 16. With
    # the size in the page, the layout does not move while images are decoded.
    width, height = struct.unpack(">II", data[16:24])
    words = re.sub(r"^\d\d[-_]", "", readable(path.stem))
    caption = re.sub(r"[-_\s]+", " ", words).strip() or "Plot"
    encoded = base64.b64encode(data).decode("ascii")
    return Figure(caption[0].upper() + caption[1:], encoded, width, height)


def readable(name: str) -> str:
    """Make a file name encodable in UTF-8, even if its bytes are not UTF-8.

    Args:
      name: the name.

    Returns:
      The name, with ``?`` in place of such bytes.
    """
    return name.encode("utf-8", "replace").decode("utf-8")
