"""Test dropout from few random bits, and modules as functions."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jeff import networks


@pytest.mark.parametrize("rate", [0.5, 0.25, 0.75, 0.1, 1 / 256])
def test_dropout_keeps_the_expectation(rate, key):
    x = jnp.ones((512, 301))
    dropped = networks.dropout(x, rate, key=key)
    rounded = round(rate * 256) / 256
    share = jnp.mean(dropped == 0)
    # Five standard deviations of a share of 154,112 units.
    assert abs(share - rounded) < 5 * (rounded * (1 - rounded) / x.size) ** 0.5
    kept = dropped[dropped != 0]
    np.testing.assert_allclose(kept, 1 / (1 - rounded), rtol=1e-6)


def test_dropout_is_independent_across_units(key):
    bits = (networks.dropout(jnp.ones((4096, 8)), 0.5, key=key) == 0).astype(float)
    correlation = jnp.corrcoef(bits.T) - jnp.eye(8)
    assert jnp.abs(correlation).max() < 0.08


def test_dropout_at_rate_zero_is_the_identity(key):
    x = jnp.arange(5.0)
    np.testing.assert_array_equal(networks.dropout(x, 0.0, key=key), x)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_bad_rate(rate, key):
    with pytest.raises(ValueError, match="rate"):
        networks.dropout(jnp.ones(3), rate, key=key)


def test_modules_with_other_state_are_refused():
    module = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="parameters alone"):
        networks.functional(module)
