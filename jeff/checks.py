"""Static checks of arguments, shared by the public functions.

Only shapes and dtypes are looked at, so a check costs nothing under ``jax.jit``.
"""

import jax.numpy as jnp
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
      ValueError: naming the first argument that is no vector or differs in length.
    """
    shapes = {name: jnp.shape(v) for name, v in vectors.items() if v is not None}
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


def check_binary(**arrays: Array | None) -> None:
    """Check that every argument can hold yes and no: bool, or an integer type.

    Args:
      **arrays: arrays by argument name; None stands for an argument left out.

    Raises:
      TypeError: naming the first argument of another dtype.
    """
    for name, array in arrays.items():
        if array is None or jnp.result_type(array) == jnp.bool_:
            continue
        if not jnp.issubdtype(jnp.result_type(array), jnp.integer):
            raise TypeError(
                f"{name}: expected a bool or 0/1 integer array, "
                f"got {jnp.result_type(array)}"
            )


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
      value: what came.
      choices: what is allowed.

    Raises:
      ValueError: if ``value`` is none of ``choices``.
    """
    if value not in choices:
        raise ValueError(f"{name}: expected one of {choices}, got {value!r}")
