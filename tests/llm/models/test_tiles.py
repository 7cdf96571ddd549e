"""Test attention by tiles against all logits at once, and its memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm.models import tiles
from jeff_llm.models.attention import attend, attend_part
from jeff_llm.models.partial import Partial, join
from jeff_llm.models.view import NEVER, View, of_rows, to_rows

TOKENS, SLOTS, HEADS, KV_HEADS, WIDTH = 37, 53, 6, 2, 4


@pytest.fixture
def small(monkeypatch):
    """Tiles of four rows and a few slots, so that small arrays have many."""
    monkeypatch.setattr(tiles, "_CPU_LOGITS", 128)
    monkeypatch.setattr(tiles, "_FEWEST_SLOTS", 2)
    monkeypatch.setattr(tiles, "_MOST_SLOTS", 8)
    monkeypatch.setattr(tiles, "_FEWEST_ROWS", 4)


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def layout(kind: str) -> View:
    """Positions of two sequences of tokens, and of slots."""
    token, slot = jnp.arange(TOKENS), jnp.arange(SLOTS)
    if kind == "behind a cache":
        return View(jnp.stack([token + 9, token + SLOTS - TOKENS]), slot[None])
    if kind == "window":
        return View(jnp.stack([token + 9, token]), slot[None], jnp.array(5))
    if kind == "ring":  # positions in no order, and empty slots
        ring = jnp.where(slot % 7 == 3, NEVER, (slot * 19) % SLOTS)
        return View(jnp.stack([token, token + 9]), jnp.stack([ring, ring[::-1]]), 11)
    whole = jnp.arange(SLOTS)
    if kind == "padding on the left":
        at = jnp.stack([jnp.maximum(whole - 11, 0), whole])
        mask = jnp.stack([whole >= 11, whole >= 0])
        return View(at, jnp.where(mask, at, NEVER))
    if kind == "padding on the right":
        at = jnp.stack([whole, jnp.minimum(whole, 20)])
        mask = jnp.stack([whole >= 0, whole <= 20])
        return View(at, jnp.where(mask, at, NEVER))
    # Three texts in a row, and none at its end.
    texts = jnp.stack([1 + (whole > 9) + (whole > 30), 1 + (whole > 25)])
    starts = jnp.stack([10 * (whole > 9) + 21 * (whole > 30), 26 * (whole > 25)])
    return View(whole - starts, whole - starts, None, (texts, texts))


KINDS = (
    "behind a cache",
    "window",
    "ring",
    "padding on the left",
    "padding on the right",
    "texts in a row",
)


def drawn(view: View) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Queries, and keys and values of three layers, in float64."""
    query = normal(0, *view.positions.shape, HEADS, WIDTH)
    shape = (3, 2, KV_HEADS, SLOTS, WIDTH)
    return query, normal(1, *shape), normal(2, *shape)


@pytest.mark.parametrize("soft_cap", [None, 1.5])
@pytest.mark.parametrize("kind", KINDS)
def test_tiles_change_nothing(kind, soft_cap, small, monkeypatch) -> None:
    """Output and gradients, at odd sizes, in float64; the other layers get none."""
    with jax.enable_x64():
        view = layout(kind)
        query, keys, values = drawn(view)
        assert query.dtype == jnp.float64
        weight = normal(3, *query.shape)

        def loss(query, keys, values):
            out = attend(query, keys, values, view, soft_cap, layer=jnp.array(1))
            return jnp.sum(weight * out), out

        slopes, out = jax.grad(loss, (0, 1, 2), has_aux=True)(query, keys, values)
        monkeypatch.setattr(tiles, "_CPU_LOGITS", 2**30)
        wanted, whole = jax.grad(loss, (0, 1, 2), has_aux=True)(query, keys, values)
        np.testing.assert_allclose(out, whole, atol=1e-13)
        for one, other in zip(slopes, wanted, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-12)
        assert slopes[1][1].any() and not slopes[1][::2].any()


