"""Quantised keys and values in packed words: codes, scales and zeros of groups.

A tensor of tokens by channels is cut into blocks of 128 tokens. Within a block a group
is either ``group_size`` tokens of one channel (``axis="channel"``, for keys, whose
outliers keep to their channels) or ``group_size`` channels of one token
(``axis="token"``). With ``L = 2^bits - 1`` a group x has

  zero = min x,  scale = (max x - zero) / L,  code = round((x - zero) / scale),

and is restored as ``code * scale + zero``, at most ``scale / 2`` from x. The zero is a
stored number, not a code. Where zero and scale are stored in fewer bits, the zero
is rounded down and the scale up, and codes are taken against what is stored: so the
bound holds for the stored scale.

Packing is planar. A word of 32 bits holds ``n = 32 / bits`` codes of one channel,
lowest bits first; word row r of a block holds in place j the code of token
``j * (128 / n) + r``. Each place is thus a run of tokens, and a kernel unpacks without
an interleave. Sixteen bits mean unquantised values.

Reference: Hariri et al., "Quantize What Counts: More for Keys, Less for Values", 2025.
The official code rounds the zero to a code in one of its back ends; here it never is.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from jeff.checks import check_choice, check_floating

__all__ = [
    "BLOCK",
    "SCALE_DTYPES",
    "WIDTHS",
    "Axis",
    "QuantizedTensor",
    "check_layout",
    "dequantize",
    "pack",
    "quantize",
    "restore_blocks",
    "unpack",
]

# Tokens of a block. A register of a TPU has as many lanes.
BLOCK = 128
WIDTHS = (2, 4, 8, 16)
# With the range of float32. One of float16 would overflow in outlying channels.
SCALE_DTYPES = ("bfloat16", "float32")

Axis = Literal["channel", "token"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class QuantizedTensor:
    """Blocks of tokens in packed words.

    Invariant: ``words``, ``scale`` and ``zero`` agree in all axes up to ``blocks``.

    Attributes:
      words: [..., blocks, rows, channels]; packed codes, uint32 of ``4 * bits`` rows;
        at 16 bits the values themselves, in 128 rows.
      scale: step of each group; [..., blocks, 128 / group_size, channels] for groups of
        tokens, [..., blocks, 128, channels / group_size] for groups of channels; no
        rows at 16 bits.
      zero: lowest value of each group, likewise.
      bits: width of a code: 2, 4, 8 or 16.
      group_size: values that share a scale.
      axis: what a group keeps to: one "channel" or one "token".
    """

    # Leaves may be shapes as well, as `jax.eval_shape` gives them.
    words: Any
    scale: Any
    zero: Any
    bits: int = dataclasses.field(metadata={"static": True})
    group_size: int = dataclasses.field(metadata={"static": True})
    axis: Axis = dataclasses.field(metadata={"static": True})

    @property
    def nbytes(self) -> int:
        """Bytes of words, scales and zeros."""
        return self.words.nbytes + self.scale.nbytes + self.zero.nbytes


def quantize(
    x: Float[Array, "*lead tokens channels"],
    bits: int,
    group_size: int = 64,
    axis: Axis = "channel",
    *,
    scale_dtype: Any = jnp.float32,
) -> QuantizedTensor:
    """Quantise a tensor of tokens by channels.

    ``code = clip(round((x - zero) / scale), 0, 2^bits - 1)`` in groups. A constant
    group is exact where ``scale_dtype`` can hold its value.

    Args:
      x: values; the number of tokens a multiple of 128, and scales between 1e-37 and
        8e37, which float32 can hold and divide by.
      bits: width of a code: 2, 4 or 8; 16 does not quantise.
      group_size: values that share a scale, a divisor of 128 or of the channels.
      axis: groups are tokens of one "channel", or channels of one "token".
      scale_dtype: of scales and zeros, bfloat16 or float32.

    Returns:
      The packed tensor; ``|x - dequantize| <= scale / 2``, but for float32's rounding.

    Raises:
      TypeError: if x is not floating point.
      ValueError: if a width is not supported, or sizes do not divide.

    References:
      Hariri et al., "Quantize What Counts", 2025; Liu et al., "KIVI", 2024, eq. 1.

    >>> x = jnp.linspace(0.0, 3.0, 128)[:, None]
    >>> q = quantize(x, 2, 128)
    >>> q.words.shape, float(q.scale[0, 0, 0])
    ((1, 8, 1), 1.0)
    """
    check_floating(x=x)
    check_layout(bits, group_size, axis, x.shape[-1])
    check_choice("scale_dtype", jnp.dtype(scale_dtype).name, SCALE_DTYPES)
    tokens, channels = x.shape[-2:]
    if tokens % BLOCK or not tokens:
        raise ValueError(
            f"x: expected a multiple of {BLOCK} tokens, got {tokens}; pad it with "
            "copies of its last token"
        )
    blocks = x.reshape(*x.shape[:-2], tokens // BLOCK, BLOCK, channels)
    if bits == 16:
        none = jnp.zeros((*blocks.shape[:-2], 0, channels), scale_dtype)
        return QuantizedTensor(blocks, none, none, bits, group_size, axis)
    # Ranges and steps in float32: in bfloat16 a range would lose the codes' last bits.
    grouped, over = _group(blocks.astype(jnp.float32), group_size, axis)
    zero = _stored(grouped.min(over, keepdims=True), scale_dtype, -1)
    steps = 2**bits - 1
    step = (grouped.max(over, keepdims=True) - zero.astype(jnp.float32)) / steps
    scale = _stored(step, scale_dtype, 1)
    # A constant group has scale 0 and codes 0.
    divisor = jnp.where(scale == 0, 1, scale).astype(jnp.float32)
    codes = jnp.round((grouped - zero.astype(jnp.float32)) / divisor)
    # A guard: a code beyond its width would spill into the bits of its neighbour.
    codes = jnp.clip(codes, 0, steps).astype(jnp.uint32).reshape(blocks.shape)
    return QuantizedTensor(
        pack(codes, bits),
        jnp.squeeze(scale, over),
        jnp.squeeze(zero, over),
        bits,
        group_size,
        axis,
    )


def dequantize(
    q: QuantizedTensor, dtype: Any = jnp.float32
) -> Float[Array, "*lead tokens channels"]:
    """Restore the values, ``code * scale + zero``.

    Args:
      q: the packed tensor.
      dtype: of the result; the arithmetic is in float32.

    Returns:
      The values, [..., tokens, channels].
    """
    blocks = restore_blocks(q).astype(dtype)
    lead, (count, _, channels) = blocks.shape[:-3], blocks.shape[-3:]
    return blocks.reshape(*lead, count * BLOCK, channels)


def restore_blocks(q: QuantizedTensor) -> Float[Array, "*lead blocks 128 channels"]:
    """Restore the values with the axis of blocks kept, in float32.

    Args:
      q: the packed tensor.

    Returns:
      The values.
    """
    if q.bits == 16:
        return q.words.astype(jnp.float32)
    # Signed integers become floats in one instruction of a CPU, unsigned ones do not.
    codes = unpack(q.words, q.bits).astype(jnp.int32).astype(jnp.float32)
    grouped, over = _group(codes, q.group_size, q.axis)
    scale, zero = (
        jnp.expand_dims(each, over).astype(jnp.float32) for each in (q.scale, q.zero)
    )
    return (grouped * scale + zero).reshape(codes.shape)


def pack(
    codes: UInt32[Array, "*lead 128 channels"], bits: int
) -> UInt32[Array, "*lead rows channels"]:
    """Pack the codes of a block into words, planar, lowest bits first.

    Args:
      codes: codes below ``2^bits``.
      bits: 2, 4 or 8.

    Returns:
      ``4 * bits`` rows of words.
    """
    rows = 4 * bits
    planes = codes.reshape(*codes.shape[:-2], BLOCK // rows, rows, codes.shape[-1])
    # No bit is set twice, so the sum is the union.
    return (planes << _shifts(bits)).sum(-3, dtype=jnp.uint32)


def unpack(
    words: UInt32[Array, "*lead rows channels"], bits: int
) -> UInt32[Array, "*lead 128 channels"]:
    """Codes of a block from its words; the inverse of `pack`.

    Args:
      words: ``4 * bits`` rows.
      bits: 2, 4 or 8.

    Returns:
      The codes, in the order of the tokens.
    """
    planes = (words[..., None, :, :] >> _shifts(bits)) & jnp.uint32(2**bits - 1)
    return planes.reshape(*words.shape[:-2], BLOCK, words.shape[-1])


def check_layout(bits: int, group_size: int, axis: str, channels: int) -> None:
    """Check that widths and group sizes go together.

    Args:
      bits: width of a code.
      group_size: values that share a scale.
      axis: "channel" or "token".
      channels: width of a head.

    Raises:
      ValueError: naming what does not fit.
    """
    if bits not in WIDTHS:
        raise ValueError(f"bits: expected one of {WIDTHS}, got {bits}")
    check_choice("axis", axis, ("channel", "token"))
    whole = BLOCK if axis == "channel" else channels
    if group_size < 1 or whole % group_size:
        kind = "tokens of a block" if axis == "channel" else "channels of a head"
        fitting = ", ".join(str(n) for n in range(1, whole + 1) if not whole % n)
        raise ValueError(
            f"group_size: expected a divisor of the {whole} {kind}, got {group_size}; "
            f"{fitting} are"
        )


def _group(
    blocks: Array, group_size: int, axis: str
) -> tuple[Float[Array, "..."], int]:
    """Blocks with an axis of the members of a group, and that axis."""
    *lead, tokens, channels = blocks.shape
    if axis == "channel":
        shape, over = (tokens // group_size, group_size, channels), -2
    else:
        shape, over = (tokens, channels // group_size, group_size), -1
    return blocks.reshape(*lead, *shape), over


def _shifts(bits: int) -> UInt32[Array, "planes 1 1"]:
    return (jnp.arange(32 // bits, dtype=jnp.uint32) * bits)[:, None, None]


def _stored(x: Float[Array, "..."], dtype: Any, direction: int) -> Array:
    """Cast to fewer bits, rounding down (-1) or up (1)."""
    # astype rounds to nearest; where that went the wrong way, take the next number.
    cast = x.astype(dtype)
    further = jnp.nextafter(cast, jnp.asarray(direction * jnp.inf, dtype))
    wide = cast.astype(x.dtype)
    wrong = wide > x if direction < 0 else wide < x
    return jnp.where(wrong, further, cast)
