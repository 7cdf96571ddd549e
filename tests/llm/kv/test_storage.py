"""Test token storage: positions by hand and at every length, sizes, settings."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm.kv import ring, storage
from jeff_llm.kv.config import CacheConfig, EffectiveBits, effective_bits
from jeff_llm.kv.quantize import BLOCK, quantize
from jeff_llm.kv.ring import NOWHERE, Recent

flush = jax.jit(storage.flush, static_argnums=0)
write_prompt = jax.jit(storage.write_prompt, static_argnums=0)
write_chunk = jax.jit(storage.write_chunk, static_argnums=(0, 7))
PLAIN = CacheConfig(key_bits=16, value_bits=16, group_size=8)


def positions_of(config: CacheConfig, capacity: int, lengths: Any) -> np.ndarray:
    lengths = jnp.asarray(lengths)
    blocks = storage.stored_blocks(config, lengths)
    slots = config.recent_slots(capacity)
    return np.asarray(ring.recent_positions(config, slots, lengths, blocks))


def test_stored_blocks_by_hand() -> None:
    """4 sinks, a window of 128 and a block of 128 are 260 tokens."""
    lengths = jnp.array([0, 4, 132, 259, 260, 387, 388])
    found = storage.stored_blocks(CacheConfig(), lengths)
    np.testing.assert_array_equal(found, [0, 0, 0, 0, 1, 1, 2])
    found = storage.stored_blocks(CacheConfig(window=0, sinks=0), lengths)
    np.testing.assert_array_equal(found, [0, 0, 1, 2, 2, 3, 3])


def test_slots_by_hand() -> None:
    """Sinks have their own; behind them 130 slots go round."""
    config = CacheConfig(window=2, sinks=3)
    assert config.recent_slots(1000) == 133
    positions = jnp.array([0, 2, 3, 4, 132, 133, 134, 263])
    slots = ring.recent_slot(config, 133, positions)
    np.testing.assert_array_equal(slots, [0, 1 + 1, 3, 4, 132, 3, 4, 3])


def test_recent_positions_by_hand() -> None:
    """Of a sequence that is empty, of two sinks, and of one that has gone round."""
    config = CacheConfig(window=2, sinks=3)
    empty, two, round_ = positions_of(config, 1000, [0, 2, 135])
    assert (empty == NOWHERE).all()
    assert two[:2].tolist() == [0, 1] and (two[2:] == NOWHERE).all()
    # 132 tokens behind the sinks: the first 128 are a block, 131 to 134 remain.
    assert round_[:5].tolist() == [0, 1, 2, 133, 134]
    assert (round_[5:131] == NOWHERE).all() and round_[131:].tolist() == [131, 132]


@pytest.mark.parametrize(
    ("window", "sinks", "capacity"),
    [
        (128, 4, 900),
        (128, 4, 260),  # exactly a block's end
        (128, 4, 259),
        (0, 0, 128),
        (0, 0, 300),
        (1, 0, 500),
        (50, 4, 700),
        (300, 1, 430),
        (129, 130, 600),
        (0, 300, 428),
        (300, 300, 200),  # not even room for the sinks
        (0, 4, 1),
    ],
)
def test_every_token_is_in_one_place(window, sinks, capacity) -> None:
    """At every length: blocks and slots hold all tokens, none of them twice."""
    config = CacheConfig(window=window, sinks=sinks)
    every = np.arange(capacity + 1)
    blocks = np.maximum(every - sinks - window, 0) // BLOCK
    assert blocks.max() <= config.block_slots(capacity)
    for length, held in enumerate(positions_of(config, capacity, every)):
        recent = np.sort(held[held != NOWHERE])
        rest = np.arange(length)
        packed = (rest >= sinks) & (rest < sinks + BLOCK * blocks[length])
        np.testing.assert_array_equal(recent, rest[~packed])
        assert len(recent) <= sinks + window + BLOCK - 1
    slots = ring.recent_slot(config, len(held), jnp.asarray(held))
    np.testing.assert_array_equal(
        np.asarray(slots)[held != NOWHERE], np.flatnonzero(held != NOWHERE)
    )


def tokens(seed: int, count: int, batch: int = 2) -> Recent:
    """Keys and values [batch, count, 1 head, 8] that tell their position."""
    drawn = np.random.default_rng(seed).normal(size=(2, batch, count, 1, 8))
    return Recent(*jnp.asarray(drawn, jnp.float32))


def empty(config: CacheConfig, capacity: int, layers: int = 1) -> Any:
    shape = (layers, 2, 1, capacity, 8)
    return (
        storage.empty_blocks(config, shape, jnp.float32),
        ring.empty_recent(config, shape, jnp.float32),
    )


def test_writing_touches_one_layer_and_kept_tokens() -> None:
    """Nothing else changes."""
    config = CacheConfig(group_size=8, window=2, sinks=3)
    _, recent = empty(config, 1000, layers=3)
    new = tokens(0, 2)
    positions = jnp.array([[2, 3], [133, 134]])
    keep = jnp.array([[True, True], [False, True]])
    found = ring.write_recent(config, recent, 1, new, positions, keep)
    expected = np.zeros(recent.keys.shape, np.float32)
    expected[1, 0, 0, [2, 3]] = new.keys[0, :, 0]
    expected[1, 1, 0, 4] = new.keys[1, 1, 0]
    np.testing.assert_array_equal(found.keys, expected)
    assert found.values[1, 1, 0, 4, 0] == new.values[1, 1, 0, 0]


def test_flush_quantises_what_is_due() -> None:
    """One row's block; not a row that stands still at the same length, nor before."""
    config = CacheConfig(group_size=8, window=2, sinks=3)
    blocks, recent = empty(config, 1000)
    new = tokens(1, 133)
    every = jnp.broadcast_to(jnp.arange(133), (2, 133))
    recent = ring.write_recent(config, recent, 0, new, every, every >= 0)
    one, none = jnp.array([1, 0]), jnp.zeros(2, int)
    full = jnp.full(2, 133)
    for lengths, count in ((full, none), (full - 1, one), (full + 1, one)):
        keys, _ = flush(config, blocks, recent, lengths, count)
        assert not keys.words.any() and not keys.scale.any()
    keys, values = flush(config, blocks, recent, full, one)
    block = new.keys[:1, 3:131].swapaxes(1, 2)
    expected = quantize(block, 4, 8, "channel", scale_dtype=jnp.bfloat16)
    np.testing.assert_array_equal(keys.words[0, :1, :, :1], expected.words)
    np.testing.assert_array_equal(keys.scale[0, :1, :, :1], expected.scale)
    assert not keys.words[0, 1].any() and not keys.words[:, :, :, 1:].any()
    block = new.values[:1, 3:131].swapaxes(1, 2)
    expected = quantize(block, 2, 8, "token", scale_dtype=jnp.bfloat16)
    np.testing.assert_array_equal(values.words[0, :1, :, :1], expected.words)
    np.testing.assert_array_equal(values.zero[0, :1, :, :1], expected.zero)


