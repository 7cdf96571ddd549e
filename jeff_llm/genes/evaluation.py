"""Top-k accuracy and mean reciprocal rank of the causal gene, with intervals.

Cases of one gene are not independent: they often come from one paper and share their
terms. All intervals here resample genes, with all cases of a gene together.
"""

from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real, Shaped

from jeff.bootstrap import RandomKey, bootstrap_interval, padded
from jeff.checks import check_choice

__all__ = ["Evaluation", "Interval", "evaluate", "paired_difference", "rank_of"]

Ranks: TypeAlias = Real[np.ndarray | Array, " cases"]
Clusters: TypeAlias = Shaped[np.ndarray | Array, " cases"]
TOP = (1, 3, 5, 10)


class Interval(NamedTuple):
    """A measured number and the ends of its interval.

    Attributes:
      estimate: the number itself.
      low: lower end.
      high: upper end.
    """

    estimate: float
    low: float
    high: float


class Evaluation(NamedTuple):
    """How well the causal genes were ranked, or the difference between two rankers.

    Attributes:
      top1: share of cases with the causal gene at rank 1.
      top3: share with it at rank 3 or better.
      top5: share with it at rank 5 or better.
      top10: share with it at rank 10 or better.
      mrr: mean reciprocal rank.
    """

    top1: Interval
    top3: Interval
    top5: Interval
    top10: Interval
    mrr: Interval


def rank_of(
    scores: Real[np.ndarray | Array, "cases genes"],
    index: Real[np.ndarray | Array, " cases"],
    *,
    ties: Literal["mean", "worst", "first"] = "mean",
) -> Float[np.ndarray, " cases"]:
    """Rank of one gene of each case, from 1 for the best.

    With ``a`` other genes of a higher score and ``t`` others of the same score, the
    rank is ``1 + a + t / 2`` for ``"mean"`` and ``1 + a + t`` for ``"worst"``; for
    ``"first"``, ``t`` counts only genes that stand before it in the list, as in a
    stable sort. NaN is the score of a gene that was not ranked: it stands behind all
    others, and its own rank is infinite. So lists of different lengths can be padded
    with NaN.

    Args:
      scores: scores by case and gene, larger is better; NaN for a gene not ranked.
      index: column of the gene whose rank is wanted; int.
      ties: which rank a gene among equal scores takes.

    Returns:
      The ranks, at least 1; infinite where the gene was not ranked.

    Raises:
      ValueError: if the shapes do not fit, there is no case, ``index`` is outside the
        columns, or ``ties`` is not one of the three.
      TypeError: if ``index`` is not an integer array.

    >>> rank_of(np.array([[0.9, 0.5, 0.5]]), np.array([2]))
    array([2.5])
    """
    check_choice("ties", ties, ("mean", "worst", "first"))
    scores, index = np.asarray(scores, np.float64), np.asarray(index)
    if scores.ndim != 2 or not scores.size:
        raise ValueError(
            f"scores: expected cases and genes, at least one of each, got shape "
            f"{scores.shape}"
        )
    if not np.issubdtype(index.dtype, np.integer):
        raise TypeError(f"index: expected an integer array, got {index.dtype}")
    cases, genes = scores.shape
    if index.shape != (cases,):
        raise ValueError(f"index: expected shape ({cases},), got {index.shape}")
    if index.min() < 0 or index.max() >= genes:
        raise ValueError(
            f"index: expected columns from 0 to {genes - 1}, got "
            f"{index.min()} to {index.max()}"
        )
    own = np.take_along_axis(scores, index[:, None], axis=1)
    above, tied = (scores > own).sum(1), scores == own
    if ties == "first":
        tied &= np.arange(genes) < index[:, None]
        others = tied.sum(1)
    else:
        # The gene is not tied with itself; one that is not ranked ties with none.
        others = np.maximum(tied.sum(1) - 1, 0)
    ranks = 1 + above + others * (0.5 if ties == "mean" else 1.0)
    return np.where(np.isnan(own[:, 0]), np.inf, ranks)


def evaluate(
    ranks: Ranks, cluster: Clusters, *, key: RandomKey, num_resamples: int = 2000
) -> Evaluation:
    """Top-k accuracy and mean reciprocal rank, with 95% intervals over genes.

    A resample draws as many clusters as there are, with replacement, and takes all
    cases of each. Where all clusters have one and the same value the bootstrap sees no
    spread; see `paired_difference` for the ends that are given then.

    Args:
      ranks: rank of the causal gene of each case, at least 1; ties may have mean ranks,
        and infinity is a gene that was not ranked, which counts as a miss.
      cluster: what is resampled, usually the index or symbol of the causal gene.
      key: random key.
      num_resamples: number of resamples, at least 1.

    Returns:
      The five measures, each in [0, 1].

    Raises:
      ValueError: if there is no case, lengths differ, a rank is NaN or below 1, or
        ``num_resamples`` is not positive.

    References:
      Field and Welsh, "Bootstrapping Clustered Data", 2007 (the cluster bootstrap).

    >>> import jax
    >>> found = evaluate(
    ...     np.array([1.0, 2.0, np.inf]), np.array([0, 1, 2]), key=jax.random.key(0)
    ... )
    >>> round(found.top3.estimate, 4), round(found.mrr.estimate, 4)
    (0.6667, 0.5)
    """
    measures = _measures("ranks", ranks)
    return _with_intervals(measures, cluster, 0.0, key, num_resamples)


