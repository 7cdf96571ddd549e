"""The header of a safetensors file: the places of its tensors.

A header is untrusted input, so every number in it is checked against the file before
it is used. The tensors must cover the file without gap or overlap, as the
format demands.

Why not the package `safetensors`, which writes our files: its numpy front end copies
each tensor into memory, and opens no 8-bit floats. Here a header gives places in a
mapped file, so a tensor is read when it is needed, straight onto a mesh; and an error
names the file and the tensor.

References:
  https://github.com/safetensors/safetensors#format
"""

import math
import mmap
import reprlib
from typing import Any

from jeff import files
from jeff_llm.models.tensor_info import NUMPY_DTYPES, Header, TensorInfo, representable

__all__ = ["parse_safetensors"]

_AGAIN = "the file is damaged or cut short: get it again"
_MAX_HEADER = 100_000_000  # bytes; what the safetensors library accepts


def parse_safetensors(data: mmap.mmap | bytes, source: str) -> Header:
    """Read the header of a safetensors file.

    Args:
      data: the whole file.
      source: its name in errors.

    Returns:
      The header, its tensors in the order of their data.

    Raises:
      ValueError: if it is no such file, or its header does not fit the file; names the
        tensor.
    """
    # Checked before the header is sliced, since the number may be anything.
    size = int.from_bytes(data[:8], "little")
    if size > min(len(data) - 8, _MAX_HEADER):
        raise ValueError(
            f"{source}: expected a safetensors file, which begins with the length of "
            f"its header; that says {size} bytes, the file has {len(data)}; {_AGAIN}"
        )
    first = 8 + size
    entries = _parse_json(bytes(data[8:first]), source)
    metadata = entries.pop("__metadata__", {})
    if not _is_texts(metadata):
        raise ValueError(f"{source}: expected texts by name in __metadata__; {_AGAIN}")
    tensors = [
        _read_entry(name, entry, first, f"{source}: tensor {name!r}")
        for name, entry in entries.items()
    ]
    tensors.sort(key=lambda info: (info.start, info.stop))
    _check_cover(tensors, first, len(data), source)
    return Header(metadata, tensors)


def _parse_json(text: bytes, source: str) -> dict[str, Any]:
    try:
        entries = files.parse_json(text, "the header")
    except ValueError as error:
        raise ValueError(
            f"{source}: expected a header in JSON, but of {error}; {_AGAIN}"
        ) from error
    if not isinstance(entries, dict):
        raise ValueError(
            f"{source}: expected a JSON object as header, got "
            f"{type(entries).__name__}; {_AGAIN}"
        )
    return entries


def _is_texts(metadata: Any) -> bool:
    return isinstance(metadata, dict) and all(
        isinstance(value, str) for value in metadata.values()
    )


def _read_entry(name: str, entry: Any, first: int, what: str) -> TensorInfo:
    try:
        dtype, shape = entry["dtype"], entry["shape"]
        start, stop = entry["data_offsets"]
        known = dtype in NUMPY_DTYPES
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{what}: expected dtype, shape and two data_offsets, got "
            f"{reprlib.repr(entry)}; {_AGAIN}"
        ) from error
    if not known:
        raise ValueError(
            f"{what}: expected a dtype among {', '.join(NUMPY_DTYPES)}, got {dtype!r}"
        )
    itemsize = NUMPY_DTYPES[dtype].itemsize
    if not (
        isinstance(shape, list)
        and all(_is_size(number) for number in (*shape, start, stop))
        and representable(tuple(shape), itemsize)
    ):
        raise ValueError(
            f"{what}: expected sizes and offsets that are whole, not negative and fit "
            f"into memory, got {reprlib.repr(entry)}; {_AGAIN}"
        )
    if stop - start != math.prod(shape) * itemsize:
        raise ValueError(
            f"{what}: expected {math.prod(shape) * itemsize} bytes of data for "
            f"{dtype}{shape}, its data_offsets give {stop - start}; {_AGAIN}"
        )
    return TensorInfo(name, tuple(shape), dtype, first + start, first + stop)


def _is_size(number: Any) -> bool:
    # bool is an int; huge integers cannot even be printed.
    return type(number) is int and 0 <= number < 2**63


def _check_cover(tensors: list[TensorInfo], first: int, end: int, source: str) -> None:
    place = first
    for info in tensors:
        if info.start != place or info.stop > end:
            raise ValueError(
                f"{source}: tensor {info.name!r}: expected data from byte {place} of "
                f"{end}, behind the tensor before it; its data_offsets give bytes "
                f"{info.start} to {info.stop}; {_AGAIN}"
            )
        place = info.stop
    if place != end:
        raise ValueError(
            f"{source}: expected data up to the end of the file at byte {end}, the "
            f"last tensor ends at byte {place}; {_AGAIN}"
        )
