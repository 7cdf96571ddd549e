"""Test eight-bit kernels against the plain ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff import sharding
from jeff_llm import generate
from jeff_llm.models import decoder, lora, quantized, weights
from jeff_llm.models.quantized import (
    Int8Kernel,
    Int8Table,
    pack_leaf,
    quantize_kernels,
)


def pack(kernel):
    return pack_leaf("kernel", kernel)


def test_by_hand():
    kernel = jnp.array([[1.27, 0.0], [-0.5, 0.0]])
    small = quantize_kernels({"up": {"kernel": kernel}})["up"]["kernel"]
    np.testing.assert_array_equal(small.codes, [[127, -50], [0, 0]])
    np.testing.assert_allclose(small.scale, [0.01, 0.0], rtol=1e-6)
    np.testing.assert_allclose(jnp.array([1.0, 2.0]) @ small, [0.27, 0.0], atol=1e-4)
    assert small.shape == (2, 2) and small.size == 4
    assert small.dtype == jnp.float32


def test_error_is_at_most_half_a_scale(key):
    kernel = jax.random.normal(key, (3, 16, 8))
    small = pack(kernel)
    assert small.shape == kernel.shape
    error = jnp.abs(small.astype(jnp.float32) - kernel)
    assert jnp.all(error <= small.scale[:, None] / 2 + 1e-6)


@pytest.mark.parametrize("rows", [1, 8, 9])
@pytest.mark.parametrize("outputs", [8, 24])
def test_product_is_that_of_the_restored_kernel(key, rows, outputs, monkeypatch):
    """By integers and widened, whole and in pieces; an outlier spoils nothing."""
    monkeypatch.setattr(quantized, "_MOST_CODES", 16 * 8)
    small = pack(jax.random.normal(key, (16, outputs)))
    x = jax.random.normal(jax.random.key(1), (rows, 16)).at[0, 3].set(1000.0)
    wanted = x @ small.astype(jnp.float32)
    np.testing.assert_allclose((x @ small)[0], wanted[0], atol=0.2)
    np.testing.assert_allclose((x @ small)[1:], wanted[1:], atol=1e-3)
    assert (x.astype(jnp.bfloat16) @ small).dtype == jnp.bfloat16


def test_few_rows_are_integers_on_a_cpu(key):
    """What makes decoding fast: no kernel of floats is ever made."""
    small = pack(jax.random.normal(key, (64, 32)))
    text = {
        rows: jax.jit(lambda x: x @ small).lower(jnp.ones((rows, 64))).as_text()
        for rows in (1, 9)
    }
    assert "tensor<32x64xf32>" not in text[1] and "tensor<32x64xf32>" in text[9]


def test_gradients_of_inputs(key):
    small = pack(jax.random.normal(key, (16, 8)))
    x = jax.random.normal(jax.random.key(1), (2, 16))
    weight = jax.random.normal(jax.random.key(2), (2, 8))
    slope = jax.grad(lambda x: jnp.sum(weight * (x @ small)))(x)
    np.testing.assert_allclose(slope, weight @ small.astype(jnp.float32).T, atol=1e-5)


def test_a_table(key):
    """Rows, and logits of a tied head."""
    table = jax.random.normal(key, (12, 16))
    small = pack_leaf("embedding", table)
    ids = jnp.array([[3, 0], [11, 3]])
    rows = small.astype(jnp.float32)
    np.testing.assert_array_equal(small[ids], rows[ids])
    x = jax.random.normal(jax.random.key(1), (2, 1, 16))
    np.testing.assert_allclose(small.unembed(x), x @ rows.T, atol=5e-4)
    np.testing.assert_array_equal(small.unembed(x), x @ small.T)


def test_narrow_types_keep_their_scales():
    """A scale in bfloat16 would be as wrong as the codes."""
    kernel = jnp.full((4, 4), 1.0 / 3)
    small = pack(kernel.astype(jnp.bfloat16))
    assert small.scale.dtype == jnp.float32 and small.dtype == jnp.bfloat16


def test_a_packed_model(tiny, tmp_path):
    """From its files: every kernel and the embedding; it is not saved again."""
    weights.save(tiny, tmp_path)
    small = weights.load(tmp_path, packed=True)
    kinds = {type(leaf) for leaf in lora.paths(small.params).values()}
    assert {Int8Kernel, Int8Table} < kinds
    wide = lora.paths(tiny.params)
    for name, leaf in lora.paths(small.params).items():
        packed = isinstance(leaf, (Int8Kernel, Int8Table))
        assert packed == (name == "embedding" or name.endswith("kernel"))
        assert leaf.shape == wide[name].shape
    settings = {"max_new_tokens": 6, "stop_ids": []}
    prompts = [[5, 9, 2, 60, 7], [3]]
    one, other = (generate.generate(m, prompts, **settings) for m in (tiny, small))
    np.testing.assert_allclose(one.log_probs[:, 0], other.log_probs[:, 0], atol=0.2)
    with pytest.raises(ValueError, match="expected the plain parameters"):
        weights.save(small, tmp_path / "again")
    mesh = sharding.make_mesh(data=1)
    with pytest.raises(ValueError, match="packed: expected no mesh"):
        weights.load(tmp_path, packed=True, mesh=mesh)


def test_decoder_and_lora_run_on_it(tiny, key):
    small = quantize_kernels(tiny.params, (*lora.LINEAR, "^embedding$"))
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
