"""Greedy allocation of bits to keys and values under a budget.

The score ``c_i`` of a tensor, the keys or the values of one layer, is its squared norm.
With ``b_i`` bits in groups of ``g_i`` values, its squared error is modelled as being in
proportion to ``c_i 4^(-b_i)`` and to ``c_i g_i``. `allocate_bits` and `allocate_groups`
climb a ladder of widths or of group sizes. All tensors start at the cheapest rung. The
tensor that gains most for its cost goes up one rung, until no step fits the budget.

One rung at a time is enough: both errors are convex in the cost, so gains per cost fall
along a ladder, and a jump over a rung gains less per cost than the first step of it.
The result is optimal where nothing is left of the budget when a step first fails to
fit, or where all steps cost the same; otherwise the error exceeds the optimum by less
than that step would gain. More budget never makes it worse. Nor is it ever worse than
all tensors at one rung, if each step costs a multiple of the one before it, as in 2, 4,
8 bits.

The official code compares gains with an absolute tolerance, so that small scores are
ranked by their index. Here nothing depends on the unit of the scores.

References:
  Hariri et al., "Quantize What Counts: More for Keys, Less for Values", 2025.
"""

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Array, Float, Int, Num

__all__ = ["allocate_bits", "allocate_groups"]

Scores: TypeAlias = Float[Array | np.ndarray, "layers 2"]

# Gains as near to the greatest as this are ties: rounding of float32 must not decide.
_TIE = 1 - 1e-6
# In floating point 4.35 x 100 is less than 435: the last step must fit all the same.
_ROOM = 1 + 1e-9


def allocate_bits(
    scores: Scores, budget: float | int, ladder: Sequence[int] = (2, 4, 8)
) -> Int[np.ndarray, "layers 2"]:
    """Widths of the codes of all keys and values, largest where the norms are.

    Greedily minimises ``sum_i c_i 4^(-b_i)`` under ``mean_i b_i <= budget``. Ties go to
    the lower layer, and within it to the keys. A score of 0 stays at the lowest rung.

    Args:
      scores: squared norms ``c_i``, in any unit; column 0 keys, column 1 values.
      budget: mean width over all tensors, in bits.
      ladder: widths to choose from, increasing.

    Returns:
      The width of each tensor.

    Raises:
      ValueError: if scores are of another shape, negative, not finite or all zero, if
        the ladder is not increasing, or the budget is below its lowest rung.

    References:
      Hariri et al., "Quantize What Counts", 2025.

    >>> allocate_bits(np.array([[6.8, 1.0], [6.8, 1.0]]), budget=3)
    array([[4, 2],
           [4, 2]])
    """
    weights = _checked(scores)
    rungs = np.array(_climbing(ladder))
    if not rungs[0] <= budget < math.inf:
        raise ValueError(
            f"budget: expected a finite mean width of at least {rungs[0]} bits, the "
            f"lowest rung, got {budget}"
        )
    return rungs[_climb(weights, 4.0**-rungs, rungs, budget * weights.size)]


def allocate_groups(
    scores: Scores, group_size: int, ladder: Sequence[int] = (32, 64, 128)
) -> Int[np.ndarray, "layers 2"]:
    """Group sizes of all keys and values, smallest where the norms are largest.

    Greedily minimises ``sum_i c_i g_i`` with at most as many scales as groups of
    ``group_size`` have: ``sum_i 1 / g_i <= n / group_size`` for n tensors. Without a
    ladder the optimum has ``g_i`` in proportion to ``1 / sqrt(c_i)``. Ties and scores
    of 0 are treated as in `allocate_bits`; the latter have the largest groups.

    Args:
      scores: squared norms ``c_i``, in any unit; column 0 keys, column 1 values.
      group_size: values that would share a scale if all groups were equal.
      ladder: group sizes to choose from, increasing.

    Returns:
      The group size of each tensor.

    Raises:
      ValueError: if scores are of another shape, negative, not finite or all zero, if
        the ladder is not increasing, or ``group_size`` is not within it.

    >>> allocate_groups(np.array([[9.0, 1.0], [4.0, 1.0]]), group_size=64)
    array([[ 32, 128],
           [ 64, 128]])
    """
    weights = _checked(scores)
    sizes = np.array(_climbing(ladder)[::-1])
    if not sizes[-1] <= group_size <= sizes[0]:
        raise ValueError(
            f"group_size: expected {sizes[-1]} to {sizes[0]}, the ends of the ladder, "
            f"got {group_size}"
        )
    return sizes[_climb(weights, sizes, 1 / sizes, weights.size / group_size)]


def _checked(scores: Scores) -> Float[np.ndarray, "layers 2"]:
    """Scores in float64, in which float32 scores of any scale keep their ratios."""
    weights = np.asarray(scores, np.float64)
    if weights.ndim != 2 or weights.shape[1] != 2 or not weights.size:
        raise ValueError(
            "scores: expected [layers, 2], keys and values of each layer, got shape "
            f"{weights.shape}"
        )
    if not (np.isfinite(weights) & (weights >= 0)).all() or not weights.any():
        raise ValueError(
            "scores: expected finite squared norms, not negative and not all zero, got "
            f"{weights.tolist()}"
        )
    return weights


def _climbing(ladder: Sequence[int]) -> list[int]:
    rungs = [int(rung) for rung in ladder]
    if list(ladder) != sorted(set(rungs)) or min(rungs, default=0) < 1:
        raise ValueError(
            f"ladder: expected increasing positive whole numbers, got {ladder}"
        )
    return rungs


def _climb(
    weights: Float[np.ndarray, "layers 2"],
    errors: Num[np.ndarray, " rungs"],
    costs: Num[np.ndarray, " rungs"],
    budget: float | int,
) -> Int[np.ndarray, "layers 2"]:
    """Rungs that greedily minimise ``sum_i weights_i errors[rung_i]``."""
    # A last step of infinite cost never fits, so the top rung needs no special case.
    steps = np.append(np.diff(costs), np.inf)
    gains = np.append(-np.diff(errors), 0) / steps
    # Relative scores: ties and the stopping rule must not depend on the unit.
    scaled = weights.ravel() / weights.max()
    rung = np.zeros(scaled.size, int)
    left = budget * _ROOM - costs[0] * scaled.size
    while True:
        gain = np.where(steps[rung] <= left, scaled * gains[rung], 0)
        if not gain.any():
            return rung.reshape(weights.shape)
        # The first of all ties: argmax over booleans gives the lowest index.
        best = np.argmax(gain >= gain.max() * _TIE)
        left -= steps[rung[best]]
        rung[best] += 1
