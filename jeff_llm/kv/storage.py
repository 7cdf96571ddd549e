"""Packed blocks, and how tokens get into them from the ring.

All functions take stacks of layers and sequences of different lengths. The place of
everything follows from a sequence's length alone: token i behind the sinks
lives in the ring (see `jeff_llm.kv.ring`), and leaves it in block ``i // 128`` when
``window`` tokens have come after the block. A block is quantised once and its words
never change.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jeff_llm.kv.config import CacheConfig
from jeff_llm.kv.quantize import BLOCK, QuantizedTensor, quantize
from jeff_llm.kv.ring import Recent, recent_slot
from jeff_llm.models.pending import store

__all__ = [
    "empty_blocks",
    "flush",
    "stored_blocks",
    "write_chunk",
    "write_prompt",
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
    # Shapes from the quantiser itself, so that the layout is written down once.
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
    # `count` tells a block that has just been completed from one that was before.
    due = (beyond > 0) & (beyond % BLOCK == 0) & (count > 0)
    number = stored_blocks(config, lengths) - 1
    slots = recent.keys.shape[3]

    def leaving() -> Blocks:
        tokens = config.sinks + number[:, None] * BLOCK + jnp.arange(BLOCK)
        # A sequence without a due block reads arbitrary slots; `due` discards them.
        index = recent_slot(config, slots, jnp.maximum(tokens, config.sinks))
        left = (
            jnp.take_along_axis(
                x if layers is None else x[jnp.array(layers)],
                index[None, :, None, :, None],
                axis=3,
            )
            for x in recent
        )
        return _quantize(config, *left)

    like = jax.eval_shape(leaving)
    # Only one block passes the condition: compilers copy whatever does.
    packed = jax.lax.cond(
        jnp.any(due),
        leaving,
        lambda: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like),
    )
    return _put(blocks, None, jnp.where(due, number, -1)[:, None], packed)


def write_prompt(
    config: CacheConfig,
    blocks: Blocks,
    place: Int[Array, ""] | int,
    new: Recent,
    positions: Int[Array, "batch tokens"],
    mask: Bool[Array, "batch tokens"],
) -> Blocks:
    """Store the whole blocks of one layer's first tokens.

    A block that the very last token completes is left to `flush`.

    Args:
      config: the cache's configuration.
      blocks: empty blocks of a stack of layers.
      place: the layer's place in the stack.
      new: its keys and values, [batch, tokens, kv_heads, head_width].
      positions: positions of the tokens, from 0.
      mask: the tokens that are real.

    Returns:
      The blocks.
    """
    # Shapes are static, so every block that could be whole is computed.
    none = jnp.zeros_like(mask.sum(1))
    first, number = _leaving(config, none, mask)
    batch, _, kv_heads, width = new.keys.shape
    shape = (1, batch, kv_heads, number.shape[1] * BLOCK, width)
    stream = [
        _continue(jnp.zeros(shape, x.dtype), first, x[:, :, None], positions, mask)
        for x in new
    ]
    if not number.size:
        return blocks
    return _put(blocks, place, number, _quantize(config, *stream))


def write_chunk(
    config: CacheConfig,
    blocks: Blocks,
    recent: Recent,
    new: Recent,
    lengths: Int[Array, " batch"],
    positions: Int[Array, "batch tokens"],
    mask: Bool[Array, "batch tokens"],
    layers: tuple[int, ...] | None = None,
) -> Blocks:
    """Store the whole blocks that many new tokens push out of the ring, of all layers.

    A block that the very last token completes is left to `flush`.

    Args:
      config: the cache's configuration.
      blocks: packed blocks of some layers.
      recent: slots of all layers, without the new tokens.
      new: keys and values of all layers, [layers, batch, tokens, kv_heads, head_width].
      lengths: tokens of each sequence before.
      positions: positions of the new tokens.
      mask: the new tokens that are real.
      layers: numbers of the layers that the blocks are of; all by default.

    Returns:
      The blocks.
    """
    slots = recent.keys.shape[3]
    if slots < config.sinks + config.window + BLOCK:
        return blocks  # no sequence grows so long that a block leaves
    first, number = _leaving(config, lengths, mask)
    if not number.size:
        return blocks
    # Rows of ring and new tokens in order: only whole blocks of them are packed.
    wanted = first[:, None] + jnp.arange(number.shape[1] * BLOCK)
    index = recent_slot(config, slots, wanted)[None, :, None, :, None]
    chosen = slice(None) if layers is None else jnp.array(layers)
    stream = []
    for old, x in zip(recent, new, strict=True):
        row = jnp.take_along_axis(old[chosen], index, axis=3)
        last = x[chosen].transpose(1, 2, 0, 3, 4)
        stream.append(_continue(row, first, last, positions, mask))
    return _put(blocks, None, number, _quantize(config, *stream))


def _leaving(
    config: CacheConfig,
    lengths: Int[Array, " batch"],
    mask: Bool[Array, "batch tokens"],
) -> tuple[Int[Array, " batch"], Int[Array, "batch new"]]:
    """The first token behind the blocks, and the blocks' numbers, -1 for none."""
    begin = stored_blocks(config, lengths)
    number = begin[:, None] + jnp.arange((mask.shape[1] + BLOCK - 2) // BLOCK)
    total = lengths + mask.sum(1, dtype=lengths.dtype)
    ready = stored_blocks(config, total - 1)[:, None]
    return config.sinks + begin * BLOCK, jnp.where(number < ready, number, -1)


def _continue(
    row: Float[Array, "layers batch kv_heads size head_width"],
    first: Int[Array, " batch"],
    new: Float[Array, "batch tokens layers kv_heads head_width"],
    positions: Int[Array, "batch tokens"],
    mask: Bool[Array, "batch tokens"],
) -> Float[Array, "layers batch kv_heads size head_width"]:
    """Put new tokens into a row that begins with token ``first``."""
    offset = positions - first[:, None]
    size = row.shape[3]
    index = jnp.where(mask & (offset >= 0) & (offset < size), offset, size)
    return store(row, None, index, new)


def _put(
    blocks: Blocks,
    place: Int[Array, ""] | int | None,
    number: Int[Array, "batch new"],
    packed: Blocks,
) -> Blocks:
    """Store packed blocks where their number is not negative."""

    def put(stored: Array, new: Array) -> Array:
        # An index past the end drops the write.
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
