"""Packed blocks restored inside a GPU's kernel: codes out of words, scaled and shifted.

Where queries and scales are bfloat16, codes of 2 and 4 bits are restored two at a time
by a few instructions of inline PTX: halves of two channels' words are put side by side
(``prmt``), once for all their codes; a plane's codes are rotated into the lowest bits
of both (``shf``) and given the exponent of 128 (``lop3``), which makes each the
bfloat16 ``128 + code`` without a conversion; the offset is taken off (``add``), and
they are scaled (``fma``). The compiler's own code for the
same needs half as many instructions again, and reading the cache waits for it. Pallas'
interpreter has no PTX and takes the plain way, which also serves all other types.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

from jeff_llm.kv.quantize import BLOCK

__all__ = ["Layout", "restore"]


class Layout(NamedTuple):
    """How a tensor is packed; see `jeff_llm.kv.quantize.QuantizedTensor`.

    Attributes:
      bits: width of a code.
      group_size: values that share a scale.
      axis: what a group keeps to, "channel" or "token".
    """

    bits: int
    group_size: int
    axis: str


# Arguments are references to memory, which have no shape to annotate.
def restore(
    refs: tuple[Any, ...],
    layer: Array,
    block: Array,
    layout: Layout,
    width: int,
    dtype: Any,
    *,
    inline: bool,
) -> Float[Array, "tokens channels"]:
    """Restore a block of tokens, ``code * scale + zero``.

    Args:
      refs: words, [layers, blocks, 1, rows, channels], scales and zeros of all blocks.
      layer: the layer to read.
      block: number of the block.
      layout: how it is packed.
      width: real channels; the others only fill the tile.
      dtype: of the result.
      inline: take the way of inline PTX where there is one.

    Returns:
      The block; zeros in channels that only fill.
    """
    bits, group_size, axis = layout
    words = _load_columns(refs[0], (layer, pl.ds(block, 1)), width)
    columns = words.shape[-1]
    if bits == 16:
        return words.astype(dtype).reshape(BLOCK, columns)
    at = (layer, block)
    paired = bits < 8 and dtype == refs[1].dtype == jnp.bfloat16
    if axis == "channel":
        scale, zero = (_load_columns(ref, at, width)[:, None] for ref in refs[1:])
        spread = (BLOCK // group_size, group_size, columns)
    else:
        groups = width // group_size
        scale, zero = (_load_columns(ref, at, groups)[:, :, None] for ref in refs[1:])
        spread = (BLOCK, columns // group_size, group_size)

    def each(x: Array, shape: tuple[int, ...]) -> Array:
        return jnp.broadcast_to(x, spread).reshape(shape)

    # The value of signed code 0.
    floating = jnp.bfloat16 if paired else jnp.float32
    scale = scale.astype(floating)
    middle = zero.astype(floating) + 2 ** (bits - 1) * scale
    if paired and inline:
        shape = (2, 16 // bits, words.shape[-2], columns)
        restored = _restore_pairs(words, each(scale, shape), each(middle, shape), bits)
        return restored.reshape(BLOCK, columns)
    codes = (_codes_in_bfloat16 if paired else _codes)(words, bits)
    codes = codes.reshape(BLOCK, columns)
    scale, middle = (each(x, codes.shape) for x in (scale, middle))
    return (codes * scale + middle).astype(dtype)


def _load_columns(ref: Any, index: Any, columns: int) -> Array:
    """Load ``ref[index]`` in its real columns, and zeros in those that only fill it.

    Args:
      ref: the memory, padded in its last axis.
      index: what of it.
      columns: real columns.

    Returns:
      The values.
    """
    padded = ref.shape[-1]
    if padded == columns:
        return ref[index]
    view = ref.at[index]
    mask = jnp.broadcast_to(jnp.arange(padded) < columns, view.shape)
    return triton.load(view, mask=mask, other=0)


def _restore_pairs(
    words: Array, scale: Array, middle: Array, bits: int
) -> Float[Array, "2 planes rows columns"]:
    """``(code - 2^(bits - 1)) * scale + middle`` of 2 or 4 bits, rounded once.

    An instruction serves two neighbours in a thread's registers. They are of one plane,
    since planes come along axes that a load does not have.
    """
    shape = scale.shape
    ones = (2**bits - 1) * 0x10001
    # -(128 + 2^(bits - 1)) in both halves; its mantissa has 7 bits.
    offset = (0xC300 + 2 ** (bits - 1)) * 0x10001
    assembly = f"""{{
        .reg .b32 pair, offset;
        mov.b32 offset, {offset:#x};
        prmt.b32 pair, $1, $2, $5;
        shf.l.wrap.b32 pair, pair, pair, $3;
        lop3.b32 pair, pair, {ones:#x}, 0x43004300, 0xEA;
        add.rn.bf16x2 pair, pair, offset;
        fma.rn.bf16x2 $0, pair, $7, $8;
    }}"""
    plane = jnp.arange(16 // bits, dtype=jnp.int32)[:, None, None]
    turn = (-bits * plane) & 31
    # Bytes of the low halves of two words, or of the high ones.
    half = 0x5410 + 0x2222 * jnp.arange(2, dtype=jnp.int32)[:, None, None, None]
    [restored] = triton.elementwise_inline_asm(
        assembly,
        args=[
            *(jnp.broadcast_to(x, shape) for x in (words, turn, half)),
            scale,
            middle,
        ],
        constraints="=r,r,r,r,r,r,r,r,r",
        pack=2,
        result_shape_dtypes=[jax.ShapeDtypeStruct(shape, jnp.bfloat16)],
    )
    return restored


def _codes(words: Array, bits: int) -> Float[Array, "1 planes rows columns"]:
    """Codes of a block less ``2^(bits - 1)``, in the order of its tokens.

    Signed codes make products as small as the values are, and so their rounding. Words
    are [1, 1, rows, columns], and planes come along the axes of size 1: so Triton keeps
    the layout of the load, with its wide accesses.
    """
    shifts = (jnp.arange(32 // bits, dtype=jnp.uint32) * bits)[:, None, None]
    codes = ((words >> shifts) & jnp.uint32(2**bits - 1)).astype(jnp.int32)
    return (codes - 2 ** (bits - 1)).astype(jnp.float32)


def _codes_in_bfloat16(
    words: Array, bits: int
) -> Float[Array, "2 planes rows columns"]:
    """The same of 2 or 4 bits, with both halves of a word in one operation."""
    shifts = (jnp.arange(16 // bits, dtype=jnp.uint32) * bits)[:, None, None]
    mask = jnp.uint32((2**bits - 1) * 0x10001)
    # 0x4300 | code is the bfloat16 128 + code, and needs no conversion.
    pair = ((words >> shifts) & mask) | jnp.uint32(0x43004300)
    half = (jnp.arange(2, dtype=jnp.uint32) * 16)[:, None, None, None]
    raised = (pair >> half).astype(jnp.uint16)
    raised = jax.lax.bitcast_convert_type(raised, jnp.bfloat16)
    return raised - jnp.bfloat16(128 + 2 ** (bits - 1))
