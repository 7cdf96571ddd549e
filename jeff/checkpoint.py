"""Checkpoints of any pytree, written whole or not at all.

A thin layer over orbax. Leaves are stored under their path
(``params/layers/0/kernel``), so that a checkpoint can be opened without the code that
made it. Typed random keys are stored as their words. A restored tree goes straight into
the requested shapes, dtypes and shardings. Every failure names the checkpoint and the
leaf. Nothing is pickled.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import SingleDeviceSharding
from jaxtyping import PyTree

__all__ = ["Checkpoints", "metadata", "restore", "save"]

_LEAVES, _META = "leaves", "metadata"


def save(
    path: str | Path, tree: PyTree, *, metadata: Mapping[str, Any] | None = None
) -> Path:
    """Write a pytree of arrays to a directory.

    The directory appears under its name only when it is complete.

    Args:
      path: directory to write; must not exist.
      tree: arrays, scalars and typed random keys in any pytree.
      metadata: anything JSON can hold, read back by `metadata`.

    Returns:
      The absolute path.

    Raises:
      FileExistsError: if ``path`` exists already.
      TypeError: if a leaf is not an array or the metadata is not JSON.
    """
    path = Path(path).absolute()
    if path.exists():
        raise FileExistsError(f"{path}: exists already; choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        checkpointer.save(path, _save_args(tree, metadata or {}))
    return path


def restore(path: str | Path, like: PyTree | None = None) -> PyTree:
    """Read a checkpoint.

    Args:
      path: directory written by `save` or by `Checkpoints` (then ``<dir>/<step>``).
      like: a pytree of arrays or `jax.ShapeDtypeStruct`; the result has its structure,
        and each leaf its shape, dtype and sharding. Without it the result is a nested
        dictionary of arrays, keyed by the parts of each leaf's path.

    Returns:
      The pytree.

    Raises:
      FileNotFoundError: if there is no checkpoint at ``path``.
      ValueError: if it cannot be read, or differs from ``like``; names what differs.
    """
    path = Path(path).absolute()
    stored, keys = _describe(path), metadata(path, internal=True)["keys"]
    target = _target(stored, keys, like, path)
    restore_args = ocp.checkpoint_utils.construct_restore_args(target)
    leaves = _read(
        path,
        ocp.args.Composite(
            **{_LEAVES: ocp.args.PyTreeRestore(target, restore_args=restore_args)}
        ),
    )[_LEAVES]
    leaves = {
        name: jax.random.wrap_key_data(leaf, impl=keys[name]) if name in keys else leaf
        for name, leaf in leaves.items()
    }
    if like is None:
        return _nest(leaves)
    names, _, treedef = _flatten(like)
    return jax.tree.unflatten(treedef, [leaves[name] for name in names])


def metadata(path: str | Path, *, internal: bool = False) -> dict[str, Any]:
    """Read the metadata that was saved beside a checkpoint.

    Args:
      path: directory of the checkpoint.
      internal: return the whole record (``user`` and ``keys``) instead of the user's.

    Returns:
      The dictionary given to `save`.

    Raises:
      FileNotFoundError: if there is no checkpoint at ``path``.
      ValueError: if it cannot be read.
    """
    path = _existing(path)
    record = _read(path, ocp.args.Composite(**{_META: ocp.args.JsonRestore()}))[_META]
    return record if internal else record["user"]


class Checkpoints:
    """The checkpoints of one training run: ``<directory>/<step>``.

    Writing continues in the background during training; a step's directory appears when
    it is complete. Use it as a context manager: leaving it waits for the last write.
    """

    def __init__(self, directory: str | Path, *, keep: int = 2):
        """Open a directory of checkpoints, making it where it is missing.

        Args:
          directory: where the steps are, or will be.
          keep: how many of the newest checkpoints to keep.
        """
        self.directory = Path(directory).absolute()
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
        )

    def latest(self) -> int | None:
        """Find the newest complete checkpoint.

        Returns:
          Its step, or None where there is none.
        """
        return self._manager.latest_step()

    def save(self, step: int, tree: PyTree, *, metadata: Mapping[str, Any]) -> None:
        """Start writing ``tree`` as the checkpoint of ``step``.

        The arrays are copied on the device first, so that the caller may donate them.

        Args:
          step: number of finished steps; must grow from call to call.
          tree: as in `jeff.checkpoint.save`.
          metadata: as in `jeff.checkpoint.save`.
        """
        # The write is asynchronous; the next chunk overwrites donated buffers
        # meanwhile.
        copy = jax.tree.map(
            lambda leaf: jnp.copy(leaf) if isinstance(leaf, jax.Array) else leaf, tree
        )
        self._manager.save(step, args=_save_args(copy, metadata))

    def restore(self, step: int, like: PyTree) -> PyTree:
        """Read the checkpoint of a step.

        Args:
          step: number of finished steps.
          like: as in `jeff.checkpoint.restore`.

        Returns:
          The pytree.

        Raises:
          FileNotFoundError: if there is no checkpoint of this step.
          ValueError: as in `jeff.checkpoint.restore`.
        """
        return restore(self.directory / str(step), like)

    def metadata(self, step: int) -> dict[str, Any]:
        """Read the metadata of the checkpoint of a step.

        Args:
          step: number of finished steps.

        Returns:
          The dictionary given to `save`.

        Raises:
          FileNotFoundError: if there is no checkpoint of this step.
          ValueError: if it cannot be read.
        """
        return metadata(self.directory / str(step))

    def __enter__(self) -> "Checkpoints":
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for writes in the background and close."""
        self._manager.wait_until_finished()
        self._manager.close()


