"""Tokens in full precision: the sinks, and the ring of recent ones.

Token p is a sink where ``p < sinks``; the others are numbered from 0 as ``i = p -
sinks`` and live in slot ``sinks + i mod ring``.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jeff_llm.kv.config import CacheConfig
from jeff_llm.kv.quantize import BLOCK
from jeff_llm.models.pending import store

__all__ = [
    "NOWHERE",
    "Recent",
    "empty_recent",
    "recent_positions",
    "recent_slot",
    "stays_recent",
    "write_recent",
]

# The position of an empty slot: after every token, so that none sees it.
NOWHERE = 2**30


class Recent(NamedTuple):
    """Tokens in full precision: sinks first, then the ring.

    Attributes:
      keys: [layers, batch, kv_heads, slots, head_width].
      values: likewise.
    """

    keys: Any
    values: Any


def empty_recent(
    config: CacheConfig, shape: tuple[int, int, int, int, int], dtype: jnp.dtype | type
) -> Recent:
    """Slots for recent tokens.

    Args:
      config: the cache's configuration.
      shape: layers, batch, kv_heads, capacity, head_width.
      dtype: of keys and values.

    Returns:
      Zeros.
    """
    *lead, capacity, width = shape
    full = (*lead, config.recent_slots(capacity), width)
    # An array each, so that a cache can be donated.
    return Recent(jnp.zeros(full, dtype), jnp.zeros(full, dtype))


def recent_slot(
    config: CacheConfig, slots: int, positions: Int[Array, "..."]
) -> Int[Array, "..."]:
    """The slot of a token while it is in full precision.

    Args:
      config: the cache's configuration.
      slots: sinks and ring together.
      positions: positions of tokens.

    Returns:
      The position itself for a sink, else ``sinks + (position - sinks) mod ring``.
    """
    # A capacity below the sinks leaves no ring; 1 avoids a modulus of 0.
    sinks = min(config.sinks, slots)
    ring = max(slots - sinks, 1)
    return jnp.where(positions < sinks, positions, sinks + (positions - sinks) % ring)


def recent_positions(
    config: CacheConfig,
    slots: int,
    lengths: Int[Array, " batch"],
    blocks: Int[Array, " batch"],
) -> Int[Array, "batch slots"]:
    """Which token each slot holds.

    Args:
      config: the cache's configuration.
      slots: sinks and ring together.
      lengths: tokens of each sequence.
      blocks: blocks already stored, whose tokens do not count as recent.

    Returns:
      Positions, `NOWHERE` for a slot that holds nothing to be seen.
    """
    slot = jnp.arange(slots)
    sinks = min(config.sinks, slots)
    ring = max(slots - sinks, 1)
    # The newest token that falls into a slot: the largest number up to `last` that is
    # congruent to the slot modulo the ring.
    last = (lengths - sinks)[:, None] - 1
    number = last - (last - (slot - sinks)) % ring
    # A token in a packed block is read there; its slot must not count it twice.
    held = (number >= BLOCK * blocks[:, None]) & (number >= 0)
    behind = jnp.where(held, number + sinks, NOWHERE)
    first = jnp.where(slot < lengths[:, None], slot, NOWHERE)
    return jnp.where(slot < sinks, first, behind)


def stays_recent(
    config: CacheConfig,
    slots: int,
    total: Int[Array, " batch"],
    positions: Int[Array, "batch tokens"],
) -> Bool[Array, "batch tokens"]:
    """Which of many new tokens are written, so that no two share a slot.

    Args:
      config: the cache's configuration.
      slots: sinks and ring together.
      total: tokens of each sequence, the new ones counted in.
      positions: positions of the new tokens.

    Returns:
      True for sinks and for the last ones, as many as the ring holds.
    """
    held = slots - min(config.sinks, slots)
    return (positions >= total[:, None] - held) | (positions < config.sinks)


def write_recent(
    config: CacheConfig,
    recent: Recent,
    layer: Int[Array, ""] | int | None,
    new: Recent,
    positions: Int[Array, "batch tokens"],
    keep: Bool[Array, "batch tokens"],
) -> Recent:
    """Put new tokens into their slots.

    Args:
      config: the cache's configuration.
      recent: slots of all layers.
      layer: the layer that the tokens are of, or None for all.
      new: keys and values, [batch, tokens, kv_heads, head_width], or of all layers
        [batch, tokens, layers, kv_heads, head_width].
      positions: positions of the tokens.
      keep: the tokens to write; no two of a sequence in one slot.

    Returns:
      The slots.
    """
    slots = recent.keys.shape[3]
    # A slot past the end drops the write.
    index = jnp.where(keep, recent_slot(config, slots, positions), slots)
    return Recent(
        *(store(old, layer, index, x) for old, x in zip(recent, new, strict=True))
    )
