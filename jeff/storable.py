"""Which leaves a checkpoint can hold, and how they are handed to orbax."""

from typing import Any

import jax
import numpy as np

__all__ = ["native", "storable"]

# Narrow types that tensorstore, which orbax writes with, does not know.
_UNSTORED = ("uint2", "uint4", "float8_e4m3", "float8_e8m0fnu")
# numpy's own that it knows: not the 80 bits of `numpy.longdouble`.
_FLOATS = ("float16", "float32", "float64", "complex64", "complex128")


def storable(name: str, leaf: Any) -> jax.Array | np.ndarray:
    """The array that is stored for a leaf.

    Args:
      name: the leaf's name, for errors.
      leaf: an array or a number.

    Returns:
      The array, in the byte order of this machine.

    Raises:
      TypeError: if it is no array, or one that would not come back as it is.
    """
    if isinstance(leaf, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected an array without a mask; fill it first")
    array = leaf if isinstance(leaf, jax.Array) else native(np.asarray(leaf))
    if array.dtype.kind in "OSUMm":
        raise TypeError(
            f"{name}: expected an array or a number of at most 64 bits, got "
            f"{type(leaf)} of dtype {array.dtype}"
        )
    wide = array.dtype.kind in "fc" and array.dtype.name not in _FLOATS
    if wide or array.dtype.names or array.dtype.name in _UNSTORED:
        raise TypeError(
            f"{name}: expected a dtype that orbax can write, got {array.dtype.name}; "
            "save it as its bits in uint8"
        )
    return array


def native(array: np.ndarray) -> np.ndarray:
    """An array in the byte order of this machine, in which all are read back.

    Args:
      array: the array.

    Returns:
      The same numbers; the array itself where nothing is to be done.
    """
    return array.astype(array.dtype.newbyteorder("="), copy=False)
