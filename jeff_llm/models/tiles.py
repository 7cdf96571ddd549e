"""Attention tile by tile: memory linear in the context, gradients too.

A tile of queries meets one tile of slots after the other, and what they give is joined
as it comes (`jeff_llm.models.partial`). Tiles that no query of the tile sees are not
visited: behind the diagonal, outside a window, in another text, or not filled. The
backward pass visits the same tiles and computes their weights again.

References:
  Dao, "FlashAttention-2", 2023, algorithms 1 and 2.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from jeff_llm.models.partial import Partial, add, nothing, partial_attention
from jeff_llm.models.view import NEVER, View, seen

__all__ = ["budget", "over_rows", "partial_tiled"]

# Logits of a tile: what stays in a CPU's cache; what keeps an accelerator busy.
_CPU_LOGITS, _ACCELERATOR_LOGITS = 2**21, 2**26
_FEWEST_SLOTS, _MOST_SLOTS, _FEWEST_ROWS = 256, 512, 64


class _Tiles(NamedTuple):
    """How rows and slots are cut, and which tiles meet.

    Attributes:
      rows: rows of a tile.
      slots: slots of a tile.
      first: first tile of slots that each tile of rows sees.
      end: behind the last one.
    """

    rows: int
    slots: int
    first: Int[Array, " row_tiles"]
    end: Int[Array, " row_tiles"]


class _Own(NamedTuple):
    """What a view says of the rows alone."""

    positions: Int[Array, "batch rows"]
    segments: Int[Array, "batch rows"] | None


def budget() -> int:
    """Logits that may be in memory at once.

    Returns:
      Their number, over all sequences and heads.
    """
    return _CPU_LOGITS if jax.default_backend() == "cpu" else _ACCELERATOR_LOGITS


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def partial_tiled(
    rows: Float[Array, "batch kv_heads rows head_width"],
    keys: Float[Array, "layers batch kv_heads slots head_width"],
    values: Float[Array, "layers batch kv_heads slots head_width"],
    layer: Int[Array, ""] | int,
    view: View,
    soft_cap: float | None,
) -> Partial:
    """Attention of rows of queries, as a part that is joined with others.

    Args:
      rows: queries, divided by the root of the head's width.
      keys: keys of all layers; a layer is read where it lies.
      values: values, likewise.
      layer: the layer.
      view: what each row sees.
      soft_cap: ``c`` of ``c tanh(logit / c)``, or None.

    Returns:
      Output, highest logit (without a gradient) and sum of weights.
    """
    return _forward(rows, keys, values, layer, view, soft_cap)[0]


def over_rows(
    tile: Callable[..., Partial],
    rows: Float[Array, "batch kv_heads rows head_width"],
    own: Any,
    size: int,
) -> Partial:
    """Call a function for each tile of rows, one after the other.

    Args:
      tile: ``(number of the tile, its rows, what belongs to them) -> attention``.
      rows: all rows.
      own: a pytree of what belongs to each row, [batch, rows]; -1 where a tile is
        filled up with rows that should see nothing.
      size: rows of a tile.

    Returns:
      The attention of all rows.
    """
    count = rows.shape[2]
    if count <= size:
        return tile(jnp.zeros((), jnp.int32), rows, own)
    rows = _fill(rows, size, 2)
    own = jax.tree.map(lambda x: _fill(x, size, 1, -1), own)

    def one(number: Array) -> Partial:
        here = jax.tree.map(lambda x: _tile_of(x, number, size, 1), own)
        return tile(number, _tile_of(rows, number, size, 2), here)

    parts = jax.lax.map(one, jnp.arange(rows.shape[2] // size))
    return Partial(*(_merge(x)[:, :, :count] for x in parts))


def _forward(
    rows: Array,
    keys: Array,
    values: Array,
    layer: Array | int,
    view: View,
    soft_cap: float | None,
) -> tuple[Partial, tuple]:
    cut = _cut(rows, keys, view)

    def tile(number: Array, rows: Array, own: _Own) -> Partial:
        def body(place: Array, before: Partial) -> Partial:
            start, mask = _meet(view, own, place, cut.slots)
            k, v = (_slice(x, layer, start, cut.slots) for x in (keys, values))
            return add(before, partial_attention(rows, k, v, mask, soft_cap))

        span = cut.first[number], cut.end[number]
        return jax.lax.fori_loop(*span, body, nothing(rows))

    part = over_rows(tile, rows, _own(view), cut.rows)
    # Kept for the backward pass where a policy of `jax.checkpoint` keeps the products.
    part = Partial(*(checkpoint_name(x, "attention") for x in part))
    return part, (rows, keys, values, layer, view, part.highest)


def _backward(soft_cap: float | None, kept: tuple, grad: Partial) -> tuple:
    rows, keys, values, layer, view, highest = kept
    cut = _cut(rows, keys, view)
    count = rows.shape[2]
    padded = [_fill(x, cut.rows, 2) for x in (rows, grad.out, grad.total, highest)]
    owns = jax.tree.map(lambda x: _fill(x, cut.rows, 1, -1), _own(view))

    def one(sums: tuple[Array, Array], number: Array) -> tuple[tuple, Array]:
        here, *given = (_tile_of(x, number, cut.rows, 2) for x in padded)
        own = jax.tree.map(lambda x: _tile_of(x, number, cut.rows, 1), owns)

        def body(place: Array, state: tuple[Array, Array, Array]) -> tuple:
            of_rows, of_keys, of_values = state
            start, mask = _meet(view, own, place, cut.slots)
            k, v = (_slice(x, layer, start, cut.slots) for x in (keys, values))
            more = _tile_gradients(here, k, v, mask, given, soft_cap)
            return (
                of_rows + more[0],
                _add_slots(of_keys, more[1], start),
                _add_slots(of_values, more[2], start),
            )

        span = cut.first[number], cut.end[number]
        start = (jnp.zeros(here.shape, highest.dtype), *sums)
        of_rows, *after = jax.lax.fori_loop(*span, body, start)
        return tuple(after), of_rows

    zeros = jnp.zeros(keys.shape[1:], highest.dtype)
    tiles = jnp.arange(padded[0].shape[2] // cut.rows)
    sums, of_rows = jax.lax.scan(one, (zeros, zeros), tiles)
    of_keys, of_values = (
        _in_layer(x, layer, stack)
        for x, stack in zip(sums, (keys, values), strict=True)
    )
    return (
        _merge(of_rows)[:, :, :count].astype(rows.dtype),
        of_keys,
        of_values,
        None,
        None,
    )


partial_tiled.defvjp(_forward, _backward)


def _tile_gradients(
    rows: Array,
    keys: Array,
    values: Array,
    mask: Bool[Array, "batch rows slots"],
    given: list[Array],
    soft_cap: float | None,
) -> tuple[Array, Array, Array]:
    """Gradients of rows, keys and values of one tile."""
    of_out, of_total, highest = given
    product = functools.partial(jnp.einsum, preferred_element_type=highest.dtype)
    logits = product("bkrh,bksh->bkrs", rows, keys)
    slope = 1.0
    if soft_cap is not None:
        turned = jnp.tanh(logits / soft_cap)
        logits, slope = soft_cap * turned, 1 - turned**2
    weights = jnp.where(mask[:, None], jnp.exp(logits - highest[..., None]), 0)
    narrow = of_out.astype(values.dtype)
    of_weights = product("bkrh,bksh->bkrs", narrow, values) + of_total[..., None]
    of_logits = (weights * of_weights * slope).astype(keys.dtype)
    return (
        product("bkrs,bksh->bkrh", of_logits, keys),
        product("bkrs,bkrh->bksh", of_logits, rows),
        product("bkrs,bkrh->bksh", weights.astype(rows.dtype), narrow),
    )


def _cut(rows: Array, keys: Array, view: View) -> _Tiles:
    """Sizes of the tiles, and which of them meet."""
    heads, count, slots = keys.shape[1] * keys.shape[2], rows.shape[2], keys.shape[3]
    room = max(1, budget() // heads)
    of_rows = _power(max(_FEWEST_ROWS, room // _MOST_SLOTS))
    # Of equal size: what would fill up the last one is work for nothing.
    of_rows = -(-count // -(-count // of_rows))
    # Few rows, as in decoding, take longer tiles: a loop's turn has its price.
    most = _MOST_SLOTS if of_rows >= _FEWEST_ROWS else 8 * _MOST_SLOTS
    of_slots = _power(max(_FEWEST_SLOTS, min(most, room // of_rows)))
    of_slots = min(of_slots, slots)
    low, high = _ranges(view.positions, of_rows)
    begin, end = _ranges(view.slots, of_slots)
    meet = begin <= high[:, None]
    if view.window is not None:
        meet &= end > low[:, None] - view.window
    if view.segments is not None:
        low, high = _ranges(view.segments[0], of_rows)
        begin, end = _ranges(view.segments[1], of_slots)
        meet &= (begin <= high[:, None]) & (end >= low[:, None])
    some = meet.any(axis=1)
    behind = meet.shape[1] - jnp.argmax(meet[:, ::-1], axis=1)
    return _Tiles(
        of_rows,
        of_slots,
        jnp.where(some, jnp.argmax(meet, axis=1), 0).astype(jnp.int32),
        jnp.where(some, behind, 0).astype(jnp.int32),
    )


def _ranges(
    numbers: Int[Array, "batch count"], size: int
) -> tuple[Int[Array, " tiles"], Int[Array, " tiles"]]:
    """Lowest and highest number of each tile, over all sequences."""
    fill = jnp.pad(numbers, ((0, 0), (0, -numbers.shape[1] % size)), mode="edge")
    cut = fill.reshape(len(numbers), -1, size)
    # What sees nothing, or holds nothing, does not widen its tile's range.
    real = (cut >= 0) & (cut < NEVER)
    return (
        jnp.min(jnp.where(real, cut, NEVER), axis=(0, 2)),
        jnp.max(jnp.where(real, cut, -1), axis=(0, 2)),
    )


def _own(view: View) -> _Own:
    segments = None if view.segments is None else view.segments[0]
    return _Own(view.positions, segments)


def _meet(view: View, own: _Own, place: Array, size: int) -> tuple[Array, Array]:
    """Where a tile of slots begins, and what rows see of it."""
    count = view.slots.shape[1]
    # The last tile begins earlier than it should, and must not count twice.
    start = jnp.minimum(place * size, count - size)
    slots = jax.lax.dynamic_slice_in_dim(view.slots, start, size, 1)
    segments = None
    if view.segments is not None and own.segments is not None:
        of_slots = jax.lax.dynamic_slice_in_dim(view.segments[1], start, size, 1)
        segments = own.segments, of_slots
    mask = seen(View(own.positions, slots, view.window, segments))
    return start, mask & (start + jnp.arange(size) >= place * size)


def _fill(x: Array, size: int, axis: int, value: int = 0) -> Array:
    """Whole tiles along an axis."""
    extra = -x.shape[axis] % size
    widths = [(0, extra if at == axis else 0) for at in range(x.ndim)]
    return jnp.pad(x, widths, constant_values=value) if extra else x


def _tile_of(x: Array, number: Array, size: int, axis: int) -> Array:
    return jax.lax.dynamic_slice_in_dim(x, number * size, size, axis)


def _slice(stack: Array, layer: Array | int, start: Array, size: int) -> Array:
    """Slots of a layer, without a copy of the layer."""
    _, batch, heads, _, width = stack.shape
    corner = [jnp.asarray(x, jnp.int32) for x in (layer, 0, 0, start, 0)]
    return jax.lax.dynamic_slice(stack, corner, (1, batch, heads, size, width))[0]


def _add_slots(sums: Array, more: Array, start: Array) -> Array:
    size = more.shape[2]
    here = jax.lax.dynamic_slice_in_dim(sums, start, size, 2)
    return jax.lax.dynamic_update_slice_in_dim(sums, here + more, start, 2)


def _in_layer(sums: Array, layer: Array | int, stack: Array) -> Array:
    """Gradients of a layer as those of the stack that it lies in."""
    if stack.shape[0] == 1:
        return sums[None].astype(stack.dtype)
    zeros = jnp.zeros(stack.shape, stack.dtype)
    return jax.lax.dynamic_update_index_in_dim(
        zeros, sums.astype(stack.dtype), layer, 0
    )


def _merge(tiles: Array) -> Array:
    """Tiles of rows, [tiles, batch, heads, rows, ...], as [batch, heads, rows, ...]."""
    joined = jnp.moveaxis(tiles, 0, 2)
    return joined.reshape(*joined.shape[:2], -1, *joined.shape[4:])


def _power(number: int) -> int:
    """The largest power of two that is not above a number."""
    return 1 << (number.bit_length() - 1)
