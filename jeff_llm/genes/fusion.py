"""Points that join several rankings of the same genes.

Every function gives one number per gene, larger for a better gene, so that
`jeff_llm.genes.ranking.by_score` makes a ranking of it. `borda`, `rank_sum` and
`reciprocal_rank` take the rankings along the first axis and the genes along the last;
axes between them, such as cases, are kept. `plackett_luce` takes rankings of any
subsets.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Array, Float, Integer, Real
from scipy.stats import rankdata

__all__ = ["borda", "plackett_luce", "rank_sum", "ranks", "reciprocal_rank"]

Orders: TypeAlias = Integer[np.ndarray | Array, "rankings *cases genes"]
Points: TypeAlias = Float[np.ndarray, "*cases genes"]
# The rankings may differ in length.
Order: TypeAlias = Sequence[int] | Integer[np.ndarray | Array, "..."]


def ranks(scores: Real[np.ndarray | Array, "*cases genes"]) -> Points:
    """Ranks of scores, 1 for the largest; equal scores share their mean rank.

    Args:
      scores: scores, larger is better, of any leading axes; infinite ones are allowed.

    Returns:
      The ranks, of the shape of ``scores``.

    Raises:
      ValueError: if there are no genes, or a score is NaN.

    >>> ranks(np.array([[0.2, 0.9, 0.2]]))
    array([[2.5, 1. , 2.5]])
    """
    scores = np.asarray(scores, np.float64)
    if not scores.ndim or not scores.shape[-1]:
        raise ValueError(f"scores: expected at least one gene, got {scores.shape}")
    if np.isnan(scores).any():
        where = tuple(int(i) for i in np.argwhere(np.isnan(scores))[0])
        raise ValueError(f"scores: expected numbers, got NaN at {where}")
    return rankdata(-scores, axis=-1)


def rank_sum(scores: Real[np.ndarray | Array, "rankings *cases genes"]) -> Points:
    """Minus the sum of a gene's ranks in all rankings.

    Only the order within a ranking counts, so measures of different units can be
    joined. Equal scores share their mean rank.

    Args:
      scores: scores by ranking and gene, larger is better.

    Returns:
      The points, from minus rankings times genes up to minus the number of rankings.

    Raises:
      ValueError: if there are no rankings or no genes, or a score is NaN.

    References:
      Mao et al., "A Phenotype-Based AI Pipeline Outperforms Human Experts in
      Differentially Diagnosing Rare Diseases Using EHRs", 2025 (PhenoBrain, whose
      ensemble joins four methods by their ranks).

    >>> rank_sum(np.array([[0.9, 0.1, 0.5], [7.0, 7.0, 30.0]]))
    array([-3.5, -5.5, -3. ])
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim < 2 or not len(scores):
        raise ValueError(
            f"scores: expected one or more rankings of genes, got shape {scores.shape}"
        )
    return -ranks(scores).sum(0)


def borda(orders: Orders) -> Points:
    """Borda points: how many genes a gene stands before, summed over the rankings.

    ``sum_j (genes - rank_j)``, ranks from 1.

    Args:
      orders: positions of the genes, best first, in each ranking; int. Every position
        occurs once in a ranking.

    Returns:
      The points by position, from 0 to rankings times (genes - 1).

    Raises:
      ValueError: if there are no rankings or no genes, or one is no permutation.

    References:
      de Borda, "Memoire sur les elections au scrutin", 1781.

    >>> borda(np.array([[2, 0, 1], [0, 2, 1]]))
    array([3., 0., 3.])
    """
    places = _places(orders)
    return (places.shape[-1] - 1.0 - places).sum(0)


def reciprocal_rank(orders: Orders, *, constant: float = 60.0) -> Points:
    """Reciprocal rank fusion: ``sum_j 1 / (constant + rank_j)``, ranks from 1.

    Args:
      orders: positions of the genes, best first, in each ranking; int. Every position
        occurs once in a ranking.
      constant: at least 0; the larger, the less the first ranks stand out.

    Returns:
      The points by position, above 0.

    Raises:
      ValueError: if there are no rankings or no genes, one is no permutation, or
        ``constant`` is negative or not finite.

    References:
      Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion Outperforms Condorcet and
      Individual Rank Learning Methods", SIGIR 2009.

    >>> reciprocal_rank(np.array([[1, 0], [1, 0]]), constant=1.0)
    array([0.66666667, 1.        ])
    """
    if not 0 <= constant < np.inf:
        raise ValueError(
            f"constant: expected a finite number of at least 0, got {constant}"
        )
    return (1 / (constant + 1 + _places(orders))).sum(0)


