"""Tabular data sets of the fairness literature, and the paper's split.

Every loader returns a `Dataset` of raw features on the host; `jeff.fairness.splits`
divides it, standardises it by the training part, and returns `Examples` for the device.
"""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jeff import assets
from jeff.csv_rows import csv_rows
from jeff.extras import require
from jeff.fairness.splits import Dataset, Splits, check_both, split

__all__ = [
    "Dataset",
    "Splits",
    "acs",
    "adult",
    "german",
    "read_csv",
    "split",
]

_ROWS = 8192  # rows whose text is in memory at a time


def adult(sensitive: str = "sex", *, path: str | Path | None = None) -> Dataset:
    """Adult (UCI census income): does a person earn more than 50,000 dollars a year?

    45,222 people, one-hot. The sensitive attribute's own columns are removed from the
    features.

    Args:
      sensitive: ``"sex"`` (group 1: male) or ``"race"`` (group 1: white).
      path: the csv, csv.gz or csv.zip; found by `jeff.assets` where it is None.

    Returns:
      A `Dataset`.

    Raises:
      ValueError: if ``sensitive`` is unknown or the file is of another form.
      FileNotFoundError: if the file is nowhere.

    References:
      Kohavi, "Scaling Up the Accuracy of Naive-Bayes Classifiers", KDD 1996.
    """
    column, groups = _choose(
        sensitive,
        {
            "sex": ("sex_Male", ("female", "male")),
            "race": ("race_White", ("other", "white")),
        },
    )
    return read_csv(
        assets.find("adult", path),
        label="salary_>50K",
        group=column,
        drop=("salary_", f"{sensitive}_"),
        groups=groups,
    )


def german(sensitive: str = "sex", *, path: str | Path | None = None) -> Dataset:
    """German credit (Statlog): is a loan's risk good?

    1,000 people, one-hot. The sensitive attribute's own columns are removed from the
    features, and so is the column that combines sex and age.

    Args:
      sensitive: ``"sex"`` (group 1: male) or ``"age"`` (group 1: older than 25).
      path: the csv, csv.gz or csv.zip; found by `jeff.assets` where it is None.

    Returns:
      A `Dataset`.

    Raises:
      ValueError: if ``sensitive`` is unknown or the file is of another form.
      FileNotFoundError: if the file is nowhere.

    References:
      Hofmann, "Statlog (German Credit Data)", UCI 1994.
    """
    column, groups = _choose(
        sensitive,
        {"sex": ("sex", ("female", "male")), "age": ("age", ("young", "older"))},
    )
    return read_csv(
        assets.find("german", path),
        label="credit-label",
        group=column,
        drop=("sex-age", column),
        groups=groups,
        favourable=0,  # the file counts bad risks
    )


def acs(
    task: str = "employment",
    sensitive: str = "sex",
    *,
    states: Sequence[str] = ("CA",),
    year: int = 2018,
    root: str | Path = "data/acs",
    download: bool = True,
) -> Dataset:
    """ACS census tasks of folktables: income, employment, public coverage.

    Args:
      task: ``"income"``, ``"employment"`` or ``"coverage"``.
      sensitive: ``"sex"`` (group 1: male) or ``"race"`` (group 1: white).
      states: postal abbreviations.
      year: survey year of the 1-year person file.
      root: folder of the files, in folktables' layout
        (``<root>/<year>/1-Year/psam_p06.csv``).
      download: let folktables fetch what is missing from the Census Bureau.

    Returns:
      A `Dataset`.

    Raises:
      ImportError: if folktables is not installed.
      ValueError: if ``task`` or ``sensitive`` is unknown.

    References:
      Ding et al., "Retiring Adult", NeurIPS 2021.
    """
    folktables = require("folktables", extra="data")
    problem, _ = _choose(
        task,
        {
            "income": (folktables.ACSIncome, None),
            "employment": (folktables.ACSEmployment, None),
            "coverage": (folktables.ACSPublicCoverage, None),
        },
        argument="task",
    )
    column, groups = _choose(
        sensitive,
        {"sex": ("SEX", ("female", "male")), "race": ("RAC1P", ("other", "white"))},
    )
    source = folktables.ACSDataSource(
        survey_year=str(year), horizon="1-Year", survey="person", root_dir=str(root)
    )
    frame = source.get_data(states=list(states), download=download)
    inputs, label, _ = problem.df_to_numpy(frame)
    names = list(problem.features)
    return _dataset(
        names,
        np.asarray(inputs, np.float64),
        label=np.asarray(label).astype(np.int32),
        group=(inputs[:, names.index(column)] == 1).astype(np.int32),
        exactly=(column,),
        groups=groups,
    )


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
    found = _dataset(
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


def _check_features(path: Path, found: Dataset, apart: dict[str, np.ndarray]) -> None:
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


def _choose(name: str, options: dict[str, Any], argument: str = "sensitive") -> Any:
    if name not in options:
        raise ValueError(f"{argument}: expected one of {sorted(options)}, got {name!r}")
    return options[name]


def _dataset(
    names: Sequence[str],
    table: np.ndarray,
    *,
    label: np.ndarray,
    group: np.ndarray,
    drop: Sequence[str] = (),
    exactly: Sequence[str] = (),
    groups: tuple[str, str],
) -> Dataset:
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


def _check_names(path: Path, names: list[str]) -> None:
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
    # Features end in float32, where a larger number would be infinite.
    bad = np.argwhere(~(np.abs(numbers) <= np.finfo(np.float32).max))
    if len(bad):
        row, column = bad[0]
        raise ValueError(
            f"{rows[row][0]}: column {names[column]!r}: expected a finite number, got "
            f"{texts[row][column]!r:.40}; encode categories one-hot, drop or impute "
            "missing values"
        )
    return numbers


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
