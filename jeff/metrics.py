"""Quality and calibration of predictions.

All functions are pure, of static shape, and jit and vmap; each takes one unbatched set
of predictions. A ``where`` mask equals taking the subset, so that padded batches and
vmapped splits need no dynamic shapes. Masked places are ignored, NaN included.
Elsewhere a NaN makes the result NaN. Where a metric is undefined (AUROC of one class, a
mean over no rows) the result is NaN too, by choice: an invented number would go
unnoticed.

Ties are treated exactly: tied scores count as one threshold, so that no result depends
on the order of the rows.
"""

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer, Real

from jeff.checks import (
    check_binary,
    check_choice,
    check_floating,
    check_mask,
    check_same_length,
    check_weights,
)

__all__ = [
    "accuracy",
    "area_under_risk_coverage",
    "auroc",
    "average_precision",
    "brier_score",
    "expected_calibration_error",
    "kendall_tau",
    "risk_coverage_curve",
]

Score: TypeAlias = Float[Array, " rows"]
Flag: TypeAlias = Bool[Array, " rows"] | Integer[Array, " rows"]
Mask: TypeAlias = Bool[Array, " rows"]
Number: TypeAlias = Real[Array, " rows"] | Bool[Array, " rows"]
Scalar: TypeAlias = Float[Array, ""]


