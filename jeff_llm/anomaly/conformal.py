"""Split-conformal tests of anomaly scores: p-values and thresholds.

Scores of *calibration* texts (normal texts that took no part in training) bound how
often a normal text is flagged by mistake. The one assumption is that the calibration
texts and the normal texts to come are exchangeable; the detector and the distribution
of its scores are arbitrary. Calibration texts must not be used to fit the detector or
to choose among detectors.

There are two kinds of guarantee. The marginal one bounds the rate of false alarms in
the mean over calibration sets. The conditional one (``delta``) bounds, with probability
``1 - delta``, the rate of the one calibration set at hand; it needs independent texts
and more of them.

Scores are compared in float32, whatever their dtype: rounding keeps their order, so
that the two sides of a comparison never differ in precision. Ties with calibration
scores count against a flag; a guarantee holds with them, and is then conservative.

References:
  Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005.
  Vovk, "Conditional validity of inductive conformal predictors", ACML 2012.
  Bates, Candes, Lei, Romano, Sesia, "Testing for outliers with conformal p-values",
  Annals of Statistics 2023.
"""

import bisect
import math
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32

from jeff.binomial import upper_bound
from jeff_llm.anomaly.score_checks import check_level, check_scores

__all__ = [
    "Threshold",
    "fewest_calibration",
    "flag",
    "p_values",
    "threshold",
    "threshold_rank",
]

Scores: TypeAlias = Float[Array, " texts"] | Float[np.ndarray, " texts"]
Calibration: TypeAlias = (
    Float[Array, " calibration"] | Float[np.ndarray, " calibration"]
)

# 1 / 0.01 and 0.07 * 100 are no whole numbers in binary; a share of this size is noise.
_ROUNDING = 1e-12


class Threshold(NamedTuple):
    """A threshold on scores, and what is guaranteed of it.

    Attributes:
      score: texts with a higher score are flagged; those at the threshold are not.
      level: bound on the false-alarm rate.
      delta: probability, over the calibration texts, with which the rate may be above
        the level; None if the level bounds the mean over calibration sets.
      rank: the threshold is the ``rank``-th highest calibration score.
      calibration: number of calibration texts.
      expected_rate: mean false-alarm rate over calibration sets, ``rank / (n + 1)``;
        lower if scores tie.
    """

    score: float
    level: float
    delta: float | None
    rank: int
    calibration: int
    expected_rate: float


def p_values(
    calibration_scores: Calibration, scores: Scores
) -> Float32[Array, " texts"]:
    """Conformal p-values of the hypothesis that a text is normal.

    ``p(s) = (1 + #{calibration scores >= s}) / (n + 1)``. For a normal text
    ``P(p <= t) <= t`` for every ``t``. Each p-value depends on its own score and the
    calibration scores, never on the other texts. Pure and jittable.

    Under jit values cannot be refused. A NaN score then has the p-value 1, and a NaN
    calibration score counts as higher than all scores: both only raise p-values.

    Args:
      calibration_scores: of normal texts held out of training, higher for a more
        anomalous text, at least one.
      scores: of the texts to test.

    Returns:
      The p-values, in [1 / (n + 1), 1].

    Raises:
      ValueError: if there is no calibration text, or a score is NaN.
      TypeError: if scores are not floating point.

    References:
      Bates et al., 2023, section 1.

    >>> p_values(jnp.array([1.0, 2.0, 3.0]), jnp.array([0.0, 2.0, 9.0]))
    Array([1.  , 0.75, 0.25], dtype=float32)
    """
    check_scores(calibration_scores=calibration_scores, scores=scores)
    count = calibration_scores.shape[0]
    if not count:
        raise ValueError("calibration_scores: expected at least 1 text, got none")
    ordered = jnp.sort(jnp.asarray(calibration_scores, jnp.float32))
    tested = jnp.asarray(scores, jnp.float32)
    at_least = count - jnp.searchsorted(ordered, tested, side="left")
    # From a table: the last bit of a compiled division depends on the number of texts.
    table = (np.arange(1, count + 2) / (count + 1)).astype(np.float32)
    share = jnp.asarray(table)[at_least]
    # NaN sorts above all calibration scores, and would get the smallest p-value.
    return jnp.where(jnp.isnan(tested), jnp.float32(1), share)


def fewest_calibration(level: float, delta: float | None = None) -> int:
    """Fewest calibration texts with which anything can be flagged at a level.

    ``ceil(1 / level) - 1`` for the marginal guarantee. For the conditional one the
    smallest ``n`` with ``(1 - level)^n <= delta``: the highest of ``n`` calibration
    scores must be above the ``1 - level`` quantile with probability ``1 - delta``.

    Args:
      level: bound on the false-alarm rate, in (0, 1).
      delta: probability, in (0, 1), with which the bound may fail over the calibration
        texts; None for the marginal guarantee.

    Returns:
      The number of texts, at least 1.

    Raises:
      ValueError: if a number is outside (0, 1).

    >>> fewest_calibration(0.01), fewest_calibration(0.01, delta=0.1)
    (99, 230)
    """
    check_level(level=level)
    if delta is None:
        needed = 1 / level - 1
    else:
        check_level(delta=delta)
        needed = math.log(delta) / math.log1p(-level)
    return max(1, math.ceil(needed * (1 - _ROUNDING)))


