"""Rows and columns of a Hugging Face data set, from the hub or from a saved folder.

A source is one of

* ``hf:NAME``, a data set on the hub; ``hf:NAME:CONFIG@SPLIT`` names its configuration
  and its split too, and either may be left out;
* a folder that ``save_to_disk`` of `datasets` wrote. The split of a `DatasetDict` is a
  folder of its own: ``FOLDER/SPLIT``.

Without a split the only one is taken, else "train", with a warning that says so. No
code of a data set is run: the library's permission for it is never given. Arrow files
are read into memory and checked before they are used: in a mapped file a wrong offset
would read foreign memory, or end the process.
"""

import math
import re
import warnings
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jeff import files
from jeff.extras import require

__all__ = ["Columns", "is_saved", "json_rows", "read_columns"]

_HUB = "hf:"
_NAME = re.compile(r"(\w[\w.-]*(?:/\w[\w.-]*)?)(?::([^@]+))?(?:@(.+))?")
_ROWS = 4096  # rows that are Python objects at a time
_FORM = "hf:NAME, hf:NAME:CONFIG, hf:NAME@SPLIT or hf:NAME:CONFIG@SPLIT"


class Columns(NamedTuple):
    """Plain columns of a data set.

    Attributes:
      source: the data set with its split, for messages.
      columns: values by name, an array of bools or numbers each (NaN where one is
        missing), or of objects: texts, and None where one is missing.
      classes: names of the classes by column, for those of type ``ClassLabel``, whose
        values are numbers of classes; -1 stands for no class.
    """

    source: str
    columns: dict[str, np.ndarray]
    classes: dict[str, tuple[str, ...]]


def is_saved(source: str | Path) -> bool:
    """Whether a source is a data set of the hub or a folder, and not a file.

    Args:
      source: what the user named.

    Returns:
      True for ``hf:...`` and for every folder; `read_columns` says what is wrong with
      a folder that is no data set.
    """
    return str(source).startswith(_HUB) or Path(source).expanduser().is_dir()


