"""The files that a configuration names, and whether they are still the same.

A run that is resumed on other data would be a mixture of two. Its files are therefore
recorded in ``config.json`` when it begins, and compared when it goes on.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jeff import files

__all__ = ["FIELDS", "check", "describe"]

# Fields that hold a path in every configuration that has them. `model` may also be a
# name; it counts where it is a file or folder.
FIELDS = (
    "adapters",
    "candidates",
    "data",
    "detector",
    "hpo",
    "model",
    "pairs",
    "score",
)
# What file browsers leave in a folder.
_BROWSERS = {".DS_Store", "Thumbs.db", "desktop.ini"}
# Up to this size a file is hashed at every start, in about half a second. A larger one
# whose size and time are unchanged is taken to be the same.
_ALWAYS_HASHED = 1 << 30


def describe(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Describe the files that a configuration names.

    Args:
      config: the configuration as a dictionary.

    Returns:
      Path to ``{"size", "modified", "sha256"}``, for each file, and for each file in a
      folder that the configuration names, without those of runs below it.

    Raises:
      OSError: if a file cannot be read.
    """
    return {str(path): _description(path) for path in _paths(config)}


def check(
    config: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]], folder: Path
) -> None:
    """Compare the files that a configuration names with those a run began with.

    Args:
      config: the configuration as a dictionary.
      known: description of the files, as given by `describe`.
      folder: the run's folder, for errors.

    Raises:
      OSError: if a file cannot be read.
      ValueError: if a file changed, is missing or is new; names it, and says what to
        do.
    """
    _check_record(known, folder)
    now = _paths(config)
    for name in sorted({str(path) for path in now} | set(known)):
        mend = "restore it"
        if name not in known:
            found, mend = "is new", "remove it"
        elif name not in {str(path) for path in now}:
            found = "is missing"
        elif not _same(Path(name), known[name]):
            found = f"changed: its sha256 was {str(known[name]['sha256'])[:12]}..."
        else:
            continue
        raise ValueError(
            f"{name}: expected the data with which {folder} began, but this file "
            f"{found}; {mend} to go on, or delete {folder} to start a new run"
        )


def _check_record(known: Any, folder: Path) -> None:
    kinds = {"size": int, "modified": int, "sha256": str}
    right = isinstance(known, dict) and all(
        isinstance(each, dict)
        and each.keys() == kinds.keys()
        and all(type(each[name]) is kind for name, kind in kinds.items())
        for each in known.values()
    )
    if not right:
        raise ValueError(
            f"{folder / 'config.json'}: data: expected size, modified and sha256 of "
            f"each file, got {known!r:.80}; the file is damaged: delete {folder} to "
            "start a new run"
        )


def _paths(config: Mapping[str, Any]) -> list[Path]:
    found = []
    for field in FIELDS:
        value = config.get(field)
        if isinstance(value, str) and value:
            found += _inside(Path(value).expanduser())
    return found


def _inside(path: Path) -> list[Path]:
    try:
        if path.is_dir():
            # Runs in it, perhaps this one, are no data; a lock marks their folders.
            runs = {lock.parent for lock in path.rglob("lock")} - {path}
            return sorted(
                inner
                for inner in path.rglob("*")
                if inner.is_file()
                and runs.isdisjoint(inner.parents)
                and inner.name not in _BROWSERS
            )
        return [path] if path.is_file() else []
    except OSError:  # a list of names, too long to be one of a file
        return []


def _description(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {
        "size": status.st_size,
        "modified": status.st_mtime_ns,
        "sha256": files.digest(path),
    }


def _same(path: Path, known: Mapping[str, Any]) -> bool:
    status = path.stat()
    if status.st_size != known["size"]:
        return False
    if status.st_size > _ALWAYS_HASHED and status.st_mtime_ns == known["modified"]:
        return True
    return files.digest(path) == known["sha256"]
