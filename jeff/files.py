"""Write files atomically, and read JSON strictly.

A file is written under a temporary name in the same folder and then renamed. A reader
never sees a partial file, and a failure leaves the old file in place. JSON must not
contain NaN; a key must not occur twice in one object.
"""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["read_json", "read_json_lines", "replacing", "write_json", "write_text"]


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write a file under a temporary name, and rename it once it is complete.

    Args:
      path: the file; its folder is created if missing.

    Yields:
      The temporary path to write to; it never outlives the block, even after an error.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, since a rename is atomic only within one file system. The
    # random part keeps two processes or threads from writing to the same file.
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file atomically.

    Args:
      path: the file; its folder is created if missing.
      text: the contents. Lone surrogates, which UTF-8 cannot encode, become ``?``.

    Returns:
      The path.
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
      ValueError: if a number is not finite, which JSON cannot represent.
    """
    return write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file; NaN and duplicate keys in one object are errors.

    Args:
      path: the file.

    Returns:
      The value.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file is not valid JSON in UTF-8; names the file and position.
    """
    text = Path(path).read_bytes()
    try:
        return json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
        )
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: expected valid JSON, came {len(text)} bytes that are not "
            f"({error}); the file may be cut short, so write it again"
        ) from error


def read_json_lines(path: str | Path) -> list[tuple[str, dict[str, Any]]]:
    """Read a file of JSON lines; empty lines are skipped.

    Args:
      path: a file in UTF-8.

    Returns:
      One ``(place, object)`` per line; the place, ``"file:line"``, is for messages.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file is not UTF-8 or a line is not a JSON object; names the
        line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a file of JSON lines, found none")
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8 ({error})") from error
    rows = []
    # Not splitlines: a JSON string may contain line separators such as U+2028.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(
                f"{where}: expected JSON, one object a line ({error})"
            ) from error
        if not isinstance(row, dict):
            raise ValueError(f"{where}: expected an object, got {line[:40]!r}")
        rows.append((where, row))
    return rows


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"key {twice[0]!r} stands twice in one object")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"expected a finite number, came {name}")