def _path_name(path: tuple[Any, ...]) -> str:
    # A bare array has an empty path.
    return jax.tree_util.keystr(path, simple=True, separator="/") or "value"


def _flatten(tree: PyTree) -> tuple[list[str], list[Any], Any]:
    leaves, treedef = jax.tree_util.tree_flatten_with_path(tree)
    return (
        [_path_name(path) for path, _ in leaves],
        [leaf for _, leaf in leaves],
        treedef,
    )


def _is_key(leaf: Any) -> bool:
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def _save_args(tree: PyTree, user: Mapping[str, Any]) -> ocp.args.Composite:
    # orbax stores plain arrays: a typed key is stored as its words and implementation.
    names, leaves, _ = _flatten(tree)
    arrays, keys = {}, {}
    for name, leaf in zip(names, leaves, strict=True):
        if _is_key(leaf):
            keys[name] = str(jax.random.key_impl(leaf))
            arrays[name] = jax.random.key_data(leaf)
        else:
            arrays[name] = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
        if arrays[name].dtype == object:
            raise TypeError(f"{name}: expected an array or a number, got {type(leaf)}")
    record = {"user": dict(user), "keys": keys}
    try:
        # Checked before anything is written.
        json.dumps(record)
    except TypeError as error:
        raise TypeError(f"metadata: expected what JSON can hold; {error}") from error
    return ocp.args.Composite(
        **{
            _LEAVES: ocp.args.PyTreeSave(arrays),
            _META: ocp.args.JsonSave(record),
        }
    )


def _existing(path: str | Path) -> Path:
    path = Path(path).absolute()
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: expected a checkpoint directory, found none")
    return path


def _read(path: Path, args: ocp.args.Composite) -> Any:
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            return checkpointer.restore(path, args)
    except Exception as error:  # orbax raises many kinds for a damaged file
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"{path}: expected a complete checkpoint, but it cannot be read "
            f"({type(error).__name__}: {reason}); restore an earlier one or train again"
        ) from error


def _describe(path: Path) -> dict[str, jax.ShapeDtypeStruct]:
    _existing(path)
    try:
        # The index alone: shapes and dtypes without reading an array.
        index = ocp.PyTreeCheckpointHandler().metadata(epath.Path(path / _LEAVES))
        return {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
            for name, leaf in index.tree.items()
        }
    except Exception as error:
        raise ValueError(
            f"{path}: expected a checkpoint written by jeff, but its index cannot be "
            f"read ({type(error).__name__}); restore an earlier one or train again"
        ) from error


def _target(
    stored: dict[str, jax.ShapeDtypeStruct],
    keys: dict[str, str],
    like: PyTree | None,
    path: Path,
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape, dtype and sharding of each stored leaf, checked against ``like``."""
    # Without a sharding in `like` a leaf goes to the default device: the devices on
    # which it was saved may not exist here.
    here = SingleDeviceSharding(jax.devices()[0])
    if like is None:
        return {name: _struct(leaf, here) for name, leaf in stored.items()}
    names, leaves, _ = _flatten(like)
    # By name and not by place: a tree of another structure must not be filled in
    # silence.
    missing, surplus = set(names) - set(stored), set(stored) - set(names)
    if missing or surplus:
        raise ValueError(
            f"{path}: the checkpoint is of another structure: it lacks "
            f"{sorted(missing)[:5]} and has {sorted(surplus)[:5]} besides; build "
            "`like` as it was when the checkpoint was written"
        )
    target = {}
    for name, leaf in zip(names, leaves, strict=True):
        if _is_key(leaf) != (name in keys):
            raise ValueError(f"{path}: {name}: one side is a random key, one is not")
        sharding = getattr(leaf, "sharding", None) or here
        if not _is_key(leaf):
            wanted = jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))
            if (stored[name].shape, stored[name].dtype) != (wanted.shape, wanted.dtype):
                raise ValueError(
                    f"{path}: {name}: expected {wanted.dtype}{wanted.shape}, the "
                    f"checkpoint holds {stored[name].dtype}{stored[name].shape}"
                )
        target[name] = _struct(stored[name], sharding)
    return target


def _struct(leaf: Any, sharding: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _nest(leaves: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree
