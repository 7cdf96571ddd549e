"""The valve: the interpolated update is the interpolation of the updates."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff import line
from jeff_llm.models import lora
from jeff_llm.reasoning import valve

KERNELS = {"query": {"kernel": (4, 6)}, "up": {"kernel": (3, 6, 8)}}


def factors(seed: int, rank: int, **changes: Any) -> lora.Lora:
    rng = np.random.default_rng(seed)
    found = {}
    for name, leaf in KERNELS.items():
        *stack, fan_in, fan_out = leaf["kernel"]
        found[f"{name}/kernel"] = {
            "a": jnp.asarray(rng.normal(size=(*stack, fan_in, rank)), jnp.float32),
            "b": jnp.asarray(rng.normal(size=(*stack, rank, fan_out)), jnp.float32),
        }
    return lora.Lora(found, changes.get("rows"), (), changes.get("scale", 2.0))


@pytest.fixture(scope="module")
def base() -> Any:
    return {
        name: {"kernel": jnp.ones(leaf["kernel"], jnp.float32)}
        for name, leaf in KERNELS.items()
    }


@pytest.mark.parametrize("t", [0.0, 0.25, 1.0, 1.5])
def test_the_update_is_interpolated(base: Any, t: float) -> None:
    long, short = factors(0, 2), factors(1, 3)
    found = lora.merge(base, valve.valve(long, short, t))
    ends = [lora.merge(base, each) for each in (long, short)]
    expected = line.interpolate(*ends, t)
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-5)


def test_levels_in_one_call(base: Any) -> None:
    """The ends form a line of jeff, so that levels are a batch axis."""
    ends = valve.valve_line(factors(0, 2), factors(1, 2))
    levels = jnp.array([0.0, 0.5, 1.0])
    merged = jax.vmap(lambda each: lora.merge(base, each))(line.grid(*ends, levels))
    for row, t in enumerate(levels.tolist()):
        one = lora.merge(base, valve.valve(factors(0, 2), factors(1, 2), t))
        chex.assert_trees_all_close(
            jax.tree.map(lambda leaf, row=row: leaf[row], merged), one, rtol=1e-5
        )


def test_bad_arguments() -> None:
    other = factors(1, 2)
    other.factors.pop("up/kernel")
    with pytest.raises(ValueError, match=r"same kernels, got \['up/kernel'\]"):
        valve.valve(factors(0, 2), other, 0.5)
    other = factors(1, 2)
    other.factors["up/kernel"]["b"] = jnp.ones((3, 2, 9))
    with pytest.raises(
        ValueError, match=r"end: expected 'up/kernel' with shapes .* 9\)\)"
    ):
        valve.valve(factors(0, 2), other, 0.5)
    with pytest.raises(ValueError, match=r"expected the scale 2.0, got 1.0"):
        valve.valve(factors(0, 2), factors(1, 2, scale=1.0), 0.5)
    with pytest.raises(ValueError, match="no trained rows"):
        valve.valve(factors(0, 2, rows=jnp.zeros((1, 4))), factors(1, 2), 0.5)
