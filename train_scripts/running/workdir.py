"""Choose the folder of a run: a new one, or that of an interrupted run to resume.

The folder is ``runs/<system>/<YYYYmmdd-HHMMSS>-<preset>/``. A run without a
``result.json`` was interrupted. The same command with the same configuration resumes
it.
"""

import dataclasses
import datetime
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jeff import files
from train_scripts.running import results

__all__ = ["open_workdir"]


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
    """
    # Through JSON, which turns tuples into lists, so that the record compares equal to
    # one read from a file.
    record = json.loads(
        json.dumps({"command": command, "config": dataclasses.asdict(config)})
    )
    parent = runs / system
    parent.mkdir(parents=True, exist_ok=True)
    for folder in sorted(parent.glob(f"*-{preset}"), reverse=True):
        if _unfinished(folder, record) and (lock := _try_lock(folder)):
            with lock:
                yield folder, True
            return
    folder = _new_folder(parent, preset)
    lock = _try_lock(folder)
    files.write_json(folder / "config.json", record)
    try:
        yield folder, False
    except BaseException:
        if {path.name for path in folder.iterdir()} <= {"config.json", "lock"}:
            shutil.rmtree(folder)
        raise
    finally:
        if lock:
            lock.close()


def _unfinished(folder: Path, record: dict[str, Any]) -> bool:
    if (folder / results.FILE_NAME).exists():
        return False
    try:
        found = files.read_json(folder / "config.json")
        return found["config"] == record["config"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _new_folder(parent: Path, preset: str) -> Path:
    now = datetime.datetime.now()
    while True:
        folder = parent / f"{now:%Y%m%d-%H%M%S}-{preset}"
        try:
            folder.mkdir()
        except FileExistsError:
            now += datetime.timedelta(seconds=1)
        else:
            return folder


def _try_lock(folder: Path) -> Any:
    """Lock a folder; None if another process holds it. The lock ends with its process.

    A lock file alone would remain after a kill, and the run could not be resumed.
    """
    try:
        import fcntl
    except ImportError:  # Windows: two equal runs at the same time are not prevented
        return (folder / "lock").open("w")
    file = (folder / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
