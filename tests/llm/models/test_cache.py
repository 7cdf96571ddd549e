"""Test the cache's parts: visibility, attention by hand, and storage positions."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm.models.attention import attend
from jeff_llm.models.cache import Cache, PlainCache, init_cache
from jeff_llm.models.config import DecoderConfig
from jeff_llm.models.view import NEVER, View, seen

CONFIG = DecoderConfig(
    vocab_size=5,
    num_layers=2,
    width=8,
    mlp_width=8,
    num_heads=4,
    num_kv_heads=2,
    head_width=2,
)
attended = jax.jit(attend)
HUGE = jnp.iinfo(jnp.int32).max


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def plain_attention(query, keys, values, mask):
    """One query head after the other, in float64."""
    batch, tokens, heads, width = query.shape
    out = np.zeros(query.shape)
    for b, t, n in np.ndindex(batch, tokens, heads):
        k = n // (heads // keys.shape[1])
        slots = np.flatnonzero(mask[b, t])
        logits = keys[b, k, slots].astype(float) @ query[b, t, n] / math.sqrt(width)
        weights = np.exp(logits - logits.max())
        out[b, t, n] = weights / weights.sum() @ values[b, k, slots]
    return out


def test_a_view_by_hand() -> None:
    """``0 <= position - slot < window``, among slots of the same text."""
    positions = jnp.array([[0, 2, 3]])
    slots = jnp.array([[0, 1, 2, 3, NEVER]])
    whole = [[1, 0, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]
    np.testing.assert_array_equal(seen(View(positions, slots))[0], whole)
    huge = View(positions, slots, jnp.array(HUGE))
    np.testing.assert_array_equal(seen(huge)[0], whole)
    cut = [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 1, 1, 0]]
    np.testing.assert_array_equal(seen(View(positions, slots, 2))[0], cut)
    texts = jnp.array([[1, 1, 2]]), jnp.array([[1, 1, 1, 2, 2]])
    apart = [[1, 0, 0, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 0]]
    np.testing.assert_array_equal(seen(View(positions, slots, None, texts))[0], apart)


def test_attention_by_hand() -> None:
    """Two slots with logits ln 3 and 0: weights 3/4 and 1/4."""
    query = jnp.array([[[[math.log(3) * math.sqrt(2), 0.0]]]])
    keys = jnp.array([[[[1.0, 0.0], [0.0, 1.0]]]])
    values = jnp.array([[[[4.0, 0.0], [0.0, 8.0]]]])
    last = jnp.array([[1]])
    both = attend(query, keys, values, View(last, jnp.array([[0, 1]])))
    np.testing.assert_allclose(both[0, 0, 0], [3.0, 2.0], rtol=1e-6)
    one = attend(query, keys, values, View(last, jnp.array([[NEVER, 1]])))
    np.testing.assert_allclose(one[0, 0, 0], [0.0, 8.0])


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_grouped_heads(kv_heads: int) -> None:
    """Query head n uses key head n // (heads / kv_heads), whatever is shared."""
    query = normal(0, 2, 3, 4, 8)
    keys, values = normal(1, 2, 2, kv_heads, 5, 8)
    view = View(jnp.array([[0, 3, 4], [2, 0, 5]]), jnp.array([[0, 1, 2, 3, NEVER]]), 3)
    expected = plain_attention(
        *map(np.asarray, (query, keys, values)), np.asarray(seen(view))
    )
    got = attended(query, keys, values, view)
    np.testing.assert_allclose(got, expected, atol=5e-7)
    half = [x.astype(jnp.bfloat16) for x in (query, keys, values)]
    rough = attended(*half, view)
    assert rough.dtype == jnp.bfloat16
    np.testing.assert_allclose(rough.astype(jnp.float32), expected, atol=0.02)


def test_a_query_that_sees_nothing() -> None:
    """Zeros, with finite gradients, even for huge logits."""
    query, values = 1e4 * normal(0, 1, 2, 2, 4), normal(2, 1, 1, 3, 4)
    keys = 1e4 * normal(1, 1, 1, 3, 4)
    view = View(jnp.array([[-1, 2]]), jnp.arange(3)[None])
    out = attended(query, keys, values, view)
    assert not out[0, 0].any() and out[0, 1].all()
    slopes = jax.grad(lambda *args: attended(*args, view).sum(), (0, 1, 2))(
        query, keys, values
    )
    assert all(jnp.isfinite(slope).all() for slope in slopes)


