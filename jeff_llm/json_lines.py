"""JSON lines: one object per line, with its place in the file."""

import json
from pathlib import Path
from typing import Any

__all__ = ["read"]


def read(path: str | Path) -> list[tuple[str, dict[str, Any]]]:
    """Read a file of JSON lines; empty lines are skipped.

    Args:
      path: a file in UTF-8.

    Returns:
      ``(place, object)`` each; the place, ``"file:line"``, is for messages.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: naming the line that is not a JSON object, or if the file is not
        UTF-8.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a file of JSON lines, found none")
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8 ({error})") from error
    rows = []
    # Not splitlines: a string of JSON may hold separators such as U+2028.
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
