"""Group fairness of binary predictions: gaps, ratios and rates between two groups.

Every function is soft: it takes probabilities and is differentiable, so it can be used
as a loss. On 0/1 predictions from `harden`, the same functions are the usual hard
metrics of decisions.

Common to all functions:

* ``where`` marks the people to count. Values of other people are ignored, even NaN.
* ``weight`` holds sample weights; a group's rate is then a weighted mean.
* Arrays may be of any kind: JAX, numpy, columns of pandas, lists.
* ``axis_name`` joins the parts of a batch that is spread over devices. Sums and counts
  are added with ``lax.psum``, so the result is that of the whole batch, not the mean of
  the gaps of its parts.
* A group without members gives no disparity (gap 0, ratio 1) and no gradient, which
  suits a loss on small batches. A guarantee must not rely on this:
  `jeff.fairness.choose_alpha` rejects an empty group, and `jeff.fairness.evaluate`
  gives NaN. A NaN probability makes the result NaN.
* Groups and labels are 0 and 1; concrete arrays with other codes are rejected.
* Sums are accumulated in float32 or wider, for any dtype of ``prob``.

References:
  Han et al., "You Only Debias Once", 2025.
  Hardt et al., "Equality of Opportunity in Supervised Learning", NeurIPS 2016.
  Han et al., "Retiring Delta-DP: New Distribution-Level Metrics for Demographic
  Parity", TMLR 2023.
"""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jeff.as_arrays import as_array
from jeff.checks import check_choice, check_floating
from jeff.fairness.cells import AxisName, Flag, Mask, Prob, Weight, cell_rates, prepare
from jeff.fairness.examples import Column

__all__ = [
    "abcc",
    "demographic_parity_gap",
    "equal_opportunity_gap",
    "equalized_odds_gap",
    "group_rates",
    "harden",
    "p_rule",
]


def harden(
    prob: Float[Array, "*shape"] | Column, threshold: float = 0.5
) -> Float[Array, "*shape"]:
    """Turn probabilities into decisions, 0 and 1 in floating point.

    ``1`` where ``prob >= threshold``, else ``0``; NaN stays NaN.

    Args:
      prob: probabilities in [0, 1], floating point, any shape.
      threshold: smallest probability that gives a 1, in [0, 1].

    Returns:
      Zeros and ones with the shape and dtype of ``prob``. The derivative is 0.

    Raises:
      TypeError: if ``prob`` is not floating point.
      ValueError: if ``threshold`` is outside [0, 1].

    >>> harden(jnp.array([0.2, 0.5, 0.7]))
    Array([0., 1., 1.], dtype=float32)
    """
    prob = as_array(prob, "prob")
    check_floating(prob=prob)
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold: expected a number in [0, 1], got {threshold}")
    # A comparison with NaN is False, which would look like a decision of 0.
    decided = (prob >= threshold).astype(prob.dtype)
    return jnp.where(jnp.isnan(prob), prob, decided)


def group_rates(
    prob: Prob,
    group: Flag,
    label: Flag | None = None,
    *,
    where: Mask | None = None,
    weight: Weight | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, " groups"] | Float[Array, "labels groups"]:
    """Mean predicted probability of each group, or of each group within each label.

    ``E[p | s]``, or ``E[p | y, s]`` if labels are given: row 1 then holds the true
    positive rates of the groups, row 0 their false positive rates.

    Args:
      prob: predicted probability of the favourable outcome, shape [people], in [0, 1].
      group: membership of the protected group, shape [people], bool or 0/1.
      label: true outcomes, shape [people], bool or 0/1.
      where: people to count, shape [people], bool; everyone by default.
      weight: non-negative sample weights, shape [people]; ones by default.
      axis_name: mapped axis or axes over which the batch is spread.

    Returns:
      Rates, shape [2], indexed by group; with ``label`` shape [2, 2], indexed by label
      and group. A cell without members has rate 0.

    Raises:
      ValueError: if an argument is not a vector, lengths differ, or a group or label is
        neither 0 nor 1.
      TypeError: if a dtype is wrong.

    >>> group_rates(jnp.array([0.9, 0.5, 0.1]), jnp.array([1, 0, 0]))
    Array([0.3, 0.9], dtype=float32)
    """
    return cell_rates(prob, group, label, where, weight, axis_name=axis_name)[0]


