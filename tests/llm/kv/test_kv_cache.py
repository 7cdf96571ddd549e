"""Test the cache of one layer: all ways to fill it, attention, and edge cases."""

import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

from jeff_llm.kv import attention, cache, storage
from jeff_llm.kv.cache import QuantizedCache, append, attend, init_cache, prefill
from jeff_llm.kv.config import CacheConfig
from jeff_llm.kv.quantize import dequantize, quantize
from jeff_llm.kv.rotation import rotate

# Three blocks behind the sinks and the window, exactly.
CONFIG = CacheConfig(group_size=8, window=50, sinks=3)
CAPACITY = 3 + 50 + 3 * 128
PLAIN = CacheConfig(16, 16, group_size=8, window=50, sinks=3)

put: Any = jax.jit(append)
read = jax.jit(prefill, static_argnames="window")
compress = jax.jit(
    quantize, static_argnames=("bits", "group_size", "axis", "scale_dtype")
)
restore = jax.jit(dequantize)
look = jax.jit(attend, static_argnames="window")


class Tokens(NamedTuple):
    """Queries [batch, tokens, heads, width], keys and values."""

    query: jax.Array
    key: jax.Array
    value: jax.Array

    def part(self, *index: Any) -> "Tokens":
        return Tokens(*(x[index] for x in self))

    @property
    def pair(self) -> tuple[jax.Array, jax.Array]:
        return self.key, self.value


def draw(seed: int, count: int, *, heads=(4, 2), width=8, batch=2) -> Tokens:
    rng = np.random.default_rng(seed)
    shapes = ((batch, count, n, width) for n in (heads[0], heads[1], heads[1]))
    return Tokens(*(jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes))


def empty(config: CacheConfig, tokens: Tokens, capacity: int = CAPACITY) -> Any:
    batch, _, kv_heads, width = tokens.key.shape
    return init_cache(
        config,
        batch,
        capacity,
        kv_heads=kv_heads,
        head_width=width,
        dtype=tokens.key.dtype,
    )


@functools.partial(jax.jit, static_argnames=("window", "soft_cap"))
def grow(
    cache: QuantizedCache,
    tokens: Any,
    mask: jax.Array,
    window: int | None = None,
    soft_cap: float | None = None,
) -> tuple[QuantizedCache, jax.Array]:
    """One token after the other, each with its attention, as one scan."""

    def step(cache: QuantizedCache, new: Any) -> Any:
        (query, key, value), mask = new
        cache = append(cache, key, value, mask=mask)
        return cache, attend(query, cache, window=window, soft_cap=soft_cap)

    ahead = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0)[:, :, None], (tokens, mask))
    cache, out = jax.lax.scan(step, cache, ahead)
    return cache, jnp.moveaxis(out[:, :, 0], 0, 1)


def everything(tokens: Tokens) -> jax.Array:
    return jnp.ones(tokens.key.shape[:2], bool)


def restored(config: CacheConfig, x: jax.Array, bits: int, axis: Any) -> np.ndarray:
    """Tokens [tokens, kv_heads, width] as the packed blocks give them back."""
    last = (len(x) - config.sinks) // 128 * 128 + config.sinks
    if last <= config.sinks:
        return np.asarray(x, np.float64)
    packed = compress(
        x[config.sinks : last].swapaxes(0, 1),
        bits,
        config.group_size,
        axis,
        scale_dtype=jnp.dtype(config.scale_dtype),
    )
    parts = (x[: config.sinks], restore(packed).swapaxes(0, 1), x[last:])
    return np.concatenate([np.asarray(part, np.float64) for part in parts])


