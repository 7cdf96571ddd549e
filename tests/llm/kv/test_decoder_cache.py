"""Test the decoder's quantised cache against the plain cache and a layer loop."""

import dataclasses
import re
from itertools import chain
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm.generate import generate
from jeff_llm.generate import generation as module
from jeff_llm.generate.scoring import score
from jeff_llm.kv import CacheConfig, MakeCache, append, attention, init_cache
from jeff_llm.kv.decoder_cache import DecoderCache
from jeff_llm.kv.quantize import dequantize
from jeff_llm.kv.rotation import rotate
from jeff_llm.models import decoder
from jeff_llm.models.cache import Cache

CONFIG = CacheConfig(4, 2, group_size=8, window=8, sinks=2)
SIXTEEN = MakeCache(dataclasses.replace(CONFIG, key_bits=16, value_bits=16))
BITS = ((4, 2), (8, 8), (4, 2))
# Blocks leave the window at 138 and 266 tokens.
LENGTHS = (330, 270, 40)

step = jax.jit(
    lambda config, params, tokens, mask, cache: decoder.apply(
        config, params, tokens, mask=mask, cache=cache
    ),
    static_argnums=0,
)
restore, turn = jax.jit(dequantize), jax.jit(rotate)


@pytest.fixture(scope="module")
def long(tiny) -> Any:
    """The tiny model with room for blocks."""
    config = dataclasses.replace(tiny.config, max_positions=1024)
    return tiny._replace(config=config)


@pytest.fixture(scope="module")
def rows() -> Any:
    """Tokens [3, 330] of three lengths, the last padded on the left."""
    tokens = np.random.default_rng(0).integers(0, 61, (3, 330)).astype(np.int32)
    mask = np.arange(330) < np.array(LENGTHS)[:, None]
    mask[2] = mask[2, ::-1]
    return jnp.asarray(tokens), jnp.asarray(mask)


def in_pieces(
    config: Any, params: Any, make: Any, rows: Any, sizes: Any
) -> tuple[jax.Array, Any]:
    """Logits of all tokens, read piece by piece, and the cache."""
    cache = make(config, 3, 330, jax.tree.leaves(params)[0].dtype)
    logits, start = [], 0
    for size in sizes:
        tokens, mask = (x[:, start : start + size] for x in rows)
        out = step(config, params, tokens, mask, cache)
        logits.append(out.logits)
        cache, start = out.cache, start + size
    return jnp.concatenate(logits, axis=1), cache


SIZES = (200, 1, 64, 1, 64)


@pytest.mark.parametrize(
    ("window", "layers", "sizes"),
    [(5, None, (1, 200, 64, 1, 64)), (150, (True, False, True), SIZES)],
    ids=["within the recent", "into blocks"],
)
def test_sixteen_bits_are_the_plain_cache(long, rows, window, layers, sizes) -> None:
    """In pieces of odd sizes, with padding on both sides and sliding windows."""
    config = dataclasses.replace(
        long.config, sliding_window=window, sliding_layers=layers
    )
    tokens, mask = rows
    expected = step(config, long.params, tokens, mask, None).logits
    found, cache = in_pieces(config, long.params, SIXTEEN, rows, sizes)
    np.testing.assert_array_equal(cache.lengths, LENGTHS)
    assert jnp.isfinite(found).all()
    np.testing.assert_allclose(found[mask], expected[mask], atol=1.2e-5)


@pytest.fixture(scope="module")
def packed(long, rows) -> Any:
    """Logits and cache of all rows, in two stacks of layers."""
    make = MakeCache(CONFIG, BITS)
    return in_pieces(long.config, long.params, make, rows, SIZES)


def test_packed_blocks_show(long, rows, packed) -> None:
    """Logits are exact while all is in full precision, and near it afterwards."""
    exact = step(long.config, long.params, *rows, None).logits
    error = jnp.abs(packed[0] - exact)[0]
    assert error[:200].max() < 1.2e-5
    assert (error[200:].max(axis=-1) > 1e-3).all()
    assert error[200:].mean() < 0.2 * jnp.abs(exact).mean()


def draw(seed: int, count: int, layers: int = 3) -> tuple[jax.Array, ...]:
    """Queries of four heads, keys and values of two, for all layers."""
    rng = np.random.default_rng(seed)
    return tuple(
        jnp.asarray(rng.normal(size=(layers, 3, count, heads, 8)), jnp.float32)
        for heads in (4, 2, 2)
    )


