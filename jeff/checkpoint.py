"""Checkpoints of any pytree, written whole or not at all.

A thin layer over orbax. Leaves are stored under their path
(``params/layers/0/kernel``), so that a checkpoint can be opened without the code that
made it. Typed random keys are stored as their words. A restored tree goes straight into
the requested shapes, dtypes and shardings. Every failure names the checkpoint and the
leaf. Nothing is pickled.

A digest of each leaf, and of the record itself, is written beside the leaves and
compared when they are read, since orbax does not notice a changed bit of an array. One
case is not checked: a leaf that one process held when it was saved, restored split over
several processes.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from jeff import matching, named_leaves, orbax_options, stored
from jeff.sharding import is_local
from jeff.stored import DamagedError

__all__ = ["Checkpoints", "DamagedError", "metadata", "restore", "save"]


def save(
    path: str | Path, tree: PyTree, *, metadata: Mapping[str, Any] | None = None
) -> Path:
    """Write a pytree of arrays to a directory.

    The directory appears under its name only when it is complete. Of several processes
    all call this together, with one path. Where all arrays lie on devices of the
    first, it alone calls this.

    Args:
      path: directory to write; must not exist.
      tree: arrays, scalars and typed random keys in any pytree.
      metadata: anything JSON can hold, read back by `metadata`.

    Returns:
      The absolute path.

    Raises:
      FileExistsError: if ``path`` exists already.
      OSError: if it cannot be written, for example on a full disk.
      TypeError: if a leaf is not an array, its dtype cannot be stored, or the metadata
        is not JSON.
      ValueError: if two leaves have one path, or one's is the beginning of another's;
        or if all arrays lie on devices of another process than the first, which orbax
        does not write.
    """
    path = Path(path).absolute()
    if path.exists():
        raise FileExistsError(f"{path}: exists already; choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    args = stored.save_args(tree, metadata or {})
    with stored.writing(path), orbax_options.checkpointer(is_local(tree)) as writer:
        writer.save(path, args)
    return path


def restore(path: str | Path, like: PyTree | None = None) -> PyTree:
    """Read a checkpoint.

    Args:
      path: directory written by `save` or by `Checkpoints` (then ``<dir>/<step>``).
      like: a pytree of arrays or `jax.ShapeDtypeStruct`; the result has its structure,
        and each leaf its shape, dtype and sharding. Without it the result is a nested
        dictionary of arrays, keyed by the parts of each leaf's path.

    Returns:
      The pytree. A number of Python in ``like`` is one in the result. A leaf of 64 bits
      is a numpy array unless JAX is set to 64 bits, which would cut it short.

    Raises:
      DamagedError: if it cannot be read, or a leaf is not the one saved; a ValueError.
      FileNotFoundError: if there is no checkpoint at ``path``.
      ValueError: if it differs from ``like``; names what differs.
    """
    path = Path(path).absolute()
    record = stored.read_record(path)
    target = matching.match(stored.describe(path, record), record["keys"], like, path)
    leaves = stored.read_leaves(path, target, record["empty"])
    stored.check(path, leaves, record["digests"])
    for name, kind in record["keys"].items():
        leaves[name] = jax.random.wrap_key_data(leaves[name], impl=kind)
    if like is None:
        return named_leaves.nest(leaves)
    names, given, treedef = named_leaves.flatten(like)
    restored = [
        leaves[name].item()
        if isinstance(leaf, bool | int | float | complex)
        else leaves[name]
        for name, leaf in zip(names, given, strict=True)
    ]
    return jax.tree.unflatten(treedef, restored)


def metadata(path: str | Path) -> dict[str, Any]:
    """Read the metadata that was saved beside a checkpoint.

    Args:
      path: directory of the checkpoint.

    Returns:
      The dictionary given to `save`.

    Raises:
      DamagedError: if it cannot be read, or is not the one saved; a ValueError.
      FileNotFoundError: if there is no checkpoint at ``path``.
    """
    return stored.read_record(path)["user"]


class Checkpoints:
    """The checkpoints of one training run: ``<directory>/<step>``.

    Writing continues in the background during training; a step's directory appears when
    it is complete. Use it as a context manager: leaving it waits for the last write.
    """

    def __init__(
        self, directory: str | Path, *, keep: int = 2, like: PyTree | None = None
    ):
        """Open a directory of checkpoints, making it where it is missing.

        Args:
          directory: where the steps are, or will be.
          keep: how many of the newest checkpoints to keep.
          like: arrays that are placed as those to be saved. Of several processes, one
            whose devices hold all of them has the directory for itself.

        Raises:
          ValueError: if that is another process than the first.
        """
        self.directory = Path(directory).absolute()
        one = is_local(like)
        options = orbax_options.processes(one)
        if one:  # orbax makes no directory for one of several processes
            self.directory.mkdir(parents=True, exist_ok=True)
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_handlers=orbax_options.handlers(options),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                create=not one,
                multiprocessing_options=options,
            ),
        )
        self._writing: Path = self.directory

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

        Raises:
          OSError: if this checkpoint, or the one before it, could not be written.
        """
        # The write is asynchronous; the next chunk overwrites donated buffers
        # meanwhile.
        copy = jax.tree.map(
            lambda leaf: jnp.copy(leaf) if isinstance(leaf, jax.Array) else leaf, tree
        )
        args = stored.save_args(copy, metadata)
        # An error of the write before comes out here, so it must have its name.
        self._finish()
        self._writing = self.directory / str(step)
        with stored.writing(self._writing):
            self._manager.save(step, args=args)

    def restore(self, step: int, like: PyTree) -> PyTree:
        """Read the checkpoint of a step.

        Args:
          step: number of finished steps.
          like: as in `jeff.checkpoint.restore`.

        Returns:
          The pytree.

        Raises:
          DamagedError: as in `jeff.checkpoint.restore`; says from which step a run goes
            on once this checkpoint is deleted.
          FileNotFoundError: if there is no checkpoint of this step.
          ValueError: as in `jeff.checkpoint.restore`.
        """
        with self._advice(step):
            return restore(self.directory / str(step), like)

    def metadata(self, step: int) -> dict[str, Any]:
        """Read the metadata of the checkpoint of a step.

        Args:
          step: number of finished steps.

        Returns:
          The dictionary given to `save`.

        Raises:
          DamagedError: as in `restore`.
          FileNotFoundError: if there is no checkpoint of this step.
        """
        with self._advice(step):
            return metadata(self.directory / str(step))

    def __enter__(self) -> "Checkpoints":
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for writes in the background and close."""
        try:
            self._finish()
        finally:
            try:
                # Waits for the last write too, and raises what it raised.
                with stored.writing(self._writing):
                    self._manager.close()
            finally:
                # Another thread of orbax may have written on after the first one
                # failed; now all have ended.
                stored.remove_unfinished(self._writing)

    def _finish(self) -> None:
        with stored.writing(self._writing):
            self._manager.wait_until_finished()

    @contextmanager
    def _advice(self, step: int) -> Iterator[None]:
        try:
            yield
        except DamagedError as error:
            earlier = [each for each in self._manager.all_steps() if each < step]
            start = f"step {max(earlier)}" if earlier else "the beginning"
            raise DamagedError(
                f"{error}. To go on from {start}, delete {self.directory / str(step)} "
                "and give the same command again"
            ) from error