def reference(
    config: CacheConfig,
    row: Tokens,
    window: int | None = None,
    soft_cap: float | None = None,
    *,
    first: int = 0,
    grown_to: int | None = None,
) -> np.ndarray:
    """Attention of each token from ``first`` on, in float64, over what is stored.

    By default at the time of the token, else when the sequence has grown to a length.
    """
    query, keys, values = (np.asarray(x, np.float64) for x in row)
    turn = rotate if config.rotate else lambda x: x
    packed_keys = restored(config, turn(row.key), config.key_bits, config.key_axis)
    packed_keys = np.asarray(turn(jnp.asarray(packed_keys, jnp.float32)), np.float64)
    packed_values = restored(config, row.value, config.value_bits, "token")
    out = []
    for position in range(first, len(query)):
        length = grown_to or position + 1
        blocks = max(length - config.sinks - config.window, 0) // 128
        past = np.arange(position + 1)
        packed = (past >= config.sinks) & (past < config.sinks + 128 * blocks)
        packed = packed[:, None, None]
        key = np.where(packed, packed_keys[past], keys[past])
        value = np.where(packed, packed_values[past], values[past])
        grouped = query[position].reshape(keys.shape[1], -1, query.shape[-1])
        logits = np.einsum("kgh,tkh->kgt", grouped, key) / np.sqrt(query.shape[-1])
        if soft_cap is not None:
            logits = soft_cap * np.tanh(logits / soft_cap)
        if window is not None:
            logits = np.where(position - past < window, logits, -np.inf)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        out.append(np.einsum("kgt,tkh->kgh", weights, value).reshape(query[0].shape))
    return np.stack(out)


CASES = {
    "sixteen bits": (PLAIN, {}, CAPACITY, {}),
    "no sinks, no window": (
        CacheConfig(16, 16, group_size=8, window=0, sinks=0), {}, 384, {}
    ),
    "all are sinks": (CacheConfig(16, 16, group_size=8, sinks=300), {}, 200, {}),
    "no room for a block": (CacheConfig(2, 2, group_size=8), {}, 259, {}),
    "room for one block": (CacheConfig(16, 2, group_size=8), {}, 260, {}),
    "K4V2": (CONFIG, {}, CAPACITY, {}),
    "K2V8, window of 1": (
        CacheConfig(2, 8, group_size=4, window=1, sinks=0, key_axis="token"),
        {}, 400, {},
    ),
    "K8V4, float32 scales": (
        CacheConfig(8, 4, group_size=8, window=0, sinks=4, scale_dtype="float32"),
        {}, 300, {},
    ),
    "sliding within the recent": (CONFIG, {}, CAPACITY, {"window": 20}),
    "sliding into blocks, one head each, 64 wide": (
        CacheConfig(window=50), {"heads": (1, 1), "width": 64}, 320, {"window": 150}
    ),
    "soft cap, groups of 3, 96 wide": (
        CacheConfig(group_size=32, window=50), {"heads": (3, 1), "width": 96}, 200,
        {"soft_cap": 0.7},
    ),
    "rotated, groups of 8, 128 wide": (
        CacheConfig(4, 4, window=50, key_axis="token", rotate=True),
        {"heads": (8, 1), "width": 128}, 200, {},
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "shape", "capacity", "options"), CASES.values(), ids=CASES
)
def test_attention_at_every_length(config, shape, capacity, options) -> None:
    """Over the stored tokens, from an empty cache to a full one."""
    tokens = draw(0, capacity, **shape)
    full, out = grow(
        empty(config, tokens, capacity), tokens, everything(tokens), **options
    )
    np.testing.assert_array_equal(full.lengths, capacity)
    for row in range(2):
        expected = reference(config, tokens.part(row), **options)
        np.testing.assert_allclose(out[row], expected, atol=2e-6, rtol=2e-6)


def test_quantisation_shows() -> None:
    """The reference of the tests above differs from plain attention once it should."""
    row = draw(0, CAPACITY).part(0)
    plain, packed = reference(PLAIN, row), reference(CONFIG, row)
    np.testing.assert_array_equal(packed[:180], plain[:180])
    assert (np.abs(packed[180:] - plain[180:]).max((1, 2)) > 1e-3).all()


@pytest.mark.parametrize(("tile", "window"), [(0, None), (1, 200), (2, None), (2, 60)])
def test_tiles(monkeypatch, tile, window) -> None:
    """The last tile begins early and counts nothing twice; a window begins in one."""
    tokens = draw(1, CAPACITY)
    monkeypatch.setattr(attention, "_TILE", tile * 2 * 2 * 128 * 8)
    mask = everything(tokens).at[0, 300:].set(False)
    _, full = read(empty(CONFIG, tokens), *tokens, mask=mask)
    # Compiled anew, with tiles of this many blocks, but one at least.
    out = jax.jit(lambda q, c: attend(q, c, window=window))(tokens.query[:, -1:], full)
    for row, length in enumerate((300, CAPACITY)):
        # The query comes last, whatever it followed.
        query = tokens.query[row].at[length - 1].set(tokens.query[row, -1])
        these = tokens.part(row)._replace(query=query).part(slice(length))
        expected = reference(CONFIG, these, window, first=length - 1)
        np.testing.assert_allclose(out[row], expected, atol=2e-6)


