"""Test eight-bit kernels against the plain ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm.models import decoder, lora
from jeff_llm.models.quantized import quantize_kernels


def test_by_hand():
    kernel = jnp.array([[1.27, 0.0], [-0.5, 0.0]])
    small = quantize_kernels({"up": {"kernel": kernel}})["up"]["kernel"]
    np.testing.assert_array_equal(small.codes, [[127, 0], [-50, 0]])
    np.testing.assert_allclose(small.scale, [[0.01, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(jnp.array([1.0, 2.0]) @ small, [0.27, 0.0], rtol=1e-5)
    assert small.shape == (2, 2)
    assert small.dtype == jnp.float32


def test_error_is_at_most_half_a_scale(key):
    kernel = jax.random.normal(key, (3, 16, 8))
    small = quantize_kernels({"kernel": kernel}, [r"kernel$"])["kernel"]
    error = jnp.abs(small.astype(jnp.float32) - kernel)
    assert jnp.all(error <= small.scale / 2 + 1e-6)


def test_product_is_that_of_the_restored_kernel(key):
    kernel = jax.random.normal(key, (16, 8))
    small = quantize_kernels({"kernel": kernel}, [r"kernel$"])["kernel"]
    x = jax.random.normal(key, (2, 5, 16))
    np.testing.assert_allclose(x @ small, x @ small.astype(jnp.float32), atol=1e-5)


def test_decoder_and_lora_run_on_it(tiny, key):
    small = quantize_kernels(tiny.params)
    tokens = jax.random.randint(key, (2, 7), 0, tiny.config.vocab_size)
    run = jax.jit(functools.partial(decoder.apply, tiny.config))
    plain, close = run(tiny.params, tokens).logits, run(small, tokens).logits
    assert jnp.abs(plain - close).max() < 0.1 * jnp.std(plain)
    factors = lora.init(small, key=key, rank=2, where=lora.LINEAR)
    factors = jax.tree.map(lambda x: x + 0.05, factors)
    beside = run(lora.apply(small, factors), tokens).logits
    merged = run(lora.merge(small, factors), tokens).logits
    np.testing.assert_allclose(beside, merged, atol=1e-4)


def test_patterns_must_find_matrices(tiny):
    with pytest.raises(ValueError, match="found none for 'nothing/here'"):
        quantize_kernels(tiny.params, ["nothing/here"])
    with pytest.raises(ValueError, match="norm/scale"):
        quantize_kernels(tiny.params, [r"^norm/scale"])
