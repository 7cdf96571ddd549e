"""Test the Hadamard rotation: by hand, orthonormality, and outlier channels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jeff_llm.kv.quantize import dequantize, quantize
from jeff_llm.kv.rotation import rotate

WIDTHS = (2, 6, 64, 96, 128, 256)


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize(
    ("width", "signs"),
    [
        (2, [[1, 1], [1, -1]]),
        (4, [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]),
    ],
)
def test_the_matrix_by_hand(width, signs) -> None:
    """The rows of the identity give the rows of the matrix."""
    np.testing.assert_allclose(
        rotate(jnp.eye(width)), np.array(signs) / np.sqrt(width), rtol=1e-6
    )


def test_runs_by_hand() -> None:
    """Six channels are three runs of two."""
    found = rotate(jnp.array([1.0, 1.0, 1.0, 0.0, 0.0, 2.0])) * np.sqrt(2)
    np.testing.assert_allclose(found, [2, 0, 1, 1, 2, -2], atol=1e-6)


@given(seed=st.integers(0, 10**6), width=st.sampled_from(WIDTHS))
@settings(deadline=None, max_examples=30)
def test_orthonormal_and_its_own_inverse(seed, width) -> None:
    """Values come back; norms and logits are as before."""
    query, key = normal(seed, 5, width), normal(seed + 1, 7, width)
    rotated = rotate(query)
    assert not np.allclose(rotated, query, atol=0.1)
    np.testing.assert_allclose(rotate(rotated), query, atol=2e-6)
    np.testing.assert_allclose(
        jnp.linalg.norm(rotated, axis=-1), jnp.linalg.norm(query, axis=-1), rtol=1e-5
    )
    np.testing.assert_allclose(rotated @ rotate(key).T, query @ key.T, atol=1e-4)


@pytest.mark.parametrize(("width", "size"), [(64, 64), (96, 32), (128, 128)])
def test_an_outlier_is_spread_over_its_run(width, size) -> None:
    """Each channel of the run holds ``1 / sqrt(n)`` of it, the others nothing."""
    channel = width - 2
    found = np.abs(rotate(jnp.zeros(width).at[channel].set(8.0)))
    run = np.arange(width) // size == channel // size
    np.testing.assert_allclose(found[run], 8 / np.sqrt(size), rtol=1e-6)
    assert not found[~run].any()


def test_leading_axes_jit_and_vmap() -> None:
    """Only the last axis is mixed."""
    x = normal(0, 2, 3, 64)
    np.testing.assert_allclose(jax.jit(rotate)(x), rotate(x), rtol=1e-6, atol=1e-6)
    mapped = jax.vmap(jax.vmap(rotate))(x)
    np.testing.assert_allclose(mapped, rotate(x), rtol=1e-6, atol=1e-6)


def test_sixteen_bits_are_computed_in_float32() -> None:
    """The dtype stays; the result is the exact one, rounded once."""
    x = normal(0, 9, 128).astype(jnp.bfloat16)
    found = rotate(x)
    assert found.dtype == jnp.bfloat16
    exact = rotate(x.astype(jnp.float32))
    np.testing.assert_array_equal(found, exact.astype(jnp.bfloat16))


@pytest.mark.parametrize("width", [64, 96, 128])
@pytest.mark.parametrize("bits", [2, 4])
def test_outlier_channels_no_longer_set_the_step(width, bits) -> None:
    """Groups of channels of one token: the squared error falls by 40 % and more."""
    keys = normal(3, 128, width).at[:, jnp.array([5, width - 9])].mul(20.0)

    def error(x: jax.Array) -> float:
        restored = dequantize(quantize(x, bits, 32, "token"))
        return float(jnp.sum((x - restored) ** 2))

    assert error(rotate(keys)) < 0.6 * error(keys)


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 7)])
def test_widths_that_are_refused(unchecked, shape) -> None:
    """Odd ones have no power of two to mix."""
    with pytest.raises(
        ValueError, match="rotate: expected an even number of channels, got"
    ):
        rotate(jnp.ones(shape))


def test_integers_are_refused(unchecked) -> None:
    """Their rotation would not be integers."""
    with pytest.raises(TypeError, match="x: expected a floating-point array, got int"):
        rotate(jnp.ones(4, jnp.int32))
