"""A threshold on confidence: below it a query goes to the large model.

`for_rate`, `for_accuracy` and `for_budget` choose it from a log. `with_guarantee`
chooses it so that the answers kept at the small model are wrong at most a stated share
of the time, with a stated probability over the draw of the log, whatever the
distribution. The only assumption is that log and traffic are independent draws from one
distribution.

References:
  Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks", NeurIPS
  2017 (selective risk with a guarantee).
  Angelopoulos et al., "Learn then Test: Calibrating Predictive Algorithms to Achieve
  Risk Control", 2021 (risk control by many tests).
"""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from jeff.binomial import upper_bound
from jeff.checks import check_binary
from jeff_llm.confidence import routing
from jeff_llm.confidence.checks import check_confidence, check_queries, check_share

__all__ = ["Router", "for_accuracy", "for_budget", "for_rate", "with_guarantee"]

# Thresholds that `with_guarantee` tests. More of them lie closer, and each then has a
# smaller share of delta.
_TESTS = 10


@dataclasses.dataclass(frozen=True)
class Router:
    """A rule for the queries that go to the large model.

    Attributes:
      threshold: queries with less confidence are sent on; infinity sends on all,
        minus infinity none.
      tie_rate: share of the queries with exactly this confidence that are sent on: 1
        sends on all of them, less needs ``uniform`` in the call.
      rate: share of the log's queries that are sent on; None where unknown.
      accuracy: expected accuracy on the log; None where it was not computed.
      max_error: bound on the error rate of kept answers; None without a guarantee.
      delta: probability with which the bound may fail; None without a guarantee.
      measure: name of the confidence that the threshold is for; empty where unknown. A
        threshold on one says nothing about another.
    """

    threshold: float
    tie_rate: float = 0.0
    # None, not NaN, which from Python 3.13 on makes a router unequal to its copy.
    rate: float | None = None
    accuracy: float | None = None
    max_error: float | None = None
    delta: float | None = None
    measure: str = ""

    def __call__(
        self,
        confidence: Float[Array, "*queries"] | Float[np.ndarray, "*queries"],
        *,
        uniform: Float[Array, "*queries"] | None = None,
    ) -> Bool[Array, "*queries"]:
        """Whether each query goes to the large model.

        Args:
          confidence: of the small model's answers.
          uniform: numbers drawn evenly from [0, 1), one per query, which break ties in
            the share that ``tie_rate`` asks for; without them ties are kept, unless
            it is 1.

        Returns:
          True where it goes to the large model; also for NaN. Traceable.
        """
        confidence = jnp.asarray(confidence)
        # What is kept is computed: NaN compares as False, and so goes to the large
        # model.
        kept = confidence >= self.threshold
        if self.tie_rate >= 1:
            kept = confidence > self.threshold
        elif uniform is not None:
            kept &= ~((confidence == self.threshold) & (uniform < self.tie_rate))
        return ~kept


def for_rate(confidence: Float[Array, " queries"], rate: float | int) -> Router:
    """The threshold that sends on a share of the queries.

    Args:
      confidence: of the small model's answers in a log; needs no labels.
      rate: share to send on, in [0, 1].

    Returns:
      The router. Where many queries have exactly the threshold's confidence, its
      ``tie_rate`` is the share of them to send on.

    Raises:
      ValueError: if a confidence is not a finite number, there is none, or the rate is
        outside [0, 1].

    >>> for_rate(jnp.array([0.1, 0.4, 0.6, 0.9]), 0.5).threshold
    0.6000000238418579
    """
    values = np.sort(_values(confidence))
    check_share("rate", np.asarray(rate))
    wanted = rate * len(values)
    if wanted >= len(values):
        return Router(math.inf, rate=1.0)
    # The query at this place stays; those below it are sent on.
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
      ValueError: if no share of the queries reaches the accuracy; gives the highest
        one. Also as `jeff_llm.confidence.routing.curve`.
    """
    log = _arrays(confidence, small_correct, large_correct)
    rate = float(routing.rate_to_match(*log, accuracy=jnp.asarray(float(accuracy))))
    if math.isnan(rate):
        rates = jnp.linspace(0, 1, 1001)
        best = float(routing.curve(*log, rates).accuracy.max())
        raise ValueError(
            f"accuracy: expected one that routing reaches on these queries, at most "
            f"{best:.4f}, got {accuracy}"
        )
    return _at_rate(log, rate)


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
      ValueError: if the small model alone exceeds the budget, or as
        `jeff_llm.confidence.routing.curve`.
    """
    log = _arrays(confidence, small_correct, large_correct)
    if small_cost > budget:
        raise ValueError(
            f"budget: expected at least the small model's cost, {small_cost}, got "
            f"{budget}"
        )
    rates = jnp.linspace(0, 1, 1001)
    found = routing.curve(
        *log, rates, small_cost=float(small_cost), large_cost=large_cost
    )
    # Sums of costs in float32 may exceed an exactly met budget by a rounding.
    within = found.cost <= budget * (1 + 1e-6)
    best = jnp.argmax(jnp.where(within, found.accuracy, -1.0))
    return _at_rate(log, float(rates[best]))


