"""The header of a GGUF file: its key-value pairs and the places of its tensors.

A header is untrusted input, so every length in it is checked against the file before
anything is allocated or any loop begins.

jeff has its own parser because that of the ``gguf`` package takes two seconds for a
vocabulary of 49,152 tokens and does not detect a truncated file. The sizes of quantised
blocks are the package's.

References:
  https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import functools
import math
import mmap
import struct
from typing import Any, NamedTuple

import numpy as np

from jeff_llm.models.tensor_info import Header, TensorInfo, representable

__all__ = ["parse_gguf"]

_AGAIN = "the file is damaged or cut short: get it again"
_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_STRING, _ARRAY = 8, 9
_MAX_RANK = 4
# The fewest bytes that a key with its value, and the description of a tensor, take.
_LEAST_KEY, _LEAST_TENSOR, _LEAST_STRING = 13, 24, 8


def parse_gguf(data: mmap.mmap | bytes, source: str) -> Header:
    """Read the header of a GGUF file of version 2 or 3, little endian.

    Args:
      data: the whole file.
      source: its name in errors.

    Returns:
      The header; the tensors lie in the file without overlap.

    Raises:
      ValueError: if it is no such file, or its header does not fit the file; names the
        key or the tensor, and the byte.
    """
    if data[:4] != b"GGUF":
        raise ValueError(
            f"{source}: expected a GGUF file, which begins with b'GGUF', got "
            f"{bytes(data[:4])!r}"
        )
    cursor = _Cursor(data, source)
    _check_version(cursor.number("I", "version"), source)
    tensor_count = cursor.count(_LEAST_TENSOR, "number of tensors")
    metadata = _read_metadata(cursor, cursor.count(_LEAST_KEY, "number of keys"))
    described = [_read_described(cursor) for _ in range(tensor_count)]
    return Header(metadata, _place(described, metadata, cursor))


class _Described(NamedTuple):
    """A tensor as the header describes it."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


class _Cursor:
    """A place in a GGUF header that cannot leave the file."""

    def __init__(self, data: mmap.mmap | bytes, source: str):
        self.data, self.source, self.place, self.end = data, source, 4, len(data)

    def error(self, what: str, expected: str) -> ValueError:
        return ValueError(
            f"{self.source}: {what}: expected {expected} at byte {self.place} of "
            f"{self.end}; {_AGAIN}"
        )

    def take(self, size: int, what: str) -> int:
        """Where the next ``size`` bytes begin."""
        start = self.place
        if size > self.end - start:
            raise self.error(what, f"{size} bytes")
        self.place += size
        return start

    def number(self, code: str, what: str) -> Any:
        size = struct.calcsize("<" + code)
        return struct.unpack_from("<" + code, self.data, self.take(size, what))[0]

    def count(self, least: int, what: str) -> int:
        """Number of the items that follow, of at least ``least`` bytes each."""
        count = self.number("Q", what)
        # A forged count of 2^60 would otherwise loop or allocate for that many.
        if count * least > self.end - self.place:
            raise self.error(what, f"{count} times {least} bytes or more")
        return count

    def strings(self, count: int, what: str) -> list[str]:
        # A tight loop: the vocabulary takes most of the time of opening a file.
        data, place, end = self.data, self.place, self.end
        length = struct.Struct("<Q").unpack_from
        found = []
        try:
            for _ in range(count):
                start = place + 8
                place = start + length(data, place)[0]
                if place > end:
                    raise self.error(what, f"text of {place - start} bytes")
                found.append(str(data[start:place], "utf-8"))
        except (struct.error, UnicodeDecodeError) as error:
            raise self.error(what, f"{count} texts in UTF-8 ({error})") from error
        self.place = place
        return found

    def string(self, what: str) -> str:
        return self.strings(1, what)[0]

    def value(self, what: str) -> Any:
        kind = self.number("I", what)
        if kind == _STRING:
            return self.string(what)
        if kind == _ARRAY:
            return self.array(what)
        return self.number(self.scalar(kind, what), what)

    def array(self, what: str) -> list[Any]:
        kind = self.number("I", what)
        if kind == _STRING:
            return self.strings(self.count(_LEAST_STRING, what), what)
        dtype = np.dtype("<" + self.scalar(kind, what))
        count = self.count(dtype.itemsize, what)
        start = self.take(count * dtype.itemsize, what)
        return np.frombuffer(self.data, dtype, count, start).tolist()

    def scalar(self, kind: int, what: str) -> str:
        if kind not in _SCALARS:
            raise self.error(what, f"a number, a text or an array of them, not {kind},")
        return _SCALARS[kind]


