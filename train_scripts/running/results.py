"""The result of a run: one schema, written atomically and read strictly.

Every training script ends by writing ``result.json`` to its run folder. The report, the
documented numbers and the tests read it with :func:`read`, which rejects anything that
:func:`write` could not have written.
"""

import dataclasses
import importlib.metadata
import math
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, NonNegativeFloat, TypeAdapter

from jeff import files
from train_scripts.running import schema
from train_scripts.running.schema import Text

__all__ = [
    "Claim",
    "Part",
    "Result",
    "device_name",
    "finish",
    "join",
    "read",
    "versions",
    "write",
]

FILE_NAME = "result.json"
_PACKAGES = ("jeff-jax", "jax", "jaxlib", "flax", "optax", "numpy")


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of a paper that a run can test.

    Attributes:
      claim: the claim as a sentence.
      paper: value reported in the paper.
      measured: value measured by this run.
      holds: whether the measurement supports the claim, computed by
        `train_scripts.running.claims`; None if the run is too small to tell.
    """

    __pydantic_config__: ClassVar[ConfigDict] = schema.STRICT
    claim: Text
    paper: Text
    measured: Text
    holds: bool | None


@dataclasses.dataclass(frozen=True)
class Part:
    """The result of a run or of a part of it.

    Attributes:
      numbers: finite numbers by name.
      claims: the tested claims.
      table: table in Markdown for readers; empty for none.
    """

    numbers: dict[str, float]
    claims: tuple[Claim, ...]
    table: str = ""


@dataclasses.dataclass(frozen=True)
class Result:
    """The complete result of a run; its fields are the keys of ``result.json``.

    Attributes:
      system: name of the system, as in ``python -m train_scripts run SYSTEM``.
      preset: name of the preset.
      seed: the random seed.
      device: hardware, as given by :func:`device_name`.
      seconds: wall time of the run in seconds, at least 0.
      versions: package name to version, as given by :func:`versions`.
      metrics: metric name to a finite number.
      claims: the claims that the run tested.
    """

    __pydantic_config__: ClassVar[ConfigDict] = schema.STRICT
    system: Text
    preset: Text
    seed: int
    device: Text
    seconds: NonNegativeFloat
    versions: dict[Text, Text]
    metrics: dict[Text, float]
    claims: tuple[Claim, ...]


_RESULT = TypeAdapter(Result)


def join(parts: Sequence[Part]) -> Part:
    """Join the parts of a run into one.

    Args:
      parts: the parts, in order.

    Returns:
      Their numbers, claims and tables; of two numbers with one name the later one.
    """
    return Part(
        {name: number for part in parts for name, number in part.numbers.items()},
        tuple(claim for part in parts for claim in part.claims),
        "\n".join(part.table for part in parts),
    )


def finish(
    system: str, preset: str, seed: int, began: float, part: Part, workdir: Path
) -> Result:
    """Write the result of a run, and its table if it has one.

    A number that could not be computed, such as a correlation of constants, is left out
    with a note: the rest of a long run is not lost for it.

    Args:
      system: name of the system.
      preset: name of the preset.
      seed: the first seed.
      began: start time of the run, from `time.perf_counter`.
      part: numbers, claims and table of the run.
      workdir: the run's folder.

    Returns:
      The result that was written.
    """
    missing = sorted(n for n, x in part.numbers.items() if not math.isfinite(x))
    if missing:
        print(f"left out, since not finite: {', '.join(missing)}", file=sys.stderr)
    if part.table:
        files.write_text(workdir / "table.md", part.table)
    result = Result(
        system=system,
        preset=preset,
        seed=seed,
        device=device_name(),
        seconds=time.perf_counter() - began,
        versions=versions(),
        metrics={n: x for n, x in part.numbers.items() if n not in missing},
        claims=part.claims,
    )
    write(result, workdir)
    return result


def write(result: Result, workdir: Path) -> Path:
    """Validate a result and write it to ``workdir/result.json``.

    Args:
      result: the result.
      workdir: the run's folder; created if missing.

    Returns:
      The path of the file.

    Raises:
      ValueError: if a field has the wrong type or a number is not finite. Nothing is
        written in that case.
    """
    path = Path(workdir) / FILE_NAME
    checked = schema.check(_RESULT, result, path)
    return files.write_json(path, dataclasses.asdict(checked))


def read(path: Path) -> Result:
    """Read and validate a ``result.json``.

    Args:
      path: the file.

    Returns:
      The result; whole numbers among the metrics become floats.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file is not valid JSON or does not match the schema; the
        message names the file and, for each field, the expected and actual value.
    """
    return schema.read(_RESULT, path)


def device_name() -> str:
    """Name the hardware that JAX runs on.

    Returns:
      Kind and number of devices: ``"cpu x2"`` for two CPU cores, or
      ``"NVIDIA H100 x1, 16 CPU cores"`` with an accelerator.
    """
    import jax

    device = jax.devices()[0]
    # In a container a process may use fewer cores than the machine has.
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows
        cores = os.cpu_count() or 1
    if device.platform == "cpu":
        return f"cpu x{cores}"
    return f"{device.device_kind} x{jax.device_count()}, {cores} CPU cores"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect a run's numbers.

    Returns:
      Package name to version; ``"not installed"`` for a package without metadata.
    """
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
