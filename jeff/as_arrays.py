"""What a user passes, as JAX arrays: numpy, pandas columns and frames, lists."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

__all__ = ["as_array"]


def as_array(value: Any, name: str) -> Array:
    """Convert numbers of any kind to a JAX array.

    Args:
      value: a JAX or numpy array, a column or frame of pandas, or nested lists.
      name: its name in errors.

    Returns:
      The array, in JAX's precision.

    Raises:
      TypeError: if there is a value that is no number, or a missing one.
      ValueError: if a value does not fit JAX's precision.
    """
    if isinstance(value, jax.Array):
        return value
    array = np.asarray(value)
    if array.dtype == object:
        # Nullable columns and frames of several dtypes hold Python objects.
        array = np.asarray(array.tolist())
    if array.dtype.kind not in "biuf" and not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"{name}: expected numbers without missing values, got {array.dtype}; "
            "encode categories one-hot, drop or impute missing values"
        )
    with np.errstate(over="ignore"):
        converted = jnp.asarray(
            array.astype(jax.dtypes.canonicalize_dtype(array.dtype))
        )
    if array.dtype.itemsize > converted.dtype.itemsize:
        _check_kept(array, np.asarray(converted), name)
    return converted


def _check_kept(array: np.ndarray, converted: np.ndarray, name: str) -> None:
    whole = array.dtype.kind in "iu"
    lost = array != converted if whole else np.isinf(converted) & np.isfinite(array)
    if lost.any():
        raise ValueError(
            f"{name}: expected numbers that {converted.dtype} holds, got "
            f"{array[lost][0]}; standardise them first, in float64"
        )
