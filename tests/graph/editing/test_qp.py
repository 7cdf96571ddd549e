"""Test the quadratic programme against scipy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls

from jeff_graph.editing.qp import EXACT_SIZE, nonnegative_qp


def products(anchors, gradient):
    """``(G G', G g)`` in float32, as a caller would have them."""
    gram = np.einsum("nkd,nld->nkl", anchors, anchors)
    linear = np.einsum("nkd,nd->nk", anchors, gradient)
    return jnp.asarray(gram, jnp.float32), jnp.asarray(linear, jnp.float32)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 8, 12])
@pytest.mark.parametrize("width", [20, 60])
def test_random_problems(count, width):
    """25 each; scales of the anchors over two orders, a third with a duplicate."""
    rng = np.random.default_rng(100 * count + width)
    anchors = rng.normal(size=(25, count, width))
    anchors *= np.exp(rng.normal(size=(25, count, 1)))
    if count > 1:
        anchors[::3, 0] = rng.uniform(0.5, 2, (9, 1)) * anchors[::3, -1]
    gradient = rng.normal(size=(25, width)) - anchors.mean(1)
    found = np.array(
        jax.jit(jax.vmap(nonnegative_qp))(*products(anchors, gradient)), float
    )
    assert (found >= 0).all()
    conflicts = 0
    for v, rows, g in zip(found, anchors, gradient, strict=True):
        best, _ = nnls(rows.T, -g)
        projected = g + v @ rows
        size = np.linalg.norm(g)
        np.testing.assert_allclose(projected, g + best @ rows, atol=2e-5 * size)
        slopes = rows @ projected / np.linalg.norm(rows, axis=1)
        assert slopes.min() > -1e-5 * size
        assert np.abs(v * (rows @ projected)).max() < 1e-5 * size**2
        conflicts += (best > 0).any()
    assert conflicts > 12


@pytest.mark.parametrize("count", [2, EXACT_SIZE, EXACT_SIZE + 3])
def test_the_unit_of_the_vectors_is_of_no_account(count):
    """Scaling all by 2^k scales nothing, and the gradient alone scales v."""
    rng = np.random.default_rng(0)
    anchors = rng.normal(size=(1, count, 30))
    gradient = rng.normal(size=(1, 30)) - anchors.mean(1)
    gram, linear = products(anchors, gradient)
    v = nonnegative_qp(gram[0], linear[0])
    assert v.max() > 0
    for unit in (2.0**-30, 2.0**30):
        np.testing.assert_array_equal(
            nonnegative_qp(unit**2 * gram[0], unit * linear[0]), v / unit
        )
        np.testing.assert_array_equal(
            nonnegative_qp(gram[0], unit * linear[0]), unit * v
        )


@pytest.mark.parametrize("count", [1, 3, 7])
def test_nothing_to_do(count):
    """Zero vectors have no multiplier; without conflict nor have others."""
    zeros = jnp.zeros(count)
    np.testing.assert_array_equal(nonnegative_qp(jnp.diag(zeros), zeros), zeros)
    np.testing.assert_array_equal(nonnegative_qp(jnp.eye(count), zeros), zeros)
    np.testing.assert_array_equal(nonnegative_qp(jnp.eye(count), zeros + 1), zeros)


def test_a_zero_vector_beside_others():
    gram = jnp.array([[0.0, 0, 0], [0, 4, 0], [0, 0, 1]])
    np.testing.assert_allclose(
        nonnegative_qp(gram, jnp.array([0.0, -2, 3])), [0, 0.5, 0]
    )


def test_all_the_same_vector():
    """The sum of the multipliers is that of one."""
    for count in (2, 5, 9):
        v = nonnegative_qp(jnp.full((count, count), 4.0), jnp.full(count, -8.0))
        np.testing.assert_allclose(v.sum(), 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("gram", "linear"), [((2, 2), (3,)), ((2, 3), (2,)), ((1, 1), ()), ((0, 0), (0,))]
)
def test_shapes_that_are_refused(unchecked, gram, linear):
    with pytest.raises(ValueError, match=r"gram: expected \[K, K\] .* got gram of"):
        nonnegative_qp(jnp.ones(gram), jnp.ones(linear))
