"""Argument checks shared by the public functions.

Shapes and dtypes are always checked. Values are checked only if they are concrete:
under ``jax.jit`` an array has no values yet, so checks add nothing to compiled code.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

__all__ = [
    "check_binary",
    "check_choice",
    "check_floating",
    "check_integers_fit",
    "check_mask",
    "check_same_length",
    "check_weights",
]


def check_same_length(**vectors: Array | None) -> None:
    """Check that every argument is a vector and that all have the same length.

    Args:
      **vectors: arrays by argument name; None stands for an argument left out.

    Raises:
      ValueError: if an argument is not a vector or differs in length; names the first.
    """
    shapes = {name: jnp.shape(v) for name, v in vectors.items() if v is not None}
    # The first argument sets the length; an error names the argument that differs.
    first = next(iter(shapes))
    for name, shape in shapes.items():
        if len(shape) != 1:
            raise ValueError(
                f"{name}: expected a vector, got shape {shape}; jax.vmap it"
            )
        if shape != shapes[first]:
            raise ValueError(
                f"{name}: expected {shapes[first][0]} elements as in {first}, "
                f"got {shape[0]}"
            )


def check_floating(**arrays: Array | np.ndarray | None) -> None:
    """Check that every argument is floating point.

    Args:
      **arrays: arrays by argument name; None stands for an argument left out.

    Raises:
      TypeError: if an argument has another dtype; names the first.
    """
    for name, array in arrays.items():
        if array is not None and not jnp.issubdtype(
            jnp.result_type(array), jnp.floating
        ):
            raise TypeError(
                f"{name}: expected a floating-point array, got {jnp.result_type(array)}"
            )


def check_binary(where: Array | None = None, **arrays: Array | None) -> None:
    """Check that every argument is binary: bool, or integers 0 and 1.

    As a bool, any value but 0 is a member: a group coded 1 and 2 would have only
    members, and a gap of 0. Values are checked only if they are concrete.

    Args:
      where: rows to check, bool, of the arrays' shape; all by default.
      **arrays: arrays by argument name; None stands for an argument left out.

    Raises:
      TypeError: if an argument has another dtype; names the first.
      ValueError: if an argument has another value; names the first.
    """
    for name, array in arrays.items():
        if array is None or jnp.result_type(array) == jnp.bool_:
            continue
        if not jnp.issubdtype(jnp.result_type(array), jnp.integer):
            raise TypeError(
                f"{name}: expected a bool or 0/1 integer array, "
                f"got {jnp.result_type(array)}"
            )
        # A tracer has no values yet; under jit the caller must have checked before.
        if not (_concrete(array) and _concrete(where)):
            continue
        values = np.asarray(array)
        values = values if where is None else values[np.asarray(where)]
        if not ((values == 0) | (values == 1)).all():
            found = ", ".join(str(value) for value in np.unique(values)[:5])
            raise ValueError(
                f"{name}: expected only 0 and 1, got values {found}; recode it, as in "
                f"({name} == code), and leave out people whose code is missing"
            )


def check_weights(where: Array | None = None, **weights: Array | None) -> None:
    """Check that weights are finite, not negative, and not all 0, where concrete.

    Args:
      where: rows to check, bool, of the weights' shape; all by default.
      **weights: weights by argument name; None stands for an argument left out.

    Raises:
      ValueError: if a value is negative, NaN or infinite, or none is positive; names
        the argument.
    """
    for name, array in weights.items():
        if array is None or not (_concrete(array) and _concrete(where)):
            continue
        values = np.asarray(array).astype(np.float64)
        values = values if where is None else values[np.asarray(where)]
        if (bad := ~((values >= 0) & np.isfinite(values))).any():
            raise ValueError(
                f"{name}: expected finite numbers of at least 0, got "
                f"{values[bad][0]:g}; leave out rows without a weight"
            )
        if values.size and not values.any():
            raise ValueError(f"{name}: expected some above 0, got only 0")


def _concrete(array: Array | None) -> bool:
    """Whether values can be read: not under jit, and no part on another host."""
    if isinstance(array, Tracer):
        return False
    return getattr(array, "is_fully_addressable", True)


def check_mask(**arrays: Array | np.ndarray | None) -> None:
    """Check that every argument is bool, since integers could be meant as indices.

    Args:
      **arrays: arrays by argument name; None stands for an argument left out.

    Raises:
      TypeError: if an argument has another dtype; names the first.
    """
    for name, array in arrays.items():
        if array is not None and jnp.result_type(array) != jnp.bool_:
            raise TypeError(
                f"{name}: expected a bool array, got {jnp.result_type(array)}"
            )


def check_integers_fit(**trees: Any) -> None:
    """Check that JAX keeps the integers of numpy arrays as they are.

    Unless it is set to 64 bits, JAX cuts them to 32 without a word: 2^32 + 1 becomes 1.

    Args:
      **trees: pytrees of arrays by argument name.

    Raises:
      ValueError: if an integer needs more than 32 bits; names the leaf.
    """
    if jnp.result_type(int) == jnp.int64:
        return
    for name, tree in trees.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if isinstance(leaf, jax.Array):
                continue
            array = np.asarray(leaf)
            if array.dtype.kind not in "iu" or not array.size:
                continue
            info = jnp.iinfo(jnp.uint32 if array.dtype.kind == "u" else jnp.int32)
            low, high = int(array.min()), int(array.max())
            if low < info.min or high > info.max:
                raise ValueError(
                    f"{name}{jax.tree_util.keystr(path)}: expected integers of 32 "
                    f"bits, got {low} to {high}, which JAX would cut short; number "
                    "them anew, or set jax_enable_x64"
                )


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Check that an option is one of its choices.

    Args:
      name: the argument's name.
      value: the value given.
      choices: the allowed values.

    Raises:
      ValueError: if ``value`` is not one of ``choices``.
    """
    if value not in choices:
        raise ValueError(f"{name}: expected one of {choices}, got {value!r}")
