"""Open files as untrusted input: named errors, and a limit on what they expand to."""

import asyncio
import contextlib
import errno
import gzip
import io
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

__all__ = ["check_expansion", "open_expanded", "reading"]

# What a compressed file may always expand to, and how many times its size otherwise:
# real tables shrink to a twentieth at most, a bomb to a thousandth.
_FREE_BYTES, _FREE_RATIO = 256 << 20, 20
# An interrupted program, and a fault of the program itself.
_NOT_ERRORS = (
    KeyboardInterrupt,
    SystemExit,
    GeneratorExit,
    asyncio.CancelledError,
    ImportError,
    NameError,
)


@contextmanager
def reading(
    path: str | Path, expected: str, *, advice: str = "get or write it again"
) -> Iterator[None]:
    """Turn whatever is raised over a bad file into an error that names the file.

    Args:
      path: the file, or ``"file:line"``.
      expected: what the file should be, such as "a tokenizer".
      advice: what to do about it.

    Yields:
      Nothing. An OSError that names the file, a ValueError that begins with its name,
      and the errors of an interrupted program or a missing package pass unchanged.

    Raises:
      OSError: if the system refuses; names the file.
      ValueError: for anything else, panics of a library written in Rust and recursion
        without end included.

    >>> with reading("a.bin", "two numbers"):
    ...     int("x")
    Traceback (most recent call last):
    ValueError: a.bin: expected two numbers, but it cannot be read (ValueError: \
invalid literal for int() with base 10: 'x'); get or write it again
    """
    try:
        yield
    except _NOT_ERRORS:
        raise
    except BaseException as error:
        said = (str(error).splitlines() or [""])[0]
        if isinstance(error, ValueError) and said.startswith(str(path)):
            raise
        # "Invalid argument" is a wrong number in the file, not a refusal of the system.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            # It names a file, or says more than the system does.
            plain = error.strerror == os.strerror(error.errno)
            if error.filename is not None or not plain:
                raise
            raise OSError(error.errno, error.strerror, str(path)) from error
        if isinstance(error, UnicodeDecodeError):
            advice = f"save it in UTF-8, or {advice}"
        raise ValueError(
            f"{path}: expected {expected}, but it cannot be read "
            f"({type(error).__name__}: {said:.300}); {advice}"
        ) from error


def check_expansion(
    path: str | Path, size: int, *, what: str = "its content", whole: bool = True
) -> None:
    """Check that a file may be expanded to so many bytes.

    The limit is 256 MiB, or 20 times the file's size where that is more, or the
    environment variable ``JEFF_MAX_BYTES`` where that is more.

    Args:
      path: the file.
      size: bytes that its content will take in memory.
      what: the part that takes them, for the error.
      whole: whether these are all bytes, or those that were counted so far.

    Raises:
      ValueError: if they are too many.
    """
    if size > (limit := _limit(path)):
        more = "" if whole else " or more"
        raise ValueError(
            f"{path}: expected at most {limit:,} bytes for {what}, which is what a "
            f"file of {_size(Path(path)):,} bytes may take, got {size:,}{more}; if "
            "you trust the file, set JEFF_MAX_BYTES to a larger number"
        )


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    return path.stat().st_size


def _limit(path: str | Path) -> int:
    stated = os.environ.get("JEFF_MAX_BYTES") or "0"
    if not (stated.isascii() and stated.isdigit()):
        raise ValueError(
            f"{path}: expected JEFF_MAX_BYTES to be a number of bytes, such as "
            f"1000000000, got {stated!r:.40}"
        )
    size = _size(Path(path))
    return max(_FREE_BYTES, _FREE_RATIO * size, int(stated))


def _check_gzip(file: io.BufferedIOBase, path: Path, *, partly: bool) -> None:
    """Expand a gzip file once before its content is trusted: a bomb, a cut, a fault."""
    limit, size = _limit(path), 0
    # A reader that takes what comes before a fault meets the fault itself.
    faults = (EOFError, zlib.error, gzip.BadGzipFile) if partly else ()
    with contextlib.suppress(*faults), gzip.open(file) as inner:
        while chunk := inner.read(1 << 20):
            size += len(chunk)
            if size > limit:
                check_expansion(path, size, whole=False)
    file.seek(0)


@contextmanager
def open_expanded(
    path: str | Path,
    expected: str = "a file",
    *,
    inside: str = "",
    partly: bool = False,
) -> Iterator[io.BufferedIOBase]:
    """Open a file for reading, expanding it where its name ends in ``.gz`` or ``.zip``.

    Args:
      path: the file.
      expected: what it should be, for errors.
      inside: ending of the one file in a ``.zip`` that is read; with none, a ``.zip``
        is read as it is.
      partly: yield a damaged ``.gz`` too; reading it fails where the damage begins.

    Yields:
      A stream of bytes, within the limit of `check_expansion`.

    Raises:
      FileNotFoundError: if there is no such file.
      OSError: if it cannot be opened.
      ValueError: if it is no whole archive, expands to too much, or the block raises
        what `reading` turns into a ValueError.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        kind = "no plain file" if path.exists() else "none"
        kind = "a folder" if path.is_dir() else kind
        raise FileNotFoundError(f"{path}: expected {expected}, found {kind}")
    with reading(path, expected), path.open("rb") as file:
        if path.suffix == ".gz":
            _check_gzip(file, path, partly=partly)
            with gzip.open(file) as inner:
                yield inner
        elif path.suffix == ".zip" and inside:
            with zipfile.ZipFile(file) as archive:
                # macOS adds a file of attributes beside each file.
                names = [
                    name
                    for name in archive.namelist()
                    if name.lower().endswith(inside)
                    and not name.startswith("__MACOSX/")
                ]
                if len(names) != 1:
                    raise ValueError(
                        f"{path}: expected one {inside} inside, got {len(names)}"
                    )
                # Never more than the archive states is read of a member.
                check_expansion(path, archive.getinfo(names[0]).file_size)
                with archive.open(names[0]) as inner:
                    yield cast(io.BufferedIOBase, inner)
        else:
            yield file
