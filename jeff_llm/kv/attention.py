"""Attention over packed keys and values, joined with what is in full precision.

Attention over parts of a sequence is joined by log-sum-exp: each part gives an
unnormalised output, its highest logit and the sum of its weights (`Partial`). The
packed part is read in tiles that are restored one at a time and only as far as the
sequences reach, so a restored cache is never in memory.
`packed_partial` is the reference in jax.numpy, and has the signature of the kernels.
"""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jeff_llm.kv.quantize import BLOCK, QuantizedTensor, restore_blocks
from jeff_llm.models.attention import attend_part
from jeff_llm.models.partial import Partial, add, join, nothing, partial_attention
from jeff_llm.models.tiles import budget, over_rows
from jeff_llm.models.view import View, from_rows, of_rows, to_rows

__all__ = [
    "Implementation",
    "Stored",
    "attend_stored",
    "packed_partial",
]

Implementation: TypeAlias = Literal["xla", "gpu", "tpu", "interpret"]

# Elements restored at a time: a tile of keys and one of values stay in a CPU's cache.
_TILE = 2**20
# Rows that meet a restored tile at once: restoring it is then a small part of the work.
_MOST_ROWS = 1024


class Stored(NamedTuple):
    """The stored tokens of a layer, and their positions.

    Attributes:
      keys: packed keys, or None where no block can be stored yet; with ``place`` those
        of a stack of layers.
      values: packed values, likewise.
      blocks: packed blocks of each sequence.
      recent_keys: keys in full precision; with ``layer`` those of all layers.
      recent_values: their values.
      recent_positions: positions of those, beyond all others for empty slots.
      layer: number of the layer, where there is an axis of layers.
      place: its place in the stack, likewise.
    """

    keys: QuantizedTensor | None
    values: QuantizedTensor | None
    blocks: Int[Array, " batch"]
    recent_keys: Float[Array, "*layers batch kv_heads slots head_width"]
    recent_values: Float[Array, "*layers batch kv_heads slots head_width"]
    recent_positions: Int[Array, "batch slots"]
    layer: Int[Array, ""] | int | None = None
    place: Int[Array, ""] | int | None = None


