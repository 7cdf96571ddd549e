"""Test the networks of the fairness experiments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jeff import line
from jeff.fairness import nets


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda key: nets.mlp_line(5, key=key), (3, 5)),
        (lambda key: nets.cnn_line(2, key=key), (3, 8, 8, 2)),
    ],
)
def test_one_logit_a_row_and_no_dropout_without_key(make, shape, key):
    apply_fn, ends = make(key)
    x = jax.random.normal(key, shape)
    logit = apply_fn(ends.start, x)
    assert logit.shape == (3,)
    np.testing.assert_array_equal(logit, apply_fn(ends.start, x))
    assert not np.allclose(logit, apply_fn(ends.start, x, key=key))
    assert line.cosine_squared(*ends) < 1e-2


def test_initial_parameters_of_the_two_ends(key):
    _, ends = nets.mlp_line(100, key=key)
    start, end = (e["layers"][0] for e in ends)
    assert jnp.abs(start["kernel"]).max() <= 0.1  # PyTorch: 1 / sqrt(fan_in)
    assert jnp.abs(start["kernel"]).max() > 0.099
    assert 0 < jnp.abs(start["bias"]).max() <= 0.1
    assert jnp.std(end["kernel"]) == pytest.approx((2 / 356) ** 0.5, rel=0.03)
    assert jnp.all(end["bias"] == 0)


def test_mlp_by_hand(key):
    apply_fn, ends = nets.mlp_line(3, key=key, hidden=(4, 4))
    x = np.array(jax.random.normal(key, (2, 3)))
    w = [jax.tree.map(np.array, ends.end["layers"][k]) for k in range(3)]
    hidden = np.maximum(x @ w[0]["kernel"] + w[0]["bias"], 0)
    hidden = 1 / (1 + np.exp(-(hidden @ w[1]["kernel"] + w[1]["bias"])))
    expected = (hidden @ w[2]["kernel"] + w[2]["bias"])[:, 0]
    np.testing.assert_allclose(apply_fn(ends.end, jnp.array(x)), expected, rtol=1e-5)


def test_convolution_equals_that_of_jax(key):
    layer = nets._Convolution(
        2, 5, kernel_init=jax.nn.initializers.lecun_normal(), rngs=nnx.Rngs(0)
    )
    x = jax.random.normal(key, (3, 8, 6, 2))
    kernel = layer.patches.kernel[...].reshape(3, 3, 2, 5)
    expected = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)
