"""Attention over packed keys and values on GPUs: flash decoding in Pallas, with Triton.

Decoding one token reads the whole cache once, so its time is at least bytes over
bandwidth. With keys of 4 bits, values of 2 and groups of 64, a token and key head of
width 128 have 112 bytes, where bfloat16 has 512. A program takes one key head of one
sequence and a share of its blocks, restores one block of 128 tokens at a time in
registers and shared memory, and writes a `Partial` of its share; the shares are joined
by log-sum-exp. There are as many shares as fill the card when batch and heads do not.

The kernel waits for unpacking: on an H200 it reads at 40% of a copy's bandwidth, and
codes restored in pairs (`jeff_llm.kv.restore_gpu`) are 1.35 times as fast as by a
compiler's own code. With 128 registers a thread and 50 kB of shared memory four
programs share a multiprocessor. Folding scales into queries and weights, so that codes
are multiplied directly, needs fewer instructions, and was slower on the chip.

Code that is specific to Triton is in `jeff_llm.kv.restore_gpu`, the stores at the end
of `_kernel`, and the compiler's parameters.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float, Int

from jeff_llm.kv.quantize import BLOCK, QuantizedTensor
from jeff_llm.kv.restore_gpu import Layout, restore
from jeff_llm.models.partial import LOWEST, Partial

__all__ = ["packed_partial", "takes"]

_MOST_ROWS = 64
# Rows are the columns of the products, which have 8 at least; see `_kernel`.
_LEAST_ROWS = 8
# Four programs for each of the 132 multiprocessors of an H100.
_PROGRAMS = 528
# A share of fewer blocks is not worth the partial that it writes.
_LEAST_BLOCKS = 2


def packed_partial(
    rows: Float[Array, "batch kv_heads rows head_width"],
    keys: QuantizedTensor,
    values: QuantizedTensor,
    first: Int[Array, "batch rows"],
    end: Int[Array, "batch rows"],
    *,
    layer: Int[Array, ""] | int | None = None,
    soft_cap: float | None = None,
    interpret: bool = False,
    splits: int | None = None,
    inline: bool | None = None,
    num_warps: int | None = None,
    num_stages: int | None = None,
) -> Partial:
    """Attention of rows of queries over packed tokens ``first <= token < end``.

    The same as `jeff_llm.kv.attention.packed_partial`, up to rounding. Where rows and
    scales are bfloat16, 2 and 4 bits are restored in its arithmetic, whose rounding
    is less than a tenth of the quantiser's error; scales of float32 keep to float32.

    Args:
      rows: queries of one token, divided by the root of the head's width; at most 64
        rows. Products are taken in their dtype and summed in float32; bfloat16 is what
        the kernel is made for, float32 goes without tensor cores.
      keys: packed keys, [batch, kv_heads, blocks, ...]; with ``layer`` those of a stack
        of layers, [layers, batch, kv_heads, blocks, ...].
      values: packed values, likewise.
      first: first token that each row sees, counted from the first block.
      end: behind the last one.
      layer: the layer to read, where there is an axis of layers.
      soft_cap: ``c`` of ``c tanh(logit / c)``, or None.
      interpret: run in Pallas' interpreter, on any platform.
      splits: shares of a sequence; by default enough to fill an H100.
      inline: restore 2 and 4 bits by NVIDIA's PTX; by default unless interpreted.
      num_warps: warps of a program; by default as many as a tile needs.
      num_stages: blocks in flight; from 2 on, which is the default where shared memory
        has room, the next one is read ahead.

    Returns:
      Output, highest logit and sum of weights; where nothing is seen a total of 0.

    Raises:
      ValueError: if there are too many rows, or groups of a size that is not a power of
        two.

    References:
      Dao et al., "Flash-Decoding for long-context inference", 2023.
    """
    _check(rows, keys, values)
    batch, kv_heads, count, width = rows.shape
    blocks = keys.words.shape[-3]
    exact = rows.dtype == jnp.float32
    if splits is None:
        splits = _choose_splits(batch * kv_heads, blocks)
    if num_warps is None:
        num_warps = 8 if exact or width > BLOCK else 4
    if num_stages is None:
        # Float32 tiles leave shared memory no room for a second stage.
        num_stages = 1 if exact else 2
    # Triton's tiles are powers of two; masks cut off what they have too many.
    tile = (max(_LEAST_ROWS, _power_of_two(count)), _power_of_two(width))
    if inline is None:
        # A thread needs two words of a tensor's block at least.
        words = 4 * min(keys.bits, values.bits) * tile[1]
        inline = not interpret and words >= 2 * 32 * num_warps
    spans = pl.BlockSpec((None, tile[0]), lambda b, k, s: (b, 0))
    key_arrays, value_arrays = _arrays(keys), _arrays(values)
    out, highest, total = pl.pallas_call(
        functools.partial(
            _kernel,
            shape=(count, width),
            key_layout=Layout(keys.bits, keys.group_size, keys.axis),
            value_layout=Layout(values.bits, values.group_size, values.axis),
            splits=splits,
            soft_cap=soft_cap,
            inline=inline,
        ),
        grid=(batch, kv_heads, splits),
        in_specs=[
            pl.BlockSpec((1,), lambda *_: (0,)),
            spans,
            spans,
            _spec(tile),
            jax.tree.map(_whole, key_arrays),
            jax.tree.map(_whole, value_arrays),
        ],
        out_specs=[_spec(tile, 3), _spec(tile[:1], 3), _spec(tile[:1], 3)],
        out_shape=[
            jax.ShapeDtypeStruct((batch, kv_heads, splits, *shape), jnp.float32)
            for shape in ((count, width), (count,), (count,))
        ],
        compiler_params=triton.CompilerParams(
            num_warps=num_warps, num_stages=num_stages
        ),
        interpret=interpret,
        name="packed_attention",
    )(
        jnp.asarray(0 if layer is None else layer, jnp.int32)[None],
        first.astype(jnp.int32),
        jnp.minimum(end, BLOCK * blocks).astype(jnp.int32),
        rows,
        key_arrays,
        value_arrays,
    )
    # Join the shares: each is relative to its own highest logit.
    joined = highest.max(2)
    factor = jnp.exp(highest - joined[:, :, None])
    return Partial((out * factor[..., None]).sum(2), joined, (total * factor).sum(2))


def takes(rows: Array, keys: QuantizedTensor, values: QuantizedTensor) -> bool:
    """Whether the kernel supports these arrays.

    Args:
      rows: queries, [batch, kv_heads, rows, head_width].
      keys: packed keys.
      values: packed values.

    Returns:
      True for rows in bfloat16 that `packed_partial` does not refuse.
    """
    if rows.dtype != jnp.bfloat16:
        return False
    try:
        _check(rows, keys, values)
    except ValueError:
        return False
    return True


def _kernel(
    layer_ref: Any,
    first_ref: Any,
    end_ref: Any,
    rows_ref: Any,
    keys: tuple[Any, ...],
    values: tuple[Any, ...],
    out_ref: Any,
    highest_ref: Any,
    total_ref: Any,
    *,
    shape: tuple[int, int],
    key_layout: Layout,
    value_layout: Layout,
    splits: int,
    soft_cap: float | None,
    inline: bool,
) -> None:
    """Attention of one key head over one share of its blocks."""
    real = jnp.arange(rows_ref.shape[0]) < shape[0]
    inside = real[:, None] & (jnp.arange(rows_ref.shape[1]) < shape[1])
    # Rows that only fill the tile see nothing.
    first = triton.load(first_ref, mask=real, other=jnp.iinfo(jnp.int32).max)
    end = triton.load(end_ref, mask=real, other=0)
    query = triton.load(rows_ref, mask=inside, other=0)
    layer = layer_ref[0]

    # Tokens and channels stand first and rows last, since a matrix product has at least
    # 16 of the one and 8 of the other.
    def body(block: Array, before: tuple[Array, ...]) -> tuple[Array, ...]:
        restored = functools.partial(
            restore,
            layer=layer,
            block=block,
            width=shape[1],
            dtype=query.dtype,
            inline=inline,
        )
        logits = _dot(restored(keys, layout=key_layout), query, 1)
        if soft_cap is not None:
            logits = soft_cap * jnp.tanh(logits / soft_cap)
        token = (BLOCK * block + jnp.arange(BLOCK))[:, None]
        logits = jnp.where((token >= first) & (token < end), logits, -jnp.inf)
        # Online softmax: what was summed so far shrinks as the maximum grows. It starts
        # at a finite LOWEST, so exp(-inf - LOWEST) is 0 where -inf - -inf would be NaN.
        out, highest, total = before
        higher = jnp.maximum(highest, logits.max(0))
        weights = jnp.exp(logits - higher)
        shrink = jnp.exp(highest - higher)
        more = _dot(
            restored(values, layout=value_layout),
            weights.astype(query.dtype),
            0,
        )
        return out * shrink + more, higher, total * shrink + weights.sum(0)

    # The blocks that any row sees, in equal shares: a short sequence in a long cache
    # keeps all programs busy too.
    lower, upper = jax.lax.div(jnp.min(first), BLOCK), pl.cdiv(jnp.max(end), BLOCK)
    share = pl.cdiv(jnp.maximum(upper - lower, 0), splits)
    start = lower + pl.program_id(2) * share
    out, highest, total = jax.lax.fori_loop(
        start,
        jnp.minimum(start + share, upper),
        body,
        (
            jnp.zeros(rows_ref.shape[::-1], jnp.float32),
            jnp.full(rows_ref.shape[0], LOWEST, jnp.float32),
            jnp.zeros(rows_ref.shape[0], jnp.float32),
        ),
    )
    triton.store(out_ref, out.T, mask=inside)
    triton.store(highest_ref, highest, mask=real)
    triton.store(total_ref, total, mask=real)


def _dot(tile: Array, right: Array, axis: int) -> Float[Array, "length rows"]:
    """Product in float32 over an axis of a tile and the same one of ``right``."""
    exact = tile.dtype == jnp.float32
    return jax.lax.dot_general(
        tile,
        right,
        (((axis,), (axis,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST if exact else None,
        preferred_element_type=jnp.float32,
    )


def _arrays(q: QuantizedTensor) -> tuple[Array, ...]:
    """The arrays of a tensor with an axis of layers, and of size 1 for the planes."""
    lead, inner = q.words.shape[-5:-2], q.words.shape[-2:]
    words = q.words.reshape(-1, *lead, 1, *inner)
    if q.bits == 16:
        return (words,)
    return words, *(x.reshape(-1, *x.shape[-5:]) for x in (q.scale, q.zero))


def _whole(x: Array) -> pl.BlockSpec:
    """All layers and blocks of a sequence's head; loads pick theirs."""
    inner = (*x.shape[3:-1], _power_of_two(x.shape[-1]))
    return pl.BlockSpec(
        (x.shape[0], None, None, *inner),
        lambda b, k, _: (0, b, k, *(0 for _ in inner)),
    )