def paired_difference(
    ranks_a: Ranks,
    ranks_b: Ranks,
    cluster: Clusters,
    *,
    key: RandomKey,
    num_resamples: int = 2000,
) -> Evaluation:
    """Differences of two rankers on the same cases, with 95% intervals over genes.

    Each measure is that of a minus that of b. A resample takes the same cases for both,
    so what makes a case hard for both drops out.

    Where all clusters have the same value v, of possible values from l to h, a
    bootstrap would give an interval without width. Its ends are then
    ``v - u (v - l)`` and ``v + u (h - v)``, where ``u = 1 - 0.025^(1/n)`` is the exact
    97.5% limit of the share of clusters with another value, none among n being seen.

    Args:
      ranks_a: ranks of the causal genes by the first ranker, as in `evaluate`.
      ranks_b: ranks by the second.
      cluster: what is resampled, usually the index or symbol of the causal gene.
      key: random key.
      num_resamples: number of resamples, at least 1.

    Returns:
      The five differences, each in [-1, 1]; positive where a is better.

    Raises:
      ValueError: if there is no case, lengths differ, a rank is NaN or below 1, or
        ``num_resamples`` is not positive.

    References:
      Clopper and Pearson, "The Use of Confidence or Fiducial Limits Illustrated in the
      Case of the Binomial", 1934 (u).
    """
    first, second = _measures("ranks_a", ranks_a), _measures("ranks_b", ranks_b)
    if len(first) != len(second):
        raise ValueError(
            f"ranks_b: expected {len(first)} cases as in ranks_a, got {len(second)}"
        )
    return _with_intervals(first - second, cluster, -1.0, key, num_resamples)


def _measures(name: str, ranks: Ranks) -> Float[np.ndarray, "cases 5"]:
    ranks = np.asarray(ranks, np.float64)
    if ranks.ndim != 1 or not len(ranks):
        raise ValueError(
            f"{name}: expected a vector of at least one case, got shape {ranks.shape}"
        )
    if not (ranks >= 1).all():
        where = int(np.flatnonzero(~(ranks >= 1))[0])
        raise ValueError(
            f"{name}: expected ranks of at least 1, infinity for a gene that was not "
            f"ranked, got {ranks[where]} for case {where}"
        )
    return np.stack([*(ranks <= k for k in TOP), 1 / ranks], axis=1)


@partial(jax.jit, static_argnums=4)
def _ends(
    key: RandomKey, sums: Array, counts: Array, clusters: Array, num_resamples: int
) -> tuple[Array, Array]:
    """Ends of the intervals; compiled once for like numbers of clusters."""
    _, low, high = bootstrap_interval(
        lambda total, count: total.sum(0) / count.sum(),
        (sums, counts),
        key=key,
        num_samples=num_resamples,
        real=clusters,
    )
    return low, high


def _with_intervals(
    measures: np.ndarray,
    cluster: np.ndarray | Array,
    least: float,
    key: RandomKey,
    num_resamples: int,
) -> Evaluation:
    cluster = np.asarray(cluster)
    if cluster.shape != (len(measures),):
        raise ValueError(
            f"cluster: expected shape ({len(measures)},), one for each case, got "
            f"{cluster.shape}"
        )
    _, of_case, cases = np.unique(cluster, return_inverse=True, return_counts=True)
    sums = np.zeros((len(cases), measures.shape[1]))
    np.add.at(sums, of_case, measures)
    # Sums and counts by cluster, not rows: a resample is then as short as the genes.
    rows = sums.astype(np.float32), cases.astype(np.float32)
    low, high = _ends(key, *map(padded, rows), jnp.asarray(len(cases)), num_resamples)
    estimate, means = measures.mean(0), sums / cases[:, None]
    unseen = 1 - 0.025 ** (1 / len(cases))
    constant = np.ptp(means, axis=0) < 1e-12
    low = np.where(constant, estimate - unseen * (estimate - least), low)
    high = np.where(constant, estimate + unseen * (1 - estimate), high)
    columns = np.stack([estimate, low, high], axis=1).tolist()
    return Evaluation(*(Interval(*column) for column in columns))
