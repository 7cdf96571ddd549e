"""Routing from a small model to a large one: accuracy and cost at every rate.

The queries with the least confidence go to the large model. `curve` gives accuracy and
cost as their share r grows from 0 to 1. It is exact in expectation over the order of
ties, and r n need not be a whole number. `sweep` does it for thousands of settings in
one compiled call, with padded queries masked.

Alignment is the AUROC of confidence against correctness. It measures whether right
answers can be separated from wrong ones, which calibration does not.

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

from jeff import metrics
from jeff_llm.confidence import ordered
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
    """Accuracy, cost and scores of routing the least confident queries.

    Attributes:
      rates: shares of the queries that go to the large model.
      accuracy: expected accuracy at each.
      cost: mean cost of a query at each.
      area: area between the accuracy curve and that of random routing, over the area
        between that of an oracle and random: 0 random, 1 oracle; NaN where an oracle
        gains nothing over random.
      rate_to_match: least rate at which the accuracy is that of the large model.
      alignment: AUROC of confidence against the small model's correctness; NaN where it
        is always right or always wrong.
    """

    rates: Float[Array, " rates"]
    accuracy: Float[Array, "... rates"]
    cost: Float[Array, "... rates"]
    area: Float[Array, "..."]
    rate_to_match: Float[Array, "..."]
    alignment: Float[Array, "..."]


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
    of small_correct) / n``. Every query has the cost of the small model, whose
    confidence is needed; a query that is sent on has that of the large one as well.

    Args:
      confidence: of the small model's answers, higher being surer.
      small_correct: whether its answer is right, bool; or how right, in [0, 1].
      large_correct: likewise of the large model.
      rates: shares of the queries, in [0, 1].
      small_cost: of one query.
      large_cost: of one query, or of each.
      where: queries to count; all by default.

    Returns:
      The curve; under jit, where values cannot be checked, NaN where an input is NaN.

    Raises:
      ValueError: if lengths differ, there is no query, or a value is NaN or, of
        correctness and rates, outside [0, 1].

    >>> sure, right = jnp.array([0.9, 0.2]), jnp.array([True, False])
    >>> curve(sure, right, jnp.array([True, True]), jnp.array([0.0, 0.5])).accuracy
    Array([0.5, 1. ], dtype=float32)
    """
    rates = jnp.asarray(rates, float)
    check_queries(confidence, small_correct, large_correct, rates, where)
    found = ordered.order(confidence, small_correct, large_correct, where, large_cost)
    size = found.gain.shape[0]
    place = rates * found.count
    # At a rate of 1 the place is behind the last query.
    index = jnp.clip(jnp.floor(place).astype(int), 0, size - 1)
    rest = place - index
    base = found.small.sum() / found.count
    # A share that cuts a query counts the part of its gain.
    gained = found.gained[index] + rest * found.gain[index]
    # With one cost for all queries, their order does not change what is spent.
    if found.cost is None:
        spent = place * large_cost
    else:
        spent = found.cost[1][index] + rest * found.cost[0][index]
    return RoutingCurve(
        rates=rates,
        accuracy=base + gained / found.count,
        cost=small_cost + spent / found.count,
        area=ordered.area(found),
        rate_to_match=ordered.first_rate(found, found.gain.sum()),
        alignment=ordered.auroc(found),
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
    return ordered.area(ordered.order(confidence, small_correct, large_correct, where))


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
    found = ordered.order(confidence, small_correct, large_correct, where)
    if accuracy is None:
        return ordered.first_rate(found, found.gain.sum())
    return ordered.first_rate(found, accuracy * found.count - found.small.sum())


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
    return metrics.auroc(confidence, correct, where=where)


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

    A setting is a small and a large model, a data set, a measure and a seed. Settings
    with fewer queries than others are padded; ``where`` marks the real ones.

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
    # Shapes are checked in `curve`, once, while it is traced for one setting.
    one = functools.partial(curve, small_cost=small_cost, large_cost=large_cost)
    mapped = jax.vmap(lambda c, s, large, w: one(c, s, large, rates, where=w))
    found = mapped(confidence, small_correct, large_correct, where)
    return found._replace(rates=rates)
