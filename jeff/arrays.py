"""Arrays from ``.npz`` files, whose sizes are checked before memory is taken.

numpy allocates what an array's header states before it reads a byte, so a file of a
kilobyte can ask for any amount. Here each header is compared with the archive first.
"""

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from jeff import files

__all__ = ["load_arrays"]

_EXPECTED = "an npz of plain arrays"
_ADVICE = "write it with numpy.savez"


def load_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Read all arrays of an ``.npz`` file.

    Args:
      path: the file, as `numpy.savez` or `numpy.savez_compressed` writes it.

    Returns:
      Arrays by name.

    Raises:
      FileNotFoundError: if there is no such file.
      OSError: if it cannot be read.
      ValueError: if it is no such file or damaged, an array has pickled objects, its
        header states more than the archive holds, or the compressed arrays expand to
        more than `jeff.files.check_expansion` allows; names file and array.
    """
    path = Path(path)
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "none"
        raise FileNotFoundError(f"{path}: expected {_EXPECTED}, found {kind}")
    with (
        files.reading(path, _EXPECTED, advice=_ADVICE),
        zipfile.ZipFile(path) as archive,
    ):
        members = [m for m in archive.infolist() if m.filename.endswith(".npy")]
        names = [member.filename.removesuffix(".npy") for member in members]
        if len(set(names)) < len(names):
            raise ValueError(f"an array stands twice among {sorted(names)}")
        # Zip states sizes itself; more than that is never read.
        packed = sum(m.file_size for m in members if m.compress_type)
        files.check_expansion(path, packed, what="its compressed arrays")
        return {
            name: _read(archive, member, f"{path}: {name}")
            for name, member in zip(names, members, strict=True)
        }


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, place: str) -> np.ndarray:
    # Uncompressed members lie in the file, so its size bounds them.
    if not member.compress_type and member.file_size != member.compress_size:
        raise ValueError(f"{place}: expected one size of it, got two; {_ADVICE}")
    with archive.open(member) as file:
        shape, dtype = _header(file)
        start = file.tell()
    if dtype.hasobject:
        raise ValueError(
            f"{place}: expected plain numbers or texts, got pickled objects, which "
            f"are never loaded; {_ADVICE}"
        )
    size = math.prod(shape) * dtype.itemsize
    if size != member.file_size - start:
        raise ValueError(
            f"{place}: expected {size:,} bytes for {dtype}{shape}, the file holds "
            f"{member.file_size - start:,}; it is damaged or cut short"
        )
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        # numpy writes 3.0 only for names of fields outside Latin-1, which no array of
        # numbers has; it reads it as 2.0 in all but the encoding.
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    return shape, dtype