def attend_stored(
    query: Float[Array, "batch tokens heads head_width"],
    stored: Stored,
    positions: Int[Array, "batch tokens"],
    *,
    sinks: int,
    window: Int[Array, ""] | int | None = None,
    soft_cap: float | None = None,
    more: Callable[[Array], Partial] | None = None,
    implementation: Implementation | None = None,
) -> Float[Array, "batch tokens heads head_width"]:
    """Grouped-query attention, ``softmax(q k' / sqrt(H)) v``, over all that is stored.

    Args:
      query: rotated queries.
      stored: what is stored.
      positions: positions of the queries; each sees the tokens up to its own.
      sinks: tokens ahead of the first block.
      window: tokens seen at most, or None for all.
      soft_cap: ``c`` of ``c tanh(logit / c)``, or None.
      more: attention of the queries, as rows, over further tokens; joined with the
        rest.
      implementation: see `jeff_llm.kv.attend`.

    Returns:
      A weighted mean of values for each query head, in the dtype of ``query``.
    """
    kv_heads = stored.recent_keys.shape[-3]
    rows = to_rows(query, kv_heads)
    view = View(positions, stored.recent_positions, window)
    view = of_rows(view, query.shape[2] // kv_heads)
    at = view.positions
    recent = stored.recent_keys, stored.recent_values
    parts = [attend_part(rows, *recent, view, soft_cap, layer=stored.layer)]
    if more is not None:
        parts.append(more(rows))
    if stored.keys is not None and stored.values is not None:
        # Packed tokens are numbered behind the sinks; a span is half open.
        first = jnp.zeros_like(at) if window is None else at - window + 1 - sinks
        end = jnp.minimum(at + 1 - sinks, BLOCK * stored.blocks[:, None])
        partial = _choose_partial(implementation, single=query.shape[1] == 1)
        parts.append(
            partial(
                rows,
                stored.keys,
                stored.values,
                jnp.maximum(first, 0),
                jnp.maximum(end, 0),
                layer=stored.place,
                soft_cap=soft_cap,
            )
        )
    return from_rows(join(parts), query)


def packed_partial(
    rows: Float[Array, "batch kv_heads rows head_width"],
    keys: QuantizedTensor,
    values: QuantizedTensor,
    first: Int[Array, "batch rows"],
    end: Int[Array, "batch rows"],
    *,
    layer: Int[Array, ""] | int | None = None,
    soft_cap: float | None = None,
) -> Partial:
    """Attention of rows of queries over packed tokens ``first <= token < end``.

    Args:
      rows: queries, divided by the root of the head's width.
      keys: packed keys, [batch, kv_heads, blocks, ...]; with ``layer`` those of a stack
        of layers, [layers, batch, kv_heads, blocks, ...].
      values: packed values, likewise.
      first: first token that each row sees, counted from the first block.
      end: behind the last one.
      layer: the layer to read, where there is an axis of layers; it is read where it
        lies.
      soft_cap: ``c`` of ``c tanh(logit / c)``, or None.

    Returns:
      Output, highest logit and sum of weights, 0 for a row that sees nothing.
    """
    batch, kv_heads, _, width = rows.shape
    most = budget() // (batch * kv_heads * min(rows.shape[2], _MOST_ROWS))
    slots = max(BLOCK, min(_TILE // (batch * kv_heads * width), most))

    def part(_: Array, rows: Array, span: tuple[Array, Array]) -> Partial:
        tile = slots // BLOCK
        return _over_blocks(rows, keys, values, layer, *span, tile, soft_cap)

    return over_rows(part, rows, (first, end), _MOST_ROWS)


def _over_blocks(
    rows: Array,
    keys: QuantizedTensor,
    values: QuantizedTensor,
    layer: Array | int | None,
    first: Array,
    end: Array,
    tile: int,
    soft_cap: float | None,
) -> Partial:
    """Attention of a tile of rows; ``tile`` is in blocks."""
    blocks = keys.words.shape[-3]
    tile = min(tile, blocks)

    def restored(q: QuantizedTensor, start: Array) -> Array:
        cut = jax.tree.map(lambda x: _cut(x, layer, start, tile), q)
        # A product of bfloat16 and float32 would be taken in float32, and slowly.
        whole = restore_blocks(cut).astype(rows.dtype)
        return whole.reshape(*whole.shape[:2], tile * BLOCK, whole.shape[-1])

    def body(number: Array, before: Partial) -> Partial:
        # The last tile may begin earlier than it should, and must not count twice.
        start = jnp.minimum(number * tile, blocks - tile)
        token = BLOCK * start + jnp.arange(tile * BLOCK)
        mask = (token >= first[..., None]) & (token < end[..., None])
        mask &= token >= BLOCK * tile * number
        here = partial_attention(
            rows, restored(keys, start), restored(values, start), mask, soft_cap
        )
        return add(before, here)

    # Bounds that depend on lengths keep one program for a growing cache, and skip
    # tiles that no query sees. The loop has no gradient; decoding needs none.
    last = jnp.minimum(-(-jnp.max(end) // (tile * BLOCK)), -(-blocks // tile))
    # Rows that only fill a tile up see nothing, from -1.
    begin = jnp.min(jnp.where(first < 0, blocks * BLOCK, first)) // (tile * BLOCK)
    return jax.lax.fori_loop(begin, last, body, nothing(rows))


def _cut(x: Array, layer: Array | int | None, start: Array, tile: int) -> Array:
    """A tile of blocks, by one slice: a layer cut out first would be copied."""
    if layer is None:
        return jax.lax.dynamic_slice_in_dim(x, start, tile, axis=2)
    corner = [jnp.asarray(at, jnp.int32) for at in (layer, 0, 0, start, 0, 0)]
    return jax.lax.dynamic_slice(x, corner, (1, *x.shape[1:3], tile, *x.shape[4:]))[0]


def _choose_partial(
    implementation: Implementation | None, *, single: bool
) -> Callable[..., Partial]:
    """The function that attends over packed tokens.

    Args:
      implementation: "xla", "gpu", "tpu", "interpret" for the TPU kernel in Pallas'
        interpreter, or None for "gpu" where it is the only device, of NVIDIA's
        compute capability 9 or more, and `jeff_llm.kv.kernels_gpu.takes` what it is
        given, and for "xla" elsewhere.
      single: one query token per sequence, which is what the kernels are for; several
        go through "xla".

    Returns:
      `packed_partial`, or a kernel with its signature.

    Raises:
      ValueError: if there is no such implementation, or not on this platform.
    """
    if implementation not in (None, "xla", "gpu", "tpu", "interpret"):
        raise ValueError(
            "implementation: expected None, 'xla', 'gpu', 'tpu' or 'interpret', got "
            f"{implementation!r}"
        )
    if implementation in ("gpu", "tpu") and jax.default_backend() != implementation:
        raise ValueError(
            f"implementation: expected a device of the platform {implementation!r} for "
            f"its kernel, got {jax.default_backend()!r}; pass None, which runs anywhere"
        )
    if implementation == "xla" or not single:
        return packed_partial
    # The TPU kernel has not run on a chip, so it is never the default.
    if implementation is None:
        return _packed_partial_on_gpu if _is_one_hopper() else packed_partial
    # Imported here, so that no other back end waits for Pallas' import.
    if implementation == "gpu":
        from jeff_llm.kv import kernels_gpu

        return kernels_gpu.packed_partial
    from jeff_llm.kv import kernels_tpu

    return functools.partial(
        kernels_tpu.packed_partial, interpret=implementation == "interpret"
    )


def _packed_partial_on_gpu(
    rows: Array,
    keys: QuantizedTensor,
    values: QuantizedTensor,
    first: Array,
    end: Array,
    *,
    layer: Array | int | None = None,
    soft_cap: float | None = None,
) -> Partial:
    """Attention by the kernel if it supports the layout, else by XLA."""
    from jeff_llm.kv import kernels_gpu

    taken = kernels_gpu.takes(rows, keys, values)
    partial = kernels_gpu.packed_partial if taken else packed_partial
    return partial(rows, keys, values, first, end, layer=layer, soft_cap=soft_cap)


def _is_one_hopper() -> bool:
    """Whether the only device is a GPU that has the kernel's instructions."""
    if jax.default_backend() != "gpu" or jax.device_count() > 1:
        return False
    capability = str(getattr(jax.devices()[0], "compute_capability", ""))
    major = capability.partition(".")[0]
    return major.isdigit() and int(major) >= 9
