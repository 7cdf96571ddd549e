"""Small random graphs, and networks in which every parameter affects the logits."""

from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest


@pytest.fixture
def unchecked() -> Any:
    """Without the suite's shape checks, so that a user's messages are seen."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def small() -> Any:
    """``(features, edges)`` of 12 nodes, the last two of them isolated."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(12, 5)).astype(np.float32)
    pairs = rng.integers(0, 10, (16, 2))
    return features, pairs[pairs[:, 0] != pairs[:, 1]]


@pytest.fixture
def lively() -> Any:
    """``(params, seed=0) -> params``: random values under which every part shows.

    Biases are positive, so that few hidden units are dead.
    """

    def make(params: Any, seed: int = 0) -> Any:
        rng = np.random.default_rng(seed)

        def leaf_of(leaf: Any) -> jax.Array:
            noise = rng.normal(size=leaf.shape)
            value = noise / leaf.shape[0] ** 0.5 if leaf.ndim == 2 else abs(noise) + 0.1
            return jnp.asarray(value, leaf.dtype)

        return jax.tree.map(leaf_of, params)

    return make
