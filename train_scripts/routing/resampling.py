"""Interval of a routing curve over resamples, without sorting any of them."""

import concurrent.futures
import os

import numpy as np
from jaxtyping import Float, Shaped

__all__ = ["accuracy_interval", "resampled_accuracy"]


def accuracy_interval(
    confidence: Float[np.ndarray, " queries"],
    small_correct: Shaped[np.ndarray, " queries"],
    large_correct: Shaped[np.ndarray, " queries"],
    rates: Float[np.ndarray, " rates"],
    *,
    seed: int,
    num_samples: int,
) -> tuple[Float[np.ndarray, " rates"], Float[np.ndarray, " rates"]]:
    """95% percentile interval of the accuracy at each rate.

    The queries are sorted once. A resample is then how often each of them was drawn,
    and its curve two cumulative sums.

    Args:
      confidence: of the small model's answers.
      small_correct: whether its answer is right, or how right, in [0, 1].
      large_correct: likewise of the large model.
      rates: shares of the queries that are sent on, in [0, 1].
      seed: of the draws.
      num_samples: number of resamples.

    Returns:
      Both ends at each rate.
    """
    order = np.argsort(confidence, kind="stable")
    small = np.asarray(small_correct, np.float64)[order]
    gain = np.asarray(large_correct, np.float64)[order] - small
    starts = _runs(np.asarray(confidence)[order])

    def draw(key: np.random.SeedSequence) -> np.ndarray:
        rng, rows = np.random.default_rng(key), len(small)
        drawn = rng.integers(rows, size=rows, dtype=np.uint32)
        counts = np.bincount(drawn, minlength=rows)
        return resampled_accuracy(counts, small, gain, starts, rates)

    keys = np.random.SeedSequence(seed).spawn(num_samples)
    # numpy lets go of the lock in its loops, so threads use every core.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        accuracy = np.stack(list(pool.map(draw, keys)))
    low, high = np.quantile(accuracy, [0.025, 0.975], axis=0)
    return low, high


def resampled_accuracy(
    counts: Shaped[np.ndarray, " queries"],
    small: Float[np.ndarray, " queries"],
    gain: Float[np.ndarray, " queries"],
    starts: Shaped[np.ndarray, " runs"],
    rates: Float[np.ndarray, " rates"],
) -> Float[np.ndarray, " rates"]:
    """Accuracy at each rate where query i occurs ``counts[i]`` times.

    As `jeff_llm.confidence.routing.curve` of the repeated queries: a run of equal
    confidences is sent on evenly.

    Args:
      counts: how often each query occurs, in the order of confidence.
      small: how right the small model is.
      gain: how much more right the large model is.
      starts: first place of each run of equal confidences.
      rates: shares that are sent on.

    Returns:
      The accuracies.
    """
    gained = counts * gain
    if len(starts) < len(counts):
        run_counts, gained = (np.add.reduceat(x, starts) for x in (counts, gained))
    else:
        run_counts = counts
    total = counts.sum()
    places = np.concatenate([[0], np.cumsum(run_counts)])
    sums = np.concatenate([[0.0], np.cumsum(gained)])
    return (counts @ small + np.interp(rates * total, places, sums)) / total


def _runs(values: np.ndarray) -> np.ndarray:
    """First place of each run of equal values."""
    return np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