def test_a_prompt_leaves_its_last_block_to_flush() -> None:
    """And writes into its own place of the stack alone."""
    config = CacheConfig(group_size=8, window=0, sinks=0)
    blocks, recent = empty(config, 512, layers=2)
    new = tokens(2, 256)
    every = jnp.broadcast_to(jnp.arange(256), (2, 256))
    mask = every < jnp.array([[256], [200]])
    keys, values = write_prompt(config, blocks, 1, new, every, mask)
    assert not keys.words[0].any() and not keys.words[1, :, :, 1:].any()
    block = new.values[:, :128].swapaxes(1, 2)
    expected = quantize(block, 2, 8, "token", scale_dtype=jnp.bfloat16)
    np.testing.assert_array_equal(values.words[1, :, :, :1], expected.words)
    kept = mask & ring.stays_recent(config, 128, mask.sum(1), every)
    recent = ring.write_recent(config, recent, 0, new, every, kept)
    np.testing.assert_array_equal(recent.keys[0, 0, 0], new.keys[0, 128:, 0])
    np.testing.assert_array_equal(recent.keys[0, 1, 0, :72], new.keys[1, 128:200, 0])
    assert not recent.keys[1].any()


def test_a_chunk_after_a_prompt_is_a_longer_prompt() -> None:
    """Of the layers of a stack: the ring's tokens and the new ones make a block."""
    config = CacheConfig(group_size=8, window=0, sinks=3)
    blocks, _ = empty(config, 512, layers=1)
    _, three = empty(config, 512, layers=3)
    new = tokens(2, 300)
    every = jnp.broadcast_to(jnp.arange(300), (2, 300))
    mask = every < jnp.array([[300], [250]])
    whole = write_prompt(config, blocks, 0, new, every, mask)
    three = ring.write_recent(
        config, three, 2, Recent(*(x[:, :40] for x in new)), every[:, :40], mask[:, :40]
    )
    later = Recent(
        *(jnp.stack([0 * x, x + 1, x])[:, :, 40:] for x in new),
    )
    lengths = jnp.full(2, 40)
    found = write_chunk(
        config, blocks, three, later, lengths, every[:, 40:], mask[:, 40:], (2,)
    )
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(one, other)
    assert found[0].words[0, 0, 0, 1].any() and not found[0].words[0, 1, 0, 1].any()


