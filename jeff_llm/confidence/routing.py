"""From a small model to a large one: what each share of the traffic buys.

The queries of which the small model is least sure go to the large one. `curve` follows
accuracy and cost as their share r grows from 0 to 1; everything is exact in expectation
over the order of ties, and r n need not be a whole number. `sweep` does it for
thousands of settings in one compiled call, padded queries left out by a mask.

Alignment is the AUROC of confidence against correctness: it says whether wrong answers
can be told from right ones, which calibration does not.

References:
  Chuang et al., "Confident or Seek Stronger: Exploring Uncertainty-Based On-device LLM
  Routing From Benchmarking to Generalization", 2025.
  Chuang et al., "Learning to Route LLMs with Confidence Tokens", ICML 2025.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from jeff_llm.confidence.checks import check_queries
from jeff_llm.confidence.logs import Logs, from_jsonl

__all__ = [
    "Logs",
    "RoutingCurve",
    "alignment",
    "curve",
    "from_jsonl",
    "normalised_area",
    "rate_to_match",
    "sweep",
]


class RoutingCurve(NamedTuple):
    """What routing the least confident queries gives.

    Attributes:
      rates: shares of the queries that go to the large model.
      accuracy: expected accuracy at each.
      cost: mean cost of a query at each.
      area: area between the accuracy curve and that of random routing, over the area
        between that of an oracle and random: 0 random, 1 oracle; NaN where an oracle
        gains nothing over random.
      rate_to_match: least rate at which the accuracy is that of the large model.
      alignment: AUROC of confidence against the small model's being right; NaN where
        it is always right or always wrong.
    """

    rates: Float[Array, " rates"]
    accuracy: Float[Array, "... rates"]
    cost: Float[Array, "... rates"]
    area: Float[Array, "..."]
    rate_to_match: Float[Array, "..."]
    alignment: Float[Array, "..."]


class _Sorted(NamedTuple):
    """Queries from least to most confident; what padding holds comes last, as zeros.

    ``gain`` is the mean over the run of ties around a query, ``gained`` its sum over
    the queries before it, ``middle`` the mean place of the run; ``cost`` is such a pair
    of mean and sum, or None where all queries cost the same.
    """

    gain: Array
    gained: Array
    cost: tuple[Array, Array] | None
    middle: Array
    small: Array
    best: Array
    count: Array


def curve(
    confidence: Float[Array, " queries"],
    small_correct: Shaped[Array, " queries"],
    large_correct: Shaped[Array, " queries"],
    rates: Float[Array, " rates"],
    *,
    small_cost: Float[Array, ""] | float | int = 0.0,
    large_cost: Float[Array, "*queries"] | float | int = 1.0,
    where: Bool[Array, " queries"] | None = None,
) -> RoutingCurve:
    """Accuracy and cost as the least confident queries go to the large model.

    ``accuracy(r) = (sum over the n r least confident of large_correct, over the others
    of small_correct) / n``. Every query is paid for at the small model, whose
    confidence is needed, and those that are sent on at the large one as well.

    Args:
      confidence: of the small model's answers, higher being surer.
      small_correct: whether its answer is right, bool; or how right, in [0, 1].
      large_correct: likewise of the large model.
      rates: shares of the queries, in [0, 1].
      small_cost: of one query.
      large_cost: of one query, or of each.
      where: queries to count; all by default.

    Returns:
      The curve; with NaN where an input is NaN and that cannot be seen, under jit.

    Raises:
      ValueError: if lengths differ, there is no query, or a value is NaN or, of
        correctness and rates, outside [0, 1].

    >>> sure, right = jnp.array([0.9, 0.2]), jnp.array([True, False])
    >>> curve(sure, right, jnp.array([True, True]), jnp.array([0.0, 0.5])).accuracy
    Array([0.5, 1. ], dtype=float32)
    """
    rates = jnp.asarray(rates, float)
    check_queries(confidence, small_correct, large_correct, rates, where)
    found = _sort(confidence, small_correct, large_correct, where, large_cost)
    size = found.gain.shape[0]
    place = rates * found.count
    index = jnp.clip(jnp.floor(place).astype(int), 0, size - 1)
    rest = place - index
    base = found.small.sum() / found.count
    gained = found.gained[index] + rest * found.gain[index]
    if found.cost is None:
        spent = place * large_cost
    else:
        spent = found.cost[1][index] + rest * found.cost[0][index]
    return RoutingCurve(
        rates=rates,
        accuracy=base + gained / found.count,
        cost=small_cost + spent / found.count,
        area=_area(found),
        rate_to_match=_first_rate(found, found.gain.sum()),
        alignment=_alignment(found),
    )


def normalised_area(
    confidence: Float[Array, " queries"],
    small_correct: Shaped[Array, " queries"],
    large_correct: Shaped[Array, " queries"],
    *,
    where: Bool[Array, " queries"] | None = None,
) -> Float[Array, ""]:
    """Area under the routing curve, 0 for random routing and 1 for an oracle's.

    ``(A - A_random) / (A_oracle - A_random)`` with ``A`` the integral of accuracy over
    the rate. Where the large model is always right this is ``2 AUROC - 1``.

    Args:
      confidence: of the small model's answers.
      small_correct: whether its answer is right, or how right, in [0, 1].
      large_correct: likewise of the large model.
      where: queries to count; all by default.

    Returns:
      The area; negative for worse than random, NaN where an oracle gains nothing.

    Raises:
      ValueError: as `curve` does.
    """
    check_queries(confidence, small_correct, large_correct, None, where)
    return _area(_sort(confidence, small_correct, large_correct, where))


def rate_to_match(
    confidence: Float[Array, " queries"],
    small_correct: Shaped[Array, " queries"],
    large_correct: Shaped[Array, " queries"],
    *,
    accuracy: Float[Array, ""] | float | None = None,
    where: Bool[Array, " queries"] | None = None,
) -> Float[Array, ""]:
    """Least share of the queries at which an accuracy is reached.

    Args:
      confidence: of the small model's answers.
      small_correct: whether its answer is right, or how right, in [0, 1].
      large_correct: likewise of the large model.
      accuracy: to be reached; the large model's by default.
      where: queries to count; all by default.

    Returns:
      The rate, in [0, 1]; NaN if no rate reaches the accuracy.

    Raises:
      ValueError: as `curve` does.
    """
    check_queries(confidence, small_correct, large_correct, None, where)
    found = _sort(confidence, small_correct, large_correct, where)
    if accuracy is None:
        return _first_rate(found, found.gain.sum())
    return _first_rate(found, accuracy * found.count - found.small.sum())


def alignment(
    confidence: Float[Array, " queries"],
    correct: Bool[Array, " queries"],
    *,
    where: Bool[Array, " queries"] | None = None,
) -> Float[Array, ""]:
    """AUROC of confidence against correctness.

    Args:
      confidence: of the answers.
      correct: whether each is right.
      where: queries to count; all by default.

    Returns:
      How often a right answer is surer than a wrong one, ties counting half; NaN where
      all are right or all wrong.

    Raises:
      ValueError: as `curve` does.
    """
    check_queries(confidence, correct, correct, None, where)
    return _alignment(_sort(confidence, correct, correct, where))


@functools.partial(jax.jit, static_argnames=("small_cost", "large_cost"))
def sweep(
    confidence: Float[Array, "settings queries"],
    small_correct: Shaped[Array, "settings queries"],
    large_correct: Shaped[Array, "settings queries"],
    rates: Float[Array, " rates"],
    *,
    where: Bool[Array, "settings queries"] | None = None,
    small_cost: float | int = 0.0,
    large_cost: float | int = 1.0,
) -> RoutingCurve:
    """The curves of thousands of settings in one compiled call.

    A setting is a small and a large model, a data set, a measure, a seed. Settings with
    fewer queries than others are padded, and ``where`` says with what.

    Args:
      confidence: of each setting's queries; anything where ``where`` is false.
      small_correct: as in `curve`.
      large_correct: likewise.
      rates: shares of the queries, the same for all settings.
      where: queries to count; all by default.
      small_cost: of one query.
      large_cost: of one query.

    Returns:
      A `RoutingCurve` with a leading axis of settings on all but the rates.

    Raises:
      ValueError: if shapes differ.
    """
    if where is None:
        where = jnp.ones(confidence.shape, bool)
    one = functools.partial(curve, small_cost=small_cost, large_cost=large_cost)
    mapped = jax.vmap(lambda c, s, large, w: one(c, s, large, rates, where=w))
    found = mapped(confidence, small_correct, large_correct, where)
    return found._replace(rates=rates)


def _sort(
    confidence: Array,
    small_correct: Array,
    large_correct: Array,
    where: Array | None,
    large_cost: Array | float = 1.0,
) -> _Sorted:
    if where is None:
        where = jnp.ones(confidence.shape, bool)
    small, large = jnp.asarray(small_correct), jnp.asarray(large_correct)
    # Padding is surest; what a query brings is sorted along with its confidence.
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
    value, *brought = jax.lax.sort((value, *brought), num_keys=1, is_stable=False)
    if binary:
        small, large = (brought[0] >= 2).astype(float), (brought[0] % 2).astype(float)
    else:
        small, large = brought[:2]
    cost = brought[-1] if jnp.ndim(large_cost) else None
    gain = large - small
    first, last = _runs(value)
    bad = jnp.isnan(jnp.where(where, confidence, 0.0)).any()
    mean_gain, gained = _spread(gain, first, last)
    return _Sorted(
        gain=mean_gain,
        gained=jnp.where(bad, jnp.nan, gained),
        cost=None if cost is None else _spread(cost, first, last),
        middle=jnp.where(bad, jnp.nan, (first + last) / 2),
        small=small,
        best=_best(gain, where, binary),
        count=where.sum().astype(float),
    )


def _best(gain: Array, where: Array, binary: bool) -> Array:
    """Area of an oracle, in answers times queries: first what gains, last what loses."""
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


def _area(found: _Sorted) -> Array:
    """Query i of the order counts for all rates above (i + 1/2) / n, in the mean."""
    mine = jnp.sum(found.gain * (found.count - found.middle - 0.5))
    even = found.gain.sum() * found.count / 2
    room = found.best - even
    return jnp.where(room > 1e-6, (mine - even) / room, jnp.nan)


def _alignment(found: _Sorted) -> Array:
    right = found.small.sum()
    wrong = found.count - right
    ranks = jnp.sum(found.small * (found.middle + 1))
    return (ranks - right * (right + 1) / 2) / (right * wrong)


def _first_rate(found: _Sorted, needed: Array) -> Array:
    """Where the piecewise linear curve first gains so many answers."""
    after = found.gained + found.gain
    # Sums of float32 are no further off than that.
    slack = 1e-4 + 1e-6 * found.count
    place = jnp.argmax(after >= needed - slack)
    slope = found.gain[place]
    step = (needed - found.gained[place]) / jnp.where(slope > 0, slope, 1)
    inside = (place + jnp.clip(jnp.where(slope > 0, step, 0), 0, 1)) / found.count
    rate = jnp.where(needed <= slack, 0.0, inside)
    reached = (needed <= slack) | (after[place] >= needed - slack)
    return jnp.where(reached, rate, jnp.nan)