def test_slots_are_positions() -> None:
    """Padding stores nothing; the rest goes where its position says, in one layer."""
    cache = init_cache(CONFIG, 2, 6)
    assert isinstance(cache, Cache) and cache.fresh and cache.capacity == 6
    key, value = normal(0, 2, 2, 3, 2, 2)
    mask = jnp.array([[False, True, True], [True, False, False]])
    positions = jnp.array([[0, 0, 1], [0, 0, 0]])
    _, cache = cache.attend(
        jnp.array(1),
        normal(1, 2, 3, 4, 2),
        key,
        value,
        positions=positions,
        mask=mask,
        window=None,
    )
    expected = np.zeros((2, 2, 2, 6, 2), np.float32)
    expected[1, 0, :, :2] = np.asarray(key[0, 1:]).swapaxes(0, 1)
    expected[1, 1, :, 0] = key[1, 0]
    np.testing.assert_array_equal(cache.keys, expected)
    assert (cache.values[1, 1, :, 0] == value[1, 0]).all()
    assert not cache.values[0].any() and not cache.values[:, :, :, 2:].any()
    np.testing.assert_array_equal(cache.lengths, [0, 0])
    cache = cache.advance(mask.sum(1, dtype=jnp.int32))
    np.testing.assert_array_equal(cache.lengths, [2, 1])
    assert not cache.fresh


def test_fresh_or_not_gives_the_same() -> None:
    """Among themselves or over the slots: what real tokens get is equal."""
    cache = init_cache(CONFIG, 2, 6)
    query, (key, value) = normal(0, 2, 3, 4, 2), normal(1, 2, 2, 3, 2, 2)
    mask = jnp.array([[False, True, True], [True, True, False]])
    positions = jnp.array([[0, 0, 1], [0, 1, 1]])
    outs = [
        each.begin(positions, mask).attend(
            jnp.array(0),
            query,
            key,
            value,
            positions=positions,
            mask=mask,
            window=jnp.array(2),
        )[0]
        for each in (cache, dataclasses.replace(cache, fresh=False))
    ]
    np.testing.assert_allclose(outs[0][mask], outs[1][mask], atol=1e-6)
    assert jnp.isfinite(outs[0]).all() and jnp.isfinite(outs[1]).all()


def test_repeat_rows() -> None:
    """Each new row is a copy of the one that it continues."""
    cache = PlainCache(
        normal(0, 2, 2, 2, 3, 2), normal(1, 2, 2, 2, 3, 2), jnp.array([3, 1])
    )
    copies = cache.repeat_rows(jnp.array([1, 0, 1]))
    np.testing.assert_array_equal(copies.lengths, [1, 3, 1])
    np.testing.assert_array_equal(copies.keys, np.asarray(cache.keys)[:, [1, 0, 1]])
    np.testing.assert_array_equal(copies.values, np.asarray(cache.values)[:, [1, 0, 1]])
    assert not copies.fresh


def test_donation() -> None:
    """A cache may be updated in place: its arrays are its own."""
    cache = init_cache(CONFIG, 1, 4)
    step = jax.jit(lambda cache: cache.advance(jnp.ones(1, int)), donate_argnums=0)
    after = step(cache)
    assert cache.keys.is_deleted() and cache.values.is_deleted()
    np.testing.assert_array_equal(after.lengths, [1])


def test_dtype_and_sizes() -> None:
    """bfloat16 is half as large; a size of zero is refused by its name."""
    cache = init_cache(CONFIG, 3, 7, jnp.bfloat16)
    assert cache.keys.shape == (2, 3, 2, 7, 2)
    assert cache.keys.dtype == cache.values.dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got 0"):
        init_cache(CONFIG, 0, 7)
    with pytest.raises(ValueError, match="capacity: expected at least 1, got -2"):
        init_cache(CONFIG, 1, -2)
