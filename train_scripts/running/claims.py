"""Decide claims: true, false, or None if the run is too small to tell.

A claim compares a measured quantity with a threshold. It is decided only if the 95%
interval of the quantity lies on one side of the threshold. The interval is Student's
interval of the mean over seeds, or a bootstrap interval. A single seed without an
interval decides nothing. Exact quantities, such as bytes, are compared directly.
"""

from typing import Any

import numpy as np
from scipy import special

__all__ = ["above", "all_of", "at_least", "at_most", "below", "interval", "mark"]


def interval(values: Any) -> tuple[float, float]:
    """Student's 95% interval of a mean over seeds.

    ``mean ± t s / sqrt(n)``, with t of n - 1 degrees of freedom.

    Args:
      values: one value per seed.

    Returns:
      Both ends: infinite for one seed, NaN if there is no value or a value is NaN.

    References:
      Student, "The Probable Error of a Mean", Biometrika 1908.

    >>> low, high = interval([1.0, 2.0, 3.0])
    >>> round(low, 2), round(high, 2)
    (-0.48, 4.48)
    """
    values = np.asarray(values, float).ravel()
    if not values.size or np.isnan(values).any():
        return float("nan"), float("nan")
    if values.size == 1:
        return -np.inf, np.inf
    quantile = float(special.stdtrit(values.size - 1, 0.975))
    half = quantile * values.std(ddof=1) / np.sqrt(values.size)
    return float(values.mean() - half), float(values.mean() + half)


def at_least(
    values: Any, threshold: float, *, ends: tuple[float, float] | None = None
) -> bool | None:
    """Whether the mean over seeds is at least a threshold.

    Args:
      values: one value per seed; for a comparison, the difference for each seed.
      threshold: lower bound of the claim.
      ends: interval of the quantity, for example from a bootstrap; Student's interval
        by default.

    Returns:
      True or False if the interval lies on one side of the threshold; None if it
      contains the threshold or a value is NaN.
    """
    low, high = interval(values) if ends is None else ends
    if low >= threshold:
        return True
    return False if high < threshold else None


def at_most(
    values: Any, threshold: float, *, ends: tuple[float, float] | None = None
) -> bool | None:
    """Whether the mean over seeds is at most a threshold.

    Args:
      values: as in `at_least`.
      threshold: upper bound of the claim.
      ends: as in `at_least`.

    Returns:
      As in `at_least`.
    """
    low, high = interval(values) if ends is None else ends
    if high <= threshold:
        return True
    return False if low > threshold else None


def above(first: Any, second: Any) -> bool | None:
    """Whether one method is above another, compared seed by seed.

    Args:
      first: values of the first method, one per seed.
      second: values of the second method, for the same seeds.

    Returns:
      As in `at_least`; equal values are not above.
    """
    # Paired by seed: the spread that both methods share cancels in the difference.
    low, high = interval(np.asarray(first, float) - np.asarray(second, float))
    if low > 0:
        return True
    return False if high <= 0 else None


def below(first: Any, second: Any) -> bool | None:
    """Whether one method is below another, compared seed by seed.

    Args:
      first: values of the first method, one per seed.
      second: values of the second method, for the same seeds.

    Returns:
      As in `above`.
    """
    return above(second, first)


def all_of(*parts: bool | None) -> bool | None:
    """Whether all parts of a claim hold.

    Args:
      *parts: whether each part holds.

    Returns:
      False if any part is False, else None if any part is undecided, else True.
    """
    if any(part is False for part in parts):
        return False
    return None if any(part is None for part in parts) else True


def mark(holds: bool | None) -> str:
    """The outcome of a claim in words.

    Args:
      holds: whether the claim holds, or None.

    Returns:
      "holds", "does not hold" or "too small to tell".
    """
    if holds is None:
        return "too small to tell"
    return "holds" if holds else "does not hold"