def _check_version(version: int, source: str) -> None:
    if version in (2, 3):
        return
    order = " (the file is big endian)" if version and not version & 0xFFFF else ""
    raise ValueError(
        f"{source}: expected GGUF version 2 or 3 in little endian, got {version}{order}"
        "; convert the model with a current llama.cpp"
    )


def _read_metadata(cursor: _Cursor, count: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for number in range(count):
        key = cursor.string(f"key {number}")
        if key in metadata:
            raise cursor.error(f"key {key!r}", "no key twice; its second value is")
        metadata[key] = cursor.value(f"key {key!r}")
    return metadata


def _read_described(cursor: _Cursor) -> _Described:
    name = cursor.string("name of a tensor")
    what = f"tensor {name!r}"
    rank = cursor.number("I", what)
    if rank > _MAX_RANK:
        raise cursor.error(what, f"at most {_MAX_RANK} dimensions, not {rank},")
    sizes = [cursor.number("Q", what) for _ in range(rank)]
    # ggml writes the innermost dimension first.
    shape = tuple(reversed(sizes))
    if not representable(shape, 8):
        raise cursor.error(what, f"a shape that memory can hold, not {shape},")
    return _Described(name, shape, cursor.number("I", what), cursor.number("Q", what))


def _place(
    described: list[_Described], metadata: dict[str, Any], cursor: _Cursor
) -> list[TensorInfo]:
    """Places of the tensors: consecutive and aligned, as llama.cpp requires."""
    align = metadata.get("general.alignment", 32)
    if not isinstance(align, int) or align < 1 or align & (align - 1):
        raise cursor.error("key 'general.alignment'", f"a power of two, not {align!r},")
    first = place = -(-cursor.place // align) * align
    placed: dict[str, TensorInfo] = {}
    for name, shape, kind, offset in described:
        what = f"{cursor.source}: tensor {name!r}"
        if name in placed:
            raise ValueError(f"{what}: expected no name twice; {_AGAIN}")
        dtype, size = _type_and_size(shape, kind, what)
        # Without gap or overlap: a wrong offset would load numbers of another tensor.
        if first + offset != place or place + size > cursor.end:
            raise ValueError(
                f"{what}: expected {size} bytes of data from byte {place}, behind the "
                f"tensor before it; its offset says byte {first + offset}, and the "
                f"file has {cursor.end} bytes; {_AGAIN}"
            )
        placed[name] = TensorInfo(name, shape, dtype, place, place + size)
        place += -(-size // align) * align
    return list(placed.values())


def _type_and_size(shape: tuple[int, ...], kind: int, what: str) -> tuple[str, int]:
    """Name of a quantisation type, and the bytes that a tensor of it takes."""
    known = _quantisation_types()
    if kind not in known:
        names = ", ".join(name for name, _, _ in known.values())
        raise ValueError(
            f"{what}: expected a quantisation type that the package gguf knows "
            f"({names}), got number {kind}; update gguf, or get another quantisation"
        )
    name, block, block_bytes = known[kind]
    row = shape[-1] if shape else 1
    if row % block:
        raise ValueError(
            f"{what}: expected rows of a multiple of {block} numbers for {name}, got "
            f"shape {shape}; {_AGAIN}"
        )
    return name, math.prod(shape) // block * block_bytes


@functools.cache
def _quantisation_types() -> dict[int, tuple[str, int, int]]:
    """Name, numbers in a block and bytes of a block, by the number in the file."""
    from gguf.constants import GGML_QUANT_SIZES

    return {
        kind.value: (kind.name, block, block_bytes)
        for kind, (block, block_bytes) in GGML_QUANT_SIZES.items()
    }
