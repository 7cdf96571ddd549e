"""Attention over packed keys and values on TPUs: flash decoding in Pallas, with Mosaic.

Decoding one token reads the whole cache once, so its time is at least bytes over
bandwidth. With keys of 4 bits, values of 2 and groups of 64, a token and key head of
width 128 have 112 bytes, where bfloat16 has 512. After reading, unpacking costs most:
it occupies the vector unit, while matrix products are nearly free. So no tile is
restored: signed codes c go into the products directly, scales s and the values m of
code 0 into queries q and weights p, of which each group g of tokens t or channels d has
its own row:

  keys by channel:  logit_t = sum_d (q_d s_gd) c_td + sum_d q_d m_gd              t in g
  keys by token:    logit_t = sum_g (s_tg sum_(d in g) q_d c_td + m_tg sum_(d in g) q_d)
  values by token:  out_d = sum_t (p_t s_tg) c_td + sum_t p_t m_tg                d in g

Steps of the grid walk over tiles of several blocks, with the running output in memory
on the chip. Tiles that no row sees are neither computed nor read. Lanes are 128, so
the words of heads of 128 or 256 are read where they lie in a stack of layers. What does
not fill the lanes is cut out of the stack first: scales of groups of channels, which
are transposed, and a whole layer of narrower heads, which may cost more than the kernel
saves.

The kernel has been run in Pallas' interpreter and lowered to Mosaic. It has not been
run on a chip yet.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu
from jaxtyping import Array, Bool, Float, Int, Shaped

from jeff_llm.kv.quantize import BLOCK, QuantizedTensor
from jeff_llm.models.partial import LOWEST, Partial

__all__ = ["packed_partial"]

_MOST_ROWS = 64
# Rows of a product come in eights, the sublanes of a register.
_SUBLANES = 8
_LANES = 128
# With 2,048 tokens in flight a step's reads take about as long as its start.
_MOST_BLOCKS = 16


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
    tile: int | None = None,
) -> Partial:
    """Attention of rows of queries over packed tokens ``first <= token < end``.

    The same as `jeff_llm.kv.attention.packed_partial`, up to rounding.

    Args:
      rows: queries of one token, divided by the root of the head's width; at most 64
        rows. Products are taken in their dtype, bfloat16 or float32, and summed in
        float32.
      keys: packed keys, [batch, kv_heads, blocks, ...]; with ``layer`` those of a stack
        of layers, [layers, batch, kv_heads, blocks, ...].
      values: packed values, likewise.
      first: first token that each row sees, counted from the first block.
      end: behind the last one.
      layer: the layer to read, where there is an axis of layers.
      soft_cap: ``c`` of ``c tanh(logit / c)``, or None.
      interpret: run in Pallas' interpreter, on any platform.
      tile: blocks of a step; by default 16, and fewer where they are many or wide.

    Returns:
      Output, highest logit and sum of weights; where nothing is seen a total of 0.

    Raises:
      ValueError: if there are too many rows, values grouped by channel, or float16
        anywhere.

    References:
      Dao et al., "Flash-Decoding for long-context inference", 2023.
    """
    _check(rows, keys, values)
    batch, kv_heads, count, width = rows.shape
    blocks = keys.words.shape[-3]
    padded = pl.cdiv(count, _SUBLANES) * _SUBLANES
    fill = (0, padded - count)
    if layer is None:
        keys, values = jax.tree.map(lambda x: x[None], (keys, values))
        layer = 0
    layer = jnp.asarray(layer, jnp.int32)
    key_arrays, value_arrays = _arrays(keys, layer), _arrays(values, layer)
    groups = 1 if values.bits == 16 else value_arrays[1].shape[4]
    if tile is None:
        tile = _choose_tile(padded * groups, width)
    tile = min(tile, blocks)
    # Rows that only fill the tile see nothing.
    first = jnp.pad(first, ((0, 0), fill), constant_values=BLOCK * blocks)
    end = jnp.pad(jnp.minimum(end, BLOCK * blocks), ((0, 0), fill))
    spans = jnp.stack([first, end], axis=1).astype(jnp.int32)
    out, highest, total = pl.pallas_call(
        functools.partial(
            _kernel,
            key_bits=keys.bits,
            key_axis=keys.axis,
            value_bits=values.bits,
            blocks=blocks,
            soft_cap=soft_cap,
        ),
        grid_spec=tpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(batch, kv_heads, pl.cdiv(blocks, tile)),
            in_specs=[
                pl.BlockSpec((None, 2, padded, 1), lambda b, *_: (b, 0, 0, 0)),
                _fixed(padded, width),
                jax.tree.map(functools.partial(_moving, tile), key_arrays),
                jax.tree.map(functools.partial(_moving, tile), value_arrays),
            ],
            out_specs=[
                _fixed(groups * padded, width),
                _fixed(padded, 1),
                _fixed(padded, 1),
            ],
        ),
        out_shape=[
            jax.ShapeDtypeStruct((batch, kv_heads, *shape), jnp.float32)
            for shape in ((groups * padded, width), (padded, 1), (padded, 1))
        ],
        compiler_params=tpu.CompilerParams(
            # Only the last axis carries state from step to step.
            dimension_semantics=("parallel", "parallel", "arbitrary")
        ),
        interpret=interpret,
        name="packed_attention",
    )(
        layer[None],
        _bounds(spans, BLOCK * tile, pl.cdiv(blocks, tile)),
        spans[..., None],
        jnp.pad(rows, ((0, 0), (0, 0), fill, (0, 0))),
        key_arrays,
        value_arrays,
    )
    out = out.reshape(batch, kv_heads, groups, padded, width)
    out = jnp.where(_members(groups, width), out, 0).sum(2)[:, :, :count]
    return Partial(out, highest[:, :, :count, 0], total[:, :, :count, 0])


def _kernel(
    _: Any,
    bounds: Any,
    spans: Any,
    rows: Any,
    keys: tuple[Any, ...],
    values: tuple[Any, ...],
    out: Any,
    highest: Any,
    total: Any,
    *,
    key_bits: int,
    key_axis: str,
    value_bits: int,
    blocks: int,
    soft_cap: float | None,
) -> None:
    """One tile of one key head, added to what the tiles before it gave."""
    sequence, step = pl.program_id(0), pl.program_id(2)

    # Outputs stay on the chip over the steps of a head, and start uninitialised.
    @pl.when(step == 0)
    def _():
        out[...] = jnp.zeros(out.shape, jnp.float32)
        highest[...] = jnp.full(highest.shape, LOWEST, jnp.float32)
        total[...] = jnp.zeros(total.shape, jnp.float32)

    @pl.when((step >= bounds[0, sequence]) & (step < bounds[1, sequence]))
    def _():
        logits = _logits(rows[...], keys, key_bits, key_axis)
        if soft_cap is not None:
            logits = soft_cap * jnp.tanh(logits / soft_cap)
        tile = len(logits)
        block = step * tile + jax.lax.broadcasted_iota(jnp.int32, (tile, 1, BLOCK), 0)
        token = BLOCK * block + jax.lax.broadcasted_iota(jnp.int32, block.shape, 2)
        seen = (token >= spans[0]) & (token < spans[1])
        logits = jnp.where(seen, logits, -jnp.inf)
        # Online softmax over tiles; LOWEST is finite, so no -inf - -inf arises.
        before = highest[...]
        after = jnp.maximum(before, logits.max(0).max(-1, keepdims=True))
        weights = jnp.exp(logits - after)
        shrink = jnp.exp(before - after)
        more = _weighted(weights, values, value_bits, rows.dtype, blocks - step * tile)
        # Output rows come once a group of channels, in the order of `_weighted`.
        again = jnp.tile(shrink, (len(more) // len(shrink), 1))
        out[...] = out[...] * again + more
        total[...] = total[...] * shrink + weights.sum(0).sum(-1, keepdims=True)
        highest[...] = after


def _logits(
    query: Float[Array, "rows head_width"], refs: tuple[Any, ...], bits: int, axis: str
) -> Float[Array, "tile rows 128"]:
    """Logits of the tokens of each block."""
    codes = _codes(refs[0][...], bits, query.dtype)
    if bits == 16:
        return _dot(jnp.broadcast_to(query, (len(codes), *query.shape)), codes, 2)
    wide = query.astype(jnp.float32)
    scale, middle = _scales(refs, bits)
    groups = scale.shape[1]
    if axis == "channel":
        lifts = (wide * middle).sum(-1, keepdims=True)
        products = _products(wide * scale, codes, 2) + lifts
        return jnp.where(_members(groups, BLOCK), products, 0).sum(1)
    each = jnp.where(_members(groups, query.shape[1]), wide, 0)
    lifts = each.sum(-1, keepdims=True) * middle
    each = jnp.broadcast_to(each, (len(codes), *each.shape))
    return (_products(each, codes, 2) * scale + lifts).sum(1)


def _weighted(
    weights: Float[Array, "tile rows 128"],
    refs: tuple[Any, ...],
    bits: int,
    dtype: Any,
    left: Array,
) -> Float[Array, "groups_and_rows head_width"]:
    """Weighted sums of values; each row means something in its group's channels alone.

    Blocks from ``left`` on are beyond the last one, and hold what may be no number.
    """
    # The last tile may reach past the array. A weight of 0 would not help there, since
    # 0 * NaN is NaN: the values themselves are replaced.
    words = refs[0][...]
    inside = jax.lax.broadcasted_iota(jnp.int32, (len(words), 1, 1, 1), 0) < left
    if bits == 16:
        words = jnp.where(inside[:, 0], words, jnp.zeros_like(words))
        return _dot(weights.astype(dtype), words.astype(dtype), 1).sum(0)
    scale, middle = (jnp.where(inside, x, 0) for x in _scales(refs, bits))
    each = weights[:, None]
    lifts = (each * middle).sum(0).sum(-1, keepdims=True)
    out = _products(each * scale, _codes(words, bits, dtype), 1).sum(0) + lifts
    return out.reshape(-1, out.shape[-1])


def _scales(refs: tuple[Any, ...], bits: int) -> tuple[Array, Array]:
    """Scales, and the values of signed code 0, [tile, groups, 1, length]."""
    scale, zero = (ref[...].astype(jnp.float32)[:, :, None] for ref in refs[1:])
    return scale, zero + 2 ** (bits - 1) * scale


def _products(
    each: Float[Array, "tile groups rows length"], codes: Array, axis: int
) -> Float[Array, "tile groups rows columns"]:
    """Products with the rows of all groups, block by block."""
    tile, groups, rows, length = each.shape
    # Joined in 32 bits, where the rows of a group fill whole registers.
    joined = each.reshape(tile, groups * rows, length).astype(codes.dtype)
    return _dot(joined, codes, axis).reshape(tile, groups, rows, -1)


def _members(groups: int, length: int) -> Bool[Array, "groups 1 length"]:
    """Which of ``length`` tokens or channels are in each group."""
    shape = (groups, 1, length)
    place = jax.lax.broadcasted_iota(jnp.int32, shape, 2)
    group = jax.lax.broadcasted_iota(jnp.int32, shape, 0)
    return jax.lax.div(place, length // groups) == group


def _codes(
    words: Shaped[Array, "tile rows channels"], bits: int, dtype: Any
) -> Float[Array, "tile 128 channels"]:
    """Signed codes in the order of the tokens; at 16 bits the values themselves.

    ``code - 2^(bits - 1)`` is code with its top bit turned, read as a signed number; a
    product with it is half as large, and so is its error in bfloat16.
    """
    if bits == 16:
        return words.astype(dtype)
    top = sum(1 << place for place in range(bits - 1, 32, bits))
    turned = (words ^ jnp.uint32(top)).astype(jnp.int32)
    # An arithmetic shift to the right spreads the sign bit.
    planes = [
        (turned << (32 - bits - low)) >> (32 - bits) for low in range(0, 32, bits)
    ]
    return jnp.concatenate(planes, axis=1).astype(jnp.float32).astype(dtype)


def _dot(left: Array, right: Array, axis: int) -> Float[Array, "tile rows columns"]:
    """Products block by block in float32, over the last axis and one of ``right``."""
    exact = left.dtype == jnp.float32
    return jax.lax.dot_general(
        left,
        right,
        (((2,), (axis,)), ((0,), (0,))),
        precision=jax.lax.Precision.HIGHEST if exact else None,
        preferred_element_type=jnp.float32,
    )


def _arrays(q: QuantizedTensor, layer: Array) -> tuple[Array, ...]:
    """Words, scales and zeros with tokens or channels along the lanes.

    What XLA has to copy is cut down to the layer, or it would copy all layers for each.
    """

    def cut(x: Array) -> Array:
        return jax.lax.dynamic_index_in_dim(x, layer)

    narrow = q.words.shape[-1] % _LANES
    words = cut(q.words) if narrow else q.words
    if q.bits == 16:
        return (words,)
    if q.axis == "channel":
        return (words, *(cut(x) if narrow else x for x in (q.scale, q.zero)))
    # Transposed: the long axis belongs on the 128 lanes, or most of them stay empty.
    return words, cut(q.scale).mT, cut(q.zero).mT


def _bounds(
    spans: Int[Array, "batch 2 rows"], tokens: int, steps: int
) -> Int[Array, "2 batch"]:
    """The first tile that any row of a sequence sees, and the one behind the last."""
    lower = jnp.minimum(spans[:, 0].min(1) // tokens, steps - 1)
    return jnp.stack([lower, pl.cdiv(spans[:, 1].max(1), tokens)])


def _fixed(*shape: int) -> pl.BlockSpec:
    """The same block in all steps of a key head."""
    return pl.BlockSpec((None, None, *shape), lambda b, k, *_: (b, k, 0, 0))


def _moving(tile: int, x: Array) -> pl.BlockSpec:
    """A tile of a step; an unseen tile repeats an index, so nothing is read for it."""
    # A layer that was cut out is the only one of its array.
    whole = x.shape[0] > 1

    def place(
        b: Array, k: Array, s: Array, layer: Any, bounds: Any
    ) -> tuple[Array | int, ...]:
        last = jnp.maximum(bounds[1, b] - 1, bounds[0, b])
        at = layer[0] if whole else 0
        return at, b, k, jnp.clip(s, bounds[0, b], last), 0, 0

    return pl.BlockSpec((None, None, None, tile, *x.shape[4:]), place)


def _choose_tile(rows: int, width: int) -> int:
    """Blocks of a step, fewer where their rows would fill the memory on the chip."""
    return max(1, min(_MOST_BLOCKS, _MOST_BLOCKS * 32 * BLOCK // (rows * width)))


def _check(rows: Array, keys: QuantizedTensor, values: QuantizedTensor) -> None:
    """Refuse arrays that the kernel does not support."""
    advice = "; pass implementation=None, which runs anywhere"
    if rows.shape[2] > _MOST_ROWS:
        raise ValueError(
            f"rows: expected at most {_MOST_ROWS} queries of a key head, got "
            f"{rows.shape[2]}{advice}"
        )
    if values.bits < 16 and values.axis != "token":
        raise ValueError(
            f"values: expected groups of channels, axis 'token', got "
            f"{values.axis!r}{advice}"
        )
    for name, tree in (("rows", rows), ("keys", keys), ("values", values)):
        if any(leaf.dtype == jnp.float16 for leaf in jax.tree.leaves(tree)):
            raise ValueError(
                f"{name}: expected bfloat16 or float32 on a TPU, got float16{advice}"
            )
