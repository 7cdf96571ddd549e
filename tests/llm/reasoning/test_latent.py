"""Latent thoughts: against a loop without a cache, gradients, and the curriculum."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm.models import decoder
from jeff_llm.reasoning import arithmetic, latent

CONFIG = arithmetic.model_config(width=32, num_layers=2)


@pytest.fixture(scope="module")
def params(make_params: Any) -> Any:
    return make_params(CONFIG)


def batch() -> tuple[jax.Array, ...]:
    """Two rows of different lengths."""
    prompts = jnp.array([[3, 4, 5, 6], [7, 8, 0, 0]])
    rest = jnp.array([[18, 2, 19], [18, 3, 19]])
    return prompts, prompts > 0, rest, jnp.ones(rest.shape, bool)


def by_hand(params: Any, row: int, thoughts: int) -> np.ndarray:
    """The whole sequence again for each thought, as embeddings, without a cache."""
    prompts, mask, rest, _ = batch()
    table = params["embedding"]
    states = [table[token] for token in prompts[row][mask[row]]]
    for _ in range(thoughts):
        embedded = jnp.stack(states)[None]
        out = decoder.apply(
            CONFIG,
            params,
            jnp.zeros(embedded.shape[:2], jnp.int32),
            hidden_layers=(-1,),
            embedded=embedded,
        )
        states.append(out.hidden[0, 0, -1])
    states += [table[token] for token in rest[row]]
    embedded = jnp.stack(states)[None]
    logits = decoder.apply(
        CONFIG, params, jnp.zeros(embedded.shape[:2], jnp.int32), embedded=embedded
    ).logits
    return np.asarray(logits[0, -rest.shape[1] :])


@pytest.mark.parametrize("thoughts", [0, 1, 3])
def test_logits_equal_a_loop_without_a_cache(params: Any, thoughts: int) -> None:
    found = latent.latent_logits(CONFIG, params, *batch(), num_thoughts=thoughts)
    for row in range(2):
        np.testing.assert_allclose(
            found[row], by_hand(params, row, thoughts), rtol=2e-4, atol=2e-4
        )


def test_gradients_flow_through_the_thoughts(params: Any) -> None:
    """The embedding of a token that only the prompt has gets a gradient by them."""

    def loss(params: Any) -> Any:
        return latent.coconut_loss(CONFIG, params, *batch(), num_thoughts=2)[0]

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    assert np.isfinite(float(value))
    direction = jax.tree.map(jnp.sign, gradient)
    step = 1e-4

    def moved(sign: int) -> float:
        return float(
            loss(jax.tree.map(lambda p, d: p + sign * step * d, params, direction))
        )

    slope = (moved(1) - moved(-1)) / (2 * step)
    total = sum(float(jnp.abs(g).sum()) for g in jax.tree.leaves(gradient))
    assert slope == pytest.approx(total, rel=0.05)


def test_the_first_token_is_given_and_padding_not_learned(params: Any) -> None:
    prompts, mask, rest, rest_mask = batch()
    rest_mask = rest_mask.at[1, 2].set(False)
    _, metrics = latent.coconut_loss(
        CONFIG, params, prompts, mask, rest, rest_mask, num_thoughts=1
    )
    assert float(metrics["tokens"]) == 3


def test_curriculum() -> None:
    steps = [[1, 2], [3], [4, 5]]
    assert latent.curriculum(steps, 0, 2) == (0, [1, 2, 3, 4, 5])
    assert latent.curriculum(steps, 2, 2) == (4, [4, 5])
    # Fewer steps than the stage: the number of thoughts stays that of the stage.
    assert latent.curriculum(steps, 5, 1) == (5, [])
    with pytest.raises(ValueError, match="stage, thoughts_per_step: expected"):
        latent.curriculum(steps, -1, 1)
    with pytest.raises(ValueError, match="num_thoughts: expected"):
        latent.latent_logits(CONFIG, {}, *batch(), num_thoughts=-1)
