"""Where tokens are kept: the sinks, the ring of recent tokens, the packed blocks.

All functions are on stacks of layers and on sequences with lengths of their own. The
place of everything follows from a sequence's length alone. Token p is a sink where
``p < sinks``; the others are numbered from 0 as ``i = p - sinks``, live in slot ``i mod
ring`` of the ring, and leave it as block ``i // 128`` when ``window`` tokens have come
after the block. A block is quantised once and its words never change.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jeff_llm.kv.config import CacheConfig
from jeff_llm.kv.quantize import BLOCK, QuantizedTensor, quantize
from jeff_llm.models.cache import store

__all__ = [
    "NOWHERE",
    "Recent",
    "empty_blocks",
    "empty_recent",
    "flush",
    "recent_positions",
    "recent_slot",
    "stored_blocks",
    "write_chunk",
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


Blocks = tuple[QuantizedTensor, QuantizedTensor]


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


def empty_blocks(
    config: CacheConfig, shape: tuple[int, int, int, int, int], dtype: jnp.dtype | type
) -> Blocks:
    """Slots for packed blocks.

    Args:
      config: the cache's configuration.
      shape: layers, batch, kv_heads, capacity, head_width.
      dtype: of values that are kept at 16 bits.

    Returns:
      Zeros.
    """
    *lead, capacity, width = shape
    full = (*lead, config.block_slots(capacity) * BLOCK, width)
    like = jax.eval_shape(
        lambda x: _quantize(config, x, x), jax.ShapeDtypeStruct(full, dtype)
    )
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)


def stored_blocks(
    config: CacheConfig, lengths: Int[Array, " batch"]
) -> Int[Array, " batch"]:
    """Blocks that have left the window.

    Args:
      config: the cache's configuration.
      lengths: tokens of each sequence.

    Returns:
      ``max(0, lengths - sinks - window) // 128``.
    """
    return jnp.maximum(lengths - config.sinks - config.window, 0) // BLOCK


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
    last = (lengths - sinks)[:, None] - 1
    number = last - (last - (slot - sinks)) % ring
    held = (number >= BLOCK * blocks[:, None]) & (number >= 0)
    behind = jnp.where(held, number + sinks, NOWHERE)
    first = jnp.where(slot < lengths[:, None], slot, NOWHERE)
    return jnp.where(slot < sinks, first, behind)


def write_recent(
    config: CacheConfig,
    recent: Recent,
    layer: Int[Array, ""] | int,
    new: Recent,
    positions: Int[Array, "batch tokens"],
    keep: Bool[Array, "batch tokens"],
) -> Recent:
    """Put new tokens into their slots.

    Args:
      config: the cache's configuration.
      recent: slots of all layers.
      layer: the layer that the tokens are of.
      new: keys and values, [batch, tokens, kv_heads, head_width].
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


def flush(
    config: CacheConfig,
    blocks: Blocks,
    recent: Recent,
    lengths: Int[Array, " batch"],
    count: Int[Array, " batch"],
    layers: tuple[int, ...] | None = None,
) -> Blocks:
    """Quantise the block that has just left the window, in the sequences where one has.

    Args:
      config: the cache's configuration.
      blocks: packed blocks of some layers.
      recent: slots of all layers.
      lengths: tokens of each sequence, the new ones counted in.
      count: new tokens of each.
      layers: numbers of the layers that the blocks are of; all by default.

    Returns:
      The blocks.
    """
    beyond = lengths - config.sinks - config.window
    due = (beyond > 0) & (beyond % BLOCK == 0) & (count > 0)
    number = stored_blocks(config, lengths) - 1
    slots = recent.keys.shape[3]

    def write(blocks: Blocks) -> Blocks:
        tokens = config.sinks + number[:, None] * BLOCK + jnp.arange(BLOCK)
        index = recent_slot(config, slots, jnp.maximum(tokens, config.sinks))
        left = (
            jnp.take_along_axis(
                x if layers is None else x[jnp.array(layers)],
                index[None, :, None, :, None],
                axis=3,
            )
            for x in recent
        )
        return _put(config, blocks, None, jnp.where(due, number, -1)[:, None], *left)

    # The words are given on as they are while no block is due.
    return jax.lax.cond(jnp.any(due), write, lambda blocks: blocks, blocks)


