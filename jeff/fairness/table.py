"""Your own table of numbers as a data set: a CSV, or a Hugging Face data set.

Numbers stay in float64 until `jeff.fairness.splits` has standardised them. A column
that can be no feature is rejected: one without a name, two of one name, one that
repeats the outcome or the group.
"""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jeff import hub_rows
from jeff.csv_rows import csv_rows
from jeff.fairness.splits import Dataset, check_both

__all__ = ["make_dataset", "read_csv", "read_saved"]

_ROWS = 8192  # rows whose text is in memory at a time


def read_csv(
    path: str | Path,
    *,
    label: str,
    group: str,
    drop: Sequence[str] = (),
    groups: tuple[str, str] = ("0", "1"),
    favourable: int = 1,
    weight: str | None = None,
) -> Dataset:
    """A data set from your own table of numbers with a header.

    Args:
      path: csv, csv.gz, or a zip that holds one csv.
      label: column of the outcome, 0 or 1.
      group: column of the group, 0 or 1.
      drop: columns to leave out of the features, by prefix. The label and the group
        are left out in any case.
      groups: names of groups 0 and 1.
      favourable: which of 0 and 1 is the favourable outcome in the file.
      weight: column of the weights of people, such as those of a survey; not a feature.

    Returns:
      A `Dataset`, whose label is 1 for the favourable outcome.

    Raises:
      FileNotFoundError: if there is no file.
      ValueError: if a column is missing, has no name or the name of another, a value is
        not a finite number, the outcome or the group is not both 0 and 1, a feature
        repeats one of them, or a weight is negative; names file, column and row.
    """
    path = Path(path)
    names, table = _read_table(path)
    return _dataset(
        path,
        names,
        table,
        label=label,
        group=group,
        drop=drop,
        groups=groups,
        favourable=favourable,
        weight=weight,
    )


def read_saved(
    source: str | Path,
    *,
    label: str,
    group: str,
    drop: Sequence[str] = (),
    groups: tuple[str, str] | None = None,
    favourable: int = 1,
    weight: str | None = None,
) -> Dataset:
    """A data set from a Hugging Face data set, with the checks of `read_csv`.

    Args:
      source: ``hf:NAME:CONFIG@SPLIT`` or a saved folder, as in `jeff.hub_rows`.
      label: as in `read_csv`; also of bools, or a ``ClassLabel`` of two classes.
      group: likewise.
      drop: as in `read_csv`.
      groups: as in `read_csv`; None takes the names of the group's classes, if any.
      favourable: as in `read_csv`.
      weight: as in `read_csv`.

    Returns:
      A `Dataset`, whose label is 1 for the favourable outcome.

    Raises:
      FileNotFoundError: if there is no such folder.
      ImportError: if `datasets` is missing.
      ValueError: as in `read_csv` and `jeff.hub_rows.read_columns`.
    """
    found = hub_rows.read_columns(source)
    names = list(found.columns)
    _check_names(found.source, names)
    if (index := "__index_level_0__") in names:
        raise ValueError(
            f"{found.source}: expected features, got pandas' row numbers {index!r}; "
            f"leave them out with remove_columns({index!r})"
        )
    table = np.stack([_saved_numbers(found, name) for name in names], axis=1)
    classes = found.classes.get(group, ("0", "1"))
    return _dataset(
        found.source,
        names,
        table,
        label=label,
        group=group,
        drop=drop,
        groups=groups or (classes[0], classes[-1]),
        favourable=favourable,
        weight=weight,
    )


def _saved_numbers(found: hub_rows.Columns, name: str) -> np.ndarray:
    """A column in float64."""
    values = found.columns[name]
    if values.dtype.kind == "O":
        numbers = np.array([_number("" if v is None else v) for v in values])
    else:
        numbers = values.astype(np.float64)
    if classes := found.classes.get(name):
        if len(classes) > 2:
            raise ValueError(
                f"{found.source}: column {name!r}: expected numbers or two classes, "
                f"got {len(classes)}: {', '.join(classes)!r:.60}; encode them one-hot"
            )
        numbers[numbers == -1] = math.nan  # no class
    if len(bad := np.flatnonzero(_too_large(numbers))):
        shown = values[bad].tolist()[0]
        raise _no_number(f"{found.source}:{bad[0] + 1}", name, shown)
    return numbers


