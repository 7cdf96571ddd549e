"""Test buckets, padding, rejected prompts, and common prefixes."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jeff import sharding
from jeff_llm.generate import batching


def test_buckets_by_hand() -> None:
    """Two an octave, from the smallest on."""
    found = sorted({batching.bucket(size) for size in range(1, 400)})
    assert found == [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]
    small = sorted({batching.bucket(size, smallest=1) for size in range(1, 20)})
    assert small == [1, 2, 3, 4, 6, 8, 12, 16, 24]


@given(st.integers(1, 10**6), st.sampled_from([1, 4, 16]))
def test_buckets_are_large_enough_and_not_much_larger(size, smallest) -> None:
    """At most a third is padding, above the smallest bucket."""
    found = batching.bucket(size, smallest)
    assert size <= found and batching.bucket(found, smallest) == found
    assert found == smallest or (found - size) * 3 < found


def test_encode_checks_ids(tiny) -> None:
    """Ids of any kind of sequence come back as lists."""
    rows = batching.encode(tiny, [[1, 2], np.array([60]), (3,)], room=5)
    assert rows == [[1, 2], [60], [3]]
    assert all(type(token) is int for row in rows for token in row)
    longest = [1] * (tiny.config.max_positions - 5)
    assert batching.encode(tiny, [longest], room=5) == [longest]


@pytest.mark.parametrize(
    ("prompts", "error", "message"),
    [
        ("a text", TypeError, "prompts: expected several, got one text; put it in"),
        ([], ValueError, "prompts: expected at least one, got none"),
        ([[1], []], ValueError, "prompt 1: .* got an empty prompt"),
        ([[1], [2, 61]], ValueError, "prompt 1: expected tokens below 61, got 61"),
        ([[-1]], ValueError, "prompt 0: expected tokens below 61, got -1"),
        ([[1], [1] * 124], ValueError,
         "prompt 1: expected at most 123 tokens, so that 5 more .* of 128, got 124"),
        (["text"], ValueError, "the model has no tokenizer, got text"),
    ],
)  # fmt: skip
def test_prompts_that_are_refused(tiny, prompts, error, message) -> None:
    """The prompt is named by its number."""
    with pytest.raises(error, match=message):
        batching.encode(tiny, prompts, room=5)


def test_pad_by_hand() -> None:
    """On the right; a row that fills the batch up has one token to attend to."""
    tokens, mask = batching.pad([[5, 6, 7], [8]], 3, 4)
    np.testing.assert_array_equal(tokens, [[5, 6, 7, 0], [8, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(mask, [[1, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0]])
    assert (tokens.dtype, mask.dtype) == (np.int32, bool)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1))
def test_common_prefix(rows) -> None:
    """It is shared, each row keeps a token behind it, and no longer one is so."""
    length = batching.common_prefix(rows)
    limit = min(map(len, rows)) - 1
    assert length <= limit
    assert all(row[:length] == rows[0][:length] for row in rows)
    if length < limit:
        assert len({row[length] for row in rows}) > 1


def test_place_on_a_mesh(tiny) -> None:
    """Split over the data where the parameters lie on a mesh, else as they are."""
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    placed = tiny._replace(params=sharding.replicate(tiny.params, mesh))
    tokens = np.ones((3, 4), np.int32)
    for model, spread in ((tiny, False), (placed, True)):
        (found,) = batching.place(model, tokens)
        np.testing.assert_array_equal(found, tokens)
        assert (found.sharding == sharding.batch_sharding(mesh)) == spread


def test_place_beside_other_parameters(tiny) -> None:
    """A mesh with other axes than ours, and parameters of numpy."""
    mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    others = (
        tiny._replace(params=jax.device_put(tiny.params, whole)),
        tiny._replace(params=jax.tree.map(np.asarray, tiny.params)),
    )
    for model in others:
        (found,) = batching.place(model, np.ones((3, 4), np.int32))
        assert found.shape == (3, 4)


def test_rows_of_like_length_by_hand() -> None:
    """A long row is read alone; short ones are not taken apart for nothing."""
    short = [12, 9, 14, 10, 11, 13, 8]
    found = batching.like_lengths([*short[:3], 3900, *short[3:]])
    assert found == [[3], [0, 1, 2, 4, 5, 6, 7]]
    assert batching.like_lengths([900, 10, 500, 20]) == [[0, 1, 2, 3]]
    # Two of like length stay together, whatever they cost.
    assert batching.like_lengths([3000, 10, 3900]) == [[0, 2], [1]]
    assert batching.like_lengths([4096]) == [[0]]


@given(st.lists(st.integers(1, 9000), min_size=1, max_size=40))
def test_groups_hold_each_row_once_and_pad_little(lengths) -> None:
    """Every row once; whatever is large has rows within an octave of each other."""
    groups = batching.like_lengths(lengths)
    assert sorted(place for group in groups for place in group) == list(
        range(len(lengths))
    )
    for group in groups:
        assert group == sorted(group)
        sizes = [batching.bucket(lengths[place]) for place in group]
        few = batching.bucket(len(group), smallest=1) * max(sizes) ** 2 <= 1 << 24
        assert few or max(sizes) <= 2 * min(sizes)
