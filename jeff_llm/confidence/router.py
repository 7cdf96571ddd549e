"""A threshold on confidence: below it a query goes to the large model.

`for_rate`, `for_accuracy` and `for_budget` choose it from a log. `with_guarantee` chooses it
so that the answers kept at the small model are wrong at most a stated share of the
time, with a stated probability over the draw of the log, whatever the distribution: the
only assumption is that log and traffic are drawn alike and independently.

References:
  Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks", NeurIPS
  2017 (selective risk with a guarantee).
  Angelopoulos et al., "Learn then Test: Calibrating Predictive Algorithms to Achieve
  Risk Control", 2021 (fixed-sequence testing).
"""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped
from scipy.special import betaincinv

from jeff_llm.confidence import routing
from jeff_llm.confidence.checks import check_confidence, check_queries, check_share

__all__ = ["Router", "for_accuracy", "for_budget", "for_rate", "with_guarantee"]

# Thresholds that are tested, from the surest answers to all of them.
_STEPS = 100


@dataclasses.dataclass(frozen=True)
class Router:
    """Which queries go to the large model.

    Attributes:
      threshold: queries with less confidence are sent on; infinity sends on all,
        minus infinity none.
      tie_rate: share of the queries with exactly this confidence that are sent on.
      rate: share of the log's queries that are sent on.
      accuracy: expected accuracy on the log; NaN where it was not asked for.
      max_error: bound on the error rate of kept answers; None without a guarantee.
      delta: probability with which the bound may fail; None without a guarantee.
    """

    threshold: float
    tie_rate: float = 0.0
    rate: float = math.nan
    accuracy: float = math.nan
    max_error: float | None = None
    delta: float | None = None

    def __call__(
        self,
        confidence: Float[Array, "*queries"] | Float[np.ndarray, "*queries"],
        *,
        uniform: Float[Array, "*queries"] | None = None,
    ) -> Bool[Array, "*queries"]:
        """Whether each query goes to the large model.

        Args:
          confidence: of the small model's answers.
          uniform: numbers drawn evenly from [0, 1), one a query, which break ties in
            the share that the rate asks for; without them ties are kept.

        Returns:
          True where it goes on. Traceable. NaN goes on.
        """
        confidence = jnp.asarray(confidence)
        kept = confidence >= self.threshold
        if uniform is not None:
            kept &= ~((confidence == self.threshold) & (uniform < self.tie_rate))
        return ~kept


def for_rate(confidence: Float[Array, " queries"], rate: float | int) -> Router:
    """The threshold that sends on a share of the queries.

    Args:
      confidence: of the small model's answers in a log; needs no labels.
      rate: share to send on, in [0, 1].

    Returns:
      The router. Where many queries have the threshold's own confidence, its
      ``tie_rate`` says which share of them is to go.

    Raises:
      ValueError: if a confidence is no finite number, there is none, or the rate is
        outside [0, 1].

    >>> for_rate(jnp.array([0.1, 0.4, 0.6, 0.9]), 0.5).threshold
    0.6000000238418579
    """
    values = np.sort(_values(confidence))
    check_share("rate", np.asarray(rate))
    wanted = rate * len(values)
    if wanted >= len(values):
        return Router(math.inf, rate=1.0)
    threshold = float(values[int(wanted)])
    below, tied = np.sum(values < threshold), np.sum(values == threshold)
    return Router(threshold, float((wanted - below) / tied), rate=float(rate))


def for_accuracy(
    confidence: Float[Array, " queries"],
    small_correct: Shaped[Array, " queries"],
    large_correct: Shaped[Array, " queries"],
    accuracy: float | int,
) -> Router:
    """The threshold that reaches an accuracy with the fewest queries sent on.

    Args:
      confidence: of the small model's answers in a log.
      small_correct: whether its answer is right, or how right, in [0, 1].
      large_correct: likewise of the large model.
      accuracy: to reach, on the log.

    Returns:
      The router.

    Raises:
      ValueError: if no share of the queries reaches the accuracy; says how far it
        gets. Also if the log is not as `jeff_llm.confidence.routing.curve` wants it.
    """
    arrays = [jnp.asarray(each) for each in (confidence, small_correct, large_correct)]
    rate = float(routing.rate_to_match(*arrays, accuracy=jnp.asarray(float(accuracy))))
    if math.isnan(rate):
        rates = jnp.linspace(0, 1, 1001)
        best = float(routing.curve(*arrays, rates).accuracy.max())
        raise ValueError(
            f"accuracy: expected one that routing reaches on these queries, at most "
            f"{best:.4f}, got {accuracy}"
        )
    return _at_rate(arrays, rate)


