"""Packed blocks, and how tokens get into them from the ring.

All functions are on stacks of layers and on sequences with lengths of their own. The
place of everything follows from a sequence's length alone: token i behind the sinks
lives in the ring (see `jeff_llm.kv.ring`), and leaves it in block ``i // 128`` when
``window`` tokens have come after the block. A block is quantised once and its words
never change.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jeff_llm.kv.config import CacheConfig
from jeff_llm.kv.quantize import BLOCK, QuantizedTensor, quantize
from jeff_llm.kv.ring import Recent, recent_slot, write_recent
from jeff_llm.models.cache import store

__all__ = [
    "empty_blocks",
    "flush",
    "stored_blocks",
    "write_chunk",
]


Blocks = tuple[QuantizedTensor, QuantizedTensor]


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
