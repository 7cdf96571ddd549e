"""Rows of tables in text: comma- or tab-separated, each with its place."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from jeff.opening import open_expanded

__all__ = ["csv_columns", "csv_rows"]


def csv_rows(
    path: str | Path,
    expected: str = "a table",
    *,
    delimiter: str = ",",
    quoted: bool = True,
    comment: str = "",
) -> Iterator[tuple[str, list[str]]]:
    """Read the rows of a table one at a time; empty lines are left out.

    A row ends with its line, so that an open quote cannot swallow the lines after it.

    Args:
      path: the file in UTF-8, whose lines end in any way, expanded where its name ends
        in ``.gz``, or the one ``.csv`` in a ``.zip``.
      expected: what it should be, for errors.
      delimiter: between fields.
      quoted: whether fields may stand in double quotes.
      comment: beginning of lines that are left out; empty for none.

    Yields:
      ``(place, fields)``; the place, ``"file:line"``, is for messages.

    Raises:
      FileNotFoundError: if there is no such file.
      OSError: if it cannot be read.
      ValueError: if it is not UTF-8, or a line is no row; names file and line.
    """
    # As errors of `open_expanded` name it, so that no error names it twice.
    path = Path(path).expanduser()
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    with open_expanded(path, expected, inside=".csv") as file:
        text = io.TextIOWrapper(cast(Any, file), "utf-8-sig", newline=None)
        for number, line in enumerate(text, start=1):
            if not line.strip() or (comment and line.startswith(comment)):
                continue
            place = f"{path}:{number}"
            reader = csv.reader(
                [line], delimiter=delimiter, quoting=quoting, strict=True
            )
            try:
                fields = next(reader)
            except csv.Error as error:
                raise ValueError(
                    f"{place}: expected a row of {expected} ({error}); a row ends with "
                    "its line, also within quotes"
                ) from error
            yield place, fields


def csv_columns(
    path: str | Path,
    columns: Sequence[str],
    expected: str = "a table",
    *,
    delimiter: str = ",",
    quoted: bool = True,
    comment: str = "",
) -> Iterator[tuple[str, list[str]]]:
    """Read some columns of a table with a header, a row at a time.

    Args:
      path: as in `csv_rows`.
      columns: names of the columns; the file may have others.
      expected: as in `csv_rows`.
      delimiter: as in `csv_rows`.
      quoted: as in `csv_rows`.
      comment: as in `csv_rows`.

    Yields:
      ``(place, values)``: the values of ``columns``, without spaces around them.

    Raises:
      FileNotFoundError: as in `csv_rows`.
      OSError: as in `csv_rows`.
      ValueError: as in `csv_rows`, or if a column is missing or stands twice, or a row
        is of another length; names file and line.
    """
    rows = csv_rows(path, expected, delimiter=delimiter, quoted=quoted, comment=comment)
    _, names = next(rows, ("", []))
    names = [name.strip() for name in names]
    if not names:
        raise ValueError(
            f"{path}: expected a header with {', '.join(columns)}, found none"
        )
    for column in columns:
        if names.count(column) != 1:
            raise ValueError(
                f"{path}: expected a column {column!r}, got {', '.join(names[:8])}"
            )
    places = [names.index(column) for column in columns]
    for place, fields in rows:
        if len(fields) != len(names):
            raise ValueError(
                f"{place}: expected {len(names)} fields, as in the header, got "
                f"{len(fields)}; the file may be cut short"
            )
        yield place, [fields[each].strip() for each in places]