def demographic_parity_gap(
    prob: Prob,
    group: Flag,
    *,
    where: Mask | None = None,
    weight: Weight | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, ""]:
    """Absolute difference in mean predicted probability between two groups.

    ``|E[p | s = 1] - E[p | s = 0]|``. A group without members contributes no gap, so
    the function is safe as a loss on small batches.

    Args:
      prob: predicted probability of the favourable outcome, shape [people], in [0, 1].
      group: membership of the protected group, shape [people], bool or 0/1.
      where: people to count, shape [people], bool; everyone by default.
      weight: non-negative sample weights, shape [people]; ones by default.
      axis_name: mapped axis or axes over which the batch is spread.

    Returns:
      The gap, a scalar in [0, 1]. Differentiable in ``prob`` except at 0, where the
      gradient is 0.

    Raises:
      ValueError: if an argument is not a vector, lengths differ, or a group or label is
        neither 0 nor 1.
      TypeError: if a dtype is wrong.

    References:
      Han et al., "You Only Debias Once", 2025 (demographic parity).

    >>> demographic_parity_gap(jnp.array([1.0, 0.25]), jnp.array([True, False]))
    Array(0.75, dtype=float32)
    """
    return _gap(*cell_rates(prob, group, None, where, weight, axis_name=axis_name))


def equal_opportunity_gap(
    prob: Prob,
    group: Flag,
    label: Flag,
    *,
    where: Mask | None = None,
    weight: Weight | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, ""]:
    """Demographic parity gap among people with the favourable outcome.

    ``|E[p | s = 1, y = 1] - E[p | s = 0, y = 1]|``.

    Args:
      prob: predicted probability of the favourable outcome, shape [people], in [0, 1].
      group: membership of the protected group, shape [people], bool or 0/1.
      label: true outcomes, shape [people], bool or 0/1.
      where: people to count, shape [people], bool; everyone by default.
      weight: non-negative sample weights, shape [people]; ones by default.
      axis_name: mapped axis or axes over which the batch is spread.

    Returns:
      The gap, a scalar in [0, 1]; 0 when a group has no positive label.

    Raises:
      ValueError: if an argument is not a vector, lengths differ, or a group or label is
        neither 0 nor 1.
      TypeError: if a dtype is wrong.

    References:
      Hardt et al., "Equality of Opportunity in Supervised Learning", 2016, def. 2.2.

    >>> prob = jnp.array([1.0, 0.5, 0.75, 0.0])
    >>> equal_opportunity_gap(prob, jnp.array([1, 1, 0, 0]), jnp.array([1, 1, 1, 0]))
    Array(0., dtype=float32)
    """
    return _gap(*cell_rates(prob, group, label, where, weight, axis_name=axis_name))[1]


def equalized_odds_gap(
    prob: Prob,
    group: Flag,
    label: Flag,
    *,
    reduce: Literal["sum", "max"] = "sum",
    where: Mask | None = None,
    weight: Weight | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, ""]:
    """Gap within the positive labels and gap within the negative labels, joined.

    ``g_y = |E[p | s = 1, y] - E[p | s = 0, y]|``, then ``g_1 + g_0`` or their maximum.

    Args:
      prob: predicted probability of the favourable outcome, shape [people], in [0, 1].
      group: membership of the protected group, shape [people], bool or 0/1.
      label: true outcomes, shape [people], bool or 0/1.
      reduce: "sum", as in the YODO paper, or "max", the worst case, as in fairlearn.
      where: people to count, shape [people], bool; everyone by default.
      weight: non-negative sample weights, shape [people]; ones by default.
      axis_name: mapped axis or axes over which the batch is spread.

    Returns:
      The gap, a scalar in [0, 2] for "sum" and in [0, 1] for "max".

    Raises:
      ValueError: if an argument is not a vector, lengths differ, ``reduce`` is unknown,
        or a group or label is neither 0 nor 1.
      TypeError: if a dtype is wrong.

    References:
      Han et al., "You Only Debias Once", 2025 (equalized odds).
      Hardt et al., "Equality of Opportunity in Supervised Learning", 2016, def. 2.1.

    >>> prob = jnp.array([1.0, 0.5, 0.5, 0.25])
    >>> equalized_odds_gap(prob, jnp.array([1, 1, 0, 0]), jnp.array([1, 0, 1, 0]))
    Array(0.75, dtype=float32)
    """
    check_choice("reduce", reduce, ("sum", "max"))
    gaps = _gap(*cell_rates(prob, group, label, where, weight, axis_name=axis_name))
    return gaps.sum() if reduce == "sum" else gaps.max()


