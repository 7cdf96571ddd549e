"""Check the chunks of a zarr folder before any library decodes them.

Decoders trust a chunk's first bytes: blosc reads as much as they say, beyond the end of
a chunk that was cut short; zstd and texts take as much memory as they say. Shapes are
numbers in a file as well. All of these are compared with what the folder holds.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jeff import files

__all__ = ["check_chunks"]

_ADVICE = "the folder is damaged: copy it again"
# Chunks that an array may state beside those that it stores: reading visits each.
_FREE_CHUNKS, _FREE_RATIO = 100_000, 100


class _Array(NamedTuple):
    """What is stated of an array.

    Attributes:
      shape: of the array.
      chunk: shape of a chunk.
      itemsize: bytes of an element; 0 for texts.
      codecs: names of the codecs, in the order of writing.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    itemsize: int
    codecs: list[str]


def check_chunks(path: Path) -> None:
    """Check every array of a zarr folder.

    Args:
      path: the folder, of zarr's format 2 or 3.

    Raises:
      ValueError: if an array states many more chunks than it stores, or a chunk states
        more than it holds; names the file.
    """
    for meta in sorted([*path.rglob(".zarray"), *path.rglob("zarr.json")]):
        with files.reading(meta, "the description of an array", advice=_ADVICE):
            read = _version_2 if meta.name == ".zarray" else _version_3
            array = read(files.parse_json(files.read_bytes(meta), str(meta)))
        if array is not None:
            _check_array(array, meta, path)


def _version_2(stated: Any) -> _Array | None:
    codecs = [each["id"] for each in stated.get("filters") or ()]
    codecs += [stated["compressor"]["id"]] if stated.get("compressor") else []
    itemsize = 0 if stated["dtype"] == "|O" else np.dtype(stated["dtype"]).itemsize
    return _Array(_sizes(stated["shape"]), _sizes(stated["chunks"]), itemsize, codecs)


def _version_3(stated: Any) -> _Array | None:
    if stated.get("node_type") != "array":
        return None
    kind, names = stated["data_type"], [each["name"] for each in stated["codecs"]]
    plain = isinstance(kind, str) and kind != "string"
    itemsize = np.dtype(kind).itemsize if plain else 0
    chunk = stated["chunk_grid"]["configuration"]["chunk_shape"]
    return _Array(_sizes(stated["shape"]), _sizes(chunk), itemsize, names)


def _sizes(values: Any) -> tuple[int, ...]:
    sizes = tuple(values)
    if any(type(size) is not int or size < 0 for size in sizes):
        raise ValueError(f"expected whole sizes of at least 0, got {values!r:.60}")
    return sizes


def _check_array(array: _Array, meta: Path, path: Path) -> None:
    if len(array.shape) != len(array.chunk) or not all(array.chunk):
        raise ValueError(
            f"{meta}: expected chunks with a size for each of {len(array.shape)} axes, "
            f"got {array.chunk}; {_ADVICE}"
        )
    stored = list(_stored(meta))
    pairs = zip(array.shape, array.chunk, strict=True)
    stated = math.prod(-(-size // chunk) for size, chunk in pairs)
    if stated > _FREE_CHUNKS + _FREE_RATIO * len(stored):
        raise ValueError(
            f"{meta}: expected about the {len(stored)} chunks that are stored, got a "
            f"shape of {stated:,} chunks; {_ADVICE}"
        )
    for file in stored:
        with files.reading(file, "a whole chunk", advice=_ADVICE):
            _check_chunk(file, array, path)


def _stored(meta: Path) -> Iterator[Path]:
    """Files of the chunks, which lie below the description of their array."""
    names = {".zarray", ".zattrs", "zarr.json"}
    return (p for p in meta.parent.rglob("*") if p.is_file() and p.name not in names)


def _check_chunk(file: Path, array: _Array, path: Path) -> None:
    texts = array.codecs[:1] == ["vlen-utf8"]
    elements = math.prod(array.chunk)
    outer = array.codecs[-1] if array.codecs else ""
    # The first bytes alone: a folder may hold more than memory does.
    with file.open("rb") as opened:
        size = _stated_bytes(outer, opened.read(32), file.stat().st_size)
    if size is not None:
        files.check_expansion(path, size, what=f"the chunk {file.name}")
        if array.itemsize and not texts and size > elements * array.itemsize:
            raise ValueError(
                f"{file}: expected at most {elements * array.itemsize:,} bytes for "
                f"{elements:,} elements, got {size:,}; {_ADVICE}"
            )
    if texts and (count := _text_count(file, array.codecs[1:])) > elements:
        raise ValueError(
            f"{file}: expected at most {elements} texts, got {count}; {_ADVICE}"
        )


def _stated_bytes(codec: str, head: bytes, length: int) -> int | None:
    """Bytes that a chunk says it expands to; None for a codec that says nothing."""
    if codec == "blosc":
        # Sizes at byte 4 (expanded) and 12 (of the chunk); blosc reads the latter.
        if len(head) < 16 or int.from_bytes(head[12:16], "little") != length:
            raise ValueError(f"its header states another length than {length}")
        return int.from_bytes(head[4:8], "little")
    if codec == "zstd":
        if head[:4] != b"\x28\xb5\x2f\xfd" or len(head) < 6:
            raise ValueError("it is no frame of zstd")
        flags = head[4]
        single = flags >> 5 & 1
        start = 6 - single + (0, 1, 2, 4)[flags & 3]
        width = (single, 2, 4, 8)[flags >> 6]
        size = int.from_bytes(head[start : start + width], "little")
        return (size + 256 if width == 2 else size) if width else None
    return None


def _text_count(file: Path, codecs: Sequence[str]) -> int:
    import numcodecs

    decoded: Any = files.read_bytes(file)
    for name in reversed(codecs):
        decoded = numcodecs.get_codec({"id": name}).decode(decoded)
    return int.from_bytes(bytes(memoryview(decoded)[:4]), "little")
