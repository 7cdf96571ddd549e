"""Columns of a table of cells: their types, missing values, and classes.

Columns come as numpy arrays, lists, or anything of pandas. They become plain numpy
arrays here, and nowhere else is a value judged to be missing.
"""

import collections
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

__all__ = [
    "check_genes",
    "find_column",
    "label_codes",
    "missing",
    "plain_column",
    "symbol_names",
]

_SHOWN = 5
# The texts that `pandas.read_csv` reads as missing.
_MISSING = frozenset(
    (
        *("", "#N/A", "#N/A N/A", "#NA", "N/A", "n/a", "NA", "<NA>"),
        *("-1.#IND", "-1.#QNAN", "1.#IND", "1.#QNAN", "-NaN", "-nan", "NaN", "nan"),
        *("NULL", "null", "None"),
    )
)


def plain_column(values: Any) -> np.ndarray:
    """A column as a plain numpy array.

    Args:
      values: one value per row: an array, a list, or a column, index or array of
        pandas.

    Returns:
      Numbers and bools unchanged, numbers with gaps as floats with NaN, anything else,
      categories too, as strings with "" where a value is missing.

    >>> plain_column(np.array(["T", None, "B"], object)).tolist()
    ['T', '', 'B']
    """
    array = np.asarray(values)
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8")
    if array.ndim != 1 or array.dtype.kind in "biufU":
        return array
    gone = missing(array)
    present = array[~gone].tolist()
    named = hasattr(getattr(values, "dtype", None), "categories")
    kinds = {type(value) for value in present}
    if not named and kinds == {bool} and not gone.any():
        return array.astype(bool)
    if not named and kinds and kinds <= {int, float}:
        return (
            np.where(gone, np.nan, array).astype(float)
            if gone.any()
            else (np.array(present))
        )
    texts = np.where(gone, "", array)
    return np.array([str(text) for text in texts.tolist()], dtype=np.str_)


def missing(column: Any) -> Bool[np.ndarray, " rows"]:
    """Which values of a column are missing.

    None, NaN, NaT and pandas' NA are, and the texts that `pandas.read_csv` reads as
    missing: the empty one, "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None",
    "<NA>", and spellings of spreadsheets such as "#N/A".

    Args:
      column: one value per row.

    Returns:
      A mask.

    >>> missing(["T", "", "NA", "B"]).tolist()
    [False, True, True, False]
    """
    values = np.asarray(column)
    if values.dtype.kind == "f":
        return np.isnan(values)
    if values.dtype.kind in "mM":
        return np.isnat(values)
    if values.dtype.kind not in "OU":
        return np.zeros(values.shape, bool)
    return np.array([_is_missing(value) for value in values.tolist()], bool)


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip() in _MISSING
    # pandas' own NA and NaT compare to nothing; pandas itself may not be installed.
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def label_codes(
    column: Any, *, name: str = "label", least: int = 2
) -> tuple[Int[np.ndarray, " cells"], tuple[str, ...]]:
    """Number the classes of a label, or the types of cells.

    Args:
      column: one value per cell, of any kind that `plain_column` takes; what is missing
        is said at `missing`.
      name: its name in an error.
      least: the fewest classes that are accepted.

    Returns:
      ``(codes, classes)``: int32 codes in the order of ``classes``, -1 for missing
      labels; classes are sorted.

    Raises:
      ValueError: if fewer than ``least`` classes occur, the label is a continuous
        number, or it is numbered from 0 with -1, pandas' code of a missing value.

    >>> label_codes(np.array(["sick", "well", "", "sick"]))
    (array([ 0,  1, -1,  0], dtype=int32), ('sick', 'well'))
    """
    values = plain_column(column)
    if values.ndim != 1:
        raise ValueError(f"{name}: expected one value a cell, got shape {values.shape}")
    gone = missing(values)
    if values.dtype.kind in "iuf":
        values = _whole(values, gone, name)
    present, codes = np.unique(values[~gone], return_inverse=True)
    if len(present) < least:
        raise ValueError(
            f"{name}: expected at least {least} classes, got {len(present)} "
            f"({', '.join(map(str, present)) or 'every value is missing'}); empty "
            'values, NaN, "NA" and "None" are missing'
        )
    full = np.full(len(values), -1, np.int32)
    full[~gone] = codes
    return full, tuple(str(value) for value in present.tolist())