@pytest.fixture(scope="module")
def grown() -> Any:
    """Two sequences, one of which stops at 290, and their cache at some lengths."""
    tokens = draw(2, 420)
    mask = everything(tokens).at[1, 290:].set(False)
    now, seen = empty(CONFIG, tokens), {}
    once = jax.jit(chex.assert_max_traces(append, n=1))
    for step in range(420):
        here = slice(step, step + 1)
        now = once(now, tokens.key[:, here], tokens.value[:, here], mask=mask[:, here])
        if step + 1 in (180, 181, 290, 309, 420):
            seen[step + 1] = now
    return tokens, mask, seen


def assert_same(found: Any, expected: Any) -> None:
    """Bit for bit, in all leaves."""
    chex.assert_trees_all_equal(found, expected, strict=True)


def test_a_scan_is_one_token_after_another(grown) -> None:
    """Bit for bit, also where a sequence stops."""
    tokens, mask, seen = grown
    np.testing.assert_array_equal(seen[420].lengths, [420, 290])
    assert_same(grow(empty(CONFIG, tokens), tokens, mask)[0], seen[420])


@pytest.mark.parametrize("length", [180, 181, 309, 420])
def test_prefill_is_one_token_after_another(grown, length) -> None:
    """At a block's end, behind it, at the next, and at any length."""
    tokens, mask, seen = grown
    _, full = read(
        empty(CONFIG, tokens),
        *tokens.part(slice(None), slice(length)),
        mask=mask[:, :length],
    )
    assert_same(full, seen[length])


@pytest.mark.parametrize("sizes", [(128,) * 4, (7, 129, 1, 45, 300)], ids=str)
def test_chunks_are_one_token_after_another(grown, sizes) -> None:
    """Of odd sizes, that end at a block or hold two of them."""
    tokens, mask, seen = grown
    now, start = empty(CONFIG, tokens), 0
    for size in sizes:
        here = slice(start, min(start + size, 420))
        now = put(now, tokens.key[:, here], tokens.value[:, here], mask=mask[:, here])
        start += size
    assert_same(now, seen[420])


@pytest.mark.parametrize("side", ["left", "right", "between"])
def test_padding_leaves_no_trace(grown, side) -> None:
    """On either side, or in the midst: what counts is the order of the real tokens."""
    tokens, _, seen = grown
    index = np.full((2, 420), -1)
    index[0], index[1, :290] = np.arange(420), np.arange(290)
    if side == "left":
        index[1] = np.roll(index[1], 130)
    if side == "between":
        index[1] = np.insert(index[1, :290], np.arange(0, 260, 2), -1)
    mask = jnp.asarray(index >= 0)
    rubbish = 1e4 * draw(3, 420).key
    padded = [
        jnp.where(
            mask[..., None, None],
            jnp.take_along_axis(x, jnp.asarray(index)[..., None, None], axis=1),
            noise,
        )
        for x, noise in zip(tokens, (draw(3, 420).query, rubbish, rubbish), strict=True)
    ]
    out, full = read(empty(CONFIG, tokens), *padded, mask=mask)
    assert_same(full, seen[420])
    for row, length in enumerate((420, 290)):
        expected = reference(PLAIN, tokens.part(row, slice(length)))
        np.testing.assert_allclose(
            out[row][np.asarray(mask[row])], expected, atol=2e-6, rtol=2e-6
        )
    assert jnp.isfinite(out).all()


def test_prefill_forgets_and_slides(grown) -> None:
    """What the cache held is not looked at; a sliding window is one."""
    tokens, _, seen = grown
    tokens = tokens.part(slice(None), slice(180))
    mask = everything(tokens)
    out, again = read(seen[309], *tokens, mask=mask, window=30)
    _, fresh = read(empty(CONFIG, tokens), *tokens, mask=mask)
    np.testing.assert_array_equal(again.lengths, [180, 180])
    query = tokens.query[:, 179:180]
    np.testing.assert_array_equal(look(query, again), look(query, fresh))
    expected = reference(PLAIN, tokens.part(0), window=30)
    np.testing.assert_allclose(out[0], expected, atol=2e-6, rtol=2e-6)


