"""Is a set of pairs found towards one end of a ranked list? Prerank enrichment.

The running sum of gene set enrichment analysis, for pairs instead of genes, with the
normalisation that GSEApy has.

References:
  Subramanian et al., "Gene set enrichment analysis", PNAS 2005.
  Fang, Liu and Peltz, "GSEApy", Bioinformatics 2023.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from jeff.as_arrays import as_array
from jeff.checks import check_mask, check_same_length
from jeff_graph.cells.arrays import as_real, is_concrete, means_nan

__all__ = ["Enrichment", "prerank"]


class Enrichment(NamedTuple):
    """Place of a set in a ranked list.

    Attributes:
      score: the running sum farthest from 0, in [-1, 1].
      normalised: NES: the score over the mean score of random sets of its sign.
      p_value: share of the random sets of its sign that lie as far out, the set itself
        counted among them, so that no p-value is 0.
      leading: members of the set before the running sum's farthest point (behind it,
        where the score is negative).
    """

    score: Float[Array, ""]
    normalised: Float[Array, ""]
    p_value: Float[Array, ""]
    leading: Int[Array, ""]


@means_nan
def prerank(
    scores: Shaped[Any, " items"],
    hits: Shaped[Any, " items"],
    *,
    key: PRNGKeyArray,
    where: Shaped[Any, " items"] | None = None,
    num_permutations: int = 1000,
    weight: float | int = 1.0,
    batch_size: int = 50,
) -> Enrichment:
    """Enrichment of a set towards the top of a list.

    Args:
      scores: of the items, such as pairs; the highest is ranked first.
      hits: members of the set, at least one and not all.
      key: random key of the random sets.
      where: items of the list; all by default. Leave out pairs that were never seen.
      num_permutations: random sets of the same size.
      weight: exponent of a hit's score; 0 is Kolmogorov and Smirnov's statistic.
      batch_size: random sets at a time; bounds the memory, not the result.

    Returns:
      `Enrichment`; NaN where no random set has the score's sign, and under jit where
      values would raise an error.

    Raises:
      ValueError: if the lengths differ, ``num_permutations`` is below 1, none or all of
        the listed items are hits, or a listed score is NaN.
      TypeError: if ``hits`` is not a mask.
    """
    scores, hits = as_real(scores, "scores"), as_array(hits, "hits")
    where = None if where is None else as_array(where, "where")
    check_same_length(scores=scores, hits=hits, where=where)
    check_mask(hits=hits, where=where)
    if num_permutations < 1:
        raise ValueError(
            f"num_permutations: expected at least 1, got {num_permutations}"
        )
    listed = jnp.ones(len(scores), bool) if where is None else where
    sizes = (num_permutations, min(batch_size, num_permutations))
    hits = hits & listed
    if is_concrete(scores, hits):
        _check_values(scores, hits, listed)
    return _prerank(scores, hits, listed, key, weight, sizes)


def _check_values(scores: Array, hits: Array, listed: Array) -> None:
    if jnp.isnan(jnp.where(listed, scores, 0)).any():
        raise ValueError(
            "scores: expected numbers, got NaN; leave such items out by where"
        )
    number, total = int(hits.sum()), int(listed.sum())
    if not 0 < number < total:
        raise ValueError(
            f"hits: expected some of the {total} listed items and not all, got {number}"
        )


@functools.partial(jax.jit, static_argnames="sizes")
def _prerank(
    scores: Array,
    hits: Array,
    listed: Array,
    key: PRNGKeyArray,
    weight: float | Array,
    sizes: tuple[int, int],
) -> Enrichment:
    # Stable, so that ties keep the list's order and the result is reproducible; items
    # that are not listed go last, where they add nothing.
    order = jnp.argsort(jnp.where(listed, -scores, jnp.inf), stable=True)
    scores, hits, listed = (
        jnp.where(listed, scores, 0.0)[order],
        hits[order],
        listed[order],
    )
    score, place = _running(scores, hits, listed, weight)

    def random(key: PRNGKeyArray) -> Array:
        lot = jnp.where(listed, jax.random.uniform(key, hits.shape), 2.0)
        # Ranks of random lots: a set of the same size, with static shapes.
        rank = jnp.zeros(hits.shape, int).at[jnp.argsort(lot)].set(jnp.arange(len(lot)))
        return _running(scores, rank < hits.sum(), listed, weight)[0]

    null = jax.lax.map(random, jax.random.split(key, sizes[0]), batch_size=sizes[1])
    # GSEA normalises by random sets of the score's own sign.
    same = (null >= 0) == (score >= 0)
    number = same.sum(dtype=score.dtype)
    mean = jnp.where(same, jnp.abs(null), 0).sum() / number
    beyond = same & (jnp.abs(null) >= jnp.abs(score))
    at = jnp.arange(len(hits))
    lead = jnp.where(score >= 0, at <= place, at > place)
    # The set counts as one of the random ones: from few of them no p-value is 0.
    p_value = (1 + beyond.sum(dtype=score.dtype)) / (1 + number)
    # A set of nothing, or of everything, is enriched nowhere.
    real = (hits.sum() > 0) & (hits.sum() < listed.sum()) & jnp.isfinite(score)
    known = real & (number > 0)
    return Enrichment(
        jnp.where(real, score, jnp.nan),
        jnp.where(known, score / mean, jnp.nan),
        jnp.where(known, p_value, jnp.nan),
        (lead & hits).sum(),
    )


def _running(
    scores: Array, hits: Array, listed: Array, weight: float | Array
) -> tuple[Array, Array]:
    """The running sum farthest from 0 along a ranked list, and where it is reached.

    A hit adds ``|score|^weight`` over its sum over hits, a miss takes 1 over the number
    of misses.
    """
    gain = jnp.where(hits, jnp.abs(scores) ** weight, 0.0)
    missed = (listed & ~hits).astype(scores.dtype)
    loss = missed / jnp.maximum(missed.sum(), 1)
    running = jnp.cumsum(gain / jnp.maximum(gain.sum(), 1e-30) - loss)
    high, low = running.argmax(), running.argmin()
    place = jnp.where(jnp.abs(running[high]) >= jnp.abs(running[low]), high, low)
    return running[place], place
