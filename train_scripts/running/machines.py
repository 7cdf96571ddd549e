"""The devices and processes of a run: ``--mesh data=8`` and ``--distributed``.

They belong to the machine and not to the experiment: no configuration holds them, and
an interrupted run goes on with others. The devices of a mesh share each batch.
Processes share an experiment's pieces, such as its seeds or texts: each computes its
own on its own devices, and stores them in the folder of the run, which all must see.
The first process then goes on alone, reads what all have stored, and writes the result.
"""

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jaxtyping import PyTree

from jeff import files, sharding
from train_scripts.running.options import (
    Done,
    Options,
    OtherProcessError,
    cluster,
    sizes,
)

__all__ = [
    "batch_sharding",
    "deal",
    "first",
    "first_alone",
    "join",
    "kept",
    "meet",
    "mesh",
    "open_together",
    "placed",
    "several",
]

# Longer than any run: what has died ends the waiting, and not the clock.
_WEEK = 7 * 24 * 3600 * 1000

Item = TypeVar("Item")


class _Machine:
    """What the command line says of this process's machine; one for the process."""

    mesh: Mesh | None = None
    runs: int = 0  # runs that were begun, whose messages must not be mixed up
    dealt: bool = False


_MACHINE = _Machine()


def join(options: Options, *, together: bool = False) -> None:
    """Join the other processes, and lay out the mesh. Before any other use of JAX.

    Args:
      options: of `train_scripts.running.options.take`.
      together: lay the mesh over the devices of all processes, whose work is one
        computation; by default each process has a mesh of its own.

    Raises:
      ValueError: if the mesh does not fit the devices, or the other processes are not
        found.
    """
    if options.distributed:
        address, count, number = cluster(options.distributed) or (None, None, None)
        try:
            # Where one fails, the others are not waited for as long as JAX would.
            jax.distributed.initialize(
                address, count, number, shutdown_timeout_seconds=60
            )
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"--distributed: expected a cluster that JAX can join ({error}); name "
                "it by hand: --distributed HOST:PORT,COUNT,NUMBER"
            ) from error
    devices = jax.devices() if together else jax.local_devices()
    _MACHINE.mesh = None
    if options.mesh or (together and len(devices) > 1):
        try:
            made = sharding.make_mesh(**sizes(options.mesh), devices=devices)
        except ValueError as error:
            raise ValueError(f"--mesh {options.mesh}: {error}") from error
        _MACHINE.mesh = made


def mesh() -> Mesh | None:
    """The mesh that models are loaded onto; None for a single device."""
    return _MACHINE.mesh


def batch_sharding(rows: int, **options: Any) -> NamedSharding | None:
    """How a batch is split over this run's mesh.

    Args:
      rows: of the batch.
      **options: of `jeff.sharding.batches_of`.

    Returns:
      As `jeff.sharding.batches_of` does.

    Raises:
      ValueError: as it does.
    """
    return sharding.batches_of(rows, _MACHINE.mesh, **options)


def placed(state: PyTree) -> PyTree:
    """Copy the state of a training to all devices of the mesh.

    Args:
      state: the state.

    Returns:
      It, as it is without a mesh.
    """
    return state if _MACHINE.mesh is None else sharding.replicate(state, _MACHINE.mesh)


def kept(folder: Path) -> Path | None:
    """Where a training keeps its checkpoints.

    Args:
      folder: where it does in one process.

    Returns:
      The folder; None in other processes than the first, for which orbax writes none.
      Interrupted there, a training begins anew.
    """
    return folder if first() else None


def several() -> bool:
    """Whether processes share the run."""
    return jax.process_count() > 1


def first() -> bool:
    """Whether this process writes the result."""
    return jax.process_index() == 0


def deal(items: Sequence[Item], work: Callable[[Item], Any]) -> None:
    """Share pieces among the processes; each item's work is stored by ``work`` itself.

    Returns at once where there is one process, and in the first of several when all
    have done their parts. The first then repeats the loop over all items, whose work it
    finds stored. A run deals once; whatever it does later, the first does alone.

    Args:
      items: the pieces, in one order in all processes.
      work: does one piece and stores it in the folder of the run.

    Raises:
      Done: in the other processes, when they have done theirs.
      OtherProcessError: in the first process, if another one failed; with its error.
    """
    if not several() or _MACHINE.dealt:
        return
    _MACHINE.dealt = True
    place = jax.process_index()
    for item in items[place :: jax.process_count()]:
        work(item)
    if place:
        count = jax.process_count()
        raise Done(
            f"process {place} of {count}: did its part; process 0 has the result"
        )
    for number in range(1, jax.process_count()):
        if error := _hear(f"part of {number}"):
            raise OtherProcessError(f"process {number} failed: {error}")


def first_alone() -> None:
    """Leave a run that has nothing to share to the first process.

    Raises:
      Done: in the other processes.
    """
    deal((), lambda _: None)


def meet(what: str) -> None:
    """Wait until all processes are here; for a run that is one computation.

    Args:
      what: the place, one for each in the code.
    """
    if several():
        multihost_utils.sync_global_devices(what)


@contextmanager
def open_together(
    folder: AbstractContextManager[tuple[Path, bool]],
) -> Iterator[tuple[Path, bool]]:
    """Open a run's folder in the first process, for all of them.

    Args:
      folder: opens and holds the folder, as `open_workdir` does.

    Yields:
      The folder, and whether the run goes on from an earlier one.

    Raises:
      Done: in the other processes, once the first has ended well.
      FileNotFoundError: if this process does not see the folder.
      OtherProcessError: if the first process failed; with its error.
    """
    _MACHINE.runs, _MACHINE.dealt = _MACHINE.runs + 1, False
    if not several():
        with folder as found:
            yield found
    elif first():
        with _telling(), folder as (path, resumed):
            told = {"folder": str(path.absolute()), "resumed": resumed}
            _say("folder", json.dumps(told))
            yield path, resumed
    else:
        yield from _opened_by_the_first()


@contextmanager
def _telling() -> Iterator[None]:
    """Tell the other processes how the run ended."""
    try:
        yield
    except BaseException as error:
        said = str(error) or repr(error)
        # Those that wait for the folder first; a second message has no effect.
        with suppress(Exception):
            _say("folder", json.dumps({"error": said}))
        _say("end", said)
        raise
    _say("end", "")


def _opened_by_the_first() -> Iterator[tuple[Path, bool]]:
    mine = f"part of {jax.process_index()}"
    told = files.parse_json(_hear("folder").encode(), "the first process's message")
    if "error" in told:
        raise OtherProcessError(f"process 0 failed: {told['error']}")
    path = Path(told["folder"])
    try:
        if not path.is_dir():
            raise FileNotFoundError(
                f"{path}: expected the folder that process 0 works in, but this "
                "process sees none; with --runs name a folder that all machines share"
            )
        yield path, told["resumed"]
    except Done:
        _say(mine, "")
        if failed := _hear("end"):
            raise OtherProcessError(f"process 0 failed: {failed}") from None
        raise
    except BaseException as error:
        _say(mine, str(error) or repr(error))
        _hear("end")  # its exit would end the first process's work
        raise


@functools.cache
def _service() -> Any:
    # JAX has no public name for the messages of its service. A collective would do, but
    # gives up where one process waits minutes for another.
    from jax._src import distributed

    return distributed.global_state.client


def _say(what: str, text: str) -> None:
    _service().key_value_set(f"jeff/{_MACHINE.runs}/{what}", text)


def _hear(what: str) -> str:
    return _service().blocking_key_value_get(f"jeff/{_MACHINE.runs}/{what}", _WEEK)