def accuracy(
    prob: Score,
    label: Flag,
    *,
    threshold: float = 0.5,
    where: Mask | None = None,
    weight: Number | None = None,
) -> Scalar:
    """Share of binary predictions that are right, a 1 being ``prob >= threshold``.

    Args:
      prob: predicted probability of label 1, shape [rows], in [0, 1].
      label: true labels, shape [rows], bool or 0/1.
      threshold: the least probability that predicts a 1, in [0, 1].
      where: rows to count, shape [rows], bool; all by default.
      weight: non-negative weight of each row, shape [rows]; ones by default. A weight
        of 2 counts as two rows.

    Returns:
      The accuracy, a scalar in [0, 1]; NaN over no rows.

    Raises:
      ValueError: if an argument is not a vector, lengths differ, ``threshold`` is
        outside [0, 1], a label is neither 0 nor 1, or a weight is negative or NaN.
      TypeError: if a dtype is wrong.

    >>> accuracy(jnp.array([0.9, 0.4, 0.6, 0.2]), jnp.array([1, 0, 0, 0]))
    Array(0.75, dtype=float32)
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold: expected a number in [0, 1], got {threshold}")
    count = _weights(prob, where, weight)
    prob, label, where = _prepare("prob", prob, label, where)
    # A comparison with NaN is False, and would count as a decision of 0.
    right = ((prob >= threshold) == label).astype(prob.dtype)
    right = jnp.where(jnp.isnan(prob), prob, right)
    return _mean(right, where if count is None else count)


def brier_score(prob: Score, label: Flag, *, where: Mask | None = None) -> Scalar:
    """Mean squared difference between probability and outcome, ``mean((p - y)^2)``.

    Args:
      prob: predicted probability of label 1, shape [rows], in [0, 1].
      label: true labels, shape [rows], bool or 0/1.
      where: rows to count, shape [rows], bool; all by default.

    Returns:
      The score, a scalar in [0, 1], smaller being better; NaN over no rows.

    Raises:
      ValueError: if an argument is not a vector, lengths differ, or a label is neither
        0 nor 1.
      TypeError: if a dtype is wrong.

    References:
      Brier, "Verification of Forecasts Expressed in Terms of Probability", 1950.

    >>> brier_score(jnp.array([1.0, 0.5]), jnp.array([1, 0]))
    Array(0.125, dtype=float32)
    """
    prob, label, where = _prepare("prob", prob, label, where)
    return _mean((prob - label.astype(prob.dtype)) ** 2, where)


def auroc(
    score: Score,
    label: Flag,
    *,
    where: Mask | None = None,
    weight: Number | None = None,
) -> Scalar:
    """Area under the ROC curve: how often a positive outscores a negative.

    ``P(s+ > s-) + P(s+ = s-) / 2`` over all pairs, by one sort. With weights, a pair
    counts with the product of its two.

    Args:
      score: higher means more likely positive, shape [rows]; any real numbers.
      label: true labels, shape [rows], bool or 0/1.
      where: rows to count, shape [rows], bool; all by default.
      weight: non-negative weight of each row, shape [rows]; ones by default. A weight
        of 2 counts as two rows.

    Returns:
      The area, a scalar in [0, 1]; NaN when only one class is present.

    Raises:
      ValueError: if an argument is not a vector, lengths differ, a label is neither 0
        nor 1, or a weight is negative or NaN.
      TypeError: if a dtype is wrong.

    References:
      Hanley and McNeil, "The Meaning and Use of the Area under a Receiver Operating
      Characteristic (ROC) Curve", Radiology 1982.

    >>> auroc(jnp.array([0.9, 0.5, 0.5, 0.1]), jnp.array([1, 1, 0, 0]))
    Array(0.875, dtype=float32)
    """
    count = _weights(score, where, weight)
    score, label, where = _prepare("score", score, label, where)
    if count is not None:
        where = where & (count > 0)
    count = where.astype(int) if count is None else count
    order = jnp.argsort(score)
    score, label, count = score[order], label[order], count[order]
    positive, negative = jnp.where(label, count, 0), jnp.where(label, 0, count)
    first, last = _ties(score)
    up_to = jnp.cumsum(negative)
    # Negatives strictly below, and half of those that tie; the sort's order of equal
    # scores drops out.
    below = up_to[first] - negative[first]
    pairs = (below + up_to[last]).astype(score.dtype)
    beaten = pairs / 2 / jnp.sum(negative).astype(score.dtype)
    return _nan_if_any(score, _mean(beaten, positive))


def average_precision(
    score: Score, label: Flag, *, where: Mask | None = None
) -> Scalar:
    """Area under the precision-recall curve, as a sum of steps.

    ``sum_n (R_n - R_{n-1}) P_n`` over the distinct thresholds, highest first; there is
    no interpolation (scikit-learn's definition).

    Args:
      score: higher means more likely positive, shape [rows]; any real numbers.
      label: true labels, shape [rows], bool or 0/1.
      where: rows to count, shape [rows], bool; all by default.

    Returns:
      The average precision, a scalar in (0, 1]; NaN without a positive label.

    Raises:
      ValueError: if an argument is not a vector, lengths differ, or a label is neither
        0 nor 1.
      TypeError: if a dtype is wrong.

    >>> average_precision(jnp.array([0.9, 0.8, 0.7, 0.1]), jnp.array([1, 0, 0, 1]))
    Array(0.75, dtype=float32)
    """
    score, label, where = _prepare("score", score, label, where)
    score, positive, negative = _ordered(-score, label, where)
    _, last = _ties(score)
    # At the end of a run of ties: they pass the threshold together.
    hits = jnp.cumsum(positive)[last]
    precision = hits / (hits + jnp.cumsum(negative)[last])
    return _nan_if_any(score, _mean(precision, positive))


def expected_calibration_error(
    prob: Score,
    label: Flag,
    *,
    num_bins: int = 15,
    strategy: Literal["uniform", "quantile"] = "uniform",
    where: Mask | None = None,
) -> Scalar:
    """Mean distance between predicted and observed frequency, over bins.

    ``sum_b n_b / n |mean_b p - mean_b y|``. Bins are closed on the right. For the
    calibration of a multi-class model pass its confidence and whether it was correct.

    Args:
      prob: predicted probability of label 1, shape [rows], in [0, 1].
      label: true labels, shape [rows], bool or 0/1.
      num_bins: number of bins, at least 1.
      strategy: "uniform", bins of equal width over [0, 1], or "quantile", bins of
        equally many rows (up to ties, which share a bin).
      where: rows to count, shape [rows], bool; all by default.

    Returns:
      The error, a scalar in [0, 1]; NaN over no rows.

    Raises:
      ValueError: if an argument is not a vector, lengths differ, ``num_bins`` is not
        positive, or ``strategy`` is unknown.
      TypeError: if a dtype is wrong.

    References:
      Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, eq. 3.
      Nixon et al., "Measuring Calibration in Deep Learning", 2019 (quantile bins).

    >>> expected_calibration_error(jnp.array([0.25, 0.75]), jnp.array([0, 1]))
    Array(0.25, dtype=float32)
    """
    check_choice("strategy", strategy, ("uniform", "quantile"))
    if num_bins < 1:
        raise ValueError(f"num_bins: expected at least 1, got {num_bins}")
    prob, label, where = _prepare("prob", prob, label, where)
    if strategy == "uniform":
        # Rounded once, from double: a probability of k / num_bins is on an edge.
        edges = jnp.asarray(np.arange(1, num_bins) / num_bins, prob.dtype)
    else:
        edges = _quantiles(prob, where, num_bins)
    # Bins are closed on the right: a probability on an edge belongs to the lower bin.
    index = jnp.searchsorted(edges, prob, side="left")
    # n_b |mean p - mean y| = |sum (p - y)|: no division by a bin's size, which may be
    # 0.
    excess = jnp.where(where, prob - label.astype(prob.dtype), 0)
    per_bin = jax.ops.segment_sum(excess, index, num_segments=num_bins)
    return jnp.sum(jnp.abs(per_bin)) / jnp.sum(where).astype(prob.dtype)


def risk_coverage_curve(confidence: Score, correct: Flag) -> tuple[Score, Score]:
    """Error rate among the most confident predictions, for every number of them.

    Point ``k``: coverage ``k / n``, and as risk the share of errors among the ``k``
    most confident. Where a group of tied predictions is cut, its errors count in
    proportion: the expected risk when ties are broken at random.

    Args:
      confidence: higher means surer, shape [rows]; any real numbers.
      correct: whether each prediction is right, shape [rows], bool or 0/1.

    Returns:
      coverage, shape [rows], from 1/n to 1; and risk, shape [rows], in [0, 1].

    Raises:
      ValueError: if an argument is not a vector, lengths differ, or a label is neither
        0 nor 1.
      TypeError: if a dtype is wrong.

    References:
      Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks",
      NeurIPS 2017.

    >>> risk_coverage_curve(jnp.array([0.9, 0.1]), jnp.array([True, False]))[1]
    Array([0. , 0.5], dtype=float32)
    """
    confidence, correct, where = _prepare(
        "confidence", confidence, correct, None, label_name="correct"
    )
    key, _, wrong = _ordered(-confidence, correct, where)
    first, last = _ties(key)
    up_to = jnp.cumsum(wrong)
    before = up_to[first] - wrong[first]
    # Within a run of ties, errors count in proportion to how much of it is covered.
    count = jnp.arange(1, key.size + 1)
    before, after, covered = (
        each.astype(key.dtype) for each in (before, up_to[last], count)
    )
    share = (count - first).astype(key.dtype) / (last - first + 1).astype(key.dtype)
    risk = (before + share * (after - before)) / covered
    return covered / key.size, _nan_if_any(key, risk)


def area_under_risk_coverage(confidence: Score, correct: Flag) -> Scalar:
    """Mean of the risk-coverage curve (AURC); smaller is better.

    Args:
      confidence: higher means surer, shape [rows]; any real numbers.
      correct: whether each prediction is right, shape [rows], bool or 0/1.

    Returns:
      The area, a scalar in [0, 1]; the error rate when all confidences are equal.

    Raises:
      ValueError: if an argument is not a vector, lengths differ, or a label is neither
        0 nor 1.
      TypeError: if a dtype is wrong.

    References:
      Geifman et al., "Bias-Reduced Uncertainty Estimation for Deep Neural
      Classifiers", ICLR 2019.

    >>> area_under_risk_coverage(jnp.array([0.9, 0.1]), jnp.array([1, 0]))
    Array(0.25, dtype=float32)
    """
    return jnp.mean(risk_coverage_curve(confidence, correct)[1])


def kendall_tau(x: Number, y: Number) -> Scalar:
    """Kendall's rank correlation with correction for ties (tau-b).

    ``(C - D) / sqrt((C + D + T_x) (C + D + T_y))``, counting concordant and discordant
    pairs and those tied in one argument only. It compares all pairs, ``O(rows^2)``
    operations, so it is meant for up to about ten thousand rows.

    Args:
      x: numbers, shape [rows].
      y: numbers, shape [rows].

    Returns:
      The correlation, a scalar in [-1, 1]; NaN when either argument is constant.

    Raises:
      ValueError: if an argument is not a vector, or lengths differ.

    References:
      Kendall, "The Treatment of Ties in Ranking Problems", Biometrika 1945.

    >>> kendall_tau(jnp.array([1, 2, 3, 4]), jnp.array([2, 1, 4, 3])).round(4)
    Array(0.3333, dtype=float32)
    """
    check_same_length(x=x, y=y)
    both, only_x, only_y = _pair_sums(x, y)
    return _nan_if_any(x, _nan_if_any(y, both / (jnp.sqrt(only_x) * jnp.sqrt(only_y))))


def _prepare(
    name: str,
    score: Score,
    label: Flag,
    where: Mask | None,
    *,
    label_name: str = "label",
) -> tuple[Score, Mask, Mask]:
    """Check the arguments; give masked rows a score of 0."""
    check_same_length(**{name: score, label_name: label, "where": where})
    check_floating(**{name: score})
    check_mask(where=where)
    check_binary(where, **{label_name: label})
    # In float32 at least: half precision counts no further than 2,048 rows.
    score = score.astype(jnp.promote_types(score.dtype, jnp.float32))
    if where is None:
        where = jnp.ones(score.shape, bool)
    return jnp.where(where, score, 0), label.astype(bool), where


def _weights(
    score: Score, where: Mask | None, weight: Number | None
) -> Float[Array, " rows"] | None:
    """Checked weights in at least float32, 0 at masked rows; None without weights."""
    if weight is None:
        return None
    check_same_length(score=score, weight=weight)
    weight = jnp.asarray(weight)
    if weight.dtype == bool:
        raise TypeError("weight: expected numbers, got bool; a mask is where")
    check_weights(where, weight=weight)
    weight = weight.astype(jnp.promote_types(weight.dtype, jnp.float32))
    return weight if where is None else jnp.where(where, weight, 0)


def _mean(values: Score, count: Mask | Real[Array, " rows"]) -> Scalar:
    """Mean of the values, each with its count; NaN where nothing counts."""
    # Counted as integers, which a float32 holds only up to 2^24, and then divided.
    total = jnp.sum(count).astype(values.dtype)
    counted = values * count.astype(values.dtype)
    return jnp.sum(jnp.where(count.astype(bool), counted, 0)) / total


def _nan_if_any(values: Array, result: Array) -> Array:
    return jnp.where(jnp.isnan(values).any(), jnp.nan, result)


def _ordered(
    key: Score, label: Mask, where: Mask
) -> tuple[Score, Integer[Array, " rows"], Integer[Array, " rows"]]:
    """Sorted keys, and 0/1 counts of the positive and negative row at each place."""
    order = jnp.argsort(key)
    positive, negative = (label & where)[order], (~label & where)[order]
    return key[order], positive.astype(int), negative.astype(int)


def _ties(
    ordered: Score,
) -> tuple[Integer[Array, " rows"], Integer[Array, " rows"]]:
    """First and last place of the run of equal values around each place."""
    place = jnp.arange(ordered.size)
    change = ordered[1:] != ordered[:-1]
    edge = jnp.ones(min(ordered.size, 1), bool)
    starts, ends = jnp.concatenate([edge, change]), jnp.concatenate([change, edge])
    # A run's first place is carried forward, its last place backward.
    first = jax.lax.cummax(jnp.where(starts, place, 0))
    last = jax.lax.cummin(jnp.where(ends, place, ordered.size), reverse=True)
    return first, last


@jax.jit  # Fused, so that no array of all pairs is ever stored.
def _pair_sums(x: Number, y: Number) -> tuple[Scalar, Scalar, Scalar]:
    """Sums over all pairs of sign(x) sign(y), sign(x)^2 and sign(y)^2."""
    above, below = (
        [compare(v[:, None], v[None]).astype(int) for v in (x, y)]
        for compare in (jnp.greater, jnp.less)
    )
    sign_x, sign_y = above[0] - below[0], above[1] - below[1]

    def total(products: Integer[Array, "rows rows"]) -> Scalar:
        # Exact in integers within a row; only the total may need a float.
        return jnp.sum(jnp.sum(products, axis=1).astype(float))

    return total(sign_x * sign_y), total(sign_x**2), total(sign_y**2)


def _quantiles(prob: Score, where: Mask, num_bins: int) -> Float[Array, " edges"]:
    """Inner quantiles of the counted rows, interpolated linearly.

    Positions are computed in integers: an edge that falls on a row must equal its
    value, or that row changes its bin.
    """
    ordered = jnp.append(jnp.sort(jnp.where(where, prob, jnp.inf)), jnp.inf)
    span = jnp.maximum(jnp.sum(where) - 1, 0)
    place, rest = jnp.divmod(jnp.arange(1, num_bins) * span, num_bins)
    low, high = ordered[place], ordered[jnp.minimum(place + 1, span)]
    return low + (high - low) * (rest.astype(low.dtype) / num_bins)
