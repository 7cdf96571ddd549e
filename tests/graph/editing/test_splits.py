"""Test random splits: sizes, disjointness, keys, and excluded nodes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_graph.editing.splits import split


@pytest.mark.parametrize("jitted", [False, True])
def test_parts_are_disjoint_and_complete(key, jitted):
    labels = jnp.where(jnp.arange(300) % 3 == 0, -1, jnp.arange(300) % 5)

    def make(labels, key):
        return split(labels, 50, 30, key=key)

    parts = (jax.jit(make) if jitted else make)(labels, key)
    assert [int(part.sum()) for part in parts] == [50, 30, 120]
    np.testing.assert_array_equal(sum(part.astype(int) for part in parts), labels >= 0)


def test_every_node_is_as_likely_in_each_part():
    keys = jax.random.split(jax.random.key(0), 1000)
    labels = jnp.array([0, 1, -1, 2, 0, 1, 0, 0, -1, 1])
    parts = jax.vmap(lambda key: split(labels, 2, 3, key=key))(keys)
    for part, share in zip(parts, (2 / 8, 3 / 8, 3 / 8), strict=True):
        often = np.asarray(part.mean(0))
        # Five standard deviations of a share of 1,000 draws.
        np.testing.assert_allclose(often[np.asarray(labels) >= 0], share, atol=0.08)


def test_split_by_key(key):
    labels = jnp.zeros(100, jnp.int32)
    first, again = (split(labels, 20, 20, key=key) for _ in range(2))
    other = split(labels, 20, 20, key=jax.random.key(1))
    np.testing.assert_array_equal(first.train, again.train)
    assert not np.array_equal(first.train, other.train)


@pytest.mark.parametrize(("train", "valid"), [(0, 3), (3, 0), (4, 4), (-1, 2)])
def test_sizes_that_are_refused(key, train, valid):
    labels = jnp.array([0, 1, 0, 1, 0, 1, 0, 1, -1, -1])
    with pytest.raises(
        ValueError, match=f"fewer than the 8 .* got {train} and {valid}"
    ):
        split(labels, train, valid, key=key)
