"""Test the scores of keys and values: by hand, against numpy, with padding."""

import dataclasses
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm.kv import allocate_bits, scores_from_activations, scores_from_weights


def test_scores_from_activations_by_hand() -> None:
    """Two layers, one head of width 2; what is not real may be anything."""
    keys = jnp.array([[[[[3.0, 4.0], [1.0, 1.0]]]], [[[[0.0, 2.0], [0.0, 0.0]]]]])
    np.testing.assert_allclose(
        scores_from_activations(keys, 2 * keys), [[13.5, 54], [2, 8]]
    )
    rubbish = keys.at[:, :, :, 1].set(jnp.nan)
    where = jnp.array([[True, False]])
    np.testing.assert_allclose(
        scores_from_activations(rubbish, 2 * rubbish, where), [[25, 100], [4, 16]]
    )
    assert np.isnan(scores_from_activations(keys, keys, ~where & where)).all()


def test_scores_from_activations_of_a_batch() -> None:
    """Padded sequences count as their tokens do alone, repeated text as the text."""
    rng = np.random.default_rng(0)
    keys, values = jnp.asarray(rng.normal(size=(2, 3, 2, 2, 5, 4)), jnp.float32)
    where = jnp.arange(5) < jnp.array([[4], [2]])
    found = jax.jit(scores_from_activations)(keys, values, where)
    alone = [
        jnp.concatenate([x[:, 0, :, :4], x[:, 1, :, :2]], axis=2)[:, None]
        for x in (keys, values)
    ]
    np.testing.assert_allclose(found, scores_from_activations(*alone), rtol=1e-5)
    twice = [jnp.concatenate([x, x], axis=3) for x in alone]
    np.testing.assert_allclose(found, scores_from_activations(*twice), rtol=1e-5)
    halves = [x.astype(jnp.bfloat16) for x in alone]
    coarse = scores_from_activations(*halves)
    assert coarse.dtype == jnp.float32
    np.testing.assert_allclose(found, coarse, rtol=1e-2)


def kernels(key: Any, value: Any) -> dict[str, Any]:
    return {
        "layers": {"attention": {"key": {"kernel": key}, "value": {"kernel": value}}}
    }


def test_scores_from_weights_by_hand(tiny_config) -> None:
    """Frobenius sums all squares; the spectral norm is that of the longest axis."""
    key = jnp.array([[[3.0, 0.0], [4.0, 0.0], [0.0, 2.0]]])
    value = jnp.array([[[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]])
    params = kernels(key, value)
    np.testing.assert_allclose(scores_from_weights(tiny_config, params), [[29, 4]])
    found = scores_from_weights(tiny_config, params, "spectral")
    np.testing.assert_allclose(found, [[25, 4]], rtol=1e-6)


@pytest.mark.parametrize("norm", ["frobenius", "spectral"])
def test_scores_from_weights_of_a_model(tiny_config, make_params, norm) -> None:
    """As numpy has them, layer by layer; kernels of 16 bits are widened first."""
    params = make_params(tiny_config)
    params["layers"]["attention"]["key"]["kernel"] *= 3
    found = scores_from_weights(tiny_config, params, norm)
    assert found.shape == (3, 2)
    for column, name in enumerate(("key", "value")):
        stacked = np.asarray(params["layers"]["attention"][name]["kernel"], float)
        assert stacked.shape == (3, 32, 16)
        order = 2 if norm == "spectral" else "fro"
        expected = [np.linalg.norm(kernel, order) ** 2 for kernel in stacked]
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-5)
    small = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    coarse = scores_from_weights(tiny_config, small, norm)
    assert coarse.dtype == jnp.float32
    np.testing.assert_allclose(found, coarse, rtol=1e-2)
    np.testing.assert_array_equal(allocate_bits(found, 3), [[4, 2]] * 3)


def test_a_warning_where_keys_are_normalised(tiny_config) -> None:
    """It names the function to use; other models are without one."""
    normalised = dataclasses.replace(tiny_config, qk_norm=True)
    params = kernels(jnp.ones((1, 4, 2)), jnp.ones((1, 4, 2)))
    with pytest.warns(UserWarning, match="mislead; use scores_from_activations"):
        scores_from_weights(normalised, params)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores_from_weights(tiny_config, params)


def test_arguments_that_are_refused(unchecked, tiny_config) -> None:
    """By name, with what came."""
    norm: Any = "nuclear"
    with pytest.raises(ValueError, match=r"norm: expected one of .* got 'nuclear'"):
        scores_from_weights(tiny_config, {}, norm)
    five = jnp.ones((1, 1, 1, 3, 2))
    with pytest.raises(ValueError, match=r"values: expected \[layers, .* \(1, 1, 1"):
        scores_from_activations(five, five[..., :1])
    with pytest.raises(ValueError, match=r"values: expected \[layers, .* \(1, 3, 2"):
        scores_from_activations(five[0, 0], five[0, 0])
    with pytest.raises(ValueError, match=r"where: expected .* \(1, 3\), got \(1, 2\)"):
        scores_from_activations(five, five, jnp.ones((1, 2), bool))
