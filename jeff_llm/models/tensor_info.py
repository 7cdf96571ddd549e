"""The header of a file of tensors, for every format."""

import math
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

__all__ = ["NUMPY_DTYPES", "Header", "TensorInfo", "representable"]

# Types that need no dequantisation. GGUF and safetensors use the same names.
NUMPY_DTYPES: dict[str, np.dtype] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype("u1"),
    "U16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
    "U64": np.dtype("<u8"),
    "I8": np.dtype("i1"),
    "I16": np.dtype("<i2"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "C64": np.dtype("<c8"),
}


class TensorInfo(NamedTuple):
    """One tensor of a file, not yet read.

    Attributes:
      name: its name in the file.
      shape: its shape, outermost dimension first.
      dtype: key of `NUMPY_DTYPES`, or a quantisation type of GGUF such as ``Q4_1``.
      start: place of its first byte in the file.
      stop: place behind its last byte; inside the file.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    start: int
    stop: int


class Header(NamedTuple):
    """Header of a file of tensors.

    Attributes:
      metadata: its key-value pairs, as plain Python values.
      tensors: its tensors, in the order of the file, no name twice.
    """

    metadata: dict[str, Any]
    tensors: list[TensorInfo]


def representable(shape: tuple[int, ...], itemsize: int) -> bool:
    """Whether numpy can hold a shape, empty ones included.

    Args:
      shape: sizes, none negative.
      itemsize: bytes of an element.

    Returns:
      True if rank and strides stay within numpy's limits.

    >>> representable((2, 3), 4), representable((2**62, 0), 4)
    (True, False)
    """
    # numpy counts a dimension of 0 as 1 here.
    return (
        len(shape) <= 64
        and math.prod(max(size, 1) for size in shape) * itemsize < 2**63
    )