def _dataset(
    path: str | Path,
    names: list[str],
    table: np.ndarray,
    *,
    label: str,
    group: str,
    drop: Sequence[str],
    groups: tuple[str, str],
    favourable: int,
    weight: str | None,
) -> Dataset:
    apart = (label, group) if weight is None else (label, group, weight)
    if len(set(apart)) < len(apart):
        raise ValueError(
            f"label: expected a column apart from the group's and the weight's, got "
            f"{', '.join(apart)}"
        )
    for name in apart:
        if name not in names:
            raise ValueError(
                f"{path}: expected a column {name!r}, got {len(names)} columns: "
                f"{', '.join(names[:8])}, ..."
            )
    binary = {
        name: check_both(table[:, names.index(name)], f"{path}: column {name!r}")
        for name in (label, group)
    }
    weights = None
    if weight is not None:
        weights = table[:, names.index(weight)]
        if weights.min() < 0 or not weights.any():
            raise ValueError(
                f"{path}: column {weight!r}: expected weights of at least 0, not all "
                f"0, got {weights.min():g} to {weights.max():g}"
            )
    found = make_dataset(
        names,
        table,
        label=binary[label] if favourable else 1 - binary[label],
        group=binary[group],
        drop=drop,
        exactly=apart,
        groups=groups,
    )
    _check_features(path, found, {label: found.label, group: found.group})
    return found._replace(weight=weights)


def _check_features(
    path: str | Path, found: Dataset, apart: dict[str, np.ndarray]
) -> None:
    """Reject a feature that repeats the outcome or the group, or is its opposite."""
    for name, codes in apart.items():
        for wanted in (codes, 1 - codes):
            same = (found.inputs == wanted[:, None]).all(0)
            if same.any():
                feature = found.features[int(same.argmax())]
                raise ValueError(
                    f"{path}: column {feature!r}: expected a feature, got the values "
                    f"of column {name!r}, or 1 less each; the model would read them "
                    "there: leave the column out (drop=), or out of the file"
                )


def make_dataset(
    names: Sequence[str],
    table: np.ndarray,
    *,
    label: np.ndarray,
    group: np.ndarray,
    drop: Sequence[str] = (),
    exactly: Sequence[str] = (),
    groups: tuple[str, str],
) -> Dataset:
    """Make a data set of a table's columns that are features.

    Args:
      names: names of the columns.
      table: the numbers, [people, columns].
      label: outcomes, 0 or 1.
      group: groups, 0 or 1.
      drop: columns to leave out, by prefix.
      exactly: columns to leave out, by whole name.
      groups: names of groups 0 and 1.

    Returns:
      A `Dataset`.

    Raises:
      ValueError: if no column remains.
    """
    kept = [
        place
        for place, name in enumerate(names)
        if name not in exactly and not name.startswith(tuple(drop))
    ]
    if not kept:
        raise ValueError(f"drop: expected some features to remain, got none of {names}")
    features = tuple(names[i] for i in kept)
    return Dataset(table[:, kept], label, group, features, groups)


def _read_table(path: Path) -> tuple[list[str], np.ndarray]:
    """Header, and the numbers under it in float64."""
    rows = csv_rows(path, "a csv, csv.gz or zip with one csv")
    _, names = next(rows, ("", []))
    names = [name.strip() for name in names]
    if len(names) == 1:
        raise ValueError(
            f"{path}: expected columns separated by commas, got the one column "
            f"{names[0]!r:.60}; save it with commas, and numbers with points"
        )
    _check_names(path, names)
    chunks = []
    # In parts: rows of text take ten times the memory of their numbers.
    while part := list(itertools.islice(rows, _ROWS)):
        # Ragged rows would become an array of objects, and fail far from the file.
        for place, row in part:
            if len(row) != len(names):
                raise ValueError(
                    f"{place}: expected {len(names)} numbers (the header's length), "
                    f"got {len(row)}"
                )
        chunks.append(_numbers(names, part))
    if not chunks:
        raise ValueError(
            f"{path}: expected a header and rows of numbers, got {len(names)} names "
            "and no row"
        )
    return names, np.concatenate(chunks)


def _check_names(path: str | Path, names: list[str]) -> None:
    if "" in names:
        raise ValueError(
            f"{path}: expected a name over each column, got none over column "
            f"{names.index('') + 1} of {len(names)}; if it is the row number that "
            "pandas writes, save the table with to_csv(index=False)"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"{path}: expected columns of different names, got {twice[0]!r} "
            f"{names.count(twice[0])} times; rename or remove one"
        )


def _numbers(names: list[str], rows: list[tuple[str, list[str]]]) -> np.ndarray:
    texts = [row for _, row in rows]
    try:
        numbers = np.array(texts, np.float64)  # one conversion
    except ValueError:
        numbers = np.array([[_number(text) for text in row] for row in texts])
    bad = np.argwhere(_too_large(numbers))
    if len(bad):
        row, column = bad[0]
        raise _no_number(rows[row][0], names[column], texts[row][column])
    return numbers


def _too_large(numbers: np.ndarray) -> np.ndarray:
    """Which are NaN, or beyond the float32 in which features end."""
    return ~(np.abs(numbers) <= np.finfo(np.float32).max)


def _no_number(place: str, name: str, value: Any) -> ValueError:
    return ValueError(
        f"{place}: column {name!r}: expected a finite number, got {value!r:.40}; "
        "encode categories one-hot, drop or impute missing values"
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