def threshold_rank(
    num_calibration: int, level: float, *, delta: float | None = None
) -> int:
    """Rank of the calibration score that serves as threshold, 1 being the highest.

    Marginal: ``floor(level (n + 1))``, since a normal text is above the ``k``-th
    highest score with probability ``k / (n + 1)`` at most. Conditional: that
    probability, given the calibration texts, is Beta(k, n + 1 - k) distributed (lower
    if scores tie); the rank is the largest ``k`` with
    ``P(Beta(k, n + 1 - k) > level) <= delta``.

    Args:
      num_calibration: number of calibration texts, ``n``.
      level: bound on the false-alarm rate, in (0, 1).
      delta: probability, in (0, 1), with which the bound may fail over the calibration
        texts; None for the marginal guarantee.

    Returns:
      The rank, in [1, num_calibration].

    Raises:
      ValueError: if a number is outside its range, or there are too few texts; the
        message says how many are needed.

    References:
      Vovk, 2012.

    >>> threshold_rank(1000, 0.05), threshold_rank(1000, 0.05, delta=0.1)
    (50, 41)
    """
    needed = fewest_calibration(level, delta)
    if num_calibration < needed:
        risk = "" if delta is None else f" and delta {delta}"
        raise ValueError(
            f"calibration: expected at least {needed} normal texts for level "
            f"{level}{risk}, got {num_calibration}; hold out more texts, or allow a "
            "higher level"
        )
    if delta is None:
        rank = math.floor(level * (num_calibration + 1) * (1 + _ROUNDING))
    else:
        # P(Beta(k, n + 1 - k) > level) = P(Binomial(n, level) < k), which is at most
        # delta where the upper bound of k - 1 events is at most the level.
        rank = bisect.bisect_right(
            range(num_calibration),
            level,
            key=lambda events: upper_bound(events, num_calibration, delta=delta),
        )
    # With just enough texts rounding may have lost the only rank.
    return min(max(rank, 1), num_calibration)


def threshold(
    calibration_scores: Calibration, level: float, *, delta: float | None = None
) -> Threshold:
    """Lowest threshold whose false-alarm rate is guaranteed to be at most a level.

    A text is flagged if its score is strictly above the threshold (`flag`). With
    ``delta=None`` this equals ``p_values(...) <= level``:
    ``P(false alarm) <= level``, over the calibration texts and the text. With ``delta``
    ``P(false-alarm rate <= level) >= 1 - delta``, the outer probability over the
    calibration texts; one threshold then serves any number of texts.

    Args:
      calibration_scores: of normal texts held out of training.
      level: bound on the false-alarm rate, in (0, 1).
      delta: probability, in (0, 1), with which the bound may fail over the calibration
        texts; None for the marginal guarantee.

    Returns:
      The threshold, with its guarantee.

    Raises:
      ValueError: if a score is NaN, a number is outside (0, 1), or there are too few
        texts; the message says how many are needed.
      TypeError: if scores are not floating point.

    >>> found = threshold(jnp.arange(99.0), 0.05)
    >>> found.score, found.rank, found.expected_rate
    (94.0, 5, 0.05)
    """
    check_scores(calibration_scores=calibration_scores)
    count = calibration_scores.shape[0]
    rank = threshold_rank(count, level, delta=delta)
    ordered = np.sort(np.asarray(calibration_scores, np.float32))
    return Threshold(
        score=float(ordered[count - rank]),
        level=level,
        delta=delta,
        rank=rank,
        calibration=count,
        expected_rate=rank / (count + 1),
    )


def flag(scores: Scores, threshold: Threshold) -> Bool[Array, " texts"]:
    """Flags of the texts whose score is above a threshold.

    Under jit, where values cannot be refused, a NaN score is not flagged.

    Args:
      scores: of the texts to test.
      threshold: as from `threshold`.

    Returns:
      True for each text with a score strictly above the threshold.

    Raises:
      ValueError: if a score or the threshold is NaN.
      TypeError: if scores are not floating point.

    >>> flag(jnp.array([93.0, 94.0, 95.0]), Threshold(94.0, 0.05, None, 5, 99, 0.05))
    Array([False, False,  True], dtype=bool)
    """
    check_scores(scores=scores)
    if math.isnan(threshold.score):
        raise ValueError("threshold: expected a number as score, got nan")
    return jnp.asarray(scores, jnp.float32) > jnp.float32(threshold.score)
