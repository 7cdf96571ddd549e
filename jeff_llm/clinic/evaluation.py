"""The protocol: picks of many mazes, scored, with intervals over items.

Beside the scores of the paper, `jeff_llm.clinic.picked` says which distractors were
picked.

References:
  Liu et al., "Dialogue is Better Than Monologue: Instructing Medical LLMs via
  Strategical Conversations", 2025 (arXiv 2501.17860).
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jeff.bootstrap import RandomKey, bootstrap_interval, padded
from jeff_llm.clinic.maze import Maze
from jeff_llm.clinic.metrics import (
    adjacency_score,
    order_tau,
    position_score,
    set_f1,
)
from jeff_llm.clinic.picked import Picks, by_kind, by_source, check_picks

__all__ = [
    "Measure",
    "Scores",
    "Summary",
    "by_kind",
    "by_source",
    "evaluate",
    "expected_random",
    "paired_difference",
    "summarise",
]


class Scores(NamedTuple):
    """Scores of each maze.

    Attributes:
      position: share of positions with the right pick.
      adjacency: share of gold neighbours picked as neighbours; NaN for one sentence.
      f1: of the picks as a set.
      tau: Kendall's tau over all gold pairs; NaN for one sentence.
      failed: whether the reply could not be read; the scores are then 0.
    """

    position: Float[np.ndarray, " mazes"]
    adjacency: Float[np.ndarray, " mazes"]
    f1: Float[np.ndarray, " mazes"]
    tau: Float[np.ndarray, " mazes"]
    failed: Bool[np.ndarray, " mazes"]


class Measure(NamedTuple):
    """A mean over mazes and the ends of its 95% interval.

    Attributes:
      estimate: the mean.
      low: lower end.
      high: upper end.
      count: mazes with a value.
    """

    estimate: float
    low: float
    high: float
    count: int


class Summary(NamedTuple):
    """Means of the fields of `Scores`, or of differences between two.

    Attributes:
      position: of the shares of right positions.
      adjacency: of the shares of neighbours.
      f1: of F1.
      tau: of Kendall's tau.
      failed: share of replies that could not be read.
    """

    position: Measure
    adjacency: Measure
    f1: Measure
    tau: Measure
    failed: Measure


def evaluate(mazes: Sequence[Maze], picks: Sequence[Picks]) -> Scores:
    """Score the picks of every maze.

    Args:
      mazes: the tasks.
      picks: of each, different places in its list, in order, at most as many as there
        is evidence; None where the reply could not be read.

    Returns:
      The scores. None scores 0 wherever a score is defined.

    Raises:
      ValueError: if there is no maze, the lengths differ, or a place is out of range,
        occurs twice, or is one too many.
    """
    check_picks(mazes, picks)
    width = max(len(maze.gold) for maze in mazes)
    chosen = _padded([each or () for each in picks], width)
    gold = _padded([maze.gold for maze in mazes], width)
    position, adjacency, f1, tau = jax.device_get(_score(chosen, gold))
    failed = np.array([each is None for each in picks])
    return Scores(position, adjacency, f1, tau, failed)


def expected_random(mazes: Sequence[Maze]) -> Scores:
    """Expected scores of ``n`` different places, in an order, drawn uniformly.

    With ``n`` sentences of evidence among ``N``: positions ``1 / N``, neighbours
    ``(n - 1) / (N (N - 1))``, F1 ``n / N``, and tau 0, since any pair is as likely in
    its order as in the other.

    Args:
      mazes: the tasks.

    Returns:
      The expectation for each maze; nothing fails.

    Raises:
      ValueError: if there is no maze.
    """
    if not mazes:
        raise ValueError("mazes: expected at least one maze, got none")
    right = np.array([len(maze.gold) for maze in mazes], float)
    listed = np.array([len(maze.listed) for maze in mazes], float)
    pairs = right > 1
    neighbours = (right - 1) / np.maximum(listed * (listed - 1), 1)
    return Scores(
        1 / listed,
        np.where(pairs, neighbours, np.nan),
        right / listed,
        np.where(pairs, 0.0, np.nan),
        np.zeros(len(mazes), bool),
    )


def summarise(scores: Scores, *, key: RandomKey, num_resamples: int = 2000) -> Summary:
    """Mean scores, with 95% bootstrap intervals over mazes.

    Mazes are the rows that are resampled, so they should be of different items. Rows
    without a value are left out. Where all values are the same, a bootstrap would give
    an interval without width; its ends are then those of `paired_difference`.

    Args:
      scores: from `evaluate`.
      key: random key.
      num_resamples: number of resamples, at least 1.

    Returns:
      Mean, interval and number of values of each score.

    Raises:
      ValueError: if no maze has a value of some score, or ``num_resamples`` is not
        positive.
    """
    least = np.array([0.0, 0.0, 0.0, -1.0, 0.0])
    return _summary(_columns(scores), least, np.ones(5), key, num_resamples)


def paired_difference(
    first: Scores, second: Scores, *, key: RandomKey, num_resamples: int = 2000
) -> Summary:
    """Differences of two models on the same mazes, with 95% intervals over mazes.

    Each measure is the mean of ``first - second``; a resample takes the same mazes for
    both, so what makes a maze hard for both drops out.

    Where all values are the same v, of possible values from l to h, the ends are
    ``v - u (v - l)`` and ``v + u (h - v)``, where ``u = 1 - 0.025^(1/n)`` is the exact
    97.5% limit of the share of mazes with another value, none among n being seen.

    Args:
      first: from `evaluate`.
      second: of the same mazes in the same order.
      key: random key.
      num_resamples: number of resamples, at least 1.

    Returns:
      The differences; positive where ``first`` is larger.

    Raises:
      ValueError: if the numbers of mazes or the mazes without a value differ, no maze
        has a value of some score, or ``num_resamples`` is not positive.

    References:
      Clopper and Pearson, "The Use of Confidence or Fiducial Limits Illustrated in the
      Case of the Binomial", 1934 (u).
    """
    one, two = _columns(first), _columns(second)
    if one.shape != two.shape or (np.isnan(one) != np.isnan(two)).any():
        raise ValueError(
            f"second: expected scores of the same {len(one)} mazes as in first, got "
            f"{len(two)} mazes, or others"
        )
    most = np.array([1.0, 1.0, 1.0, 2.0, 1.0])
    return _summary(one - two, -most, most, key, num_resamples)


@jax.jit
def _score(
    picks: Array | np.ndarray, gold: Array | np.ndarray
) -> tuple[Array, Array, Array, Array]:
    metrics = (position_score, adjacency_score, set_f1, order_tau)
    position, adjacency, f1, tau = (jax.vmap(each)(picks, gold) for each in metrics)
    return position, adjacency, f1, tau


def _padded(rows: Sequence[Sequence[int]], width: int) -> np.ndarray:
    out = np.full((len(rows), width), -1, np.int32)
    for row, places in zip(out, rows, strict=True):
        row[: len(places)] = places
    return out


def _columns(scores: Scores) -> Float[np.ndarray, "mazes 5"]:
    return np.stack([np.asarray(each, float) for each in scores], axis=1)


def _mean(values: Array, known: Array) -> Array:
    return jnp.where(known, values, 0).sum(0) / known.sum(0)


# Compiled once for like numbers of mazes: a table asks for hundreds of intervals.
@functools.partial(jax.jit, static_argnames="num_resamples")
def _ends(
    columns: Array, known: Array, mazes: Array, key: RandomKey, *, num_resamples: int
) -> tuple[Array, Array]:
    _, low, high = bootstrap_interval(
        _mean, (columns, known), key=key, num_samples=num_resamples, real=mazes
    )
    return low, high


def _summary(
    columns: Float[np.ndarray, "mazes 5"],
    least: np.ndarray,
    most: np.ndarray,
    key: RandomKey,
    num_resamples: int,
) -> Summary:
    known = ~np.isnan(columns)
    count = known.sum(0)
    for name, each in zip(Summary._fields, count, strict=True):
        if not each:
            raise ValueError(
                f"{name}: expected a value of at least one maze, got none among "
                f"{len(columns)}"
            )
    rows = padded(columns.astype(np.float32)), padded(known)
    low, high = jax.device_get(
        _ends(*rows, jnp.asarray(len(columns)), key, num_resamples=num_resamples)
    )
    estimate = np.nanmean(columns, axis=0)
    unseen = 1 - 0.025 ** (1 / count)
    constant = np.nanmax(columns, axis=0) - np.nanmin(columns, axis=0) < 1e-12
    low = np.where(constant, estimate - unseen * (estimate - least), low)
    high = np.where(constant, estimate + unseen * (most - estimate), high)
    return Summary._make(
        Measure(float(mean), float(a), float(b), int(n))
        for mean, a, b, n in zip(estimate, low, high, count, strict=True)
    )
