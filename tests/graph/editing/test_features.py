"""Test that sparse features equal the dense matrix, and that rows sum to one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from jax.experimental.sparse import BCSR

from jeff_graph.editing.features import append_rows, product, row_normalise, take_rows


@pytest.fixture
def bag():
    """A matrix with full, thin and empty rows."""
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(9, 20)) * (rng.random((9, 20)) < 0.2)
    dense[3], dense[4] = 0, rng.normal(size=20)
    return dense.astype(np.float32)


def test_product_is_that_of_scipy(bag):
    kernel = np.random.default_rng(1).normal(size=(20, 6)).astype(np.float32)
    expected = scipy.sparse.csr_array(bag.astype(np.float64)) @ kernel
    for features in (jnp.asarray(bag), BCSR.fromdense(bag)):
        found = jax.jit(product)(features, jnp.asarray(kernel))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_the_dense_product(bag):
    kernel = jax.random.normal(jax.random.key(0), (20, 6))
    weight = jax.random.normal(jax.random.key(1), (9, 6))

    def loss(features, kernel):
        return jnp.sum(jnp.sin(product(features, kernel)) * weight)

    dense = jax.grad(loss, 1)(jnp.asarray(bag), kernel)
    sparse = jax.jit(jax.grad(loss, 1))(BCSR.fromdense(bag), kernel)
    np.testing.assert_allclose(sparse, dense, rtol=1e-5, atol=1e-6)


def test_bfloat16_products_sum_in_float32():
    """Of 4,000 ones bfloat16 would lose count at 256."""
    kernel = jnp.ones((4000, 2), jnp.bfloat16)
    for features in (jnp.ones((1, 4000)), BCSR.fromdense(jnp.ones((1, 4000)))):
        found = product(features, kernel)
        assert found.dtype == jnp.bfloat16
        np.testing.assert_allclose(found.astype(jnp.float32), 4000, rtol=2**-8)


def test_under_vmap(bag):
    kernels = jax.random.normal(jax.random.key(0), (3, 20, 4))
    found = jax.vmap(product, (None, 0))(BCSR.fromdense(bag), kernels)
    expected = np.einsum("nw,bwu->bnu", bag, kernels)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_rows_on_the_host(bag):
    rows = np.array([4, 3, 0, 4])
    for features in (jnp.asarray(bag), BCSR.fromdense(bag)):
        found = take_rows(features, rows)
        assert isinstance(found, np.ndarray) and found.dtype == np.float32
        np.testing.assert_array_equal(found, bag[rows])


def test_rows_of_zeros_are_appended(bag):
    expected = np.pad(bag, [(0, 2), (0, 0)])
    for features in (bag, jnp.asarray(bag), BCSR.fromdense(bag)):
        grown = append_rows(features, 11)
        assert type(grown) is type(features) and grown.shape == (11, 20)
        dense = grown.todense() if isinstance(grown, BCSR) else grown
        np.testing.assert_array_equal(dense, expected)


def test_row_sums(bag):
    found = np.asarray(row_normalise(jnp.asarray(bag)))
    total = np.abs(found).sum(1)
    np.testing.assert_allclose(np.delete(total, 3), 1, rtol=1e-6)
    np.testing.assert_array_equal(found[3], 0)
    np.testing.assert_allclose(found[4] * np.abs(bag[4]).sum(), bag[4], rtol=1e-5)


def test_mistakes(unchecked):
    with pytest.raises(TypeError, match="features: expected a floating-point array"):
        row_normalise(jnp.ones((2, 2), int))
    for features in (jnp.ones((2, 3)), BCSR.fromdense(jnp.ones((2, 3)))):
        with pytest.raises(ValueError, match=r"a width of 4, .* of the kernel, got 3"):
            product(features, jnp.ones((4, 1)))