def test_old_words_never_change(grown) -> None:
    """After three flushes each block is still `quantize` of its own tokens."""
    tokens, _, seen = grown
    last = seen[420]
    for _ in range(17):
        last = put(last, *draw(4, 1).pair, mask=jnp.ones((2, 1), bool))
    states = [seen[181], seen[309], last]
    for count, state in enumerate(states, start=1):
        np.testing.assert_array_equal(
            storage.stored_blocks(CONFIG, state.lengths)[0], count
        )
        for found, x, bits, axis in (
            (state.keys, tokens.key, 4, "channel"),
            (state.values, tokens.value, 2, "token"),
        ):
            block = x[0, 3:387].swapaxes(0, 1)
            expected = compress(block, bits, 8, axis, scale_dtype=jnp.bfloat16)
            for name in ("words", "scale", "zero"):
                np.testing.assert_array_equal(
                    getattr(found, name)[0, :, :count],
                    getattr(expected, name)[:, :count],
                )
                assert not getattr(found, name)[0, :, count:].any()


@pytest.mark.parametrize("window", [None, 200])
def test_several_queries_see_their_own_past(grown, window) -> None:
    """The last tokens at once, as stored: each those that are not after it."""
    tokens, _, seen = grown
    query = jnp.stack([tokens.query[0, 410:420], tokens.query[1, 280:290]])
    out = look(query, seen[420], window=window)
    for row, length in enumerate((420, 290)):
        expected = reference(
            CONFIG,
            tokens.part(row, slice(length)),
            window,
            first=length - 10,
            grown_to=length,
        )
        np.testing.assert_allclose(out[row], expected, atol=2e-6)


def test_an_empty_sequence_sees_nothing() -> None:
    """Zeros, not NaN; beside one that has tokens."""
    tokens = draw(5, 1)
    one = put(
        empty(CONFIG, tokens), tokens.key, tokens.value, mask=jnp.eye(2, 1, dtype=bool)
    )
    out = look(tokens.query, one)
    assert not out[1].any()
    value = jnp.repeat(tokens.value[0], 2, axis=1)
    np.testing.assert_allclose(out[0], value, rtol=1e-6)


def test_rows_are_independent(grown) -> None:
    """Caches that are mapped over are as each by itself."""
    _, _, seen = grown
    lengths = (290, 309, 181)
    stacked = jax.tree.map(
        lambda *x: jnp.stack(x), *(seen[length] for length in lengths)
    )
    new = Tokens(*(jnp.stack([x, 2 * x, 3 * x]) for x in draw(6, 128)))
    mask = jnp.ones((3, 2, 128), bool)

    @jax.jit
    @jax.vmap
    def both(cache: QuantizedCache, new: Tokens, mask: jax.Array) -> Any:
        cache = append(cache, *new.pair, mask=mask)
        return cache, attend(new.query[:, -1:], cache)

    mapped, out = both(stacked, new, mask)
    for place, length in enumerate(lengths):
        mine = new.part(place)
        one = put(seen[length], *mine.pair, mask=mask[place])
        assert_same(jax.tree.map(lambda x, place=place: x[place], mapped), one)
        expected = look(mine.query[:, -1:], one)
        np.testing.assert_allclose(out[place], expected, atol=2e-6)


def test_nothing_is_traced_again() -> None:
    """While it grows over blocks' ends; buffers can be donated."""
    tokens = draw(7, 200)
    step = jax.jit(chex.assert_max_traces(append, n=1), donate_argnums=0)
    out = jax.jit(chex.assert_max_traces(attend, n=1))
    now = empty(CONFIG, tokens)
    for place in range(0, 200, 10):
        here = tokens.part(slice(None), slice(place, place + 10))
        before = now
        now = step(now, *here.pair)
        assert before.keys.words.is_deleted()
        out(here.query, now)
    np.testing.assert_array_equal(now.lengths, [200, 200])


