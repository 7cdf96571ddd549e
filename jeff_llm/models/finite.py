"""Weights must be numbers: a NaN in a file would be token 0 for every question."""

from typing import Any

import ml_dtypes
import numpy as np

__all__ = ["check_finite", "check_weights"]

# Numbers at a time: a block stays in the processor's cache between the two passes.
_BLOCK = 1 << 18
# An exponent of ones in bfloat16: infinite, or no number.
_BFLOAT16_LARGEST = 0x7F7F


def check_weights(dtype: Any, what: str) -> None:
    """Check that a file holds floating-point numbers.

    Args:
      dtype: of the array.
      what: the tensor, for the error.

    Raises:
      ValueError: if they are integers, truth values or complex.
    """
    # numpy does not count the types of ml_dtypes as floating.
    known = np.issubdtype(dtype, np.floating) or dtype.kind == "V"
    if not known:
        raise ValueError(
            f"{what}: expected floating-point numbers, got {dtype}; the file is "
            "damaged, or of another model"
        )


def check_finite(array: np.ndarray, what: str) -> None:
    """Check that an array has neither NaN nor infinities.

    Args:
      array: floating-point numbers.
      what: the tensor, for the error.

    Raises:
      ValueError: naming the tensor and the first place that is no number.

    >>> check_finite(np.array([1.0, np.nan]), "a.bin: tensor 'w'")
    Traceback (most recent call last):
    ValueError: a.bin: tensor 'w': expected finite numbers, got nan at place (1,); the \
file is damaged: get it again
    """
    flat = array.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        if _all_finite(block):
            continue
        place = start + int(np.argmin(np.isfinite(block)))
        index = tuple(int(i) for i in np.unravel_index(place, array.shape))
        raise ValueError(
            f"{what}: expected finite numbers, got {flat[place]} at place {index}; the "
            "file is damaged: get it again"
        )


def _all_finite(block: np.ndarray) -> bool:
    if block.dtype == ml_dtypes.bfloat16:
        # Its own isfinite goes number by number, twenty times slower.
        return bool((block.view(np.uint16) & 0x7FFF).max() <= _BFLOAT16_LARGEST)
    return bool(np.isfinite(block).all())