def test_buffers_of_their_own() -> None:
    """So that a cache can be donated."""
    leaves = jax.tree.leaves(empty(CacheConfig(group_size=8), 600))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves if leaf.size}) == len(
        leaves
    )


def test_shapes_of_empty_stores() -> None:
    """Sinks, window and a block of slots; the whole blocks behind them."""
    config = CacheConfig(group_size=8)
    (keys, values), recent = empty(config, 1000, layers=3)
    assert recent.keys.shape == (3, 2, 1, 4 + 128 + 128, 8)
    assert keys.words.shape == (3, 2, 1, (1000 - 132) // 128, 16, 8)
    assert values.words.shape == (3, 2, 1, 6, 8, 8)
    assert keys.scale.shape == (3, 2, 1, 6, 16, 8)
    assert values.scale.shape == (3, 2, 1, 6, 128, 1)
    assert keys.scale.dtype == jnp.bfloat16 and keys.words.dtype == jnp.uint32
    (keys, _), recent = empty(PLAIN, 100)
    assert keys.words.dtype == jnp.float32 and recent.keys.shape[3] == 100


@pytest.mark.parametrize(
    ("options", "keys", "values"),
    [
        ({}, 4 + 32 / 64, 2 + 32 / 64),
        ({"key_bits": 2, "value_bits": 8, "group_size": 32}, 3.0, 9.0),
        ({"scale_dtype": "float32", "group_size": 128}, 4.5, 2.5),
        ({"key_bits": 16, "value_bits": 16}, 16.0, 16.0),
    ],
)
def test_effective_bits_by_hand(options, keys, values) -> None:
    """Two numbers of 16 or 32 bits a group."""
    found = effective_bits(CacheConfig(**options))
    assert found == EffectiveBits(keys, values) and found.mean == (keys + values) / 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key_bits": 3}, r"key_bits: expected one of \(2, 4, 8, 16\), got 3"),
        ({"value_bits": 0}, r"value_bits: expected one of .*, got 0"),
        ({"window": -1}, "window: expected at least 0 tokens, got -1"),
        ({"sinks": 1.5}, "sinks: expected at least 0 tokens, got 1.5"),
        ({"group_size": 48}, "group_size: expected a divisor of the 128 tokens .*48"),
        ({"group_size": 0, "key_axis": "token"}, "group_size: .* at least 1 .* got 0"),
        ({"key_axis": "head"}, r"axis: expected one of \('channel', 'token'\)"),
        ({"scale_dtype": "int8"}, "scale_dtype: expected one of .*, got 'int8'"),
    ],
)
def test_configurations_that_are_refused(unchecked, options, message) -> None:
    """Each by its name and what came."""
    with pytest.raises(ValueError, match=message):
        CacheConfig(**options)


def test_heads_that_the_groups_do_not_fit() -> None:
    """Values always have groups of channels; 96 of them are three of 32, not 64."""
    CacheConfig(group_size=32).check_heads(96)
    CacheConfig(group_size=96, key_axis="token").check_heads(96)
    with pytest.raises(ValueError, match=r"divisor of the 96 .*, got 64"):
        CacheConfig(group_size=64).check_heads(96)
    with pytest.raises(ValueError, match=r"rotate: expected an even .* got 97"):
        CacheConfig(group_size=1, rotate=True).check_heads(97)
