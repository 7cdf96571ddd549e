"""Sparse rows equal the dense matrix; rows that sum to one."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from jeff_graph.editing.features import product, row_normalise, sparse_rows


@pytest.fixture
def bag():
    """A matrix with full, thin and empty rows."""
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(9, 20)) * (rng.random((9, 20)) < 0.2)
    dense[3], dense[4] = 0, rng.normal(size=20)
    return dense.astype(np.float32)


def test_rows_restore_the_matrix(bag):
    rows = sparse_rows(bag)
    assert rows.shape == bag.shape and rows.dtype == np.float32
    assert rows.columns.shape == (9, 20)
    dense = np.zeros_like(bag)
    np.add.at(dense, (np.arange(9)[:, None], np.asarray(rows.columns)), rows.values)
    np.testing.assert_array_equal(dense, bag)
    thin = sparse_rows(np.delete(bag, 4, 0))
    assert thin.columns.shape[1] == (np.delete(bag, 4, 0) != 0).sum(1).max()


def test_product_is_that_of_scipy(bag):
    kernel = np.random.default_rng(1).normal(size=(20, 6)).astype(np.float32)
    expected = scipy.sparse.csr_array(bag.astype(np.float64)) @ kernel
    for features in (jnp.asarray(bag), sparse_rows(bag)):
        found = jax.jit(product)(features, jnp.asarray(kernel))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_the_dense_product(bag):
    kernel = jax.random.normal(jax.random.key(0), (20, 6))
    weight = jax.random.normal(jax.random.key(1), (9, 6))

    def loss(features, kernel):
        return jnp.sum(jnp.sin(product(features, kernel)) * weight)

    dense = jax.grad(loss, 1)(jnp.asarray(bag), kernel)
    sparse = jax.grad(loss, 1)(sparse_rows(bag), kernel)
    np.testing.assert_allclose(sparse, dense, rtol=1e-5, atol=1e-6)


def test_bfloat16_products_sum_in_float32():
    """Of 4,000 ones bfloat16 would lose count at 256."""
    kernel = jnp.ones((4000, 2), jnp.bfloat16)
    for features in (jnp.ones((1, 4000)), sparse_rows(np.ones((1, 4000), np.float32))):
        found = product(features, kernel)
        assert found.dtype == jnp.bfloat16
        np.testing.assert_allclose(found.astype(jnp.float32), 4000, rtol=2**-8)


def test_rows_under_vmap(bag):
    kernels = jax.random.normal(jax.random.key(0), (3, 20, 4))
    rows = sparse_rows(bag)
    found = jax.vmap(product, (None, 0))(rows, kernels)
    expected = np.einsum("nw,bwu->bnu", bag, kernels)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf[::-1]]), rows)
    assert stacked.shape == (2, 9, 20)
    chex.assert_trees_all_close(
        jax.vmap(product, (0, None))(stacked, kernels[0])[1],
        product(rows, kernels[0])[::-1],
    )


def test_row_sums(bag):
    found = np.asarray(row_normalise(jnp.asarray(bag)))
    total = np.abs(found).sum(1)
    np.testing.assert_allclose(np.delete(total, 3), 1, rtol=1e-6)
    np.testing.assert_array_equal(found[3], 0)
    np.testing.assert_allclose(found[4] * np.abs(bag[4]).sum(), bag[4], rtol=1e-5)


def test_mistakes(unchecked):
    with pytest.raises(TypeError, match="features: expected a floating-point array"):
        sparse_rows(np.ones((2, 2), int))
    with pytest.raises(
        ValueError, match=r"features: expected \[nodes, width\].*\(4,\)"
    ):
        sparse_rows(np.ones(4, np.float32))
    with pytest.raises(TypeError, match="features: expected a floating-point array"):
        row_normalise(jnp.ones((2, 2), int))
    for features in (jnp.ones((2, 3)), sparse_rows(np.ones((2, 3), np.float32))):
        with pytest.raises(ValueError, match=r"a width of 4, .* of the kernel, got 3"):
            product(features, jnp.ones((4, 1)))
