"""The one door to files: written whole or not at all, read strictly and within limits.

A file is written under a temporary name in the same folder and then renamed. A reader
never sees a partial file, and a failure leaves the old file in place.

A file is untrusted input. `reading` turns whatever a library raises over a bad one into
a ValueError or OSError that names it. Compressed data are expanded up to a limit, and
the sizes that a file states are compared with what it holds before memory is taken
(`jeff.arrays`). JSON is strict: no NaN, no number out of range, no key twice.
"""

import codecs
import contextlib
import errno
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jeff.folders import part_of, recover_folder, replacing_folder, sweep
from jeff.opening import check_expansion, open_expanded, reading
from jeff.strict_json import parse_json

__all__ = [
    "check_expansion",
    "digest",
    "json_lines",
    "open_expanded",
    "parse_json",
    "read_bytes",
    "read_json",
    "read_json_lines",
    "read_text",
    "reading",
    "recover_folder",
    "replacing",
    "replacing_folder",
    "sweep",
    "write_json",
    "write_text",
]


def read_bytes(path: str | Path, expected: str = "a file") -> bytes:
    """Read a file, expanded where its name ends in ``.gz``.

    Args:
      path: the file.
      expected: what it should be, for errors.

    Returns:
      Its content.

    Raises:
      FileNotFoundError: if there is no such file.
      OSError: if it cannot be read.
      ValueError: as in `open_expanded`.
    """
    with open_expanded(path, expected) as file:
        return file.read()


def read_text(path: str | Path, expected: str = "text in UTF-8") -> str:
    """Read a text in UTF-8, expanded where its name ends in ``.gz``.

    Args:
      path: the file; a byte order mark is dropped, ends of lines stay as they are.
      expected: what it should be, for errors.

    Returns:
      Its content.

    Raises:
      FileNotFoundError: if there is no such file.
      OSError: if it cannot be read.
      ValueError: as in `open_expanded`, or if it is not UTF-8.
    """
    with open_expanded(path, expected) as file:
        return file.read().decode("utf-8-sig")


def read_json(path: str | Path) -> Any:
    """Read a JSON file, strictly.

    Args:
      path: the file, in UTF-8; a byte order mark is dropped.

    Returns:
      The value.

    Raises:
      FileNotFoundError: if there is no such file.
      OSError: if it cannot be read.
      ValueError: as in `parse_json`; names the file and position.
    """
    text = read_bytes(path, "a JSON file")
    try:
        return parse_json(text.removeprefix(codecs.BOM_UTF8), str(path))
    except ValueError as error:
        raise ValueError(
            f"{path}: expected valid JSON, came {len(text)} bytes that are not "
            f"({error.__cause__ or error}); the file may be cut short, so write it "
            "again"
        ) from error


def json_lines(
    path: str | Path, *, finite: bool = True
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read a file of JSON lines, one at a time; empty lines are skipped.

    Args:
      path: a file in UTF-8, expanded where its name ends in ``.gz``.
      finite: as in `parse_json`.

    Yields:
      ``(place, object)`` per line; the place, ``"file:line"``, is for messages.

    Raises:
      FileNotFoundError: if there is no such file.
      OSError: if it cannot be read.
      ValueError: if a line is not UTF-8 or not a JSON object as in `parse_json`; names
        the line.
    """
    path = Path(path).expanduser()
    with open_expanded(path, "a file of JSON lines") as file:
        # By bytes: a JSON string may contain line separators such as U+2028.
        for number, line in enumerate(file, start=1):
            where = f"{path}:{number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{where}: expected text in UTF-8 ({error})"
                ) from error
            if text.isspace():
                continue
            row = parse_json(text, where, finite=finite)
            if not isinstance(row, dict):
                raise ValueError(f"{where}: expected an object, got {text[:40]!r}")
            yield where, row


def read_json_lines(path: str | Path) -> list[tuple[str, dict[str, Any]]]:
    """Read a whole file of JSON lines; `json_lines` needs less memory.

    Args:
      path: as in `json_lines`.

    Returns:
      What `json_lines` yields.

    Raises:
      FileNotFoundError: as in `json_lines`.
      OSError: as in `json_lines`.
      ValueError: as in `json_lines`.
    """
    return list(json_lines(path))


def digest(path: str | Path) -> str:
    """SHA-256 of a file.

    Args:
      path: the file.

    Returns:
      The digest in hexadecimal.
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write a file under a temporary name, and rename it once it is complete.

    Args:
      path: the file; its folder is created if missing.

    Yields:
      The temporary path to write to; it never outlives the block, even after an error.

    Raises:
      OSError: if it cannot be written, as on a full disk; names the file, whose old
        content stays.
    """
    path = Path(path)
    part = part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except OSError as error:
        # An error that names another file is about that one, and a wrong argument
        # about what was read.
        mine = error.filename in (None, part, str(part))
        if not mine or error.errno == errno.EINVAL:
            raise
        why = error.strerror or str(error)
        raise OSError(
            error.errno or 0,
            f"{path}: could not be written ({why}); its old content, if any, is kept: "
            "make room, or choose another folder",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file atomically.

    Args:
      path: the file; its folder is created if missing.
      text: the contents. Lone surrogates, which UTF-8 cannot encode, become ``?``.

    Returns:
      The path.

    Raises:
      OSError: as in `replacing`.
    """
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", errors="replace", newline="\n")
    return Path(path)


def write_json(path: str | Path, value: Any, *, indent: int | None = 2) -> Path:
    """Write a value as JSON, atomically.

    Args:
      path: the file.
      value: any value that `json.dumps` accepts.
      indent: spaces per level, or None for a single line.

    Returns:
      The path.

    Raises:
      OSError: as in `replacing`.
      ValueError: if a number is not finite, which JSON cannot represent.
    """
    return write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")
