"""Checks of arguments, shared by the public functions.

Shapes and dtypes are always checked. Values are checked only where they are concrete:
under ``jax.jit`` an array has none yet, and a check costs nothing.
"""

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

__all__ = [
    "check_binary",
    "check_choice",
    "check_floating",
    "check_mask",
    "check_same_length",
]


def check_same_length(**vectors: Array | None) -> None:
    """Check that every argument is a vector and that all have one length.

    Args:
      **vectors: arrays by argument name; None stands for an argument left out.

    Raises:
      ValueError: naming the first argument that is not a vector or differs in length.
    """
    shapes = {name: jnp.shape(v) for name, v in vectors.items() if v is not None}
    # The first argument sets the length, so that the error names another one.
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


def check_floating(**arrays: Array | None) -> None:
    """Check that every argument is floating point.

    Args:
      **arrays: arrays by argument name; None stands for an argument left out.

    Raises:
      TypeError: naming the first argument of another dtype.
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

    Any other code would count as a member, and a group coded 1 and 2 would have no
    gap. Values are checked where they are concrete.

    Args:
      where: rows to check, bool, of the arrays' shape; all by default.
      **arrays: arrays by argument name; None stands for an argument left out.

    Raises:
      TypeError: naming the first argument of another dtype.
      ValueError: naming the first argument with another value.
    """
    for name, array in arrays.items():
        if array is None or jnp.result_type(array) == jnp.bool_:
            continue
        if not jnp.issubdtype(jnp.result_type(array), jnp.integer):
            raise TypeError(
                f"{name}: expected a bool or 0/1 integer array, "
                f"got {jnp.result_type(array)}"
            )
        # A tracer has no values yet; under jit the caller's check outside must do.
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


def _concrete(array: Array | None) -> bool:
    """Whether values can be read here: not under jit, nor on another host."""
    if isinstance(array, Tracer):
        return False
    return getattr(array, "is_fully_addressable", True)


def check_mask(**arrays: Array | None) -> None:
    """Check that every argument is bool: integers could be meant as indices.

    Args:
      **arrays: arrays by argument name; None stands for an argument left out.

    Raises:
      TypeError: naming the first argument of another dtype.
    """
    for name, array in arrays.items():
        if array is not None and jnp.result_type(array) != jnp.bool_:
            raise TypeError(
                f"{name}: expected a bool array, got {jnp.result_type(array)}"
            )


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Check that an option is one of its choices.

    Args:
      name: the argument's name.
      value: the value given.
      choices: the allowed values.

    Raises:
      ValueError: if ``value`` is none of ``choices``.
    """
    if value not in choices:
        raise ValueError(f"{name}: expected one of {choices}, got {value!r}")