def for_budget(
    confidence: Float[Array, " queries"],
    small_correct: Shaped[Array, " queries"],
    large_correct: Shaped[Array, " queries"],
    budget: float | int,
    *,
    small_cost: float | int = 0.0,
    large_cost: Float[Array, "*queries"] | float | int = 1.0,
) -> Router:
    """The most accurate threshold whose mean cost of a query is within a budget.

    Args:
      confidence: of the small model's answers in a log.
      small_correct: whether its answer is right, or how right, in [0, 1].
      large_correct: likewise of the large model.
      budget: mean cost of a query, in the units of the costs.
      small_cost: of one query at the small model, which all pay.
      large_cost: of one query at the large model, or of each.

    Returns:
      The router; its rate is found to a thousandth.

    Raises:
      ValueError: if the small model alone is beyond the budget, or the log is not as
        `jeff_llm.confidence.routing.curve` wants it.
    """
    arrays = [jnp.asarray(each) for each in (confidence, small_correct, large_correct)]
    if small_cost > budget:
        raise ValueError(
            f"budget: expected at least the small model's cost, {small_cost}, got "
            f"{budget}"
        )
    rates = jnp.linspace(0, 1, 1001)
    found = routing.curve(
        *arrays, rates, small_cost=float(small_cost), large_cost=large_cost
    )
    within = found.cost <= budget * (1 + 1e-6)
    best = jnp.argmax(jnp.where(within, found.accuracy, -1.0))
    return _at_rate(arrays, float(rates[best]))


def with_guarantee(
    confidence: Float[Array, " queries"],
    correct: Bool[Array, " queries"],
    *,
    max_error: float,
    delta: float = 0.1,
    unlabelled: Float[Array, " more"] | None = None,
) -> Router:
    """The lowest threshold above which answers are proved to be right often enough.

    ``P(P(wrong | confidence >= threshold) <= max_error) >= 1 - delta``, the outer
    probability over the draw of the log. Thresholds are tested from the surest answers
    down: at each the exact (Clopper-Pearson) upper bound of the error rate, at level
    ``delta``, must be at most ``max_error``; the first that fails ends the sequence,
    which is why no correction for many tests is needed. Thresholds must not depend on
    the labels that test them: they are quantiles of ``unlabelled``, or of every other
    query of the log, whose labels are then not used.

    Args:
      confidence: of answers in a log, in an order that means nothing.
      correct: whether each is right.
      max_error: largest error rate of the answers that are kept, in (0, 1).
      delta: probability that the bound may fail, in (0, 1).
      unlabelled: confidences of other queries of the same kind.

    Returns:
      The router; its threshold is infinity, so that nothing is kept, where nothing can
      be proved: ``log(delta) / log(1 - max_error)`` right answers are the least.

    Raises:
      ValueError: if lengths differ, a confidence is no finite number, there are fewer
        than two queries, or a level is outside (0, 1).
    """
    for name, value in (("max_error", max_error), ("delta", delta)):
        if not 0 < value < 1:
            raise ValueError(f"{name}: expected a number in (0, 1), got {value}")
    check_queries(confidence, correct, correct, None, None)
    values, right = _values(confidence), np.asarray(correct).astype(bool)
    if unlabelled is None:
        if len(values) < 2:
            raise ValueError("confidence: expected at least 2 queries, got 1")
        places, values, right = values[::2], values[1::2], right[1::2]
    else:
        places = _values(unlabelled)
    # The number that a test can prove anything with; half as many again, so that the
    # first test does not fail by chance.
    least = 1.5 * math.log(delta) / math.log(1 - max_error)
    best = math.inf
    for share in np.linspace(min(least / len(values), 1.0), 1.0, _STEPS):
        threshold = float(np.quantile(places, 1 - share, method="higher"))
        kept = values >= threshold
        wrong, count = int(np.sum(kept & ~right)), int(np.sum(kept))
        if _upper_bound(wrong, count, delta) > max_error:
            break
        best = threshold
    rate = float(np.mean(_values(confidence) < best))
    return Router(best, rate=rate, max_error=max_error, delta=delta)


def _upper_bound(wrong: int, count: int, delta: float) -> float:
    """Largest error rate under which so few wrong answers have probability delta."""
    if wrong >= count:
        return 1.0
    return float(betaincinv(wrong + 1, count - wrong, 1 - delta))


def _at_rate(arrays: list[Array], rate: float) -> Router:
    chosen = for_rate(arrays[0], rate)
    accuracy = routing.curve(*arrays, jnp.asarray([rate])).accuracy[0]
    return dataclasses.replace(chosen, accuracy=float(accuracy))


def _values(confidence: Array) -> np.ndarray:
    values = np.asarray(confidence)
    if values.ndim != 1 or not values.size:
        raise ValueError(
            f"confidence: expected one number a query, [queries], got shape "
            f"{values.shape}"
        )
    check_confidence(values, unit=False)
    return values
