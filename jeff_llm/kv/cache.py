"""A quantised key-value cache for one attention layer of any model.

`init_cache` makes it, `prefill` reads a prompt, `append` adds tokens, `attend` attends
to all of them. A cache is a pytree of fixed capacity: everything is jit-, scan- and
vmap-safe, and nothing is compiled again as it grows. Each sequence of a batch has its
own length.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from jeff_llm.kv import ring, storage
from jeff_llm.kv.attention import Implementation, Stored, attend_stored
from jeff_llm.kv.checks import check_new, check_query, check_room, check_sizes
from jeff_llm.kv.config import CacheConfig
from jeff_llm.kv.quantize import QuantizedTensor
from jeff_llm.kv.rotation import rotate
from jeff_llm.models.attention import attend as attend_plain
from jeff_llm.models.view import NEVER, View

__all__ = [
    "QuantizedCache",
    "append",
    "attend",
    "init_cache",
    "nbytes",
    "prefill",
]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class QuantizedCache:
    """Keys and values of one layer.

    Invariants: a sequence's length determines where each of its tokens is (see
    `jeff_llm.kv.storage`); a block's words never change once they are written.

    Attributes:
      keys: packed keys, [batch, kv_heads, blocks, ...].
      values: packed values, likewise.
      recent_keys: the first tokens and the last ones in full precision, [batch,
        kv_heads, slots, head_width].
      recent_values: likewise.
      lengths: tokens of each sequence, [batch].
      capacity: tokens of a sequence at most.
      config: widths and layout.
    """

    keys: QuantizedTensor
    values: QuantizedTensor
    # Leaves may be shapes as well, as `jax.eval_shape` gives them.
    recent_keys: Any
    recent_values: Any
    lengths: Any
    capacity: int = dataclasses.field(metadata={"static": True})
    config: CacheConfig = dataclasses.field(metadata={"static": True})


def init_cache(
    config: CacheConfig,
    batch_size: int,
    capacity: int,
    *,
    kv_heads: int,
    head_width: int,
    dtype: Any = jnp.bfloat16,
) -> QuantizedCache:
    """An empty cache for one layer.

    Args:
      config: widths and layout.
      batch_size: sequences.
      capacity: tokens of a sequence at most.
      kv_heads: heads of keys and values.
      head_width: channels of a head.
      dtype: of the tokens in full precision.

    Returns:
      The cache, with all lengths 0.

    Raises:
      ValueError: if a size is not positive, or groups do not fit the head.
    """
    check_sizes(
        batch_size=batch_size,
        capacity=capacity,
        kv_heads=kv_heads,
        head_width=head_width,
    )
    config.check_heads(head_width)
    shape = (1, batch_size, kv_heads, capacity, head_width)
    recent = ring.empty_recent(config, shape, dtype)
    blocks = storage.empty_blocks(config, shape, dtype)
    lengths = jnp.zeros(batch_size, jnp.int32)
    return _unlift(blocks, recent, lengths, capacity, config)


def prefill(
    cache: QuantizedCache,
    query: Float[Array, "batch tokens heads head_width"],
    key: Float[Array, "batch tokens kv_heads head_width"],
    value: Float[Array, "batch tokens kv_heads head_width"],
    *,
    mask: Bool[Array, "batch tokens"] | None = None,
    window: int | None = None,
    soft_cap: float | None = None,
) -> tuple[Float[Array, "batch tokens heads head_width"], QuantizedCache]:
    """Attend over a prompt with exact keys and values, and store them.

    Args:
      cache: an empty cache; its contents are ignored.
      query: rotated queries of the prompt.
      key: rotated keys.
      value: values.
      mask: the tokens that are real; padding may be on either side. All by default.
      window: tokens that a token sees at most, or None for all.
      soft_cap: ``c`` of ``c tanh(logit / c)``, or None.

    Returns:
      Causal attention's output, and the cache.

    Raises:
      ValueError: if shapes do not fit the cache, or the prompt is longer than it.
    """
    mask = check_new(cache.recent_keys, cache.capacity, key, value, mask)
    check_query(cache.recent_keys, query, key.shape[1])
    # Padding has the position of a neighbour; the mask keeps it out of attention.
    positions = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
    view = View(positions, jnp.where(mask, positions, NEVER), window)
    keys, values = key.swapaxes(1, 2), value.swapaxes(1, 2)
    out = attend_plain(query, keys, values, view, soft_cap)
    # Length 0 is what makes a cache empty: stale words behind it are never read.
    empty = dataclasses.replace(cache, lengths=jnp.zeros_like(cache.lengths))
    return out, append(empty, key, value, mask=mask)


def append(
    cache: QuantizedCache,
    key: Float[Array, "batch tokens kv_heads head_width"],
    value: Float[Array, "batch tokens kv_heads head_width"],
    *,
    mask: Bool[Array, "batch tokens"] | None = None,
) -> QuantizedCache:
    """Store the next tokens of each sequence; what leaves the window is quantised.

    Args:
      cache: the cache.
      key: rotated keys.
      value: values.
      mask: the tokens that are real; the others are not stored. All by default.

    Returns:
      The cache.

    Raises:
      ValueError: if shapes do not fit the cache, or a sequence would exceed its
        capacity. Under jit lengths are unknown: a token without room is then dropped,
        never written over another, and `jax.experimental.checkify` reports it.
    """
    mask = check_new(cache.recent_keys, cache.capacity, key, value, mask)
    count = mask.sum(1, dtype=cache.lengths.dtype)
    check_room(cache.lengths + count, cache.capacity)
    config, lengths = cache.config, cache.lengths
    positions = lengths[:, None] + jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
    kept = mask & (positions < cache.capacity)
    count = kept.sum(1, dtype=lengths.dtype)
    # Rotated once, when stored; `attend` rotates the queries the same way.
    if config.rotate:
        key = rotate(key)
    blocks, recent = _lift(cache)
    new = ring.Recent(key, value)
    # One token always fits the ring. Several may push out blocks that the ring never
    # held whole, so those are packed from ring and new tokens together.
    if key.shape[1] == 1:
        recent = ring.write_recent(config, recent, 0, new, positions, kept)
    else:
        stack = ring.Recent(key[None], value[None])
        # Before the ring is overwritten: blocks may consist of tokens in both.
        blocks = storage.write_chunk(
            config, blocks, recent, stack, lengths, positions, kept
        )
        slots = cache.recent_keys.shape[2]
        kept &= ring.stays_recent(config, slots, lengths + count, positions)
        recent = ring.write_recent(config, recent, 0, new, positions, kept)
    blocks = storage.flush(config, blocks, recent, lengths + count, count)
    return _unlift(blocks, recent, lengths + count, cache.capacity, config)


def attend(
    query: Float[Array, "batch tokens heads head_width"],
    cache: QuantizedCache,
    *,
    window: int | None = None,
    soft_cap: float | None = None,
    implementation: Implementation | None = None,
) -> Float[Array, "batch tokens heads head_width"]:
    """Attention of the last tokens over all tokens of their sequence.

    ``softmax(q k' / sqrt(H)) v`` with keys and values as they are stored. The tokens of
    ``query`` are the last ones of every sequence, in their order, and each sees its
    sequence up to itself. Where rows of different lengths were appended in one call,
    pass each row's last token alone.

    Args:
      query: rotated queries; query head n belongs to key head
        ``n // (heads / kv_heads)``.
      cache: the cache, the tokens of the queries in it.
      window: tokens that a token sees at most, itself counted, or None for all.
      soft_cap: ``c`` of ``c tanh(logit / c)``, or None.
      implementation: of the part over packed tokens: "xla", which runs anywhere;
        "gpu" or "tpu" for their Pallas kernels, "interpret" for the TPU kernel in
        Pallas' interpreter; None for "gpu" where one NVIDIA GPU of compute capability
        9 or more is the only device and its kernel takes the layout and bfloat16
        queries, else "xla". Kernels serve one query token per sequence; for more, "xla"
        is taken.

    Returns:
      A weighted mean of values for each query head, in the dtype of ``query``.

    Raises:
      ValueError: if shapes do not fit, or this platform lacks the kernel.
    """
    check_query(cache.recent_keys, query)
    if cache.config.rotate:
        query = rotate(query)
    count = storage.stored_blocks(cache.config, cache.lengths)
    stored = Stored(
        cache.keys,
        cache.values,
        count,
        cache.recent_keys,
        cache.recent_values,
        ring.recent_positions(
            cache.config, cache.recent_keys.shape[2], cache.lengths, count
        ),
    )
    tokens = query.shape[1]
    positions = cache.lengths[:, None] - tokens + jnp.arange(tokens)
    return attend_stored(
        query,
        stored,
        positions,
        sinks=cache.config.sinks,
        window=window,
        soft_cap=soft_cap,
        implementation=implementation,
    )


def nbytes(cache: PyTree) -> int:
    """Bytes of all buffers of a cache: words, scales, zeros, recent tokens, lengths.

    Args:
      cache: any cache, or its shapes.

    Returns:
      The bytes.
    """
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(cache))


def _lift(cache: QuantizedCache) -> tuple[storage.Blocks, ring.Recent]:
    """The layer as a stack of one, as `storage` and `ring` take it."""
    return jax.tree.map(
        lambda x: x[None],
        (
            (cache.keys, cache.values),
            ring.Recent(cache.recent_keys, cache.recent_values),
        ),
    )


def _unlift(
    blocks: storage.Blocks,
    recent: ring.Recent,
    lengths: Int[Array, " batch"],
    capacity: int,
    config: CacheConfig,
) -> QuantizedCache:
    (keys, values), recent = jax.tree.map(lambda x: x[0], (blocks, recent))
    return QuantizedCache(
        keys, values, recent.keys, recent.values, lengths, capacity, config
    )
