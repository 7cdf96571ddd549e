"""Records: what a benchmark measured, with device and versions, as JSON."""

import dataclasses
from pathlib import Path
from typing import Any

from jeff import files
from train_scripts.running import results

__all__ = ["RESULTS", "load", "write"]

RESULTS = Path(__file__).parent / "results"


def write(name: str, found: dict[str, Any], config: Any = None) -> Path:
    """Write what was measured, and say where.

    Args:
      name: the benchmark's module.
      found: what it measured; numbers as JSON takes them.
      config: its configuration, a dataclass.

    Returns:
      The file, ``results/<name>-<device>.json``.
    """
    device = results.device_name()
    record = {
        "command": f"python -m benchmarks.{name}",
        "device": device,
        "versions": results.versions(),
    }
    if config is not None:
        record["config"] = dataclasses.asdict(config)
    slug = "".join(c if c.isalnum() else "-" for c in device.lower())
    path = RESULTS / f"{name}-{slug}.json"
    files.write_json(path, record | found, indent=1)
    print(f"written: {path}")
    return path


def load(folder: Path = RESULTS) -> list[tuple[str, dict[str, Any]]]:
    """The records of a folder.

    Args:
      folder: of the files that `write` wrote.

    Returns:
      Module and record of each, sorted by module and device.

    Raises:
      ValueError: if a file is no record.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        record = files.read_json(path)
        if not isinstance(record, dict) or not {"command", "device"} <= set(record):
            raise ValueError(f"{path}: expected a record with its command and device")
        name = record["command"].split()[-1].removeprefix("benchmarks.")
        found.append((name, record))
    return sorted(found, key=lambda each: (each[0], each[1]["device"]))