def test_a_full_cache_is_refused() -> None:
    """Where lengths are known: by name and number, and before anything is stored."""
    one, mask = draw(8, 1), jnp.array([[True], [False]])
    full = put(empty(CONFIG, one, 2), *one.pair, mask=mask)
    full = append(full, *one.pair, mask=mask)
    np.testing.assert_array_equal(full.lengths, [2, 0])
    assert_same(append(full, *one.pair, mask=~mask).lengths, jnp.array([2, 1]))
    with pytest.raises(ValueError, match=r"cache: .* at most 2 tokens .* got 3; make"):
        append(full, *one.pair)


@pytest.mark.parametrize("size", [1, 40])
def test_a_full_cache_does_not_wrap(grown, size) -> None:
    """Under jit the stored tokens stay as they are, and later ones are dropped."""
    _, _, seen = grown
    now, new = seen[420], draw(9, 40)
    for start in range(0, 40, size):
        now = put(now, *new.part(slice(None), slice(start, start + size)).pair)
    np.testing.assert_array_equal(now.lengths, [CAPACITY, 330])
    room = jnp.arange(40) < jnp.array([[CAPACITY - 420], [40]])
    assert_same(now, put(seen[420], *new.pair, mask=room))
    again = put(now, *new.part(slice(None), slice(1)).pair)
    assert_same(again.keys, now.keys)
    assert_same(again.recent_keys[0], now.recent_keys[0])


def test_checkify_finds_a_full_cache() -> None:
    """Under jit, with lengths that nobody knows when it is compiled."""
    tokens = draw(8, 12)
    checked = jax.jit(checkify.checkify(append))
    error, full = checked(empty(CONFIG, tokens, 15), *tokens.pair)
    assert error.get() is None
    error, _ = checked(full, *tokens.pair)
    with pytest.raises(ValueError, match=r"at most 15 tokens .* got 24"):
        error.throw()


def test_bfloat16() -> None:
    """A cache of a dtype stays in it; the error is that of its rounding."""
    config = CacheConfig(4, 16, group_size=8, window=50, sinks=3)
    tokens = Tokens(*(x.astype(jnp.bfloat16) for x in draw(10, 200)))
    full, out = grow(empty(config, tokens, 200), tokens, everything(tokens))
    assert out.dtype == full.recent_keys.dtype == jnp.bfloat16
    for row in range(2):
        expected = reference(config, tokens.part(row))
        error = np.abs(np.asarray(out[row], np.float64) - expected)
        assert error.max() < 0.03 and error.mean() < 3e-3


def test_rotation_leaves_sixteen_bits_and_helps_two() -> None:
    """Two channels of the keys are 20 times larger: by token, rotating helps."""
    tokens = draw(11, 320, width=64, batch=1)
    tokens = tokens._replace(
        query=tokens.query / 8, key=tokens.key.at[..., jnp.array([3, 40])].mul(20)
    )
    exact = reference(PLAIN, tokens.part(0), first=312)

    @jax.jit
    def last(cache: QuantizedCache) -> jax.Array:
        return attend(tokens.query[:, -8:], append(cache, *tokens.pair))[0]

    error = {}
    for bits, turned in ((16, True), (2, True), (2, False)):
        config = CacheConfig(
            bits, 16, group_size=32, window=0, key_axis="token", rotate=turned
        )
        error[bits, turned] = np.abs(last(empty(config, tokens, 320)) - exact)
    assert error[16, True].max() < 2e-6
    assert error[2, True].mean() < 0.9 * error[2, False].mean()


def test_bytes_of_a_long_cache() -> None:
    """K4V2 of 32,768 tokens of 8 heads of 128: at most 24 % of bfloat16's."""
    shapes = jax.eval_shape(
        lambda: init_cache(CacheConfig(), 1, 32_768, kv_heads=8, head_width=128)
    )
    found = cache.nbytes(shapes)
    channels, blocks, recent = 8 * 128, (32_768 - 132) // 128, 260
    words = blocks * 128 * channels * (4 + 2) // 8
    scales = blocks * 128 * channels * 2 * (2 + 2) // 64
    assert found == words + scales + recent * channels * 2 * 2 + 4
    assert found <= 0.24 * (32_768 * channels * 2 * 2)


