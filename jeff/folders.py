"""Folders that are replaced as a whole, and what killed processes left in them."""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["part_of", "recover_folder", "replacing_folder", "sweep"]

_PART = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.part")


def part_of(path: Path) -> Path:
    """Temporary name under which a file or folder is written.

    Args:
      path: the file or folder.

    Returns:
      A path in the same folder, since a rename is atomic only within one file system.
      Its random part keeps two processes or threads from writing to the same file.
    """
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """Write a folder under a temporary name, and rename it once it is complete.

    Args:
      path: the folder; an older one of this name is replaced as a whole.

    Yields:
      The temporary folder to write to, empty; it never outlives the block.

    Raises:
      OSError: as in `replacing`, or from the block.
    """
    path = Path(path)
    recover_folder(path)
    part = part_of(path)
    before = _before(path)
    try:
        part.mkdir(parents=True)
        yield part
        # Two renames, since no folder is renamed over another that has files.
        if path.exists():
            path.rename(before)
        part.rename(path)
        shutil.rmtree(before, ignore_errors=True)
    except BaseException:
        recover_folder(path)
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def recover_folder(path: str | Path) -> None:
    """Put a folder back that a kill left between the two renames of its replacement.

    Args:
      path: the folder.
    """
    path = Path(path)
    if not path.exists() and _before(path).is_dir():
        _before(path).rename(path)


def _before(path: Path) -> Path:
    return path.with_name(f".{path.name}.before")


def sweep(folder: str | Path) -> list[Path]:
    """Remove what killed processes left half-written in a folder and below it.

    Call it only where no other process writes, as under the lock of a run.

    Args:
      folder: the folder; may be missing. Folders below it that have a file ``lock``
        belong to other runs and are left alone.

    Returns:
      What was removed: temporary files of `replacing`, and unfinished checkpoints.
    """
    removed: list[Path] = []
    for root, folders, names in os.walk(folder):
        here = Path(root)
        # A run below this one may be at work; its own lock tells it.
        if here != Path(folder) and "lock" in names:
            folders.clear()
            continue
        for name in filter(_PART.fullmatch, names):
            (here / name).unlink(missing_ok=True)
            removed.append(here / name)
        unfinished = (
            each
            for each in folders
            if ".orbax-checkpoint-tmp" in each or _PART.fullmatch(each)
        )
        for name in list(unfinished):
            shutil.rmtree(here / name, ignore_errors=True)
            folders.remove(name)
            removed.append(here / name)
    return removed
