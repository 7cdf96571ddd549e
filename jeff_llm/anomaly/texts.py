"""Texts from JSON lines, CSV or TSV, plain lines, or a Hugging Face data set."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from jeff import files, hub_rows

__all__ = ["Text", "distinct", "read_lines", "read_texts"]

_JSON = (".jsonl", ".ndjson")
_TABLE = {".csv": ",", ".tsv": "\t"}
_FIELD = 1 << 24  # characters of a CSV field; the default of 131,072 is one long mail


class Text(NamedTuple):
    """A text and where it stands.

    Attributes:
      text: as in the file.
      place: file and line.
    """

    text: str
    place: str


def read_texts(path: str | Path, *, column: str = "") -> list[Text]:
    """Read texts from a file.

    The name's ending tells the format: ``.jsonl`` and ``.ndjson`` hold an object per
    line, ``.csv`` and ``.tsv`` a table with a header, anything else a text per line. A
    CSV whose header has semicolons and no comma is read with semicolons.

    Args:
      path: the file, in UTF-8; or a Hugging Face data set, as in `jeff.hub_rows`.
      column: field or column with the text; empty takes "text", or the only one.

    Returns:
      Every text in its order, empty ones too.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file is not as expected; names the line.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending in _JSON or hub_rows.is_saved(path):
        return [
            Text(_field(fields, column, place), place)
            for place, fields in hub_rows.json_rows(path)
        ]
    if ending == ".json":
        raise ValueError(
            f"{path}: expected JSON lines (.jsonl), a table (.csv, .tsv) or plain "
            "lines, got .json; write one object per line"
        )
    content = files.read_text(path)
    # These ends alone: U+2028 and its like are part of a text, no line's end.
    content = content.replace("\r\n", "\n").replace("\r", "\n")
    if ending in _TABLE:
        if "\0" in content:
            line = content.count("\n", 0, content.index("\0")) + 1
            raise ValueError(f"{path}:{line}: expected text, got a zero byte")
        return _table(content, path, _delimiter(content, _TABLE[ending]), column)
    if column:
        raise ValueError(
            f"{path}: expected no `column` for plain lines, got {column!r}; name the "
            "file .csv, .tsv or .jsonl"
        )
    lines = content.split("\n")
    if not lines[-1]:
        lines.pop()
    return read_lines(lines, source=str(path))


def read_lines(lines: Iterable[str], *, source: str) -> list[Text]:
    """Take each line as a text.

    Args:
      lines: the lines; their ends are dropped.
      source: where they come from, for messages.

    Returns:
      Every text in its order.

    Raises:
      ValueError: if a line holds the character of number 0, as binary files do.
    """
    found = []
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise ValueError(f"{source}:{number}: expected text, got a zero byte")
        found.append(Text(line.rstrip("\r\n"), f"{source}:{number}"))
    return found


def distinct(texts: Iterable[Text]) -> tuple[list[Text], int, int]:
    """Keep the first of equal texts, and none that is empty.

    A repeated text would sit in the training part and in the calibration part at once,
    where its score is too low to stand for new texts.

    Args:
      texts: the texts.

    Returns:
      The texts that remain; how many were empty; how many were repeats.
    """
    kept: dict[str, Text] = {}
    empty = repeated = 0
    for each in texts:
        key = each.text.strip()
        if not key:
            empty += 1
        elif key in kept:
            repeated += 1
        else:
            kept[key] = each
    return list(kept.values()), empty, repeated


def _table(content: str, path: Path, delimiter: str, column: str) -> list[Text]:
    # The reader's limit is one number for the whole process; it is put back.
    before = csv.field_size_limit(_FIELD)
    reader = csv.reader(io.StringIO(content), delimiter=delimiter, strict=True)
    try:
        header = next(reader, None)
        if not header:
            raise ValueError(f"{path}: expected a header in line 1, got none")
        place = header.index(_column(header, column, str(path)))
        found = []
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if not row:
                continue
            if len(row) != len(header):
                raise ValueError(
                    f"{where}: expected {len(header)} columns, got {len(row)}"
                )
            found.append(Text(row[place], where))
    except csv.Error as error:
        raise ValueError(
            f"{path}:{reader.line_num}: expected a table, but {error}"
        ) from error
    finally:
        csv.field_size_limit(before)
    return found


def _delimiter(content: str, usual: str) -> str:
    """Spreadsheets write semicolons where the comma is the decimal mark."""
    header = content.partition("\n")[0]
    return ";" if usual == "," and "," not in header and ";" in header else usual


def _field(fields: dict[str, object], column: str, place: str) -> str:
    value = fields[_column(list(fields), column, place)]
    if not isinstance(value, str):
        raise ValueError(f"{place}: expected a text, got {value!r:.100}")
    return value


def _column(names: list[str], column: str, place: str) -> str:
    wanted = column or "text"
    if names.count(wanted) == 1:
        return wanted
    if not column and len(names) == 1:
        return names[0]
    raise ValueError(
        f"{place}: expected one column {wanted!r}, got {names}; name the text's column "
        "with `column`"
    )