def plackett_luce(
    orders: Sequence[Order] | Integer[np.ndarray | Array, "rankings places"],
    num_genes: int,
    *,
    num_steps: int = 200,
    prior: float = 0.1,
) -> Float[np.ndarray, " genes"]:
    """Logarithm of Plackett-Luce strengths, from rankings of any subsets.

    In the model the next gene of a ranking is gene t with probability
    ``strength_t / (sum of the strengths of those left)``. Each step of the MM algorithm
    is

    ``strength_t = (w_t + prior) / (d_t + 2 prior / (strength_t + 1))``

    with ``w_t`` the rankings in which t is not last, and ``d_t`` the sum, over the
    choices at which t was still there, of one over the strengths then left.

    The terms with ``prior`` are not Hunter's: each gene beats, and is beaten by, an
    imagined gene of strength 1, ``prior`` times each. Without them a gene that always
    wins has no finite strength, and genes that were never compared have no common
    scale; with them there is one finite maximum. A gene without a comparison gets 0.

    Args:
      orders: positions in the list of genes, best first, of each ranking; a ranking may
        leave genes out. One of a single gene has no influence.
      num_genes: length of the list of genes, at least 1.
      num_steps: steps of the algorithm, at least 1; each raises the likelihood.
      prior: imagined wins and losses of each gene, above 0. A larger one draws the
        strengths together and needs fewer steps.

    Returns:
      The log-strengths by position; their differences are log-odds.

    Raises:
      ValueError: if a count is not positive, ``prior`` is not above 0, there are no
        rankings, or a ranking is empty, repeats a position or leaves the list.

    References:
      Hunter, "MM Algorithms for Generalized Bradley-Terry Models", Annals of Statistics
      2004, section 5.

    >>> plackett_luce([[0, 1], [1, 2]], 3).argsort().tolist()
    [2, 1, 0]
    """
    for name, count in (("num_genes", num_genes), ("num_steps", num_steps)):
        if count < 1:
            raise ValueError(f"{name}: expected at least 1, got {count}")
    if not 0 < prior < np.inf:
        raise ValueError(f"prior: expected a finite number above 0, got {prior}")
    padded, there = _padded(orders, num_genes)
    # The last place is no choice: one gene is left.
    choice = there.copy()
    choice[np.arange(len(there)), there.sum(1) - 1] = False
    wins = np.bincount(padded[choice], minlength=num_genes) + prior
    strength = np.ones(num_genes)
    for _ in range(num_steps):
        left = np.where(there, strength[padded], 0.0)
        left = np.cumsum(left[:, ::-1], axis=1)[:, ::-1]
        inverse = np.divide(1.0, left, out=np.zeros_like(left), where=choice)
        met = np.bincount(
            padded[there], np.cumsum(inverse, axis=1)[there], minlength=num_genes
        )
        strength = wins / (met + 2 * prior / (strength + 1))
    return np.log(strength)


def _places(orders: Orders) -> Integer[np.ndarray, "rankings *cases genes"]:
    """Place of each gene from 0, the inverse of each order."""
    orders = np.asarray(orders)
    if orders.ndim < 2 or not len(orders) or not orders.shape[-1]:
        raise ValueError(
            f"orders: expected one or more rankings of genes, got shape {orders.shape}"
        )
    genes = orders.shape[-1]
    wrong = (np.sort(orders, axis=-1) != np.arange(genes)).any(-1)
    if wrong.any():
        first = tuple(np.argwhere(wrong)[0])
        raise ValueError(
            f"orders: expected every position from 0 to {genes - 1} once in each "
            f"ranking, got {orders[first].tolist()}"
        )
    return np.argsort(orders, axis=-1)


def _padded(
    orders: Sequence[Order] | np.ndarray | Array, num_genes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rankings as one matrix, and where it holds a gene."""
    lengths = np.array([len(order) for order in orders], int)
    if not len(lengths) or not lengths.all():
        raise ValueError(
            "orders: expected one or more rankings of at least one gene, got lengths "
            f"{lengths.tolist()}"
        )
    there = np.arange(lengths.max()) < lengths[:, None]
    padded = np.zeros(there.shape, int)
    padded[there] = np.concatenate([np.asarray(order) for order in orders])
    for order, length in zip(padded, lengths, strict=True):
        own = order[:length]
        if own.min() < 0 or own.max() >= num_genes or len(set(own)) < length:
            raise ValueError(
                f"orders: expected different positions from 0 to {num_genes - 1}, got "
                f"{own.tolist()}"
            )
    return padded, there
