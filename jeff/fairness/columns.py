"""The columns of a person's table: numbers, and texts that name categories.

Numbers stay in float64 until `jeff.fairness.splits` has standardised them. A column
whose first value is a text holds categories; in a column of numbers a text is a fault,
and the other way round, so that a typing error makes no category of its own.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jeff import hub_rows
from jeff.csv_rows import csv_rows

__all__ = ["MOST_CATEGORIES", "Table", "expand", "read_file", "read_hub"]

# More are names or free texts, which say nothing about people who are not in the table.
MOST_CATEGORIES = 100
_ROWS = 8192  # rows whose text is in memory at a time


class Table(NamedTuple):
    """Named columns of equal length.

    Attributes:
      source: the file or data set, for messages.
      names: names of the columns.
      numbers: their values [rows, columns] in float64; a category is its place in
        ``classes``.
      classes: the categories of the columns that have some, by name.
      texts: which of these hold texts: their order is the alphabet's and means nothing,
        that of a ``ClassLabel`` was somebody's choice.
    """

    source: str
    names: list[str]
    numbers: np.ndarray
    classes: dict[str, tuple[str, ...]]
    texts: frozenset[str]


def read_file(path: Path) -> Table:
    """Read a CSV with a header.

    Args:
      path: csv, csv.gz, or a zip that holds one csv.

    Returns:
      Its columns.

    Raises:
      FileNotFoundError: if there is no file.
      ValueError: if a name is missing or there twice, a row is short or long, or a
        value is no finite number and no category; names file, column and row.
    """
    rows = csv_rows(path, "a csv, csv.gz or zip with one csv")
    _, names = next(rows, ("", []))
    names = [name.strip() for name in names]
    if len(names) == 1:
        raise ValueError(
            f"{path}: expected columns separated by commas, got the one column "
            f"{names[0]!r:.60}; save it with commas, and numbers with points"
        )
    _check_names(path, names)
    chunks: list[np.ndarray] = []
    codes: dict[int, dict[str, int]] = {}
    # In parts: rows of text take ten times the memory of their numbers.
    while part := list(itertools.islice(rows, _ROWS)):
        # Ragged rows would become an array of objects, and fail far from the file.
        for place, row in part:
            if len(row) != len(names):
                raise ValueError(
                    f"{place}: expected {len(names)} values (the header's length), "
                    f"got {len(row)}"
                )
        if not chunks:
            codes = {c: {} for c, text in enumerate(part[0][1]) if _is_category(text)}
        chunks.append(_numbers(names, part, codes))
    if not chunks:
        raise ValueError(
            f"{path}: expected a header and rows, got {len(names)} names and no row"
        )
    table = np.concatenate(chunks)
    classes = {}
    for column, known in codes.items():
        classes[names[column]], table[:, column] = _sorted(known, table[:, column])
    return Table(str(path), names, table, classes, frozenset(classes))


def read_hub(source: str | Path) -> Table:
    """Read a Hugging Face data set.

    Args:
      source: as in `jeff.hub_rows.read_columns`.

    Returns:
      Its columns; those of a ``ClassLabel`` and those of texts are categories.

    Raises:
      FileNotFoundError: if there is no such folder.
      ImportError: if `datasets` is missing.
      ValueError: as in `read_file` and `jeff.hub_rows.read_columns`.
    """
    found = hub_rows.read_columns(source)
    names = list(found.columns)
    _check_names(found.source, names)
    if (index := "__index_level_0__") in names:
        raise ValueError(
            f"{found.source}: expected features, got pandas' row numbers {index!r}; "
            f"leave them out with remove_columns({index!r})"
        )
    columns, classes = [], {}
    for name in names:
        values, kinds = _hub_column(found, name)
        columns.append(values)
        if kinds:
            classes[name] = kinds
    texts = frozenset(classes) - frozenset(found.classes)
    return Table(found.source, names, np.stack(columns, axis=1), classes, texts)


def expand(table: Table, apart: Sequence[str], drop: Sequence[str]) -> Table:
    """One column of 0 and 1 for each category, ``COLUMN_CATEGORY``.

    Of two categories the second alone: the first would be its opposite.

    Args:
      table: the columns.
      apart: columns that stay as they are.
      drop: prefixes of columns that are left out later, and may hold any texts.

    Returns:
      The table, whose columns are numbers.

    Raises:
      ValueError: if a column has too many categories, or a new name is there already.
    """
    names: list[str] = []
    parts: list[np.ndarray] = []
    for place, name in enumerate(table.names):
        column = table.numbers[:, place]
        kinds = table.classes.get(name)
        if kinds is None or name in apart or name.startswith(tuple(drop)):
            names.append(name)
            parts.append(column[:, None])
            continue
        if len(kinds) > MOST_CATEGORIES:
            raise ValueError(
                f"{table.source}: column {name!r}: expected numbers, or at most "
                f"{MOST_CATEGORIES} categories, got {len(kinds)} texts such as "
                f"{kinds[0]!r:.40}; leave it out (drop=), or out of the file"
            )
        first = 1 if len(kinds) == 2 else 0
        names += [f"{name}_{kind}" for kind in kinds[first:]]
        found = column[:, None] == np.arange(first, len(kinds))
        parts.append(found.astype(np.float64))
    _check_names(table.source, names)
    return table._replace(names=names, numbers=np.concatenate(parts, axis=1))


def _hub_column(
    found: hub_rows.Columns, name: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """A column in float64, and its categories."""
    values = found.columns[name]
    kinds = found.classes.get(name, ())
    if values.dtype.kind == "O":
        texts = ["" if value is None else str(value) for value in values]
        if _is_category(texts[0]):
            codes: dict[str, int] = {}
            places = (f"{found.source}:{row}" for row in itertools.count(1))
            coded = _codes(name, zip(places, texts, strict=False), codes)
            kinds, numbers = _sorted(codes, np.array(coded, np.float64))
            return numbers, kinds
        numbers = np.array([_number(text) for text in texts])
    else:
        numbers = values.astype(np.float64)
    if kinds:
        numbers[numbers == -1] = math.nan  # no class
    if len(bad := np.flatnonzero(_too_large(numbers))):
        shown = values[bad].tolist()[0]
        raise _no_number(f"{found.source}:{bad[0] + 1}", name, shown)
    return numbers, kinds


def _check_names(source: str | Path, names: list[str]) -> None:
    if "" in names:
        raise ValueError(
            f"{source}: expected a name over each column, got none over column "
            f"{names.index('') + 1} of {len(names)}; if it is the row number that "
            "pandas writes, save the table with to_csv(index=False)"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"{source}: expected columns of different names, got {twice[0]!r} "
            f"{names.count(twice[0])} times; rename or remove one"
        )


def _numbers(
    names: list[str],
    rows: list[tuple[str, list[str]]],
    codes: dict[int, dict[str, int]],
) -> np.ndarray:
    """Values of some rows; new categories are added to ``codes``."""
    texts: list[list[Any]] = [list(row) for _, row in rows]
    for column, known in codes.items():
        values = ((place, row[column]) for place, row in rows)
        for row, code in zip(texts, _codes(names[column], values, known), strict=True):
            row[column] = code
    try:
        numbers = np.array(texts, np.float64)  # one conversion
    except ValueError:
        numbers = np.array([[_number(text) for text in row] for row in texts])
    bad = np.argwhere(_too_large(numbers))
    if len(bad):
        row, column = bad[0]
        raise _no_number(rows[row][0], names[column], texts[row][column])
    return numbers


def _codes(
    name: str, values: Iterable[tuple[str, str]], known: dict[str, int]
) -> list[int]:
    """Number of each text's category, in the order in which they came."""
    found = []
    for place, value in values:
        text = value.strip()
        if text not in known:
            if not _is_category(text):
                raise ValueError(
                    f"{place}: column {name!r}: expected a category, as in the first "
                    f"row, got {text!r:.40}; a column holds numbers or categories, "
                    "not both; drop or impute missing values"
                )
            known[text] = len(known)
        found.append(known[text])
    return found


def _sorted(
    codes: dict[str, int], values: np.ndarray
) -> tuple[tuple[str, ...], np.ndarray]:
    """Categories in sorted order, and a column renumbered by it."""
    kinds = sorted(codes)
    places = np.empty(len(kinds))
    places[[codes[kind] for kind in kinds]] = np.arange(len(kinds))
    return tuple(kinds), places[values.astype(np.int64)]


def _is_category(text: str) -> bool:
    """Whether a value is a text that is not empty, and no number."""
    try:
        float(text)
    except ValueError:
        return bool(text.strip())
    return False


def _too_large(numbers: np.ndarray) -> np.ndarray:
    """Which are NaN, or beyond the float32 in which features end."""
    return ~(np.abs(numbers) <= np.finfo(np.float32).max)


def _no_number(place: str, name: str, value: Any) -> ValueError:
    return ValueError(
        f"{place}: column {name!r}: expected a finite number, got {value!r:.40}; a "
        "column holds numbers or categories, not both; drop or impute missing values"
    )


def _number(text: Any) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
