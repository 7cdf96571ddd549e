"""JSON texts of a file, of a folder, or of the lines of a file, each on its own.

What cannot be read is yielded as an error with its place, so one bad file does not
end the reading of a folder.
"""

import json
import re
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Any, NamedTuple

from jeff import files

__all__ = ["MAX_BYTES", "Found", "json_values", "parse_json"]

# A phenopacket of the public store has 10 kB; a text beyond this is something else.
MAX_BYTES = 64 * 2**20
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class Found(NamedTuple):
    """One JSON text.

    Attributes:
      place: the file, with the number of the line for JSON lines.
      value: the parsed value; None if there is an error.
      error: why the text cannot be read, or None.
    """

    place: str
    value: Any
    error: str | None = None


def json_values(path: str | Path) -> Iterator[Found]:
    """Read every JSON text of a file or folder.

    Args:
      path: a JSON file; a folder, whose ``*.json`` are read at any depth, by path; or a
        file of JSON lines (``.jsonl`` or ``.ndjson``). Files may end in ``.gz``.

    Yields:
      The value, or the error, of each text.

    Raises:
      FileNotFoundError: if there is no such file or folder.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if re.search(r"\.json(\.gz)?$", file.name) and file.is_file():
                yield from _guarded(file, lines=False)
    elif not path.is_file():
        raise FileNotFoundError(f"{path}: expected a file or folder of phenopackets")
    else:
        lines = re.search(r"\.(jsonl|ndjson)(\.gz)?$", path.name) is not None
        yield from _guarded(path, lines=lines)


def parse_json(data: bytes) -> Any:
    """Read JSON strictly, as `jeff.files.parse_json` does.

    Args:
      data: JSON in UTF-8.

    Returns:
      The value.

    Raises:
      ValueError: if it is no JSON, is nested too deeply, holds a NaN or half of a
        surrogate pair, or an object has a key twice.
    """
    with files.reading("text", "JSON in UTF-8"):
        value = files.parse_json(data.decode("utf-8-sig"), "text")
        if _SURROGATE.search(data):
            # Half of a pair is no text: it could not be written again.
            json.dumps(value, ensure_ascii=False).encode()
    return value


def _guarded(path: Path, *, lines: bool) -> Iterator[Found]:
    try:
        # The lines before a cut are whole cases, and the cut is reported beside them.
        expected = "a whole, readable file"
        with files.open_expanded(path, expected, partly=lines) as file:
            for place, data in _lines(path, file) if lines else _whole(path, file):
                yield _parsed(place, data)
    except (OSError, ValueError) as error:
        yield Found(str(path), None, str(error).removeprefix(f"{path}: "))


def _parsed(place: str, data: bytes) -> Found:
    if len(data) > MAX_BYTES:
        return Found(place, None, f"expected at most {MAX_BYTES:,} bytes, got more")
    try:
        return Found(place, parse_json(data))
    except ValueError as error:
        return Found(place, None, str(error).removeprefix("text: "))


def _whole(path: Path, file: BufferedIOBase) -> Iterator[tuple[str, bytes]]:
    yield str(path), file.read(MAX_BYTES + 1)


def _lines(path: Path, file: BufferedIOBase) -> Iterator[tuple[str, bytes]]:
    number = 0
    while line := file.readline(MAX_BYTES + 1):
        number += 1
        if line.strip():
            yield f"{path}:{number}", line
        while len(line) > MAX_BYTES and not line.endswith(b"\n"):
            line = file.readline(MAX_BYTES + 1)
