"""Test tables of parameter names, on a made-up model of two layers."""

import threading
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm.models.mapping import Rule, Transform, to_params, to_tensors

DOUBLED = Transform(lambda x: 2 * x, lambda x: x / 2)
RULES = (
    Rule("embed", "table"),
    Rule("block.{layer}.w", "layers/up/kernel", "transpose"),
    Rule("block.{layer}.b", "layers/up/bias", DOUBLED),
    Rule("head", "head/kernel", "transpose"),
)


class Stored(NamedTuple):
    """A tensor as a file would give it."""

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def read(self) -> np.ndarray:
        return self.array


def shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


SHAPES = {
    "table": shape(5, 3),
    "layers": {"up": {"kernel": shape(2, 3, 4), "bias": shape(2, 4)}},
}


def stored() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    sizes = {"embed": (5, 3)}
    for layer in range(2):
        sizes |= {f"block.{layer}.w": (4, 3), f"block.{layer}.b": (4,)}
    return {
        name: Stored(rng.normal(size=size).astype(np.float32))
        for name, size in sizes.items()
    }


def test_read_and_written() -> None:
    """Layers are stacked, kernels turned, and what was read is what is written."""
    tensors = stored()
    params = to_params(RULES, tensors, SHAPES)
    assert jax.tree.structure(params) == jax.tree.structure(SHAPES)
    np.testing.assert_array_equal(params["table"], tensors["embed"].array)
    up = params["layers"]["up"]
    for layer in range(2):
        np.testing.assert_array_equal(
            up["kernel"][layer], tensors[f"block.{layer}.w"].array.T
        )
        np.testing.assert_array_equal(
            up["bias"][layer], 2 * tensors[f"block.{layer}.b"].array
        )
    written = to_tensors(RULES, params)
    assert set(written) == set(tensors)
    for name, array in written.items():
        assert array.flags.c_contiguous
        np.testing.assert_array_equal(array, tensors[name].array)


def test_dtype_and_place() -> None:
    """Each leaf is handed over once, by its path, in the dtype asked for."""
    seen: dict[str, np.ndarray] = {}
    lock = threading.Lock()

    def place(path: str, array: np.ndarray) -> jax.Array:
        with lock:
            assert path not in seen
            seen[path] = array
        return jnp.asarray(array) + 1

    params = to_params(RULES, stored(), SHAPES, dtype=jnp.bfloat16, place=place)
    assert set(seen) == {"table", "layers/up/kernel", "layers/up/bias"}
    assert {array.dtype for array in seen.values()} == {np.dtype(jnp.bfloat16)}
    np.testing.assert_array_equal(params["table"], jnp.asarray(seen["table"]) + 1)


def test_missing_and_surplus() -> None:
    """The names are given; surplus ones may be declared as of no interest."""
    tensors = stored()
    del tensors["block.1.w"], tensors["embed"]
    with pytest.raises(ValueError, match=r"missing are embed, block\.1\.w; .*part of"):
        to_params(RULES, tensors, SHAPES)
    extra = {
        **stored(),
        "head": Stored(np.zeros((5, 3))),
        "rope.inv": Stored(np.ones(2)),
    }
    with pytest.raises(ValueError, match=r"surplus are head, rope\.inv; is it another"):
        to_params(RULES, extra, SHAPES)
    with pytest.raises(ValueError, match="surplus are head;"):
        to_params(RULES, extra, SHAPES, ignore=[r"^rope\."])
    to_params(RULES, extra, SHAPES, ignore=[r"^rope\.", "head$"])


def test_many_names_are_cut() -> None:
    """Eight names and a number, not a page."""
    extra = stored() | {f"x{i}": Stored(np.zeros(1)) for i in range(11)}
    with pytest.raises(ValueError, match=r"x0, x1, .*, x7 and 3 more;"):
        to_params(RULES, extra, SHAPES)


@pytest.mark.parametrize("name", ["block.1.w", "embed"])
def test_wrong_shape(name) -> None:
    """Also where the sizes would broadcast, and where a layer alone is wrong."""
    tensors = stored()
    tensors[name] = Stored(np.zeros((1, *tensors[name].shape[1:]), np.float32))
    with pytest.raises(ValueError, match=rf"tensor {name}: expected shape \(\d, \d\)"):
        to_params(RULES, tensors, SHAPES)


def test_trouble_while_reading_comes_through() -> None:
    """What a thread raises is raised to the caller."""

    class Broken(NamedTuple):
        shape: tuple[int, ...] = (5, 3)

        def read(self) -> np.ndarray:
            raise ValueError("embed: expected a type that can be dequantised")

    with pytest.raises(ValueError, match="can be dequantised"):
        to_params(RULES, {**stored(), "embed": Broken()}, SHAPES)


def test_leaves_without_a_rule() -> None:
    """A table that does not cover the model is a mistake of ours, told as such."""
    with pytest.raises(ValueError, match=r"rules: .* none for \['table'\]"):
        to_params(RULES[1:], stored(), SHAPES)
    with pytest.raises(ValueError, match="strange: expected a leaf among"):
        to_tensors(RULES, {"strange": jnp.ones(2)})
