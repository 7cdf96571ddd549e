"""Tabular data sets of the fairness literature, and the paper's split.

Every loader returns a `Dataset` of raw features on the host; `jeff.fairness.splits`
divides it, standardises it by the training part, and returns `Examples` for the device.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jeff import assets
from jeff.extras import require
from jeff.fairness.splits import Dataset, Splits, split
from jeff.fairness.table import make_dataset, read_csv, read_saved

__all__ = [
    "Dataset",
    "Splits",
    "acs",
    "adult",
    "german",
    "read_csv",
    "read_saved",
    "split",
]


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
    return make_dataset(
        names,
        np.asarray(inputs, np.float64),
        label=np.asarray(label).astype(np.int32),
        group=(inputs[:, names.index(column)] == 1).astype(np.int32),
        exactly=(column,),
        groups=groups,
    )


def _choose(name: str, options: dict[str, Any], argument: str = "sensitive") -> Any:
    if name not in options:
        raise ValueError(f"{argument}: expected one of {sorted(options)}, got {name!r}")
    return options[name]