@jax.jit
def all_layers(cache: Any, new: Any, mask: jax.Array) -> Any:
    """As the decoder goes through them: a scan with the layer's number."""
    before = cache.lengths[:, None] + jnp.cumsum(mask, axis=1) - 1
    positions = jnp.maximum(before, 0)

    def body(cache: Any, layer: Any) -> Any:
        number, (query, key, value) = layer
        out, cache = cache.attend(
            number, query, key, value, positions=positions, mask=mask, window=None
        )
        return cache, out

    cache = cache.begin(positions, mask)
    cache, out = jax.lax.scan(body, cache, (jnp.arange(len(new[0])), new))
    return cache.advance(mask.sum(axis=1)), out


def attention_by_hand(before: Any, layer: int, new: Any, row: int) -> np.ndarray:
    """New tokens over what was stored before them, and themselves as they are."""
    config, length = before.configs[0], int(before.lengths[row])
    blocks = max(length - config.sinks - config.window, 0) // 128
    held = np.arange(length)
    ring = before.recent.keys.shape[3] - config.sinks
    slot = np.where(
        held < config.sinks, held, config.sinks + (held - config.sinks) % ring
    )
    packed = (held >= config.sinks) & (held < config.sinks + 128 * blocks)
    number = np.where(packed, held - config.sinks, 0)
    stack = 0 if layer in before.places[0] else 1
    place = before.places[stack].index(layer)

    def whole(words: Any, recent: jax.Array, x: jax.Array) -> np.ndarray:
        kept = np.asarray(recent)[layer, row][:, slot]
        given_back = np.asarray(restore(words))[place, row][:, number]
        old = np.where(packed[:, None], given_back, kept)
        return np.concatenate([old, np.asarray(x)[row].swapaxes(0, 1)], 1).astype(float)

    query, key, value = new
    keys = whole(before.blocks[stack][0], before.recent.keys, key)
    values = whole(before.blocks[stack][1], before.recent.values, value)
    grouped = np.asarray(query)[row].astype(float).reshape(-1, 2, 2, 8)
    logits = np.einsum("tkgh,ksh->tkgs", grouped, keys) / np.sqrt(8)
    count = len(grouped)
    seen = np.arange(length + count) <= length + np.arange(count)[:, None]
    weights = np.exp(np.where(seen[:, None, None], logits, -np.inf))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("tkgs,ksh->tkgh", weights, values).reshape(count, 4, 8)


