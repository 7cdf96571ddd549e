"""Is a set of pairs found towards one end of a ranked list? Prerank enrichment.

The running sum of gene set enrichment analysis, for pairs instead of genes, with the
normalisation that GSEApy has.

References:
  Subramanian et al., "Gene set enrichment analysis", PNAS 2005.
  Fang, Liu and Peltz, "GSEApy", Bioinformatics 2023.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jeff.checks import check_mask, check_same_length

__all__ = ["Enrichment", "prerank"]


class Enrichment(NamedTuple):
    """Place of a set in a ranked list.

    Attributes:
      score: the running sum farthest from 0, in [-1, 1].
      normalised: NES: the score over the mean score of random sets of its sign.
      p_value: share of the random sets of its sign that lie as far out.
      leading: members of the set before the running sum's farthest point (behind it,
        where the score is negative).
    """

    score: Float[Array, ""]
    normalised: Float[Array, ""]
    p_value: Float[Array, ""]
    leading: Int[Array, ""]


def prerank(
    scores: Float[Array, " items"],
    hits: Bool[Array, " items"],
    *,
    key: PRNGKeyArray,
    where: Bool[Array, " items"] | None = None,
    num_permutations: int = 1000,
    weight: float = 1.0,
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
      `Enrichment`; NaN where no random set has the score's sign.

    Raises:
      ValueError: if the lengths differ or ``num_permutations`` is below 1.
      TypeError: if ``hits`` is not a mask.
    """
    check_same_length(scores=scores, hits=hits, where=where)
    check_mask(hits=hits, where=where)
    if num_permutations < 1:
        raise ValueError(
            f"num_permutations: expected at least 1, got {num_permutations}"
        )
    listed = jnp.ones(len(scores), bool) if where is None else where
    sizes = (num_permutations, min(batch_size, num_permutations))
    return _prerank(scores, hits & listed, listed, key, weight, sizes)


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
    mean = jnp.where(same, jnp.abs(null), 0).sum() / same.sum()
    beyond = same & (jnp.abs(null) >= jnp.abs(score))
    at = jnp.arange(len(hits))
    lead = jnp.where(score >= 0, at <= place, at > place)
    return Enrichment(
        score, score / mean, beyond.sum() / same.sum(), (lead & hits).sum()
    )


def _running(
    scores: Array, hits: Array, listed: Array, weight: float | Array
) -> tuple[Array, Array]:
    """The running sum farthest from 0 along a ranked list, and where it is reached.

    A hit adds ``|score|^weight`` over its sum over hits, a miss takes 1 over the number
    of misses.
    """
    gain = jnp.where(hits, jnp.abs(scores) ** weight, 0.0)
    missed = listed & ~hits
    loss = missed / jnp.maximum(missed.sum(), 1)
    running = jnp.cumsum(gain / jnp.maximum(gain.sum(), 1e-30) - loss)
    high, low = running.argmax(), running.argmin()
    place = jnp.where(jnp.abs(running[high]) >= jnp.abs(running[low]), high, low)
    return running[place], place
