"""Files of tensors: GGUF and safetensors read, safetensors written.

This module knows no architectures. Opening a file reads only its header; a tensor is
read, and dequantised, on request. Plain types are memory-mapped without a copy.
Truncating a file that is in use ends the process, so replace files by renaming, as
`save_safetensors` does.
"""

import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jeff import files
from jeff_llm.models.gguf_header import parse_gguf
from jeff_llm.models.safetensors_header import parse_safetensors
from jeff_llm.models.safetensors_writer import save_safetensors
from jeff_llm.models.tensor_info import NUMPY_DTYPES, Header

__all__ = [
    "LazyTensor",
    "TensorFile",
    "open_gguf",
    "open_safetensors",
    "save_safetensors",
]

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
# Numbers dequantised at a time, 1 MB of them: they stay in the processor's cache.
_CHUNK = 1 << 18


@dataclass(frozen=True, eq=False)
class LazyTensor:
    """One tensor of a file, read on request.

    Attributes:
      name: its name in the file.
      shape: its shape in numpy's order, that of the torch weight: [out, in].
      dtype: its type in the file: ``F32``, ``BF16``, ``I64``, ``Q4_1`` and so on.
      raw: its bytes, memory-mapped.
      path: the file.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    raw: np.ndarray = field(repr=False)
    path: Path

    def read(self) -> np.ndarray:
        """Read the tensor; several threads may read at a time, which is faster.

        Returns:
          The array: float32 where the file holds a quantised type, else the file's own
          type (`ml_dtypes.bfloat16` for ``BF16``), read-only and memory-mapped.

        Raises:
          ValueError: if the package gguf cannot dequantise the type.
        """
        plain = NUMPY_DTYPES.get(self.dtype)
        if plain is not None:
            return self.raw.view(plain).reshape(self.shape)
        try:
            return _dequantise(self.raw, self.dtype).reshape(self.shape)
        except NotImplementedError as error:
            raise ValueError(
                f"{self.path}: tensor {self.name!r}: expected a quantisation type that "
                f"gguf can dequantise, got {self.dtype}; get another quantisation"
            ) from error


class TensorFile(Mapping[str, LazyTensor]):
    """The tensors of a file, or of a set of files, by name.

    Attributes:
      path: the file or directory that was opened.
      metadata: the key-value fields of GGUF, or ``__metadata__`` of safetensors, as
        plain Python values.
    """

    path: Path
    metadata: dict[str, Any]

    def __init__(
        self, path: Path, tensors: Mapping[str, LazyTensor], metadata: dict[str, Any]
    ):
        """Gather tensors; `open_gguf` and `open_safetensors` do it from files.

        Args:
          path: as above.
          tensors: the tensors by name.
          metadata: as above.
        """
        self.path, self.metadata, self._tensors = path, metadata, dict(tensors)

    def __getitem__(self, name: str) -> LazyTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return f"TensorFile({str(self.path)!r}, {len(self)} tensors)"


def open_gguf(path: str | Path) -> TensorFile:
    """Open a GGUF file, as llama.cpp writes them.

    Args:
      path: the file, of version 2 or 3.

    Returns:
      Its tensors, and its key-value fields as ``metadata``.

    Raises:
      FileNotFoundError: if there is no file at ``path``.
      ValueError: if it is not a GGUF file, or damaged; names the key or the tensor.
    """
    return _open(Path(path), parse_gguf)


def open_safetensors(path: str | Path) -> TensorFile:
    """Open a safetensors file, or a directory of them.

    Args:
      path: a file, or a directory with ``model.safetensors``, or else with the shards
        that its ``model.safetensors.index.json`` lists.

    Returns:
      The tensors.

    Raises:
      FileNotFoundError: if there is no file at ``path``, no weights in the directory,
        or a shard is missing.
      ValueError: if a file is not a safetensors file, or damaged, or the index does not
        fit the shards; names the file and the tensor.
    """
    path = Path(path)
    if not path.is_dir():
        return _open(path, parse_safetensors)
    single, index = path / _SINGLE, path / _INDEX
    if single.is_file():
        return _open(single, parse_safetensors)
    if not index.is_file():
        raise FileNotFoundError(
            f"{path}: expected {single.name} or {index.name} in the directory, found "
            f"neither among {sorted(item.name for item in path.iterdir())[:20]}"
        )
    return _open_shards(path, index)


def _open(path: Path, parse: Callable[[mmap.mmap | bytes, str], Header]) -> TensorFile:
    if not path.is_file():
        found = "a directory" if path.is_dir() else "nothing"
        raise FileNotFoundError(f"{path}: expected a file of tensors, found {found}")
    with path.open("rb") as file:
        # An empty file cannot be mapped.
        empty = not os.fstat(file.fileno()).st_size
        data = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # All tensors are views of one map: the file stays open as long as one is in use.
    header = parse(data, str(path))
    raw = np.frombuffer(data, np.uint8)
    tensors = {
        info.name: LazyTensor(
            info.name, info.shape, info.dtype, raw[info.start : info.stop], path
        )
        for info in header.tensors
    }
    return TensorFile(path, tensors, header.metadata)


def _open_shards(folder: Path, index: Path) -> TensorFile:
    weight_map, metadata = _read_index(index)
    shards = {}
    for name in sorted(set(weight_map.values())):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder / name}: expected this shard, which {index.name} lists; "
                "bring the missing file"
            )
        shards[name] = _open(folder / name, parse_safetensors)
    for tensor, name in weight_map.items():
        if tensor not in shards[name]:
            raise ValueError(
                f"{folder / name}: expected the tensor {tensor!r} in this shard, where "
                f"{index.name} puts it; it has none: the files do not belong together"
            )
    tensors = {tensor: shards[name][tensor] for tensor, name in weight_map.items()}
    return TensorFile(folder, tensors, metadata)


def _read_index(index: Path) -> tuple[dict[str, str], dict[str, Any]]:
    what = "a JSON object whose weight_map gives the shard of each tensor"
    try:
        content = files.parse_json(files.read_bytes(index), "the index")
        weight_map = dict(content["weight_map"])
        metadata = dict(content.get("metadata") or {})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{index}: expected {what} ({type(error).__name__}: {error})"
        ) from error
    for tensor, name in weight_map.items():
        # An index from outside must not name a file in another folder.
        if not isinstance(name, str) or Path(name).name != name or "\0" in name:
            raise ValueError(
                f"{index}: tensor {tensor!r}: expected the name of a file beside the "
                f"index, got {name!r:.100}"
            )
    return weight_map, metadata


def _dequantise(raw: np.ndarray, dtype: str) -> np.ndarray:
    """Float32 numbers of quantised bytes, in order."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    kind = GGMLQuantizationType[dtype]
    block, block_bytes = GGML_QUANT_SIZES[kind]
    step = _CHUNK // block
    blocks = raw.reshape(-1, block_bytes)
    numbers = np.empty((len(blocks), block), np.float32)
    # A damaged scale may be infinite; that is for the caller to notice.
    with np.errstate(all="ignore"):
        for start in range(0, len(blocks), step):
            part = blocks[start : start + step]
            # One long row, because gguf walks over rows in Python.
            row = dequantize(part.reshape(1, -1), kind)
            numbers[start : start + step] = row.reshape(-1, block)
    return numbers
