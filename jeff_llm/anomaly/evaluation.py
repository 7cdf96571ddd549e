"""Evaluation of anomaly scores: how well they rank anomalies above normal texts.

`evaluate` is the protocol of AD-LLM (AUROC and average precision), with intervals.
`paired_difference` compares two scorers on the same texts. False alarms and false
discoveries are measured in `jeff_llm.anomaly.false_alarms`.

References:
  Yang et al., "AD-LLM: Benchmarking Large Language Models for Anomaly Detection",
  Findings of ACL 2025.
"""

import functools
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer, Key, UInt32

from jeff import metrics
from jeff.bootstrap import bootstrap_interval
from jeff.checks import check_binary
from jeff_llm.anomaly.score_checks import check_scores

__all__ = [
    "Evaluation",
    "Interval",
    "evaluate",
    "paired_difference",
]

RandomKey: TypeAlias = Key[Array, ""] | UInt32[Array, "2"]
ScorerScores: TypeAlias = (
    Float[Array, "*scorers texts"] | Float[np.ndarray, "*scorers texts"]
)
Label: TypeAlias = (
    Bool[Array, " texts"]
    | Bool[np.ndarray, " texts"]
    | Integer[Array, " texts"]
    | Integer[np.ndarray, " texts"]
)


class Interval(NamedTuple):
    """A figure with its interval, for one scorer or several.

    Attributes:
      estimate: the figure on the texts themselves.
      low: low end of the interval.
      high: high end of the interval.
    """

    estimate: Float[Array, "*scorers"]
    low: Float[Array, "*scorers"]
    high: Float[Array, "*scorers"]


class Evaluation(NamedTuple):
    """How well scores rank anomalies above normal texts, or differences of that.

    Attributes:
      auroc: area under the ROC curve, ties counting half.
      average_precision: area under the precision-recall curve, anomalies being the
        positives; it depends on their share among the texts.
    """

    auroc: Interval
    average_precision: Interval


def evaluate(
    scores: ScorerScores,
    label: Label,
    *,
    key: RandomKey,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Evaluation:
    """AUROC and average precision of scores, with bootstrap intervals.

    A resample draws texts with replacement, normal and anomalous alike, and takes the
    same texts for all scorers; resamples with one class are left out. The intervals
    cover the draw of the test texts, not that of the training texts.

    Args:
      scores: of the texts, higher for a more anomalous text; leading axes are scorers.
      label: whether a text is an anomaly, bool or 0/1.
      key: random key.
      resamples: number of resamples, at least 1.
      confidence: coverage of the intervals, in (0, 1).

    Returns:
      The two figures, of the shape of the leading axes.

    Raises:
      ValueError: if lengths differ, a class is empty, a score is NaN, or a number is
        outside its range.
      TypeError: if scores are not floating point, or labels neither bool nor integer.

    >>> scores, label = jnp.array([0.1, 0.4, 0.35, 0.8]), jnp.array([0, 0, 1, 1])
    >>> found = evaluate(scores, label, key=jax.random.key(0), resamples=20)
    >>> float(found.auroc.estimate)
    0.75
    """
    _check(scores, label)
    return _figures(
        jnp.moveaxis(jnp.asarray(scores, jnp.float32), -1, 0),
        jnp.asarray(label).astype(bool),
        key,
        resamples=resamples,
        confidence=confidence,
    )


def paired_difference(
    scores: ScorerScores,
    others: ScorerScores,
    label: Label,
    *,
    key: RandomKey,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Evaluation:
    """Differences in AUROC and average precision, with paired bootstrap intervals.

    ``figure(scores) - figure(others)`` on the same resamples. What makes a resample
    easy or hard for both cancels, so that the interval is mostly narrower than the two
    intervals of `evaluate` suggest.

    Args:
      scores: of the texts; leading axes are scorers.
      others: scores to compare them with, of the same shape.
      label: whether a text is an anomaly, bool or 0/1.
      key: random key.
      resamples: number of resamples, at least 1.
      confidence: coverage of the intervals, in (0, 1).

    Returns:
      The two differences, of the shape of the leading axes.

    Raises:
      ValueError: as `evaluate` does, and if the shapes of the scores differ.
      TypeError: as `evaluate` does.
    """
    if jnp.shape(scores) != jnp.shape(others):
        raise ValueError(
            f"others: expected shape {jnp.shape(scores)} as of scores, got "
            f"{jnp.shape(others)}"
        )
    _check(scores, label)
    _check(others, label, name="others")
    pair = jnp.stack([jnp.asarray(x, jnp.float32) for x in (scores, others)])
    return _figures(
        jnp.moveaxis(pair, -1, 0),
        jnp.asarray(label).astype(bool),
        key,
        resamples=resamples,
        confidence=confidence,
        paired=True,
    )


@functools.partial(jax.jit, static_argnames=("resamples", "confidence", "paired"))
def _figures(
    scores: Float[Array, " texts *scorers"],
    label: Bool[Array, " texts"],
    key: RandomKey,
    *,
    resamples: int,
    confidence: float,
    paired: bool = False,
) -> Evaluation:
    """Intervals of both figures; with ``paired`` first minus second scorer."""

    def statistic(scores: Array, label: Array) -> list[Array]:
        flat = scores.reshape(label.shape[0], -1).T
        found = []
        for area in (metrics.auroc, metrics.average_precision):
            areas = jax.vmap(area, (0, None))(flat, label).reshape(scores.shape[1:])
            found.append(areas[0] - areas[1] if paired else areas)
        return found

    ends = bootstrap_interval(
        statistic,
        (scores, label),
        key=key,
        num_samples=resamples,
        confidence=confidence,
    )
    auroc, precision = zip(*ends, strict=True)
    return Evaluation(Interval(*auroc), Interval(*precision))


def _check(scores: ScorerScores, label: Label, *, name: str = "scores") -> None:
    if jnp.ndim(scores) < 1 or jnp.shape(label) != jnp.shape(scores)[-1:]:
        raise ValueError(
            f"label: expected one for each text of {name}, of shape "
            f"{jnp.shape(scores)}, got shape {jnp.shape(label)}"
        )
    check_binary(label=jnp.asarray(label))
    check_scores(**{name: scores.reshape(-1)})
    anomalies = int(np.asarray(label).astype(bool).sum())
    if not 0 < anomalies < label.shape[0]:
        raise ValueError(
            f"label: expected normal texts and anomalies, got {anomalies} anomalies of "
            f"{label.shape[0]} texts"
        )
