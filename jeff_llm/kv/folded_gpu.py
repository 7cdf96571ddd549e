"""The GPU's kernel where keys have 4 bits and channels' groups, values 2 or 4 bits.

Codes go into tensor cores as they are. A tile of 16 rows of words is an operand: a word
holds in its halves the codes of one channel's tokens t and t + 64, and one shift and
one ``lop3`` give it the exponents that make both the bfloat16 ``2^n + code``. So a
restored block is never written to shared memory, and everything else is done to what
is small:

  logit_t = sum_c code_tc (scale_c q_c) + sum_c zero_c q_c
  out_c = sum_t code_tc (scale_t w_t) + sum_t zero_t w_t

where a product of a row of ``-2^n`` with the scaled operand, as it was rounded, takes
the powers of two off again. Both halves of a word lie side by side along the axis that
a product sums over. Each has its own columns of the other operand, which are zero where
the other half is: columns are query rows of the lower 64 tokens of a block, then the
same ones of the upper 64, and are joined when a share has been read. With the 4 query
rows that 32 heads over 8 key heads have, these are the 8 columns that a tensor core
takes at least.

A program is one warp, so nothing waits for another. A block of 128 tokens of K4V2 takes
some 2,230 instructions of one of a multiprocessor's four schedulers; restoring it in
shared memory, as `jeff_llm.kv.restore_gpu` does, takes 3,970 and twelve barriers.
Pallas' interpreter knows no PTX, and takes the plain way.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

from jeff_llm.kv import instructions_gpu as instructions
from jeff_llm.kv.partial import LOWEST
from jeff_llm.kv.quantize import BLOCK, QuantizedTensor
from jeff_llm.kv.restore_gpu import Layout

__all__ = ["kernel", "takes"]

# Rows of a tile of keys, and tokens of each half in a tile of values.
_TILE = 16
_LEAST_ROWS = 4
# Rows times channels that have room in a warp's registers.
_MOST = 512
_LOG2_E = 1.4426950408889634


def takes(rows: Array, keys: QuantizedTensor, values: QuantizedTensor) -> bool:
    """Whether the kernel takes these.

    Args:
      rows: queries, [batch, kv_heads, rows, head_width].
      keys: packed keys.
      values: packed values.

    Returns:
      True for bfloat16, at most 4 rows of a width of 16, 32, 64 or 128 (up to 64, 8
      rows), keys of 4 bits in groups of at least 16 tokens, and values of 2 or 4 bits
      in groups of at least 16 channels.
    """
    dtypes = {jnp.dtype(x.dtype) for x in (rows, keys.scale, values.scale)}
    return (
        dtypes == {jnp.dtype(jnp.bfloat16)}
        and rows.shape[2] <= 2 * _LEAST_ROWS
        and rows.shape[3] in (16, 32, 64, 128)
        and _padded(rows.shape[2]) * rows.shape[3] <= _MOST
        and (keys.bits, keys.axis) == (4, "channel")
        and values.bits in instructions.PLACES
        and values.axis == "token"
        and min(keys.group_size, values.group_size) >= _TILE
    )


# Arguments are references to memory, which have no shape to annotate.
def kernel(
    first_ref: Any,
    end_ref: Any,
    rows_ref: Any,
    keys: tuple[Any, ...],
    values: tuple[Any, ...],
    out_ref: Any,
    highest_ref: Any,
    total_ref: Any,
    *,
    key_layout: Layout,
    value_layout: Layout,
    splits: int,
    soft_cap: float | None,
    inline: bool,
) -> None:
    """Attention of one key head over one share of its blocks.

    Args:
      first_ref: first token that each row sees, [rows].
      end_ref: behind the last one, [rows].
      rows_ref: queries, [rows, head_width].
      keys: words, [blocks, 1, 16, head_width], scales and zeros.
      values: likewise.
      out_ref: output of the share, [rows, head_width].
      highest_ref: its highest logits, [rows].
      total_ref: its sums of weights, [rows].
      key_layout: how keys are packed.
      value_layout: how values are.
      splits: shares of a sequence.
      soft_cap: ``c`` of ``c tanh(logit / c)``, or None.
      inline: use NVIDIA's PTX.
    """
    key_group, value_group = key_layout.group_size, value_layout.group_size
    count, width = rows_ref.shape
    rows = _padded(count)
    column = jnp.arange(2 * rows)
    half, row = column // rows, column % rows
    # Rows that only fill the tile see nothing.
    first = triton.load(
        first_ref.at[row], mask=row < count, other=jnp.iinfo(jnp.int32).max
    )
    end = triton.load(end_ref.at[row], mask=row < count, other=0)
    place = jnp.arange(2 * width)[:, None]
    query = triton.load(
        rows_ref.at[row[None], place // 2],
        mask=(place % 2 == half) & (row < count),
        other=0,
    )
    key_words, key_scale, key_zero = keys
    groups = range(width // value_group)
    # The token of a logit, but for its block and plane.
    token = 64 * half + jnp.arange(_TILE)[:, None]
    # What codes were raised by, and half their range.
    raised = jnp.full((_TILE, 2 * width), -24, query.dtype)

    def of_halves(ref: Any, block: Array, plane: int) -> Array:
        low, high = ((64 * h + _TILE * plane) // key_group for h in range(2))
        return instructions.side_by_side(ref[block, low], ref[block, high])

    def logits_of(block: Array) -> list[Array]:
        words = instructions.halves(key_words[block, 0])
        scaled = offset = jnp.zeros(())
        logits = []
        for plane in range(4):
            if plane == 0 or (key_group < 64 and _TILE * plane % key_group == 0):
                scale = of_halves(key_scale, block, plane)
                scaled = instructions.product(query, scale[:, None], inline)
                zero = of_halves(key_zero, block, plane)
                middle = jnp.broadcast_to(
                    instructions.middle(scale, zero, inline)[None], raised.shape
                )
                middle, less = (
                    instructions.as_words(words, x, inline) for x in (middle, raised)
                )
                offset = _dot(middle, query) + _dot(less, scaled)
            logit = _dot(instructions.raised(words, plane, 4, inline), scaled) + offset
            if soft_cap is not None:
                logit = soft_cap * jnp.tanh(logit / soft_cap)
            at = BLOCK * block + _TILE * plane + token
            seen = (at >= first) & (at < end)
            logits.append(jnp.where(seen, _LOG2_E * logit, -jnp.inf))
        return logits

    def body(block: Array, before: tuple[Any, ...]) -> tuple[Any, ...]:
        highest, total, *sums = before
        logits = logits_of(block)
        higher = jnp.maximum(highest, functools.reduce(jnp.maximum, logits).max(0))
        weights = [instructions.exp2(logit - higher, inline) for logit in logits]
        shrink = instructions.exp2(highest - higher, inline)
        total = total * shrink + functools.reduce(jnp.add, weights)
        sums = [[x * shrink for x in each] for each in sums]
        apart = [_apart(weight.astype(query.dtype), half) for weight in weights]
        for group in groups:
            sums[group] = _with_values(
                sums[group], values, block, group, weights, apart, token,
                layout=value_layout, inline=inline,
            )  # fmt: skip
        return higher, total, *sums

    # The blocks that any row sees, in equal shares: a short sequence in a long cache
    # keeps all programs busy too.
    lower, upper = jax.lax.div(jnp.min(first), BLOCK), pl.cdiv(jnp.max(end), BLOCK)
    share = pl.cdiv(jnp.maximum(upper - lower, 0), splits)
    start = lower + pl.program_id(2) * share
    shapes = ((value_group, 2 * rows), (_TILE, 2 * rows), (_TILE, 2 * rows))
    highest, total, *sums = jax.lax.fori_loop(
        start,
        jnp.minimum(start + share, upper),
        body,
        (
            jnp.full(2 * rows, LOWEST, jnp.float32),
            jnp.zeros(shapes[1], jnp.float32),
            *([jnp.zeros(shape, jnp.float32) for shape in shapes] for _ in groups),
        ),
    )
    _store((out_ref, highest_ref, total_ref), highest, total, sums, inline)


def _padded(count: int) -> int:
    return max(_LEAST_ROWS, 1 << (count - 1).bit_length())


def _with_values(
    sums: list[Array],
    values: tuple[Any, ...],
    block: Array,
    group: int,
    weights: list[Array],
    apart: list[Array],
    token: Array,
    *,
    layout: Layout,
    inline: bool,
) -> list[Array]:
    """A group of channels' sums with a block's values."""
    codes, zeros, offset = sums
    words_ref, scale_ref, zero_ref = values
    channels = layout.group_size * group + jnp.arange(layout.group_size)[:, None]
    word_rows = jnp.arange(4 * layout.bits)[None]
    words = triton.load(words_ref.at[block, 0, word_rows, channels])
    tiles = _value_tiles(instructions.halves(words), layout.bits, inline)
    for plane, (tile, less) in enumerate(tiles):
        zero = zero_ref[block, _TILE * plane + token, group]
        zeros += weights[plane] * zero.astype(jnp.float32)
        low, high = (
            scale_ref[block, pl.ds(64 * half + _TILE * plane, _TILE), group]
            for half in range(2)
        )
        scale = instructions.side_by_side(low, high)[:, None]
        scaled = instructions.product(apart[plane], scale, inline)
        codes += _dot(tile, scaled)
        offset += _dot(less.astype(scaled.dtype), scaled)
    return [codes, zeros, offset]


def _store(
    refs: tuple[Any, ...], highest: Array, total: Array, sums: list[Any], inline: bool
) -> None:
    """Join the halves of blocks, and store what came of the share."""
    out_ref, highest_ref, total_ref = refs
    count, rows = out_ref.shape[0], len(highest) // 2
    best = highest.reshape(2, rows).max(0)
    factor = highest - jnp.broadcast_to(best, (2, rows)).reshape(-1)
    factor = instructions.exp2(factor, inline)

    def joined(x: Array) -> Array:
        return (x * factor).reshape(*x.shape[:-1], 2, rows).sum(-2)

    row = jnp.arange(rows)
    for group, (codes, zeros, offset) in enumerate(sums):
        # All rows of the offset are the same.
        out = joined(codes + (zeros.sum(0) + offset.max(0)))
        channels = len(codes) * group + jnp.arange(len(codes))
        triton.store(
            out_ref.at[row[:, None], channels[None]],
            out.T,
            mask=jnp.broadcast_to(row[:, None] < count, out.T.shape),
        )
    best = jnp.where(best > LOWEST, best / _LOG2_E, LOWEST)
    triton.store(highest_ref.at[row], best, mask=row < count)
    triton.store(total_ref.at[row], joined(total.sum(0)), mask=row < count)


def _value_tiles(words: Array, bits: int, inline: bool) -> list[tuple[Array, Array]]:
    """Raised codes of 16 tokens of each half, and minus what each was raised by."""
    planes = [
        instructions.raised(words, plane, bits, inline) for plane in range(16 // bits)
    ]
    powers = [-(2.0 ** (7 - place)) for place in instructions.PLACES[bits]]
    shape = (_TILE, 2 * _TILE)
    if bits == 4:
        return [
            (plane, jnp.full(shape, power))
            for plane, power in zip(planes, powers, strict=True)
        ]
    tiles = []
    later = jnp.arange(2 * _TILE) // _TILE == 1
    for one in range(0, len(planes), 2):
        # Two planes one after the other, where a concatenation would be.
        tile = jnp.stack(planes[one : one + 2], -1).transpose(0, 2, 1)
        less = jnp.where(later, powers[one + 1], powers[one])
        tiles.append((tile.reshape(-1, 2 * _TILE), jnp.broadcast_to(less[None], shape)))
    return tiles


def _apart(weights: Array, half: Array) -> Float[Array, "tokens columns"]:
    """Weights of a tile's tokens, those of both halves one after the other.

    A word with a weight in one half and zero in the other is made first: Triton moves
    the narrower weights between threads then, not the words.
    """
    words = jax.lax.bitcast_convert_type(weights, jnp.uint16).astype(jnp.uint32)
    both = jnp.stack(instructions.split(words << (16 * half).astype(jnp.uint32)), -1)
    both = both.transpose(0, 2, 1).reshape(2 * _TILE, -1)
    return jax.lax.bitcast_convert_type(both, weights.dtype)


def _dot(left: Array, right: Array) -> Float[Array, "length columns"]:
    return jnp.dot(left, right, preferred_element_type=jnp.float32)
