"""Whether values are counts or their logarithm, told by the values.

Files seldom say what their matrix holds. Logarithms of counts that were taken for
counts are taken twice, and counts taken for logarithms leave the deepest cells and the
greatest genes to decide everything. Neither fails; other pairs come out.
"""

import warnings
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array

from jeff.checks import check_choice

__all__ = ["Scale", "Values", "empty_scale", "is_counts", "taken_as"]

Values: TypeAlias = Literal["auto", "counts", "log"]

# ln(1 + x) reaches 30 at 10^13 counts, and a logarithm to base 2 at 10^9.
_LARGEST_LOG = 30.0
# The logarithm of a million is below 14, and that of 14 below 3.
_LARGEST_NATURAL, _LARGEST_TWICE = 14.0, 3.0
# Cells that show whether all have one sum, and how far rounding may part the sums.
_FEWEST, _STEADY = 10, 1e-3


class Scale(NamedTuple):
    """What a pass over the cells tells of their values.

    Attributes:
      whole: whether all values are whole numbers.
      largest: the greatest value.
      depths: sum of each cell, a part for each chunk.
    """

    whole: bool
    largest: float
    depths: tuple[Float[np.ndarray, " cells"], ...]

    def add(self, chunk: csr_array) -> "Scale":
        """What these cells tell as well.

        Args:
          chunk: expression.

        Returns:
          The scale of all cells so far.
        """
        return Scale(
            self.whole and is_counts(chunk),
            max(self.largest, float(chunk.data.max(initial=0))),
            (*self.depths, np.asarray(chunk.sum(axis=1, dtype=np.float64)).ravel()),
        )

    @property
    def positive(self) -> Float[np.ndarray, " cells"]:
        """Depths of the cells with genes; the others have none."""
        depth = np.concatenate(self.depths) if self.depths else np.zeros(0)
        return depth[depth > 0]

    @property
    def median_depth(self) -> float:
        """Median depth of the cells with genes."""
        return float(np.median(self.positive))


def empty_scale() -> Scale:
    """The scale of no cells.

    Returns:
      A `Scale` to add to.
    """
    return Scale(True, 0.0, ())


def is_counts(chunk: csr_array) -> bool:
    """Whether all values are whole numbers.

    Args:
      chunk: expression.

    Returns:
      True for counts.
    """
    return bool((chunk.data == np.round(chunk.data)).all())


def taken_as(
    scale: Scale, values: Values = "auto", *, logged: bool = False, place: str = "cells"
) -> Literal["counts", "log"]:
    """What values are taken as.

    * Whole numbers are counts.
    * Others above 30 are no logarithms, but normalised counts (CPM, TPM), with a
      warning.
    * So are others whose sum is the same for every cell, as normalising leaves it and
      the logarithm does not, with a warning.
    * The rest are logarithms, with a warning where all are below 3, as small as the
      logarithm of a logarithm, or one is above 14, the logarithm of a million.

    Fractional counts of at most 14 look like logarithms: say that they are counts.

    Args:
      scale: what a pass over the cells told.
      values: what the user says; "counts" and "log" decide alone.
      logged: whether the file says that its values are logarithms, as scanpy notes in
        ``uns["log1p"]``; where the values deny it, they decide, with a warning.
      place: the cells' name in a warning.

    Returns:
      "counts" or "log".

    Raises:
      ValueError: if ``values`` is unknown.

    >>> taken_as(empty_scale().add(csr_array(np.array([[0, 3], [1, 0]]))))
    'counts'
    """
    check_choice("values", values, ("auto", "counts", "log"))
    if values != "auto":
        return values
    kind, reason = _judged(scale)
    if kind == "counts" and logged:
        reason = f'{reason or "whole numbers"}, although uns["log1p"] says logarithms'
    if reason:
        meant = "normalised counts" if kind == "counts" else "logarithms"
        meant = "counts" if scale.whole else meant
        warnings.warn(
            f"{place}: the values are {reason}; they are taken as {meant}. Say what "
            'they are by values="counts" or values="log"',
            stacklevel=3,
        )
    return kind


def _judged(scale: Scale) -> tuple[Literal["counts", "log"], str]:
    """The kind of values, and the doubt about it, empty for none."""
    if scale.whole:
        return "counts", ""
    if scale.largest > _LARGEST_LOG:
        return "counts", (
            f"no whole numbers, and up to {scale.largest:g}, too large for logarithms"
        )
    depth = scale.positive
    if len(depth) >= _FEWEST and np.ptp(depth) <= _STEADY * np.median(depth):
        return "counts", (
            f"no whole numbers, and sum to {np.median(depth):g} in every cell"
        )
    if scale.largest > _LARGEST_NATURAL:
        return "log", (
            f"no whole numbers, and up to {scale.largest:g}, more than the natural "
            "logarithm of a million counts"
        )
    if scale.largest < _LARGEST_TWICE:
        return "log", (
            f"all below {scale.largest:.3g}, as small as a logarithm taken twice"
        )
    return "log", ""
