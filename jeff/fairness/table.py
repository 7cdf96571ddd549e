"""Your own table as a data set of people: a CSV, or a Hugging Face data set.

`jeff.fairness.columns` reads its columns. One that can be no feature is rejected: one
without a name, two of one name, one that repeats the outcome or the group.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jeff.fairness import columns
from jeff.fairness.splits import Dataset, check_both

__all__ = ["make_dataset", "read_csv", "read_saved"]

_NAMELESS = (
    "to be told the columns of outcome and group (label, group; on the command line "
    "--outcome and --sensitive)"
)


def read_csv(
    path: str | Path,
    *,
    label: str,
    group: str,
    drop: Sequence[str] = (),
    groups: tuple[str, str] | None = None,
    favourable: int | str = 1,
    weight: str | None = None,
) -> Dataset:
    """A data set from your own table with a header.

    A column of texts holds categories: each becomes a feature of 0 and 1 named
    ``COLUMN_CATEGORY``; of two categories the second does.

    Args:
      path: csv, csv.gz, or a zip that holds one csv.
      label: column of the outcome, 0 or 1, or two texts.
      group: column of the group, 0 or 1, or two texts.
      drop: columns to leave out of the features, by prefix. The label and the group
        are left out in any case.
      groups: names of groups 0 and 1; None takes the two texts, or "0" and "1".
      favourable: the favourable outcome in the file: 0, 1, or one of the two texts.
      weight: column of the weights of people, such as those of a survey; not a feature.

    Returns:
      A `Dataset`, whose label is 1 for the favourable outcome.

    Raises:
      FileNotFoundError: if there is no file.
      ValueError: if a column is missing, has no name or the name of another, mixes
        numbers and texts, has more than 100 categories or a value that is not finite,
        the outcome or the group has not two values, a feature repeats one of them, or
        a weight is negative; names file, column and row.
    """
    table = columns.read_file(Path(path))
    return _dataset(
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
    favourable: int | str = 1,
    weight: str | None = None,
) -> Dataset:
    """A data set from a Hugging Face data set, with the checks of `read_csv`.

    Args:
      source: ``hf:NAME:CONFIG@SPLIT`` or a saved folder, as in `jeff.hub_rows`.
      label: as in `read_csv`; also of bools, or a ``ClassLabel`` of two classes.
      group: likewise.
      drop: as in `read_csv`.
      groups: as in `read_csv`.
      favourable: as in `read_csv`; also the number or name of a class.
      weight: as in `read_csv`.

    Returns:
      A `Dataset`, whose label is 1 for the favourable outcome.

    Raises:
      FileNotFoundError: if there is no such folder.
      ImportError: if `datasets` is missing.
      ValueError: as in `read_csv` and `jeff.hub_rows.read_columns`.
    """
    return _dataset(
        columns.read_hub(source),
        label=label,
        group=group,
        drop=drop,
        groups=groups,
        favourable=favourable,
        weight=weight,
    )


def _dataset(
    table: columns.Table,
    *,
    label: str,
    group: str,
    drop: Sequence[str],
    groups: tuple[str, str] | None,
    favourable: int | str,
    weight: str | None,
) -> Dataset:
    apart = (label, group) if weight is None else (label, group, weight)
    _check_apart(table, apart)
    outcomes = _binary(table, label)
    if not _is_second(table, label, favourable):
        outcomes = 1 - outcomes
    weights = None
    if weight is not None:
        weights = _weights(table, weight)
    wide = columns.expand(table, apart, drop)
    found = make_dataset(
        wide.names,
        wide.numbers,
        label=outcomes,
        group=_binary(table, group),
        drop=drop,
        exactly=apart,
        groups=groups or _two(table.classes.get(group, ("0", "1"))),
    )
    _check_features(table.source, found, {label: found.label, group: found.group})
    return found._replace(weight=weights)


def _check_apart(table: columns.Table, apart: Sequence[str]) -> None:
    """Label, group and weight are columns of the table, and three of them."""
    for name in apart:
        if name not in table.names:
            what = f"a column {name!r}" if name else _NAMELESS
            more = ", ..." if len(table.names) > 8 else ""
            raise ValueError(
                f"{table.source}: expected {what}, got {len(table.names)} columns: "
                f"{', '.join(table.names[:8])}{more}"
            )
    if len(set(apart)) < len(apart):
        raise ValueError(
            f"label: expected a column apart from the group's and the weight's, got "
            f"{', '.join(apart)}"
        )


def _column(table: columns.Table, name: str) -> np.ndarray:
    return table.numbers[:, table.names.index(name)]


def _two(kinds: tuple[str, ...]) -> tuple[str, str]:
    return kinds[0], kinds[-1]


def _binary(table: columns.Table, name: str) -> np.ndarray:
    """Outcomes or groups as 0 and 1."""
    where = f"{table.source}: column {name!r}"
    kinds = table.classes.get(name, ("", ""))
    if len(kinds) != 2:
        raise ValueError(
            f"{where}: expected 0 and 1 or two categories, got {len(kinds)}: "
            f"{', '.join(kinds[:8])!r:.60}"
        )
    return check_both(_column(table, name), where)


def _is_second(table: columns.Table, name: str, favourable: int | str) -> bool:
    """Whether the favourable outcome is the second of the two in the file."""
    kinds = table.classes.get(name)
    if isinstance(favourable, str):
        known = kinds or ("0", "1")
        if favourable not in known:
            raise ValueError(
                f"favourable: expected one of the outcomes {' and '.join(known)} of "
                f"column {name!r} in {table.source}, got {favourable!r}"
            )
        return favourable == known[1]
    if name in table.texts:
        raise ValueError(
            f"{table.source}: column {name!r}: expected 0 and 1, got the texts "
            f"{' and '.join(kinds or ())}; say which of them is favourable, such as "
            f"favourable={(kinds or ('',))[-1]!r}"
        )
    return bool(favourable)


def _weights(table: columns.Table, name: str) -> np.ndarray:
    weights = _column(table, name)
    if name in table.classes:
        raise ValueError(
            f"{table.source}: column {name!r}: expected weights, got the category "
            f"{table.classes[name][0]!r}"
        )
    if weights.min() < 0 or not weights.any():
        raise ValueError(
            f"{table.source}: column {name!r}: expected weights of at least 0, not all "
            f"0, got {weights.min():g} to {weights.max():g}"
        )
    return weights


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
