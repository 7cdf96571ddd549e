"""How a checkpoint lies on disk: leaves, a record beside them, and checks of both.

The functions below `jeff.checkpoint`. orbax stores arrays under flat names; the record
is JSON with the user's metadata, the kinds of typed keys, and the digests.
"""

import errno
import glob
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jaxtyping import PyTree

from jeff import digests, named_leaves, storable
from jeff.orbax_options import LEAVES, RECORD, checkpointer
from jeff.sharding import is_local

__all__ = [
    "DamagedError",
    "check",
    "describe",
    "read_leaves",
    "read_record",
    "remove_unfinished",
    "save_args",
    "writing",
]

# Of a record, without and with digests.
_OLD, _FIELDS = {"user", "keys"}, {"user", "keys", "empty", "digests", "seal"}


class DamagedError(ValueError):
    """A checkpoint that cannot be read, or whose contents are not those saved."""


def save_args(tree: PyTree, user: Mapping[str, Any]) -> ocp.args.Composite:
    """Arguments with which orbax writes a checkpoint.

    Args:
      tree: arrays, numbers and typed random keys.
      user: the user's metadata.

    Returns:
      The arguments, digests included.

    Raises:
      TypeError: if a leaf is not an array, its dtype cannot be stored, or the metadata
        is not JSON.
      ValueError: if two leaves would have one name; names it.
    """
    # orbax stores plain arrays: a typed key is stored as its words and implementation.
    names, leaves, _ = named_leaves.flatten(tree)
    arrays, keys = {}, {}
    for name, leaf in zip(names, leaves, strict=True):
        if named_leaves.is_key(leaf):
            keys[name] = str(jax.random.key_impl(leaf))
            arrays[name] = jax.random.key_data(leaf)
        else:
            arrays[name] = storable.storable(name, leaf)
    if len(arrays) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(
            f"{double}: expected one leaf of this name, got two; parts of a path are "
            "joined by slashes: rename the part that has a slash in it, or no name"
        )
    named_leaves.nest(arrays)  # refuses names that cannot be read back by path
    try:
        json.dumps(dict(user))  # checked before anything is written
    except (TypeError, ValueError) as error:
        raise TypeError(f"metadata: expected what JSON can hold; {error}") from error
    record = {
        "user": dict(user),
        "keys": keys,
        # orbax refuses arrays without elements.
        "empty": {
            name: [array.dtype.name, list(array.shape)]
            for name, array in arrays.items()
            if not array.size
        },
        "digests": digests.array_digests(arrays),
    }
    record["seal"] = digests.json_digest(record)
    full = {name: array for name, array in arrays.items() if array.size}
    if is_local(full):  # orbax takes arrays of JAX from all processes together only
        full = {name: np.asarray(array) for name, array in full.items()}
    # Nor does orbax write a tree without leaves.
    leaves_args = {LEAVES: ocp.args.PyTreeSave(full)} if full else {}
    return ocp.args.Composite(**leaves_args, **{RECORD: ocp.args.JsonSave(record)})


