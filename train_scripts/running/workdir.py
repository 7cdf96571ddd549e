"""Choose the folder of a run, and hold it: a new one, or that of an interrupted run.

The folder is ``runs/<system>/<YYYYmmdd-HHMMSS>-<preset>/``. A run without a
``result.json`` was interrupted. The same command with the same configuration resumes
it, on the same data. A folder is locked while its run lasts.
"""

import dataclasses
import datetime
import json
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jeff import files
from train_scripts.running import inputs, results

__all__ = ["hold", "open_workdir"]

_RECORD, _LOCK = "config.json", "lock"


@contextmanager
def open_workdir(
    runs: Path, system: str, preset: str, config: Any, command: str
) -> Iterator[tuple[Path, bool]]:
    """Hold the folder of a run, locked, for the duration of the run.

    A new run that fails before it writes anything leaves no folder behind.

    Args:
      runs: folder of all runs.
      system: name of the system.
      preset: name of the preset.
      config: configuration of the run, a dataclass.
      command: the command line that repeats the run.

    Yields:
      ``(folder, resumed)``.

    Raises:
      OSError: if the folder cannot be written.
      ValueError: if the data of an interrupted run changed; says what to do.
    """
    record = _record(config, command)
    parent = runs / system
    parent.mkdir(parents=True, exist_ok=True)
    for folder in sorted(parent.glob(f"*-{preset}"), reverse=True):
        if _unfinished(folder, record) and (lock := _try_lock(folder)):
            begun = (folder / _RECORD).exists()
            with _held(folder, record, lock):
                yield folder, begun
            return
    folder, lock = _new_folder(parent, preset)
    with _held(folder, record, lock):
        yield folder, False


@contextmanager
def hold(folder: Path, config: Any, command: str) -> Iterator[None]:
    """Hold a folder that the user named, locked, for the duration of the run.

    Args:
      folder: the folder; new, or that of a run with this configuration.
      config: configuration of the run, a dataclass.
      command: the command line that repeats the run.

    Yields:
      Nothing.

    Raises:
      OSError: if another process holds the folder, or it cannot be written.
      ValueError: if the folder holds a run with another configuration or on other data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _held(folder, _record(config, command)):
        yield


def _record(config: Any, command: str) -> dict[str, Any]:
    # Through JSON, which turns tuples into lists, so that the record compares equal to
    # one read from a file.
    return json.loads(
        json.dumps({"command": command, "config": dataclasses.asdict(config)})
    )


@contextmanager
def _held(folder: Path, record: dict[str, Any], lock: Any = None) -> Iterator[None]:
    new = not (folder / _RECORD).exists()
    before = _names(folder)
    try:
        lock = lock or _try_lock(folder)
        if lock is None:
            raise BlockingIOError(
                f"{folder}: expected a folder that is free, but another process is "
                "running in it; wait until it ends, or name another folder"
            )
        files.sweep(folder)
        _begin(folder / _RECORD, record)
        yield
    except BaseException:
        # Without the lock, what is in the folder is another process's.
        if new and lock and before and _names(folder) == before:
            # Files of the user's own stay; the next run may have another configuration.
            (folder / _RECORD).unlink(missing_ok=True)
        elif new and lock and not _names(folder):
            # A link or a mounted folder stays; the error itself matters more.
            shutil.rmtree(folder, ignore_errors=True)
        elif new and not lock:
            with suppress(OSError):
                folder.rmdir()
        raise
    finally:
        if lock:
            lock.close()


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {_RECORD, _LOCK}


def _begin(path: Path, record: dict[str, Any]) -> None:
    """Record the configuration and the data of a run, or compare them."""
    config = record["config"]
    if not path.exists():
        files.write_json(path, record | {"data": inputs.describe(config)})
        return
    found = files.read_json(path)
    # An earlier jeff wrote the fields of fine-tuning alone, and no data.
    if not isinstance(found, dict) or found.get("config", found) != config:
        raise ValueError(
            f"{path.parent}: expected a new folder, or the run of this configuration, "
            "found another run; name another folder"
        )
    if "data" in found:
        inputs.check(config, found["data"], path.parent)
        return
    warnings.warn(
        f"{path}: this run was begun by an earlier jeff, which did not record its "
        "data: it goes on without comparing them",
        stacklevel=2,
    )
    files.write_json(path, record | {"data": inputs.describe(config)})


def _unfinished(folder: Path, record: dict[str, Any]) -> bool:
    if (folder / results.FILE_NAME).exists():
        return False
    try:
        return files.read_json(folder / _RECORD)["config"] == record["config"]
    except FileNotFoundError:
        # Killed while it described its data, before it wrote anything.
        return all(p.name == _LOCK or p.suffix == ".part" for p in folder.iterdir())
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"{folder}: not resumed, since unreadable ({error})", file=sys.stderr)
        return False


def _new_folder(parent: Path, preset: str) -> tuple[Path, Any]:
    now = datetime.datetime.now()
    while True:
        folder = parent / f"{now:%Y%m%d-%H%M%S}-{preset}"
        try:
            folder.mkdir()
            # A process that started at the same time may take it first.
            if lock := _try_lock(folder):
                return folder, lock
        except FileExistsError:
            pass
        now += datetime.timedelta(seconds=1)


def _try_lock(folder: Path) -> Any:
    """Lock a folder; None if another process holds it. The lock ends with its process.

    A lock file alone would remain after a kill, and the run could not be resumed.
    """
    try:
        import fcntl
    except ImportError:  # Windows: two equal runs at the same time are not prevented
        return (folder / _LOCK).open("w")
    file = (folder / _LOCK).open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
