"""Instructions of `jeff_llm.kv.folded_gpu`: pairs of codes and of bfloat16 in one.

Each is inline PTX, or where ``inline`` is False plain jax.numpy with the same result,
but for the last bit of ``exp2``.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas import triton
from jaxtyping import Array, Float, UInt16, UInt32

__all__ = [
    "PLACES",
    "as_words",
    "exp2",
    "halves",
    "middle",
    "product",
    "raised",
    "side_by_side",
    "split",
]

# Lowest bit of a mantissa that the codes of each plane are moved to: planes share
# shifts, and the higher the place, the less is taken off again.
PLACES = {2: (1, 3, 5, 1, 3, 5, 3, 5), 4: (3, 3, 3, 3)}


def raised(
    pairs: UInt16[Array, "*shape"], plane: int, bits: int, inline: bool
) -> Float[Array, "*shape"]:
    """Codes of a plane as ``2^(7 - place) + code``, by a shift and a ``lop3``.

    Args:
      pairs: halves of words, see `halves`.
      plane: place of the codes in their half.
      bits: width of a code, 2 or 4.
      inline: use PTX.

    Returns:
      The sum in bfloat16, without rounding.
    """
    place = PLACES[bits][plane]
    turn = bits * plane - place
    ones = ((2**bits - 1) << place) * 0x10001
    power = ((134 - place) << 7) * 0x10001
    if inline:
        shift = (
            f"shl.b32 pair, $1, {-turn}" if turn < 0 else f"shr.u32 pair, $1, {turn}"
        )
        assembly = f"""{{
            .reg .b32 pair;
            {shift};
            lop3.b32 $0, pair, {ones:#x}, {power:#x}, 0xEA;
        }}"""
        return _inline(assembly, pairs, pack=2, dtype=jnp.bfloat16)
    moved = pairs << -turn if turn < 0 else pairs >> turn
    codes = (moved & jnp.uint16(ones & 0xFFFF)) | jnp.uint16(power & 0xFFFF)
    return jax.lax.bitcast_convert_type(codes, jnp.bfloat16)


def halves(words: UInt32[Array, "*lead words"]) -> UInt16[Array, "*lead halves"]:
    """Low and high halves of words side by side.

    Args:
      words: words.

    Returns:
      The halves, twice as many.
    """
    return side_by_side(*split(words))


def split(
    words: UInt32[Array, "*shape"],
) -> tuple[UInt16[Array, "*shape"], UInt16[Array, "*shape"]]:
    """Take words apart.

    Args:
      words: words.

    Returns:
      Low and high halves.
    """
    return words.astype(jnp.uint16), (words >> 16).astype(jnp.uint16)


def side_by_side(low: Array, high: Array) -> Array:
    """Interleave two arrays along their last axis.

    Args:
      low: what comes in even places.
      high: what comes in odd ones.

    Returns:
      Both.
    """
    return jnp.stack([low, high], -1).reshape(*low.shape[:-1], -1)


def as_words(words: Array, x: Array, inline: bool) -> Array:
    """The same as ``x``, laid out as words are.

    Triton lays an operand out by the width of what it comes from. Where that differs
    between products, it keeps the other operand twice.

    Args:
      words: halves of words, see `halves`, of the shape of ``x``.
      x: an operand in bfloat16.
      inline: use PTX.

    Returns:
      The operand.
    """
    if not inline:
        return x
    return _inline("mov.b32 $0, $2;", words, x, pack=2, dtype=x.dtype)


def product(left: Array, right: Array, inline: bool) -> Array:
    """Multiply pairs in one instruction, rounded once for all uses.

    Args:
      left: a factor in bfloat16.
      right: another, which is broadcast to the first.
      inline: use PTX.

    Returns:
      The product.
    """
    right = jnp.broadcast_to(right, left.shape)
    if inline:
        return _inline("mul.rn.bf16x2 $0, $1, $2;", left, right, pack=2)
    return _rounded(left.astype(jnp.float32) * right)


def middle(scale: Array, zero: Array, inline: bool) -> Array:
    """Value of code 8, ``8 scale + zero``.

    Args:
      scale: scales in bfloat16.
      zero: zeros, likewise.
      inline: use PTX.

    Returns:
      The values, rounded once.
    """
    if inline:
        assembly = """{
            .reg .b32 eight;
            mov.b32 eight, 0x41004100;
            fma.rn.bf16x2 $0, $1, eight, $2;
        }"""
        return _inline(assembly, scale, zero, pack=2)
    return _rounded(8 * scale.astype(jnp.float32) + zero)


def _rounded(x: Array) -> Array:
    """Rounded to bfloat16; XLA could keep more bits for one use than for another."""
    return jax.lax.reduce_precision(x, 8, 7).astype(jnp.bfloat16)


def exp2(x: Float[Array, "*shape"], inline: bool) -> Float[Array, "*shape"]:
    """``2^x``, to 2 units in the last place of float32.

    Args:
      x: exponents in float32, perhaps minus infinity.
      inline: use PTX.

    Returns:
      The powers.
    """
    return _inline("ex2.approx.ftz.f32 $0, $1;", x) if inline else jnp.exp2(x)


def _inline(assembly: str, *args: Array, pack: int = 1, dtype: Any = None) -> Array:
    out = jax.ShapeDtypeStruct(args[0].shape, dtype or args[0].dtype)
    [result] = triton.elementwise_inline_asm(
        assembly,
        args=args,
        constraints="=r" + ",r" * len(args),
        pack=pack,
        result_shape_dtypes=[out],
    )
    return result