def with_guarantee(
    confidence: Float[Array | np.ndarray, " queries"],
    correct: Shaped[Array | np.ndarray, " queries"],
    *,
    max_error: float,
    delta: float = 0.1,
) -> Router:
    """The lowest threshold above which the error rate is bounded with confidence.

    ``P(P(wrong | confidence > threshold) <= max_error) >= 1 - delta``, the outer
    probability over the draw of the log. Ten numbers k of answers to keep are tested,
    set beforehand between the least that can prove anything and all. The threshold is
    then the confidence of the next answer, and given that, the answers above it are
    independent draws of the traffic above it: their errors are binomial, and an exact
    (Clopper-Pearson) bound at level ``delta / 10`` is put on their rate. By the union
    bound all ten hold together with probability ``1 - delta``, so any may be used.

    Args:
      confidence: of answers in a log, drawn independently, as the traffic will be.
      correct: whether each is right.
      max_error: largest error rate of the kept answers, in (0, 1).
      delta: probability that the bound may fail, in (0, 1).

    Returns:
      The router; its threshold is infinity, so that nothing is kept, where nothing can
      be proved: it takes ``log(delta / 10) / log(1 - max_error)`` right answers, 44 for
      a tenth and a tenth.

    Raises:
      ValueError: if lengths differ, a confidence is not a finite number, an answer is
        neither right nor wrong, there are fewer than two queries, or a level is outside
        (0, 1).
      TypeError: if ``correct`` is floating point: it may not be a share.
    """
    for name, value in (("max_error", max_error), ("delta", delta)):
        if not 0 < value < 1:
            raise ValueError(f"{name}: expected a number in (0, 1), got {value}")
    # In the router's precision: a threshold between two confidences that are one there
    # would keep others than were tested.
    sure, marks = jnp.asarray(confidence), jnp.asarray(correct)
    check_queries(sure, marks, marks, None, None)
    check_binary(correct=marks)  # a half-right answer would count as right
    values, right = _values(sure), np.asarray(marks).astype(bool)
    if len(values) < 2:
        raise ValueError("confidence: expected at least 2 queries, got 1")
    # Stable, so that the same log gives the same threshold on every machine.
    order = np.argsort(-values, kind="stable")
    values, right = values[order], right[order]
    least = math.ceil(math.log(delta / _TESTS) / math.log(1 - max_error))
    best = math.inf
    # Fixed before any label is read, or the union bound would not hold.
    sizes = np.geomspace(min(least, len(values)), len(values), _TESTS)
    for size in np.rint(sizes).astype(int).tolist():
        # Ties with the next answer are excluded together with it.
        last = -math.inf if size >= len(values) else values[size]
        kept = values > last
        wrong, count = int(np.sum(kept & ~right)), int(kept.sum())
        if upper_bound(wrong, count, delta=delta / _TESTS) <= max_error:
            best = float(last)
    rate = float(np.mean(values <= best))
    return Router(best, 1.0, rate=rate, max_error=max_error, delta=delta)


def _arrays(*log: Array) -> tuple[Array, Array, Array]:
    confidence, small_correct, large_correct = map(jnp.asarray, log)
    return confidence, small_correct, large_correct


def _at_rate(log: tuple[Array, Array, Array], rate: float) -> Router:
    chosen = for_rate(log[0], rate)
    accuracy = routing.curve(*log, jnp.asarray([rate])).accuracy[0]
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