def test_widths_of_layers_are_a_loop_over_caches(tiny_config) -> None:
    """Two stacks of three layers hold, and say, what three caches of a layer do."""
    config = dataclasses.replace(CONFIG, rotate=True, key_axis="token")
    cache = MakeCache(config, np.array(BITS))(tiny_config, 3, 330, jnp.float32)
    assert cache.places == ((0, 2), (1,))
    parts = []
    for seed, count in enumerate((265, 1, 1, 45)):
        new = draw(seed, count)
        # The first one fills a block at 266, the second lags, the third stops.
        mask = jnp.arange(count) < jnp.array([[count], [count - 130], [40]])
        mask = mask | jnp.array([[False], [count < 130], [False]])
        before = cache
        cache, out = all_layers(cache, new, mask)
        parts.append((*new[1:], mask[None]))
        for layer in range(3):
            query, key, value = (x[layer] for x in new)
            turned = (turn(query), turn(key), value)
            for row, real in enumerate(np.asarray(mask)):
                expected = attention_by_hand(before, layer, turned, row)
                found = np.asarray(out)[layer, row]
                np.testing.assert_allclose(found[real], expected[real], atol=3e-6)
    keys, values, mask = (jnp.concatenate(x, 2) for x in zip(*parts, strict=True))
    put = jax.jit(append)
    for layer, (key_bits, value_bits) in enumerate(BITS):
        one = init_cache(
            dataclasses.replace(config, key_bits=key_bits, value_bits=value_bits),
            3, 330, kv_heads=2, head_width=8, dtype=jnp.float32,
        )  # fmt: skip
        one = put(one, keys[layer], values[layer], mask=mask[0])
        stack = 0 if layer in cache.places[0] else 1
        place = cache.places[stack].index(layer)
        mine = jax.tree.map(lambda x, place=place: x[place], cache.blocks[stack])
        chex.assert_trees_all_equal(mine, (one.keys, one.values), strict=True)
        # Keys are rotated in two programs, whose sums may round differently.
        recent = cache.recent.keys[layer], one.recent_keys
        np.testing.assert_allclose(*recent, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(cache.recent.values[layer], one.recent_values)
        np.testing.assert_array_equal(cache.lengths, one.lengths)


@pytest.fixture(scope="module")
def drawn(tiny_config) -> DecoderCache:
    """Any content, of which the second and third layer form a stack."""
    bits = ((8, 8), (4, 2), (4, 2))
    cache = MakeCache(CONFIG, bits)(tiny_config, 3, 330, jnp.float32)
    assert cache.places == ((1, 2), (0,))
    rng = np.random.default_rng(5)

    def content(x: jax.Array) -> jax.Array:
        words = x.dtype == jnp.uint32
        some = rng.integers(2**32, size=x.shape) if words else rng.normal(size=x.shape)
        return jnp.asarray(some, x.dtype)

    blocks, recent = jax.tree.map(content, (cache.blocks, cache.recent))
    return dataclasses.replace(
        cache, blocks=blocks, recent=recent, lengths=jnp.array(LENGTHS), fresh=False
    )


def test_a_layer_is_read_where_it_lies(drawn, monkeypatch) -> None:
    """The program of a token has tiles of a layer, and nothing as large as one."""
    monkeypatch.setattr(attention, "_TILE", 1)

    def attend(cache: DecoderCache, layer: jax.Array, new: Any) -> jax.Array:
        positions = cache.lengths[:, None]
        return cache.attend(
            layer, *new, positions=positions, mask=positions >= 0, window=None
        )[0]

    new = tuple(x[0] for x in draw(0, 1))
    text = jax.jit(attend).lower(drawn, jnp.array(1), new).compile().as_text()
    assert "u32[2,3,2,2,16,8]" in text
    assert not re.findall(r"u32\[(?:1,)?3,2,2,(?:16|8),8\]", text)


def test_the_kernel_reads_a_layer_by_its_place(drawn) -> None:
    """Recent tokens by the layer's number, packed ones by its place in the stack."""
    before = dataclasses.replace(
        drawn, implementation="interpret", lengths=drawn.lengths - 1
    )
    new = draw(0, 1)
    out = np.asarray(all_layers(before, new, jnp.ones((3, 1), bool))[1])
    for layer, row in np.ndindex(3, 3):
        expected = attention_by_hand(before, layer, [x[layer] for x in new], row)
        np.testing.assert_allclose(out[layer, row], expected, rtol=1e-5, atol=1e-5)


PROMPTS = [[*range(1, 60)] * 3, [7] * 130, [44, 0, 9]]


@pytest.fixture(scope="module")
def plain(long) -> Any:
    return generate(long, PROMPTS, max_new_tokens=24)


def test_generation_with_sixteen_bits(long, plain) -> None:
    """The plain cache's tokens and probabilities, of a ragged batch."""
    found = generate(long, PROMPTS, max_new_tokens=24, make_cache=SIXTEEN)
    np.testing.assert_array_equal(found.tokens, plain.tokens)
    np.testing.assert_allclose(found.log_probs, plain.log_probs, atol=1.2e-5)


def test_ends_and_compilations(long, plain) -> None:
    """A row stops while others go on; an equal maker compiles nothing more."""
    program: Any = module._generate
    compiled = program._cache_size()
    end = int(plain.tokens[1, 4])
    again = MakeCache(dataclasses.replace(CONFIG, key_bits=16, value_bits=16))
    assert again == SIXTEEN and again is not SIXTEEN
    found = generate(long, PROMPTS, max_new_tokens=24, stop_ids=[end], make_cache=again)
    assert program._cache_size() == compiled
    assert found.finished.any() and not found.finished.all()
    for row, length in enumerate(found.lengths):
        assert (
            found.tokens[row, :length].tolist() == plain.tokens[row, :length].tolist()
        )


def test_scores_share_a_prefix(long) -> None:
    """A packed prefix that many continue: as with the plain cache."""
    prefix = [*range(1, 60)] * 3
    prompts = [[*prefix, 3], [*prefix, 4, 5]]
    tails = [[[1, 2], [3]], [[4], [9, 9, 9]]]
    one = score(long, prompts, tails)
    other = score(long, prompts, tails, make_cache=SIXTEEN)
    for mine, theirs in zip(chain(*one), chain(*other), strict=True):
        np.testing.assert_allclose(theirs.log_probs, mine.log_probs, atol=1.2e-5)


def test_rows_that_are_repeated(long, rows, packed) -> None:
    """Copies of sequences go on as those would."""
    cache, order = packed[1], jnp.array([2, 1, 1])
    repeated = cache.repeat_rows(order)
    assert jax.tree.structure(repeated) == jax.tree.structure(cache)
    token, one = rows[0][:, :1], jnp.ones((3, 1), bool)
    whole = step(long.config, long.params, token, one, cache)
    found = step(long.config, long.params, token[order], one, repeated)
    np.testing.assert_allclose(found.logits, whole.logits[order], atol=1.2e-5)
    chex.assert_trees_all_close(
        found.cache, whole.cache.repeat_rows(order), atol=1.2e-5
    )


def test_a_full_cache(long, rows, packed) -> None:
    """Eagerly an error; under jit later tokens are dropped, the others stay."""
    full = packed[1]
    with pytest.raises(ValueError, match=r"cache: .* at most 330 tokens .* got 332"):
        full.advance(jnp.array([2, 0, 0]))
    token, one = rows[0][:, :1], jnp.ones((3, 1), bool)
    over = step(long.config, long.params, token, one, full)
    assert jnp.isfinite(over.logits).all()
    np.testing.assert_array_equal(over.cache.lengths, [330, 271, 41])
    blocks, recent = jax.tree.map(lambda x: x[:, 0], (full.blocks, full.recent))
    mine = jax.tree.map(lambda x: x[:, 0], (over.cache.blocks, over.cache.recent))
    chex.assert_trees_all_equal(mine, (blocks, recent), strict=True)


def test_bfloat16(long, rows) -> None:
    """Parameters and cache in sixteen bits, as the plain cache within rounding."""
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), long.params)
    rows = [x[:, :202] for x in rows]
    expected = step(long.config, params, *rows, None).logits
    found, cache = in_pieces(long.config, params, SIXTEEN, rows, (200, 1, 1))
    assert cache.recent.keys.dtype == jnp.bfloat16
    mask = rows[1]
    difference = jnp.abs(found - expected)[mask]
    assert difference.mean() < 0.02 * jnp.abs(expected[mask]).mean()


