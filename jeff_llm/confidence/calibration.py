"""Thresholds for unlabelled traffic, from labelled data sets.

Confidences of pooled data sets are put into bins and a share of every bin is kept, so
that rare confidences are included. A threshold for a rate is then a weighted quantile
of the kept ones. `transfer` measures whether this carries over to another data set: it
compares the predicted rate and accuracy with the actual ones, and reports the drift of
the confidences.

References:
  Chuang et al., "Confident or Seek Stronger: Exploring Uncertainty-Based On-device LLM
  Routing From Benchmarking to Generalization", 2025, section 5.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from jeff_llm.confidence.checks import check_confidence, check_queries

__all__ = [
    "Calibration",
    "Transfer",
    "calibrate",
    "sample_bins",
    "transfer",
    "wasserstein",
]


class Calibration(NamedTuple):
    """A weighted sample of queries that represents the traffic.

    Attributes:
      confidence: of the small model's answers, ascending.
      small_correct: how right its answer is.
      large_correct: how right the large model's is.
      weight: share of the pool that each query represents.
    """

    confidence: Float[np.ndarray, " kept"]
    small_correct: Float[np.ndarray, " kept"]
    large_correct: Float[np.ndarray, " kept"]
    weight: Float[np.ndarray, " kept"]


class Transfer(NamedTuple):
    """Results of thresholds from calibration data on another data set.

    Attributes:
      rates: requested shares of the queries.
      thresholds: confidences below which a query is sent on.
      actual_rates: shares that are sent on there.
      predicted_accuracy: accuracy on the calibration data.
      actual_accuracy: accuracy there.
      rate_error: mean of ``|actual_rates - rates|``.
      accuracy_error: mean of ``|actual_accuracy - predicted_accuracy|``.
      drift: Wasserstein-1 distance of the two distributions of confidence.
    """

    rates: Float[np.ndarray, " rates"]
    thresholds: Float[np.ndarray, " rates"]
    actual_rates: Float[np.ndarray, " rates"]
    predicted_accuracy: Float[np.ndarray, " rates"]
    actual_accuracy: Float[np.ndarray, " rates"]
    rate_error: float
    accuracy_error: float
    drift: float


def sample_bins(
    confidence: Float[Array, " queries"],
    *,
    key: PRNGKeyArray,
    share: float = 0.1,
    num_bins: int = 30,
) -> tuple[Int[np.ndarray, " kept"], Float[np.ndarray, " kept"]]:
    """A share of the queries of every bin of confidence, at least one.

    Args:
      confidence: of the pooled queries, in [0, 1].
      key: random key.
      share: of each bin, in (0, 1].
      num_bins: bins of equal width.

    Returns:
      ``(places, weights)``: the queries kept, ascending, and the share of the pool that
      each represents; the weights add up to one.

    Raises:
      ValueError: if a confidence is outside [0, 1], there is none, or an option is out
        of range.
    """
    values = np.asarray(confidence, float)
    if values.ndim != 1 or not values.size:
        raise ValueError(
            f"confidence: expected one number a query, got shape {values.shape}"
        )
    check_confidence(values)
    if not 0 < share <= 1:
        raise ValueError(f"share: expected a number in (0, 1], got {share}")
    if num_bins < 1:
        raise ValueError(f"num_bins: expected at least 1, got {num_bins}")
    # A confidence of 1 belongs to the last bin.
    bins = np.minimum((values * num_bins).astype(int), num_bins - 1)
    order = np.asarray(jax.random.permutation(key, len(values)))
    # Stable, so that the order within a bin stays random.
    order = order[np.argsort(bins[order], kind="stable")]
    size = np.bincount(bins, minlength=num_bins)
    # At least one of every bin that occurs, or rare confidences would vanish.
    kept = np.where(size > 0, np.maximum(np.rint(share * size), 1), 0).astype(int)
    begins = np.cumsum(size) - size
    rank = np.arange(len(values)) - begins[bins[order]]
    places = np.sort(order[rank < kept[bins[order]]])
    weights = (size / np.maximum(kept, 1))[bins[places]] / len(values)
    return places, weights


def calibrate(
    confidence: Float[Array, " queries"],
    small_correct: Shaped[Array, " queries"],
    large_correct: Shaped[Array, " queries"],
    *,
    key: PRNGKeyArray,
    share: float = 0.1,
    num_bins: int = 30,
) -> Calibration:
    """Calibration data out of pooled data sets.

    Args:
      confidence: of the pooled queries, in [0, 1].
      small_correct: whether the small model's answer is right, or how right.
      large_correct: likewise of the large model.
      key: random key.
      share: of each bin that is kept.
      num_bins: bins of equal width.

    Returns:
      The queries kept, in order of confidence.

    Raises:
      ValueError: as `sample_bins` does, or if lengths differ.
    """
    check_queries(confidence, small_correct, large_correct, None, None)
    places, weight = sample_bins(confidence, key=key, share=share, num_bins=num_bins)
    values = np.asarray(confidence, float)
    order = np.argsort(values[places], kind="stable")
    places, weight = places[order], weight[order]
    small, large = (np.asarray(x, float) for x in (small_correct, large_correct))
    return Calibration(values[places], small[places], large[places], weight)


def transfer(
    calibration: Calibration,
    confidence: Float[Array, " queries"],
    small_correct: Shaped[Array, " queries"],
    large_correct: Shaped[Array, " queries"],
    rates: Float[Array, " rates"],
) -> Transfer:
    """Apply thresholds of calibration data to a data set that was left out.

    Args:
      calibration: from other data sets.
      confidence: of the queries of this one, in [0, 1].
      small_correct: whether the small model's answer is right, or how right.
      large_correct: likewise of the large model.
      rates: shares of the queries to send on.

    Returns:
      Thresholds, with predicted and actual rates and accuracies.

    Raises:
      ValueError: if lengths differ, or a value is not in [0, 1].
    """
    check_queries(confidence, small_correct, large_correct, rates, None)
    asked = np.asarray(rates, float)
    there = np.asarray(confidence, float)
    check_confidence(there)
    # The confidence, or infinity, that sends on the share nearest to each rate.
    values, place = np.unique(calibration.confidence, return_inverse=True)
    share = np.bincount(place, calibration.weight)
    sends = np.append(np.cumsum(share) - share, 1.0)
    nearest = np.abs(sends - asked[:, None]).argmin(axis=1)
    thresholds = np.append(values, np.inf)[nearest]

    def outcome(c: np.ndarray, s: np.ndarray, g: np.ndarray, w: np.ndarray) -> tuple:
        sent = c < thresholds[:, None]
        return sent @ w, np.where(sent, g, s) @ w

    _, predicted = outcome(*calibration)
    small, large = (np.asarray(x, float) for x in (small_correct, large_correct))
    # The other data set gives every query the same weight.
    even = np.full(len(there), 1 / len(there))
    actual_rates, actual = outcome(there, small, large, even)
    return Transfer(
        rates=asked,
        thresholds=thresholds,
        actual_rates=actual_rates,
        predicted_accuracy=predicted,
        actual_accuracy=actual,
        rate_error=float(np.abs(actual_rates - asked).mean()),
        accuracy_error=float(np.abs(actual - predicted).mean()),
        drift=wasserstein(calibration.confidence, there, weights=calibration.weight),
    )


def wasserstein(
    first: Float[np.ndarray, " first"],
    second: Float[np.ndarray, " second"],
    *,
    weights: Float[np.ndarray, " first"] | None = None,
) -> float:
    """Wasserstein-1 distance of two samples of numbers, ``int |F - G|``.

    Args:
      first: a sample.
      second: another.
      weights: of the members of ``first``; equal by default.

    Returns:
      The distance, in the units of the numbers; 0 for the same distribution.

    Raises:
      ValueError: if a sample is empty.

    >>> wasserstein(np.array([0.0, 0.5]), np.array([0.25, 0.75]))
    0.25
    """
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(first, second, u_weights=weights))
