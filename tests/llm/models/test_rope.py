"""Test rotary positions: frequencies by hand and as in transformers, rotation."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jeff_llm.models.rope import (
    RopeScaling,
    angles,
    frequencies,
    rotate,
    scaling_of_factors,
)

SCALINGS = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 512,
    },
    "yarn": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 512,
    },
    "yarn whole": {
        "rope_type": "yarn",
        "factor": 16.0,
        "original_max_position_embeddings": 2048,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
        "attention_factor": 1.25,
        "truncate": False,
    },
}


def test_frequencies_by_hand() -> None:
    """``theta^(-2i/H)``: 1, 1/10, 1/100, 1/1000 for H = 8 and theta = 10^4."""
    plain, amplitude = frequencies(8, 1e4, None)
    np.testing.assert_allclose(plain, [1, 0.1, 0.01, 0.001], rtol=1e-7)
    assert (plain.dtype, amplitude) == (np.float32, 1.0)
    halved, amplitude = frequencies(8, 1e4, RopeScaling("linear", 2.0))
    np.testing.assert_allclose(halved, plain / 2, rtol=1e-7)
    assert amplitude == 1.0


def test_llama3_by_hand() -> None:
    """Over 4 turns kept, under 1 divided, between them a mean by the turns."""
    span = 2 * math.pi * 20  # so that the four make 20, 2, 0.2, 0.02 turns
    scaling = RopeScaling("llama3", 8.0, round(span))
    stretched, _ = frequencies(8, 1e4, scaling)
    kept = (round(span) * 0.1 / (2 * math.pi) - 1) / (4 - 1)
    assert kept == pytest.approx(1 / 3, abs=0.01)
    between = 0.1 * (kept + (1 - kept) / 8)
    np.testing.assert_allclose(stretched, [1, between, 0.01 / 8, 0.001 / 8], rtol=1e-6)


def test_yarn_by_hand() -> None:
    """The ramp over dimensions, and ``0.1 ln(factor) + 1`` on cosine and sine."""
    # Frequency i makes 64 * 10^-i turns: 32 at i = 0.3, 1 at i = 1.8, which the ramp
    # rounds outwards to 0 and 2.
    scaling = RopeScaling("yarn", 4.0, round(64 * 2 * math.pi), low=1.0, high=32.0)
    stretched, amplitude = frequencies(8, 1e4, scaling)
    expected = [1, 0.1 * (0.5 + 0.5 / 4), 0.01 / 4, 0.001 / 4]
    np.testing.assert_allclose(stretched, expected, rtol=1e-6)
    assert amplitude == pytest.approx(0.1 * math.log(4) + 1)


@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize("head_width", [8, 64, 128])
def test_frequencies_of_transformers(name: str, head_width: int) -> None:
    """Every kind, as transformers computes it (in float32)."""
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = transformers.LlamaConfig(
        hidden_size=4 * head_width,
        num_attention_heads=4,
        max_position_embeddings=2048,
        rope_parameters={**SCALINGS[name], "rope_theta": 5e5},
    )
    kind = SCALINGS[name]["rope_type"]
    theirs, factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu")
    scaling = RopeScaling.from_transformers(SCALINGS[name], 2048)
    ours, amplitude = frequencies(head_width, 5e5, scaling)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-6)
    assert amplitude == pytest.approx(factor)


@pytest.mark.parametrize("name", SCALINGS)
def test_to_transformers_and_back(name: str) -> None:
    """The field of config.json keeps every setting."""
    scaling = RopeScaling.from_transformers(SCALINGS[name], 2048)
    assert scaling is not None
    assert RopeScaling.from_transformers(scaling.to_transformers(), 2048) == scaling


def test_no_scaling() -> None:
    """Plain RoPE is None, in each way to say so."""
    assert RopeScaling.from_transformers({}, 64) is None
    assert RopeScaling.from_transformers({"rope_type": "default"}, 64) is None
    assert RopeScaling.from_gguf({}, "llama") is None
    assert RopeScaling.from_gguf({"llama.rope.scaling.type": "none"}, "llama") is None


def test_factor_from_the_two_contexts() -> None:
    """YaRN without a factor takes the ratio of the contexts, as transformers does."""
    values = {"rope_type": "yarn", "original_max_position_embeddings": 512}
    scaling = RopeScaling.from_transformers({**values, "factor": None}, 2048)
    assert scaling == RopeScaling("yarn", 4.0, 512, low=1.0, high=32.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("dynamic", 2.0), "'dynamic'.*does not support"), (("linear", 0.5), "got 0.5")],
)
def test_scalings_that_are_refused(arguments: Any, message: str) -> None:
    """Unknown kinds, and factors that would compress."""
    with pytest.raises(ValueError, match=message):
        RopeScaling(*arguments)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama3_from_its_divisors(factor: float) -> None:
    """A GGUF file holds ``plain / stretched`` alone; the scaling is recognised."""
    scaling = RopeScaling("llama3", factor)
    plain, stretched = (frequencies(128, 5e5, s)[0] for s in (None, scaling))
    factors = (plain / stretched).astype(np.float32)
    assert scaling_of_factors(factors, 5e5) == scaling


def test_divisors_of_another_scaling() -> None:
    """Divisors that Llama 3 has not are refused by the tensor's name."""
    with pytest.raises(ValueError, match=r"rope_freqs\.weight: .*Llama 3"):
        scaling_of_factors(np.linspace(1, 8, 64, dtype=np.float32), 5e5)
    with pytest.raises(ValueError, match=r"rope_freqs\.weight: "):
        scaling_of_factors(np.full(64, 0.25, np.float32), 5e5)


def test_rotation_by_hand() -> None:
    """A quarter turn takes one half to the other: [1, 0] -> [0, 1] -> [-1, 0]."""
    x = jnp.array([[[[1.0, 2.0, 0.0, 0.0]], [[0.0, 0.0, 1.0, 2.0]]]])
    cosine, sine = jnp.zeros((1, 2, 2)), jnp.ones((1, 2, 2))
    np.testing.assert_array_equal(
        rotate(x, cosine, sine)[0, :, 0], [[0, 0, 1, 2], [-1, -2, 0, 0]]
    )
    assert rotate(x.astype(jnp.bfloat16), cosine, sine).dtype == jnp.bfloat16


@given(st.integers(0, 400), st.integers(0, 400))
@settings(deadline=None, max_examples=25)
def test_products_see_the_distance_alone(position: int, shift: int) -> None:
    """<R(p) q, R(0) k> = <R(p + s) q, R(s) k>, and lengths are kept."""
    query, key = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 16))

    def turned(x: jax.Array, where: int) -> jax.Array:
        return rotate(x, *angles(jnp.array([[where]]), 16, 1e4, None))

    near = jnp.vdot(turned(query, position), turned(key, 0))
    far = jnp.vdot(turned(query, position + shift), turned(key, shift))
    np.testing.assert_allclose(near, far, atol=5e-5)
    np.testing.assert_allclose(
        jnp.linalg.norm(turned(query, position)), jnp.linalg.norm(query), rtol=1e-5
    )


def test_angles_carry_the_amplitude() -> None:
    """YaRN's factor is on both cosine and sine, for every position of the batch."""
    scaling = RopeScaling("yarn", 4.0, 64, attention_factor=2.0)
    positions = jnp.array([[0, 3], [7, 1]])
    cosine, sine = angles(positions, 8, 1e4, scaling)
    assert cosine.shape == sine.shape == (2, 2, 4)
    np.testing.assert_allclose(cosine**2 + sine**2, 4.0, rtol=1e-6)
    np.testing.assert_allclose(cosine[0, 0], 2.0)