def _existing(path: str | Path) -> Path:
    path = Path(path).absolute()
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: expected a checkpoint directory, found none")
    return path


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn whatever orbax raises while it writes into an error that names the folder.

    Args:
      path: directory of the checkpoint.

    Yields:
      Nothing.

    Raises:
      OSError: if the block raises.
    """
    try:
        yield
    except Exception as error:  # a full disk is a ValueError of tensorstore
        remove_unfinished(path)
        full = "No space left on device" in str(error)
        why = "no space left on the disk" if full else _reason(error)
        raise OSError(
            errno.ENOSPC if full else 0,
            f"{path}: the checkpoint could not be written ({why}); earlier ones are "
            "kept: make room, or choose another folder",
        ) from error


def remove_unfinished(path: Path) -> None:
    """Remove what a failed write of a checkpoint left.

    Args:
      path: directory that the checkpoint would have had.
    """
    for left in path.parent.glob(f"{glob.escape(path.name)}.orbax-checkpoint-tmp*"):
        shutil.rmtree(left, ignore_errors=True)


def _reason(error: Exception) -> str:
    line = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {line[:300]}"


def _damaged(path: Path, found: str) -> DamagedError:
    return DamagedError(
        f"{path}: expected the checkpoint as it was saved, but {found}; restore an "
        "earlier one or train again"
    )


def _read(path: Path, args: ocp.args.Composite, one: bool) -> Any:
    try:
        with checkpointer(one, writes=False) as reader:
            return reader.restore(path, args)
    except Exception as error:  # orbax raises many kinds for a damaged file
        raise _damaged(path, f"it cannot be read ({_reason(error)})") from error


def read_record(path: str | Path) -> dict[str, Any]:
    """Read and check the record beside the leaves.

    Args:
      path: directory of the checkpoint.

    Returns:
      The record: ``user``, ``keys``, ``empty`` and ``digests``, which are None in a
      checkpoint of an earlier jeff, with a warning.

    Raises:
      DamagedError: if it cannot be read, or is not the one saved.
      FileNotFoundError: if there is no checkpoint at ``path``.
    """
    path = _existing(path)
    # The record is a small file, which each process can read without the others.
    request = ocp.args.Composite(**{RECORD: ocp.args.JsonRestore()})
    record = _read(path, request, jax.process_count() > 1)[RECORD]
    if not isinstance(record, dict) or set(record) not in (_OLD, _FIELDS):
        raise _damaged(path, "its metadata are not those of jeff")
    if set(record) == _OLD:
        warnings.warn(
            f"{path}: this checkpoint has no digests, as it was written by an earlier "
            "jeff: it is read, but damage to its numbers would not be noticed",
            stacklevel=3,
        )
        return record | {"empty": {}, "digests": None}
    seal = record.pop("seal")
    if digests.json_digest(record) != seal:
        raise _damaged(path, "its metadata changed")
    return record


def describe(path: Path, record: dict[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of each stored leaf, without reading any.

    Args:
      path: directory of the checkpoint.
      record: the record, as given by `read_record`.

    Returns:
      Shape and dtype by name.

    Raises:
      DamagedError: if the index cannot be read or lacks a leaf.
    """
    stored = {
        name: jax.ShapeDtypeStruct(tuple(shape), jnp.dtype(dtype))
        for name, (dtype, shape) in record["empty"].items()
    }
    if record["digests"] is not None and set(record["digests"]) <= set(stored):
        return stored
    try:
        index = ocp.PyTreeCheckpointHandler().metadata(epath.Path(path / LEAVES))
        for name, leaf in index.tree.items():
            stored[name] = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    except Exception as error:
        raise _damaged(path, f"its index cannot be read ({_reason(error)})") from error
    if record["digests"] is not None and set(stored) != set(record["digests"]):
        differ = sorted(set(stored) ^ set(record["digests"]))
        raise _damaged(path, f"its index differs in {differ[:5]}")
    return stored


def read_leaves(
    path: Path, target: dict[str, jax.ShapeDtypeStruct], empty: Mapping[str, Any]
) -> dict[str, Any]:
    """Read the leaves, in the shapes, dtypes and shardings asked for.

    Args:
      path: directory of the checkpoint.
      target: what each leaf should be, as given by `jeff.matching.match`.
      empty: names of the leaves without elements, which orbax does not hold.

    Returns:
      Leaves by name; typed keys as their words.

    Raises:
      DamagedError: if they cannot be read.
    """
    leaves: dict[str, Any] = {}
    for name in empty:
        leaf = np.zeros(target[name].shape, target[name].dtype)
        narrow = _narrows(leaf.dtype)
        leaves[name] = leaf if narrow else jax.device_put(leaf, target[name].sharding)
    full = {name: leaf for name, leaf in target.items() if name not in empty}
    if not full:
        return leaves
    restore_args = ocp.checkpoint_utils.construct_restore_args(full)
    for name, leaf in full.items():
        if _narrows(leaf.dtype):
            restore_args[name] = ocp.RestoreArgs(restore_type=np.ndarray)
    request = ocp.args.PyTreeRestore(full, restore_args=restore_args)
    request = ocp.args.Composite(**{LEAVES: request})
    return leaves | _read(path, request, is_local(full))[LEAVES]


def check(
    path: Path, leaves: Mapping[str, Any], found: Mapping[str, str] | None
) -> None:
    """Compare leaves with their digests.

    Args:
      path: directory of the checkpoint.
      leaves: leaves by name.
      found: digests by name, or None where the checkpoint has none.

    Raises:
      DamagedError: if a leaf differs.
    """
    if (name := digests.first_changed(leaves, found or {})) is not None:
        raise _damaged(path, f"the numbers of the leaf {name} changed")


def _narrows(dtype: Any) -> bool:
    return jax.dtypes.canonicalize_dtype(dtype) != dtype