def json_rows(
    source: str | Path, *, finite: bool = True
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a file of JSON lines, or of a Hugging Face data set.

    Args:
      source: the file, or a source as in the module's docstring.
      finite: refuse NaN and infinity, as `jeff.files.json_lines` does.

    Yields:
      ``(place, row)``. A class of a ``ClassLabel`` column is given by its name. A field
      that a row lacks is None, as all rows of a table have the same fields.

    Raises:
      FileNotFoundError: if there is no such file.
      ImportError: if the source is a data set and `datasets` is missing.
      OSError: if it cannot be read.
      ValueError: if the file or the data set is not as expected; names it.
    """
    if not is_saved(source):
        yield from files.json_lines(source, finite=finite)
        return
    source, table, classes = _open(source)
    for first in range(0, table.num_rows, _ROWS):
        with files.reading(source, "rows of a data set"):
            rows = table.slice(first, _ROWS).to_pylist()
        for number, row in enumerate(rows, first + 1):
            place = f"{source}:{number}"
            for name, names in classes.items():
                row[name] = _class(row[name], names, f"{place}: {name}")
            if finite:
                _check_finite(row, place)
            yield place, row


def read_columns(source: str | Path) -> Columns:
    """Columns of a Hugging Face data set whose values are numbers or texts.

    Args:
      source: as in the module's docstring.

    Returns:
      The columns.

    Raises:
      FileNotFoundError: if there is no such folder.
      ImportError: if `datasets` is missing.
      OSError: if it cannot be read.
      ValueError: if it is no data set, has no row or a column that is not plain, or a
        class without a name; names it.
    """
    source, table, classes = _open(source)
    columns = {}
    for name in table.column_names:
        with files.reading(source, f"a column {name!r} of numbers or texts"):
            values = np.asarray(table.column(name).to_numpy())
            if values.dtype.kind == "O":
                values = _plain(values, f"{source}: column {name!r}")
            elif values.dtype.kind not in "biuf":
                raise ValueError(
                    f"{source}: column {name!r}: expected numbers or texts, got "
                    f"{table.schema.field(name).type}; {_drop(name)}"
                )
        columns[name] = values
    for name, names in classes.items():
        for code in np.unique(np.nan_to_num(columns[name], nan=-1)):
            _class(int(code), names, f"{source}: column {name!r}")
    return Columns(source, columns, classes)


def _open(source: str | Path) -> tuple[str, Any, dict[str, tuple[str, ...]]]:
    """The source with its split, its Arrow table, and the names of its classes."""
    hub = str(source).startswith(_HUB)
    source, data = _from_hub(str(source)) if hub else _from_folder(source)
    with files.reading(source, "a table of `datasets`"):
        data.data.validate(full=True)
        table = data.with_format("arrow")[:]
        twice = {n for n in table.column_names if table.column_names.count(n) > 1}
        if twice or set(table.column_names) != set(data.features):
            raise ValueError(
                f"{source}: expected the columns {sorted(data.features)}, one each, "
                f"got {table.column_names}; save the data set again"
            )
    if not table.num_rows:
        raise ValueError(f"{source}: expected at least one row, got none")
    classes = {
        name: tuple(feature.names)
        for name, feature in data.features.items()
        if type(feature).__name__ == "ClassLabel"
    }
    return source, table, classes


def _from_hub(source: str) -> tuple[str, Any]:
    parts = _NAME.fullmatch(source.removeprefix(_HUB))
    if parts is None:
        raise ValueError(f"{source}: expected {_FORM}")
    name, config, split = parts.groups()
    datasets = require("datasets", extra="data")
    # The library takes both before the hub: a folder here, and its own reader of this
    # name ("csv"), which would read whatever lies in the current folder.
    reader = Path(datasets.__file__).parent / "packaged_modules" / name
    if Path(name).exists() or reader.exists():
        kind = "a file or folder here" if Path(name).exists() else "a kind of file"
        raise ValueError(
            f"{source}: expected a data set of the hub, but {name} is {kind}; leave "
            "out 'hf:' and name the file or folder, or give the data set as OWNER/NAME"
        )
    advice = f"check the name ({_FORM}), the configuration, the split and the network"
    with files.reading(source, "a data set of the hub", advice=advice):
        data = datasets.load_dataset(name, config, split=split, keep_in_memory=True)
    if split is None and isinstance(data, dict):
        split = _only(source, list(data), f"{source}@SPLIT")
        return f"{source}@{split}", data[split]
    return source, data


def _from_folder(source: str | Path) -> tuple[str, Any]:
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{source}: expected a folder saved by `datasets`, or {_FORM}, found "
            f"{'a file' if folder.exists() else 'none'}"
        )
    if (listed := folder / "dataset_dict.json").is_file():
        known = files.read_json(listed)
        splits = known.get("splits") if isinstance(known, dict) else None
        fits = isinstance(splits, list) and all(isinstance(s, str) for s in splits)
        if not splits or not fits:
            raise ValueError(
                f"{listed}: expected a list of splits, got {known!r:.80}; save the "
                "data set again"
            )
        folder /= Path(_only(str(source), splits, f"{source}/SPLIT")).name
    if not (folder / "state.json").is_file():
        raise ValueError(
            f"{folder}: expected a folder saved by save_to_disk of `datasets`, got a "
            "folder without state.json"
        )
    state = files.read_json(folder / "state.json")
    if isinstance(state, dict) and state.get("_data_files") == []:
        raise ValueError(f"{folder}: expected at least one row, got none")
    datasets = require("datasets", extra="data")
    with files.reading(folder, "a folder saved by save_to_disk of `datasets`"):
        return str(folder), datasets.load_from_disk(str(folder), keep_in_memory=True)


def _only(source: str, splits: Sequence[str], how: str) -> str:
    if len(splits) == 1:
        return splits[0]
    if "train" not in splits:
        raise ValueError(
            f"{source}: expected one split or 'train' among them, got {splits}; name "
            f"one, as in {how}"
        )
    warnings.warn(
        f"{source}: the split 'train' of {splits} is read; name another as in {how}",
        stacklevel=2,
    )
    return "train"


def _class(code: Any, names: tuple[str, ...], place: str) -> str | None:
    if code is None or code == -1:
        return None
    if not 0 <= code < len(names):
        raise ValueError(
            f"{place}: expected a class from 0 to {len(names) - 1}, got {code}"
        )
    return names[code]


def _plain(values: np.ndarray, place: str) -> np.ndarray:
    kinds = {type(value) for value in values} - {type(None)}
    if kinds in ({bool}, {Decimal}):
        return np.array([math.nan if v is None else v for v in values], np.float64)
    if other := kinds - {str}:
        name = other.pop().__name__
        raise ValueError(
            f"{place}: expected numbers or texts, got values of type {name}; "
            f"{_drop('NAME')}"
        )
    return values


def _drop(name: str) -> str:
    return f"leave it out with remove_columns({name!r}), or flatten it"


def _check_finite(value: Any, place: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(
            f"{place}: expected finite numbers, got {value}; leave the column out with "
            "remove_columns, or the row"
        )
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        for name, each in inner:
            _check_finite(each, f"{place}: {name}")