def p_rule(
    prob: Prob,
    group: Flag,
    *,
    where: Mask | None = None,
    weight: Weight | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, ""]:
    """Ratio of the smaller to the larger mean predicted probability.

    ``min(r_0 / r_1, r_1 / r_0)`` with ``r_s = E[p | s]``. The "80% rule" asks for at
    least 0.8.

    Args:
      prob: predicted probability of the favourable outcome, shape [people], in [0, 1].
      group: membership of the protected group, shape [people], bool or 0/1.
      where: people to count, shape [people], bool; everyone by default.
      weight: non-negative sample weights, shape [people]; ones by default.
      axis_name: mapped axis or axes over which the batch is spread.

    Returns:
      The ratio, a scalar in [0, 1]; 1 is parity. Two equal rates give 1, zero rates
      too, and so does a group without members.

    Raises:
      ValueError: if an argument is not a vector, lengths differ, or a group or label is
        neither 0 nor 1.
      TypeError: if a dtype is wrong.

    References:
      Zafar et al., "Fairness Constraints: Mechanisms for Fair Classification",
      AISTATS 2017, section 2.

    >>> p_rule(jnp.array([1.0, 0.5, 0.375]), jnp.array([True, True, False]))
    Array(0.5, dtype=float32)
    """
    rates, present = cell_rates(prob, group, None, where, weight, axis_name=axis_name)
    low, high = rates.min(), rates.max()
    # Two rates of 0 are parity, not 0 / 0; NaN is not, and is passed on.
    defined = present.all() & ~(high <= 0)
    return jnp.where(defined, low / jnp.where(defined, high, 1), 1)


def abcc(
    prob: Prob,
    group: Flag,
    *,
    where: Mask | None = None,
    weight: Weight | None = None,
) -> Float[Array, ""]:
    """Area between the cumulative distributions of the two groups' probabilities.

    ``int_0^1 |F_1(t) - F_0(t)| dt``, exact: both functions are steps, so the integral
    is a sum over the sorted probabilities. The area is 0 only if the two distributions
    are equal. It is an upper bound of the demographic parity gap, which compares only
    their means.

    A distribution is not a sum over people, so there is no ``axis_name`` here. Gather
    the batch, or call the function under ``jax.jit`` on sharded arrays.

    Args:
      prob: predicted probability of the favourable outcome, shape [people], in [0, 1].
      group: membership of the protected group, shape [people], bool or 0/1.
      where: people to count, shape [people], bool; everyone by default.
      weight: non-negative sample weights, shape [people]; ones by default.

    Returns:
      The area, a scalar in [0, 1]; 0 if a group has no members.

    Raises:
      ValueError: if an argument is not a vector, lengths differ, or a group or label is
        neither 0 nor 1.
      TypeError: if a dtype is wrong.

    References:
      Han et al., "Retiring Delta-DP", 2023, eq. 4 (ABCC).

    >>> abcc(jnp.array([0.0, 1.0, 0.5, 0.5]), jnp.array([1, 1, 0, 0]))
    Array(0.5, dtype=float32)
    """
    prob, group, _, weight = prepare(prob, group, None, where, weight)
    order = jnp.argsort(prob)
    prob, group, weight = prob[order], group[order], weight[order]
    member = jnp.stack([~group, group])
    cumulative = jnp.cumsum(jnp.where(member, weight, 0), axis=-1)
    count = cumulative[:, -1:] if prob.size else jnp.zeros((2, 1), prob.dtype)
    present = (count > 0).all()
    # Both distributions are constant between sorted neighbours, so the sum is exact.
    share = cumulative / jnp.where(present, count, 1)
    area = jnp.sum(jnp.abs(share[1] - share[0])[:-1] * jnp.diff(prob))
    return jnp.where(present, area, 0)


def _gap(
    rates: Float[Array, "*labels groups"], present: Bool[Array, "*labels groups"]
) -> Float[Array, "*labels"]:
    difference = jnp.abs(rates[..., 1] - rates[..., 0])
    return jnp.where(present.all(axis=-1), difference, 0)