def _whole(values: np.ndarray, gone: np.ndarray, name: str) -> np.ndarray:
    """Numbers as classes: pandas stores whole ones with a gap as floats."""
    kinds = np.unique(values[~gone])
    whole = bool((kinds == np.round(kinds)).all())
    if len(kinds) > 20 and not whole:
        raise ValueError(
            f"{name}: expected classes, got {len(kinds)} different numbers; cut them "
            "into classes first"
        )
    if whole and len(kinds) > 2 and (kinds == np.arange(len(kinds)) - 1).all():
        raise ValueError(
            f"{name}: expected classes, got codes from 0 with -1, which is pandas' "
            "code of a missing value; give the names, put NaN for -1, or take it as a "
            "class by column.astype(str)"
        )
    # The name of a class is "1", not "1.0".
    return np.where(gone, 0, values).astype(np.int64) if whole else values


def find_column(columns: Mapping[str, Any], name: str, place: str) -> np.ndarray:
    """A column, or an error that lists those there are.

    Args:
      columns: by name.
      name: the one wanted.
      place: their name in an error.

    Returns:
      Its values.

    Raises:
      ValueError: if it is not there.
    """
    if name not in columns:
        raise ValueError(
            f"{place}: expected one of {', '.join(map(str, columns)) or 'none'}, got "
            f"{name!r}"
        )
    return np.asarray(columns[name])


def check_genes(genes: Any, number: int, place: str) -> np.ndarray:
    """Check the names of genes.

    Args:
      genes: the names.
      number: how many are expected.
      place: their name in an error.

    Returns:
      An array of strings.

    Raises:
      ValueError: if their number is another, or names repeat.
    """
    names = np.array([str(gene) for gene in genes], dtype=np.str_)
    if len(names) != number:
        raise ValueError(f"{place}: expected {number} names, got {len(names)}")
    # Columns of one name would share a rank, a token and a pair.
    twice = _repeated(names.tolist())
    if twice:
        raise ValueError(
            f"{place}: expected distinct names, got {len(twice)} that repeat, such as "
            f"{', '.join(twice[:_SHOWN])}; make them unique first (in anndata "
            "`adata.var_names_make_unique()`), or sum the columns of a gene"
        )
    return names


def symbol_names(symbols: Any, ids: Any, place: str) -> np.ndarray:
    """Names of genes from a column of symbols.

    A gene without a symbol keeps its id. A symbol of several genes names none of them
    alone: each becomes ``symbol-id``, with a warning that counts them.

    Args:
      symbols: one per gene; some may be missing.
      ids: of the genes.
      place: their name in the warning.

    Returns:
      Names.

    >>> symbol_names(["CD3D", None], ["ENSG1", "ENSG2"], "genes").tolist()
    ['CD3D', 'ENSG2']
    """
    ids = [str(each) for each in ids]
    column = plain_column(symbols)
    gone = missing(column)
    names = np.where(gone, ids, column.astype(np.str_)).tolist()
    twice = set(_repeated(names))
    if twice:
        shown = ", ".join(sorted(twice)[:_SHOWN])
        warnings.warn(
            f"{place}: {len(twice)} symbols belong to several genes, such as {shown}; "
            "those genes are named SYMBOL-ID",
            stacklevel=2,
        )
    return np.array(
        [f"{n}-{i}" if n in twice else n for n, i in zip(names, ids, strict=True)],
        dtype=np.str_,
    )


def _repeated(names: list[str]) -> list[str]:
    counts = collections.Counter(names)
    return [name for name, count in counts.items() if count > 1]
