"""What a user passes, as JAX arrays; and results in which NaN is meant."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from jeff.as_arrays import as_array
from jeff_graph.cells.columns import plain_column

__all__ = ["as_codes", "as_mask", "as_real", "is_concrete", "means_nan"]

P = ParamSpec("P")
T = TypeVar("T")


def as_real(values: Any, name: str) -> Float[Array, "..."]:
    """Real numbers of at least 32 bits: sums in fewer lose digits or overflow.

    Args:
      values: as in `jeff.as_arrays.as_array`.
      name: its name in an error.

    Returns:
      The array.

    Raises:
      TypeError: if the values are not real numbers.
      ValueError: if a value does not fit JAX's precision.
    """
    array = as_array(values, name)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}")
    wide = jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize >= 4
    return array if wide else array.astype(jnp.float32)


def as_mask(values: Any, name: str) -> Array:
    """A mask; bools of pandas and lists of bools are taken.

    Args:
      values: as in `jeff.as_arrays.as_array`.
      name: its name in an error.

    Returns:
      An array of bools.

    Raises:
      TypeError: if the values are not bools, or some are missing.
    """
    if isinstance(values, jax.Array):
        return values
    array = plain_column(values)
    if array.dtype != bool and array.size:
        raise TypeError(
            f"{name}: expected a bool array without missing values, got {array.dtype}"
        )
    return jnp.asarray(array, bool)


def as_codes(values: Any, name: str, number: int | None = None) -> Int[Array, "..."]:
    """Integer codes from 0; their values are checked where they are concrete.

    Args:
      values: as in `jeff.as_arrays.as_array`.
      name: its name in an error.
      number: how many codes there are; None where any may occur.

    Returns:
      The codes.

    Raises:
      TypeError: if the values are not integers.
      ValueError: if a code is negative, such as -1, pandas' code of a missing value, or
        not below ``number``: JAX would take the one from the end, or the last.
    """
    array = as_array(values, name)
    if not array.size:
        return array.astype(jnp.int32)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{name}: expected integer codes, got {array.dtype}")
    if is_concrete(array):
        low, high = int(array.min()), int(array.max())
        if low < 0 or (number is not None and high >= number):
            upper = "" if number is None else f" to {number - 1}"
            raise ValueError(
                f"{name}: expected codes from 0{upper}, got {low} to {high}; leave out "
                "what has no code"
            )
    return array


def is_concrete(*arrays: Any) -> bool:
    """Whether values can be checked; under jit there are none yet.

    Args:
      *arrays: any arrays.

    Returns:
      True if none is a tracer.
    """
    return not any(isinstance(array, Tracer) for array in arrays)


def means_nan(function: Callable[P, T]) -> Callable[P, T]:
    """Mark a function whose NaN says "not seen", or that takes such NaN.

    ``jax_debug_nans`` stops at every NaN, and would stop at these.

    Args:
      function: the function.

    Returns:
      The same, with ``jax_debug_nans`` off while it runs.
    """

    @functools.wraps(function)
    def run(*args: P.args, **options: P.kwargs) -> T:
        with jax.debug_nans(False):
            return function(*args, **options)

    return run
