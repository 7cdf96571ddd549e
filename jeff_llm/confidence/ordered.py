"""Queries in the order of their confidence, with scores of that order.

Every query of a run of equal confidences gets the run's mean gain, so that sums up to
any place are expectations over all orders of the ties.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

__all__ = ["Ordered", "area", "auroc", "first_rate", "order"]


class Ordered(NamedTuple):
    """Queries from least to most confident; padding comes last, as zeros.

    Attributes:
      gain: right answers that sending a query on gains, mean over its run of ties.
      gained: sum of the gains before it.
      cost: mean cost over its run of ties, and the sum before it; None where all
        queries cost the same.
      middle: mean place of its run of ties.
      small: whether, or how, right the small model is.
      best: an oracle's area, in answers times queries.
      count: queries that count.
    """

    gain: Array
    gained: Array
    cost: tuple[Array, Array] | None
    middle: Array
    small: Array
    best: Array
    count: Array


def order(
    confidence: Array,
    small_correct: Array,
    large_correct: Array,
    where: Array | None,
    large_cost: Array | float = 1.0,
) -> Ordered:
    """Sort queries by confidence, together with their gains and costs.

    Args:
      confidence: of the small model's answers, [queries].
      small_correct: whether, or how, right they are.
      large_correct: likewise of the large model.
      where: queries to count; all by default.
      large_cost: of a query, or of each.

    Returns:
      The queries in order, with means over ties.
    """
    if where is None:
        where = jnp.ones(confidence.shape, bool)
    small, large = jnp.asarray(small_correct), jnp.asarray(large_correct)
    # Padding sorts last; correctness and cost are sorted along with the confidence.
    surest = jnp.finfo(confidence.dtype).max
    value = jnp.where(where, jnp.minimum(confidence, surest), jnp.inf)
    binary = small.dtype == bool and large.dtype == bool
    if binary:  # one byte to carry along instead of two numbers
        brought = (((2 * small + large) * where).astype(jnp.int8),)
    else:
        small, large = (jnp.where(where, x, 0).astype(float) for x in (small, large))
        brought = small, large
    if jnp.ndim(large_cost):
        brought = *brought, jnp.where(where, large_cost, 0.0)
    # One sort carries everything; it need not be stable, since ties share their mean.
    value, *brought = jax.lax.sort((value, *brought), num_keys=1, is_stable=False)
    if binary:
        small, large = (brought[0] >= 2).astype(float), (brought[0] % 2).astype(float)
    else:
        small, large = brought[:2]
    cost = brought[-1] if jnp.ndim(large_cost) else None
    gain = large - small
    first, last = _runs(value)
    # Sorted values cannot tell NaN from padding, so it is looked for here.
    bad = jnp.isnan(jnp.where(where, confidence, 0.0)).any()
    mean_gain, gained = _spread(gain, first, last)
    return Ordered(
        gain=mean_gain,
        gained=jnp.where(bad, jnp.nan, gained),
        cost=None if cost is None else _spread(cost, first, last),
        middle=jnp.where(bad, jnp.nan, (first + last) / 2),
        small=small,
        best=_best(gain, where, binary),
        count=where.sum().astype(float),
    )


def _best(gain: Array, where: Array, binary: bool) -> Array:
    """An oracle's area, in answers times queries: gains first, losses last."""
    count = where.sum()
    if binary:
        gains, losses = jnp.sum(gain > 0), jnp.sum(gain < 0)
        return gains * (count - gains / 2) - losses * losses / 2
    ordered = -jnp.sort(-gain)
    place = jnp.arange(gain.size)
    # Padding gains 0, and stands between what gains and what loses.
    place = jnp.where(ordered < 0, place - (gain.size - count), place)
    return jnp.sum(ordered * (count - place - 0.5))


def _spread(values: Array, first: Array, last: Array) -> tuple[Array, Array]:
    """Mean over the run of each place, and the sum of the means before it."""
    total = jnp.cumsum(values)
    before = total[first] - values[first]
    mean = (total[last] - before) / (last - first + 1)
    return mean, before + (jnp.arange(values.shape[0]) - first) * mean


def _runs(value: Array) -> tuple[Array, Array]:
    """First and last place of the run of equal values around each place."""
    place = jnp.arange(value.shape[0])
    change = value[1:] != value[:-1]
    edge = jnp.ones(1, bool)
    starts, ends = jnp.concatenate([edge, change]), jnp.concatenate([change, edge])
    first = jax.lax.cummax(jnp.where(starts, place, 0))
    last = jax.lax.cummin(jnp.where(ends, place, value.shape[0]), reverse=True)
    return first, last


def area(found: Ordered) -> Array:
    """Normalised area under the routing curve.

    Query i of the order counts for all rates above (i + 1/2) / n, in the mean.

    Args:
      found: the queries in order.

    Returns:
      0 for random routing, 1 for an oracle; NaN where an oracle gains nothing.
    """
    mine = jnp.sum(found.gain * (found.count - found.middle - 0.5))
    even = found.gain.sum() * found.count / 2
    # The oracle's gain over random routing is the unit of the area.
    room = found.best - even
    return jnp.where(room > 1e-6, (mine - even) / room, jnp.nan)


def auroc(found: Ordered) -> Array:
    """AUROC of confidence against the small model's being right.

    Args:
      found: the queries in order.

    Returns:
      The area, NaN where all are right or all wrong.
    """
    # Mann and Whitney: the rank sum of the right answers, ties at their mean rank.
    right = found.small.sum()
    wrong = found.count - right
    ranks = jnp.sum(found.small * (found.middle + 1))
    return (ranks - right * (right + 1) / 2) / (right * wrong)


def first_rate(found: Ordered, needed: Array) -> Array:
    """Rate at which the piecewise linear curve first gains a number of answers.

    Args:
      found: the queries in order.
      needed: right answers more than the small model alone has.

    Returns:
      The rate, NaN where it never does.
    """
    after = found.gained + found.gain
    # The error of sums in float32 stays below it.
    slack = 1e-4 + 1e-6 * found.count
    place = jnp.argmax(after >= needed - slack)
    slope = found.gain[place]
    step = (needed - found.gained[place]) / jnp.where(slope > 0, slope, 1)
    inside = (place + jnp.clip(jnp.where(slope > 0, step, 0), 0, 1)) / found.count
    rate = jnp.where(needed <= slack, 0.0, inside)
    reached = (needed <= slack) | (after[place] >= needed - slack)
    return jnp.where(reached, rate, jnp.nan)