def _spec(shape: tuple[int, ...], squeezed: int = 2) -> pl.BlockSpec:
    """Part of an array for a program, behind its batch, head and perhaps share."""
    return pl.BlockSpec(
        (None,) * squeezed + shape,
        lambda *place: (*place[:squeezed], *(0 for _ in shape)),
    )


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()


def _choose_splits(programs: int, blocks: int) -> int:
    """Shares that fill a card, none of a full sequence smaller than a few blocks."""
    # Rounded down, since programs beyond what fits at once would take another round.
    return max(1, min(_PROGRAMS // programs, blocks // _LEAST_BLOCKS))


def _check(rows: Array, keys: QuantizedTensor, values: QuantizedTensor) -> None:
    """Refuse arrays that the kernel does not support."""
    advice = "; pass implementation=None, which runs anywhere"
    if rows.shape[2] > _MOST_ROWS:
        raise ValueError(
            f"rows: expected at most {_MOST_ROWS} queries of a key head, got "
            f"{rows.shape[2]}{advice}"
        )
    for name, tensor in (("keys", keys), ("values", values)):
        size = tensor.group_size
        if tensor.bits < 16 and size != _power_of_two(size):
            raise ValueError(
                f"{name}: expected a group_size that is a power of two, got "
                f"{size}{advice}"
            )