def test_bytes_are_those_of_the_buffers() -> None:
    full = empty(CONFIG, draw(0, 1))
    assert cache.nbytes(full) == sum(x.nbytes for x in jax.tree.leaves(full))
    assert full.keys.nbytes == 2 * 2 * 3 * (128 * 8 // 2 + 2 * 16 * 8 * 2)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"capacity": 0}, "capacity: expected at least 1, got 0"),
        ({"kv_heads": 0}, "kv_heads: expected at least 1"),
        ({"head_width": 12}, "group_size: .* divisor of the 12 channels of a head"),
    ],
)
def test_caches_that_are_refused(sizes, message) -> None:
    sizes = {
        "batch_size": 1, "capacity": 9, "kv_heads": 1, "head_width": 8, **sizes
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        init_cache(CONFIG, **sizes)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"batch": 3}, r"key: expected \[2, tokens, 2, 8\] as in the cache, got \(3,"),
        ({"heads": (4, 4)}, r"key: expected \[2, tokens, 2, 8\] .* got \(2, 5, 4, 8\)"),
        ({"width": 16}, r"key: expected .* got \(2, 5, 2, 16\)"),
        ({"count": 60}, "key: expected at most 50 tokens, the cache's cap.* got 60"),
    ],
)
def test_tokens_that_do_not_fit(unchecked, shape, message) -> None:
    """Told by name, what was expected and what came."""
    full = empty(CONFIG, draw(0, 1), 50)
    tokens = draw(0, **{"count": 5, **shape})
    with pytest.raises(ValueError, match=message):
        append(full, *tokens.pair)
    query = draw(0, tokens.key.shape[1]).query
    with pytest.raises(ValueError, match=message):
        prefill(full, query, *tokens.pair)


@pytest.mark.parametrize(
    "shape", [{"batch": 3}, {"width": 16}, {"heads": (3, 1)}], ids=str
)
def test_queries_that_do_not_fit(unchecked, shape) -> None:
    """For attention, and for prefill."""
    full, good, bad = empty(CONFIG, draw(0, 1), 50), draw(0, 5), draw(0, 5, **shape)
    message = r"query: expected \[2, (tokens|5), a multiple of 2 heads, 8\], got"
    with pytest.raises(ValueError, match=message):
        attend(bad.query, full)
    with pytest.raises(ValueError, match=message):
        prefill(full, bad.query, *good.pair)


def test_values_and_masks_that_do_not_fit(unchecked) -> None:
    """As many values as keys, and a mask for them, of bools."""
    full, tokens = empty(CONFIG, draw(0, 1), 50), draw(0, 5)
    with pytest.raises(ValueError, match=r"value: expected .* got \(2, 4, 2, 8\)"):
        append(full, tokens.key, tokens.value[:, :4])
    with pytest.raises(ValueError, match=r"mask: expected .* got \(2, 4\)"):
        append(full, *tokens.pair, mask=jnp.ones((2, 4), bool))
    with pytest.raises(TypeError, match="mask: expected a bool array, got int"):
        append(full, *tokens.pair, mask=jnp.ones((2, 5), jnp.int32))


@pytest.mark.parametrize(
    ("implementation", "message"),
    [
        ("cuda", "implementation: expected None, 'xla', .* got 'cuda'"),
        ("tpu", "implementation: expected a device of the platform 'tpu' .*, got '"),
    ],
)
def test_implementations_that_are_refused(unchecked, implementation, message) -> None:
    tokens = draw(0, 1)
    with pytest.raises(ValueError, match=message):
        attend(tokens.query, empty(CONFIG, tokens), implementation=implementation)


def test_memory_of_a_long_prompt() -> None:
    """The README's call, two prompts of 32,768 tokens: all logits would be 275 GB."""
    shape = {"kv_heads": 8, "head_width": 128}
    cache = jax.eval_shape(lambda: init_cache(CacheConfig(4, 2), 2, 32_768, **shape))
    new = jax.ShapeDtypeStruct((2, 32_768, 8, 128), jnp.bfloat16)
    query = jax.ShapeDtypeStruct((2, 32_768, 32, 128), jnp.bfloat16)
    compiled = jax.jit(prefill).lower(cache, query, new, new).compile()
    # Sums in float32, and keys and values as they are packed, take 4 GB.
    assert compiled.memory_analysis().temp_size_in_bytes < 8e9
