"""Agreement of a map of pairs with that of all cells, and with the planted truth.

Maps are [genes, genes] and symmetric; a pair that no cell expresses is NaN and ranks
below every pair that was seen.

Reference: arXiv 2410.15616, section 5.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from jeff import metrics
from jeff.as_arrays import as_array
from jeff_graph.cells.arrays import as_real, means_nan
from jeff_graph.cells.baselines import mean_ranks, pearson

__all__ = [
    "RankedPairs",
    "overlap_at",
    "pair_values",
    "planted_auroc",
    "planted_mask",
    "rank_agreement",
    "rank_pairs",
]


class RankedPairs(NamedTuple):
    """Pairs of genes, the highest score first.

    Attributes:
      first: one gene of each pair, the lower id.
      second: the other.
      score: of each pair; NaN, at the end, for pairs that were not seen.
    """

    first: Int[Array, " pairs"]
    second: Int[Array, " pairs"]
    score: Float[Array, " pairs"]


@means_nan
def pair_values(pair_map: Shaped[Any, "genes genes"]) -> Float[Array, " pairs"]:
    """The pairs i < j of a symmetric map, row by row.

    Args:
      pair_map: a score of pairs.

    Returns:
      ``genes (genes - 1) / 2`` values.

    Raises:
      ValueError: if the map is not square.

    >>> pair_values(jnp.arange(9.0).reshape(3, 3)).tolist()
    [1.0, 2.0, 5.0]
    """
    pair_map = as_real(pair_map, "pair_map")
    if pair_map.ndim != 2 or pair_map.shape[0] != pair_map.shape[1]:
        raise ValueError(f"pair_map: expected [genes, genes], got {pair_map.shape}")
    return pair_map[jnp.triu_indices(pair_map.shape[0], 1)]


@means_nan
def rank_pairs(pair_map: Shaped[Any, "genes genes"]) -> RankedPairs:
    """All pairs, the highest score first; ties by the genes' order.

    Args:
      pair_map: a score of pairs.

    Returns:
      `RankedPairs`.

    Raises:
      ValueError: if the map is not square.
    """
    values = pair_values(pair_map)
    first, second = jnp.triu_indices(len(pair_map), 1)
    # Stable, so that ties keep the order of genes on every machine.
    order = jnp.argsort(-_unseen_last(values), stable=True)
    return RankedPairs(first[order], second[order], values[order])


@means_nan
def overlap_at(
    one: Shaped[Any, "genes genes"], other: Shaped[Any, "genes genes"], k: int
) -> Float[Array, ""]:
    """Share of the k highest pairs that two maps have in common.

    Args:
      one: a map.
      other: another of the same genes.
      k: number of pairs, static.

    Returns:
      The share, in [0, 1]; a pair that a map has not seen is never in common.

    Raises:
      ValueError: if the maps differ in shape, or k is not within 1 and the pairs.
    """
    values = _both(one, other)
    if not 1 <= k <= values.shape[1]:
        raise ValueError(f"k: expected 1 to {values.shape[1]} pairs, got {k}")
    order = jnp.argsort(-_unseen_last(values), axis=1, stable=True)[:, :k]
    inside = jnp.zeros(values.shape, bool).at[jnp.arange(2)[:, None], order].set(True)
    common = (inside & ~jnp.isnan(values)).all(0)
    return common.sum(dtype=values.dtype) / k


@means_nan
def rank_agreement(
    one: Shaped[Any, "genes genes"], other: Shaped[Any, "genes genes"]
) -> Float[Array, ""]:
    """Spearman's correlation of two maps over the pairs that both have seen.

    Args:
      one: a map.
      other: another of the same genes.

    Returns:
      A number in [-1, 1]; NaN where a map is constant over these pairs, or there is
      none.

    Raises:
      ValueError: if the maps differ in shape.
    """
    values = _both(one, other)
    seen = ~jnp.isnan(values).any(0)
    # Ranked among the seen pairs alone: NaN ranks last and has weight 0.
    ranks = jax.vmap(mean_ranks)(jnp.where(seen[None], values, jnp.nan))
    agreement = pearson(ranks.T, weights=seen.astype(ranks.dtype))[0, 1]
    low = jnp.where(seen[None], ranks, jnp.inf).min(1)
    high = jnp.where(seen[None], ranks, -jnp.inf).max(1)
    return jnp.where((high > low).all(), agreement, jnp.nan)


def planted_mask(
    num_genes: int, pairs: Shaped[Any, "planted 2"]
) -> Bool[Array, " pairs"]:
    """Which of the pairs of `pair_values` are planted.

    Args:
      num_genes: number of genes of the map.
      pairs: genes of each planted pair.

    Returns:
      A mask over pairs.

    Raises:
      ValueError: if a gene is outside the map or a pair is one gene twice.
    """
    pairs = np.asarray(pairs)
    # An empty list is an array of floats to numpy.
    pairs = pairs if pairs.size else np.zeros((0, 2), int)
    if pairs.size and (
        pairs.min() < 0
        or pairs.max() >= num_genes
        or (pairs[:, 0] == pairs[:, 1]).any()
    ):
        raise ValueError(
            f"pairs: expected two different genes from 0 to {num_genes - 1} each, got "
            f"{pairs.tolist()[:3]}"
        )
    planted = np.zeros((num_genes, num_genes), bool)
    planted[pairs[:, 0], pairs[:, 1]] = planted[pairs[:, 1], pairs[:, 0]] = True
    return jnp.asarray(planted[np.triu_indices(num_genes, 1)])


@means_nan
def planted_auroc(
    pair_map: Shaped[Any, "genes genes"],
    planted: Shaped[Any, " pairs"],
    *,
    where: Shaped[Any, " pairs"] | None = None,
) -> Float[Array, ""]:
    """Chance that a planted pair scores above another; ties count half.

    Args:
      pair_map: a score of pairs; unseen pairs are below all others, and tie.
      planted: the planted pairs, as in `planted_mask`.
      where: pairs to count; all by default.

    Returns:
      The AUROC, in [0, 1]; NaN where no pair, or every pair, is planted, and where no
      pair was seen.

    Raises:
      ValueError: if the lengths differ.
    """
    values = pair_values(pair_map)
    least = jnp.nanmin(jnp.where(jnp.isfinite(values), values, jnp.nan))
    # NaN would make the AUROC NaN; unseen pairs tie below all others instead.
    values = jnp.where(jnp.isnan(values), least - 1, values)
    planted = as_array(planted, "planted")
    where = None if where is None else as_array(where, "where")
    return metrics.auroc(values, planted, where=where)


def _unseen_last(values: Array) -> Array:
    return jnp.where(jnp.isnan(values), -jnp.inf, values)


def _both(one: Any, other: Any) -> Float[Array, "2 pairs"]:
    one, other = as_real(one, "one"), as_real(other, "other")
    if one.shape != other.shape:
        raise ValueError(
            f"one, other: expected maps of the same genes, got {one.shape} and "
            f"{other.shape}"
        )
    return jnp.stack([pair_values(one), pair_values(other)])