def write_chunk(
    config: CacheConfig,
    blocks: Blocks,
    recent: Recent,
    place: Int[Array, ""] | int,
    layer: Int[Array, ""] | int,
    new: Recent,
    lengths: Int[Array, " batch"],
    positions: Int[Array, "batch tokens"],
    mask: Bool[Array, "batch tokens"],
) -> tuple[Blocks, Recent]:
    """Store many tokens at once: whole blocks in bulk, the rest in the ring.

    A block that the very last token completes is left to `flush`.

    Args:
      config: the cache's configuration.
      blocks: packed blocks of a stack of layers.
      recent: slots of all layers.
      place: the layer's place in the stack.
      layer: its number.
      new: keys and values, [batch, tokens, kv_heads, head_width].
      lengths: tokens of each sequence before.
      positions: positions of the new tokens.
      mask: the new tokens that are real.

    Returns:
      The blocks and the slots.
    """
    slots = recent.keys.shape[3]
    total = lengths + mask.sum(1, dtype=lengths.dtype)
    begin = stored_blocks(config, lengths)
    blocks_at_most = (positions.shape[1] + BLOCK - 2) // BLOCK
    if blocks_at_most and slots == config.sinks + config.window + BLOCK:
        size = blocks_at_most * BLOCK
        tokens = config.sinks + begin[:, None] * BLOCK + jnp.arange(size)
        stream = [
            _stream(config, old, layer, x, tokens, positions, mask)
            for old, x in zip(recent, new, strict=True)
        ]
        number = begin[:, None] + jnp.arange(blocks_at_most)
        ready = stored_blocks(config, total - 1)[:, None]
        number = jnp.where(number < ready, number, -1)
        blocks = _put(config, blocks, place, number, *stream)
    ring = slots - min(config.sinks, slots)
    keep = (positions >= (total[:, None] - ring)) | (positions < config.sinks)
    recent = write_recent(config, recent, layer, new, positions, keep & mask)
    return blocks, recent


def _stream(
    config: CacheConfig,
    recent: Float[Array, "layers batch kv_heads slots head_width"],
    layer: Int[Array, ""] | int,
    new: Float[Array, "batch tokens kv_heads head_width"],
    wanted: Int[Array, "batch size"],
    positions: Int[Array, "batch tokens"],
    mask: Bool[Array, "batch tokens"],
) -> Float[Array, "1 batch kv_heads size head_width"]:
    """Tokens in a row from where the blocks end: of the ring, then the new ones."""
    old = jax.lax.dynamic_index_in_dim(recent, layer, keepdims=False)
    index = recent_slot(config, recent.shape[3], wanted)
    row = jnp.take_along_axis(old, index[:, None, :, None], axis=2)
    offset = positions - wanted[:, :1]
    size = wanted.shape[1]
    index = jnp.where(mask & (offset >= 0) & (offset < size), offset, size)
    return store(row[None], 0, index, new)


def _put(
    config: CacheConfig,
    blocks: Blocks,
    place: Int[Array, ""] | int | None,
    number: Int[Array, "batch new"],
    keys: Float[Array, "layers batch kv_heads tokens head_width"],
    values: Float[Array, "layers batch kv_heads tokens head_width"],
) -> Blocks:
    """Quantise whole blocks and store them where their number is not negative."""
    packed = _quantize(config, keys, values)

    def put(stored: Array, new: Array) -> Array:
        index = jnp.where(number < 0, stored.shape[3], number)
        layers_last = new.transpose(1, 3, 0, 2, 4, 5)
        if place is not None:
            layers_last = layers_last[:, :, 0]
        # A CPU scatters bfloat16 by way of a float32 copy of all that is stored.
        narrow = stored.dtype == jnp.bfloat16
        as_bits = lambda x: jax.lax.bitcast_convert_type(x, jnp.uint16)  # noqa: E731
        if narrow:
            stored, layers_last = as_bits(stored), as_bits(layers_last)
        after = store(stored, place, index, layers_last)
        return jax.lax.bitcast_convert_type(after, jnp.bfloat16) if narrow else after

    return jax.tree.map(put, blocks, packed)


def _quantize(config: CacheConfig, keys: Array, values: Array) -> Blocks:
    settings = {"scale_dtype": jnp.dtype(config.scale_dtype)}
    return (
        quantize(keys, config.key_bits, config.group_size, config.key_axis, **settings),
        quantize(values, config.value_bits, config.group_size, "token", **settings),
    )
