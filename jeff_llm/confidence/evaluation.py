"""Scores of a confidence: routing, alignment, calibration, rejection.

Calibration and alignment are both reported: a calibrated confidence need not separate
right answers from wrong ones, nor the reverse.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from jeff import metrics
from jeff_llm.confidence import routing
from jeff_llm.confidence.checks import check_confidence, check_queries

__all__ = ["Scores", "cross_entropy", "evaluate", "rejection"]


class Scores(NamedTuple):
    """Scores of one confidence.

    Attributes:
      area: normalised area under the routing curve, 0 random, 1 an oracle.
      alignment: AUROC against correctness.
      match: least rate at which the wanted accuracy is reached; NaN where none does.
      ece: expected calibration error, 15 bins of equal width.
      brier: mean squared distance to correctness.
      cross_entropy: in nats.
    """

    area: float
    alignment: float
    match: float
    ece: float
    brier: float
    cross_entropy: float


def evaluate(
    confidence: Float[Array, " queries"],
    small_correct: Bool[Array, " queries"],
    large_correct: Shaped[Array, " queries"],
    *,
    accuracy: float | None = None,
) -> Scores:
    """All scores of one confidence.

    Args:
      confidence: of the small model's answers, in [0, 1].
      small_correct: whether its answer is right.
      large_correct: whether the large model's is, or how right, in [0, 1].
      accuracy: wanted; the large model's by default.

    Returns:
      The scores; area and alignment are NaN where they are not defined.

    Raises:
      ValueError: if lengths differ, or a confidence is outside [0, 1] or NaN.
    """
    check_queries(confidence, small_correct, large_correct, None, None)
    check_confidence(np.asarray(confidence))
    sure, small = jnp.asarray(confidence, float), jnp.asarray(small_correct)
    large = jnp.asarray(large_correct)
    return Scores(
        area=float(routing.normalised_area(sure, small, large)),
        alignment=float(routing.alignment(sure, small)),
        match=float(routing.rate_to_match(sure, small, large, accuracy=accuracy)),
        ece=float(metrics.expected_calibration_error(sure, small)),
        brier=float(metrics.brier_score(sure, small)),
        cross_entropy=float(cross_entropy(sure, small)),
    )


def cross_entropy(
    prob: Float[Array, " queries"], correct: Bool[Array, " queries"]
) -> Float[Array, ""]:
    """Mean negative log-likelihood of correctness, in nats.

    ``-mean(y log c + (1 - y) log(1 - c))``, with c kept a millionth from 0 and 1: a
    confidence that was certain and wrong costs 13.8 nats, not infinity.

    Args:
      prob: confidence, in [0, 1].
      correct: whether the answer is right.

    Returns:
      The cross-entropy.

    >>> cross_entropy(jnp.array([0.5]), jnp.array([True])).round(4)
    Array(0.6931, dtype=float32)
    """
    # In float32 1 - 1e-6 is still below 1; a margin of 1e-8 would not be.
    kept = jnp.clip(prob, 1e-6, 1 - 1e-6)
    return -jnp.mean(jnp.where(correct, jnp.log(kept), jnp.log1p(-kept)))


def rejection(
    confidence: Float[Array, " queries"], answerable: Bool[Array, " queries"]
) -> tuple[float, Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """Separation of questions to decline from questions to answer.

    A question whose right option was removed has to be declined. It is declined where
    the confidence is below a threshold, which takes all values in turn.

    Args:
      confidence: of the answers given.
      answerable: whether the right option was there.

    Returns:
      ``(auroc, false, true)``: the area, and for each threshold from low to high the
      share of answerable questions that are declined, and of the others.

    Raises:
      ValueError: if lengths differ, or all or no questions are answerable.
    """
    check_queries(confidence, answerable, answerable, None, None)
    there = np.asarray(answerable).astype(bool)
    if there.all() or not there.any():
        raise ValueError(
            "answerable: expected questions with and without a right option, got "
            f"{int(there.sum())} with, of {len(there)}"
        )
    sure = np.asarray(confidence)
    area = float(metrics.auroc(jnp.asarray(sure, float), jnp.asarray(there)))
    # Every value that occurs, and infinity, which declines all.
    edges = np.append(np.unique(sure), np.inf)
    declined = sure < edges[:, None]
    return area, declined[:, there].mean(1), declined[:, ~there].mean(1)