def test_a_cache_of_the_decoder(long) -> None:
    """It is one by the protocol; its maker is hashable and says what it holds."""
    make = MakeCache(CONFIG, np.array(BITS))
    assert make == MakeCache(CONFIG, BITS)
    assert hash(make) == hash(MakeCache(CONFIG, BITS))
    cache = make(long.config, 2, 400, jnp.bfloat16)
    assert isinstance(cache, Cache) and isinstance(cache, DecoderCache)
    assert cache.fresh and cache.capacity == 400
    assert cache.recent.keys.shape == (3, 2, 2, 138, 8)
    assert [keys.words.shape for keys, _ in cache.blocks] == [
        (2, 2, 2, 3, 16, 8),
        (1, 2, 2, 3, 32, 8),
    ]
    assert [(c.key_bits, c.value_bits) for c in cache.configs] == [(4, 2), (8, 8)]


@pytest.mark.parametrize(
    ("make", "sizes", "message"),
    [
        (MakeCache(CONFIG, ((4, 2),)), (1, 9), "bits: .* each of 3 layers, got 1"),
        (MakeCache(), (1, 9), "group_size: .* the 8 channels of a head, got 64"),
        (MakeCache(CONFIG, [[4, 5]] * 3), (1, 9), "value_bits: .* got 5"),
        (MakeCache(CONFIG), (0, 9), "batch_size: expected at least 1, got 0"),
        (MakeCache(CONFIG), (1, 0), "capacity: expected at least 1, got 0"),
    ],
)
def test_caches_that_are_refused(tiny_config, make, sizes, message) -> None:
    with pytest.raises(ValueError, match=message):
        make(tiny_config, *sizes, jnp.float32)


@pytest.mark.parametrize("bits", [(), (4, 2), [[4.0, 2.0]], [[4, 2, 2]]], ids=str)
def test_widths_that_are_refused(bits) -> None:
    with pytest.raises(ValueError, match=r"bits: expected whole .* \[layers, 2\], got"):
        MakeCache(CONFIG, bits)


def test_an_implementation_that_is_refused(long, rows) -> None:
    """When the program is made."""
    make = MakeCache(CONFIG, implementation="tpu")
    with pytest.raises(ValueError, match=r"implementation: .* platform 'tpu'"):
        in_pieces(long.config, long.params, make, rows, (200, 1))


def test_tokens_that_were_not_announced(long, packed) -> None:
    """Several tokens after the first wait in the cache until all layers have them."""
    query, key, value = (x[0] for x in draw(0, 2))
    cache = packed[1]
    positions = cache.lengths[:, None] + jnp.arange(2)
    with pytest.raises(ValueError, match=r"expected begin\(\) ahead"):
        cache.attend(
            jnp.array(0), query, key, value,
            positions=positions, mask=positions >= 0, window=None,
        )  # fmt: skip