@pytest.mark.parametrize(
    ("kind", "most"),
    [("behind a cache", 0.75), ("window", 0.4), ("texts in a row", 0.8)],
)
def test_only_tiles_that_meet_are_visited(kind, most, small) -> None:
    """The share of pairs of tiles; the causal half alone would be above one half."""
    view = layout(kind)
    query, keys, _ = drawn(view)
    if kind == "texts in a row":  # one sequence: tiles are visited for any of them
        query, keys = query[:1], keys[:, :1]
        texts = view.segments[0][:1]
        view = View(view.positions[:1], view.slots[:1], None, (texts, texts))
    rows = to_rows(query, KV_HEADS)
    cut = tiles._cut(rows, keys, of_rows(view, HEADS // KV_HEADS))
    visited = int((cut.end - cut.first).sum())
    assert 0 < visited < most * len(cut.first) * -(-SLOTS // cut.slots)


def test_a_tile_that_nobody_sees_is_not_read(small) -> None:
    """Slots that are not filled may hold NaN."""
    view = View(jnp.arange(20)[None].repeat(2, 0), jnp.arange(SLOTS)[None])
    query, keys, values = drawn(view)
    wanted = attend(query, keys, values, view, layer=0)
    stale = (jnp.arange(SLOTS) >= 32)[:, None]
    pair = (jnp.where(stale, jnp.nan, x) for x in (keys, values))
    got = attend(query, *pair, view, layer=0)
    np.testing.assert_array_equal(got, wanted)


def test_parts_are_joined(small) -> None:
    """Two halves of the slots, each by tiles, are the whole."""
    view = of_rows(layout("behind a cache"), HEADS // KV_HEADS)
    _, keys, values = drawn(layout("behind a cache"))
    rows = normal(4, 2, KV_HEADS, view.positions.shape[1], WIDTH)

    def part(cut: slice) -> Partial:
        slots = view._replace(slots=view.slots[:, cut])
        return attend_part(rows, keys[0, :, :, cut], values[0, :, :, cut], slots)

    both = join([part(slice(0, 21)), part(slice(21, None))])
    np.testing.assert_allclose(both, join([part(slice(None))]), atol=2e-6)


def test_narrow_types(small) -> None:
    """bfloat16 in, bfloat16 out, sums in float32."""
    view = layout("behind a cache")
    exact = drawn(view)
    out = attend(*[x.astype(jnp.bfloat16) for x in exact], view, layer=2)
    assert out.dtype == jnp.bfloat16
    wanted = attend(*exact, view, layer=2)
    np.testing.assert_allclose(out.astype(jnp.float32), wanted, atol=0.03)


@pytest.mark.parametrize("gradient", [False, True])
def test_memory_is_linear(gradient) -> None:
    """Twice the tokens, at most a little over twice the memory."""

    def bytes_of(tokens: int) -> int:
        at = jnp.arange(tokens)[None]
        query = jax.ShapeDtypeStruct((1, tokens, 8, 32), jnp.float32)
        pair = (jax.ShapeDtypeStruct((1, 2, tokens, 32), jnp.float32),) * 2
        call = functools.partial(attend, view=View(at, at))
        if gradient:
            call = jax.grad(lambda *args: attend(*args, View(at, at)).sum(), (0, 1, 2))
        analysis = jax.jit(call).lower(query, *pair).compile().memory_analysis()
        return analysis.temp_size_in_bytes

    short, long = bytes_of(8192), bytes_of(16384)
    assert long < 2.2 * short
    # All logits would be 8.6 GB.
    assert long < 0.2e9


def test_many_calls_at_once(small) -> None:
    """Under vmap, and under jit of a scan over layers."""
    view = layout("window")
    query, keys, values = drawn(view)

    def of_layer(layer):
        return attend(query, keys, values, view, layer=layer)

    several = jnp.arange(3)
    one_by_one = jnp.stack([of_layer(layer) for layer in range(3)])
    mapped = jax.vmap(of_layer)(several)
    scanned = jax.jit(lambda: jax.lax.map(of_layer, several))()
    np.testing.assert_allclose(mapped, one_by_one, atol=2e-6)
    np.testing.assert_allclose(scanned, one_by_one, atol=2e-6)
