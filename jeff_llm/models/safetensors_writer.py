"""Write safetensors in the layout of transformers: one file, or shards with an index.

The package `safetensors` writes each file. This module adds what it lacks:

* Arrays are requested one shard at a time, so memory never holds a second model.
* Files get their final names only when all of them are complete.
* A tensor named ``__metadata__`` is rejected, since no reader can open it.
* Strided arrays are made contiguous; the package would write them in memory order.
"""

import contextlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from jeff.extras import require
from jeff_llm.models.tensor_info import NUMPY_DTYPES

__all__ = ["save_safetensors"]

ArraySource: TypeAlias = np.ndarray | Callable[[], np.ndarray]

_NAMES = {dtype: name for name, dtype in NUMPY_DTYPES.items()}


def save_safetensors(
    path: str | Path,
    tensors: Mapping[str, ArraySource],
    *,
    metadata: Mapping[str, str] | None = None,
    max_shard_bytes: int | float = 5e9,
) -> Path:
    """Write tensors as one safetensors file, or as shards with an index.

    Files are written under temporary names and renamed when all are complete. They
    replace earlier files under ``path``. Memory holds one shard at a time.

    Args:
      path: a name that ends in ``.safetensors``, or a directory, which is created if
        missing and gets ``model.safetensors``.
      tensors: arrays by name, or functions that return an array when it is needed.
      metadata: texts for the header, in addition to ``{"format": "pt"}``, which
        transformers requires.
      max_shard_bytes: maximum size of the data in one file, in bytes. Larger models are
        split into several files and ``<name>.safetensors.index.json``. A tensor that is
        larger than this gets a file to itself.

    Returns:
      The path of the file, or of the index.

    Raises:
      OSError: if it cannot be written, as on a full disk; names the file, whose old
        content stays.
      TypeError: if the format does not support the type of a tensor or metadata value.
      ValueError: if a tensor is named ``__metadata__``, or ``max_shard_bytes`` is not
        positive.
    """
    if not max_shard_bytes > 0:
        raise ValueError(f"max_shard_bytes: expected > 0, got {max_shard_bytes}")
    texts = _texts(metadata or {})
    path = Path(path)
    target = path if path.suffix == ".safetensors" else path / "model.safetensors"
    with _naming(target), contextlib.ExitStack() as temporary:
        target.parent.mkdir(parents=True, exist_ok=True)
        parts = [
            _write(_part(target, temporary), shard, texts)
            for shard in _shards(tensors, max_shard_bytes)
        ]
        if len(parts) == 1:
            os.replace(parts[0].path, target)
            _index(target).unlink(missing_ok=True)
            return target
        index_part = _part(target, temporary)
        return _rename_set(parts, index_part, target)


@contextlib.contextmanager
def _naming(target: Path) -> Iterator[None]:
    """Turn a refusal of the system into the error of `jeff.files.replacing`."""
    errors = require("safetensors", extra="llm").SafetensorError
    # Its own temporary names, since the number of shards is in their final names.
    try:
        yield
    except (OSError, errors) as error:
        number = getattr(error, "errno", None)
        if stated := re.search(r"os error (\d+)", str(error)):
            number = int(stated[1])
        if number is None:
            raise
        raise OSError(
            number,
            f"{target}: could not be written ({os.strerror(number)}); its old content, "
            "if any, is kept: make room, or choose another folder",
        ) from error


class _Part(NamedTuple):
    """A complete file under its temporary name."""

    path: Path
    names: list[str]
    size: int


def _index(target: Path) -> Path:
    return target.with_name(target.name + ".index.json")


def _rename_set(parts: list[_Part], index_part: Path, target: Path) -> Path:
    weight_map: dict[str, str] = {}
    # Remove the old index first: if the process is killed while renaming, readers find
    # no index rather than one that mixes old and new shards.
    _index(target).unlink(missing_ok=True)
    for number, part in enumerate(parts, 1):
        name = f"{target.stem}-{number:05}-of-{len(parts):05}.safetensors"
        os.replace(part.path, target.with_name(name))
        weight_map |= dict.fromkeys(part.names, name)
    size = sum(part.size for part in parts)
    content = {"metadata": {"total_size": size}, "weight_map": weight_map}
    index_part.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    os.replace(index_part, _index(target))
    target.unlink(missing_ok=True)
    return _index(target)


def _texts(metadata: Mapping[str, str]) -> dict[str, str]:
    for name, value in metadata.items():
        if not isinstance(value, str):
            raise TypeError(f"metadata[{name!r}]: expected a text, got {value!r}")
    return {"format": "pt", **metadata}


def _part(target: Path, temporary: contextlib.ExitStack) -> Path:
    """Choose a temporary name beside ``target``; closing the stack deletes the file."""
    name = f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.part"
    part = target.with_name(name)
    temporary.callback(part.unlink, missing_ok=True)
    return part


def _shards(
    tensors: Mapping[str, ArraySource], max_bytes: int | float
) -> Iterator[dict[str, np.ndarray]]:
    """Group arrays, in order, into shards of at most ``max_bytes``."""
    shard: dict[str, np.ndarray] = {}
    size = 0
    for name, source in tensors.items():
        array = _array(name, source)
        if shard and size + array.nbytes > max_bytes:
            yield shard
            shard, size = {}, 0
        shard[name] = array
        size += array.nbytes
    yield shard


def _array(name: str, source: ArraySource) -> np.ndarray:
    if name == "__metadata__":
        raise ValueError("a tensor cannot be named '__metadata__'; rename it")
    array = source() if callable(source) else source
    if not isinstance(array, np.ndarray) or _little(array.dtype) not in _NAMES:
        got = getattr(array, "dtype", type(array).__name__)
        raise TypeError(
            f"tensor {name!r}: expected a numpy array of a type among "
            f"{', '.join(_NAMES.values())}, got {got}"
        )
    return array.astype(_little(array.dtype), order="C", copy=False)


def _little(dtype: np.dtype) -> np.dtype:
    # The format is little-endian on every machine.
    return dtype.newbyteorder("<")


def _write(path: Path, arrays: dict[str, np.ndarray], texts: dict[str, str]) -> _Part:
    package = require("safetensors.numpy", extra="llm")
    package.save_file(arrays, path, texts)
    return _Part(path, list(arrays), sum(array.nbytes for array in arrays.values()))
