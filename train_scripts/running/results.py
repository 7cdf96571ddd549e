"""The result of a run: one schema, written whole or not at all, read strictly.

Every training script ends by writing ``result.json`` into its run folder. The report,
the README's numbers and the tests read it back through :func:`read`, which accepts
nothing that :func:`write` could not have written. The small checks at the end of the
module (``text_of``, ``number_of``, ...) serve the report's other JSON files too.
"""

import dataclasses
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Collection
from pathlib import Path
from typing import Any

__all__ = ["Claim", "Part", "Result", "device_name", "read", "versions", "write"]

FILE_NAME = "result.json"
_PACKAGES = ("jeff-jax", "jax", "jaxlib", "flax", "optax", "numpy")


@dataclasses.dataclass(frozen=True)
class Claim:
    """A sentence of the paper that a run can test.

    Attributes:
      claim: the sentence, in words.
      paper: what the paper reports.
      measured: what this run measured.
      holds: whether the measurement supports the claim; computed, never by hand.
    """

    claim: str
    paper: str
    measured: str
    holds: bool


@dataclasses.dataclass(frozen=True)
class Part:
    """What a part of a run found.

    Attributes:
      numbers: by name; finite.
      claims: sentences that the part tests.
      table: Markdown, for people.
    """

    numbers: dict[str, float]
    claims: tuple[Claim, ...]
    table: str


@dataclasses.dataclass(frozen=True)
class Result:
    """All that a run reports; its fields are the keys of ``result.json``.

    Attributes:
      system: name of the system, as in ``python -m train_scripts run SYSTEM``.
      preset: name of the preset.
      seed: the random seed.
      device: what :func:`device_name` gave.
      seconds: wall time of the run, not negative.
      versions: package name to version, as :func:`versions` gives it.
      metrics: metric name to a finite number.
      claims: the claims that the run tested.
    """

    system: str
    preset: str
    seed: int
    device: str
    seconds: float
    versions: dict[str, str]
    metrics: dict[str, float]
    claims: tuple[Claim, ...]


def write(result: Result, workdir: Path) -> Path:
    """Validate a result and write it to ``workdir/result.json``.

    Args:
      result: the result; numbers are Python's own (``float(x)`` of an array first).
      workdir: the run's folder; made where it is missing.

    Returns:
      The path of the file.

    Raises:
      ValueError: if a field is of the wrong type or a number is not finite. Nothing is
        written then.
    """
    path = Path(workdir) / FILE_NAME
    document = dataclasses.asdict(result)
    document["claims"] = list(document["claims"])
    _parse(document, str(path))
    return write_text(path, json.dumps(document, indent=2, allow_nan=False) + "\n")


def read(path: Path) -> Result:
    """Read and validate a ``result.json``.

    Args:
      path: the file.

    Returns:
      The result; whole numbers among the metrics become floats.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file is not valid JSON or departs from the schema; the message
        names the file, the field, what was expected and what came.
    """
    return _parse(read_json(path), str(path))


def device_name() -> str:
    """Name the hardware that JAX runs on.

    Returns:
      Kind and number of devices: ``"cpu x2"`` for two CPU cores, or
      ``"NVIDIA H100 x1, 16 CPU cores"`` with an accelerator.
    """
    import jax

    device = jax.devices()[0]
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows
        cores = os.cpu_count() or 1
    if device.platform == "cpu":
        return f"cpu x{cores}"
    return f"{device.device_kind} x{jax.device_count()}, {cores} CPU cores"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a run's numbers.

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


def _parse(document: Any, where: str) -> Result:
    names = [field.name for field in dataclasses.fields(Result)]
    fields = keys_of(document, names, where)
    at = {name: f"{where}: {name}" for name in names}
    seconds = number_of(fields["seconds"], at["seconds"])
    if seconds < 0:
        raise fault(at["seconds"], "a number of at least 0", seconds)
    metrics = object_of(fields["metrics"], at["metrics"])
    packages = object_of(fields["versions"], at["versions"])
    claims = list_of(fields["claims"], at["claims"])
    return Result(
        system=text_of(fields["system"], at["system"]),
        preset=text_of(fields["preset"], at["preset"]),
        seed=integer_of(fields["seed"], at["seed"]),
        device=text_of(fields["device"], at["device"]),
        seconds=seconds,
        versions={k: text_of(v, f"{at['versions']}.{k}") for k, v in packages.items()},
        metrics={k: number_of(v, f"{at['metrics']}.{k}") for k, v in metrics.items()},
        claims=tuple(_claim(c, f"{at['claims']}[{i}]") for i, c in enumerate(claims)),
    )


def _claim(value: Any, where: str) -> Claim:
    fields = keys_of(value, [field.name for field in dataclasses.fields(Claim)], where)
    if not isinstance(fields["holds"], bool):
        raise fault(f"{where}.holds", "true or false", fields["holds"])
    return Claim(
        claim=text_of(fields["claim"], f"{where}.claim"),
        paper=text_of(fields["paper"], f"{where}.paper"),
        measured=text_of(fields["measured"], f"{where}.measured"),
        holds=fields["holds"],
    )


def write_text(path: Path, text: str) -> Path:
    """Write a text file under a temporary name and rename it into place.

    Args:
      path: the file; its folder is made where it is missing.
      text: the contents. Lone surrogates, which UTF-8 cannot hold, become ``?``.

    Returns:
      ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", errors="replace", newline="\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read_json(path: Path) -> Any:
    """Read a JSON file; a key that stands twice in one object is an error.

    Args:
      path: the file.

    Returns:
      The value.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is not valid JSON in UTF-8, naming the file and the place.
    """
    text = Path(path).read_bytes()
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: expected valid JSON, came {len(text)} bytes that are not "
            f"({error}); the file may be cut short, so run the system again"
        ) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"key {twice[0]!r} stands twice in one object")
    return found


def fault(where: str, expected: str, came: Any) -> ValueError:
    """The error of a field: where it is, what was expected and what came."""
    shown = repr(came)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return ValueError(f"{where}: expected {expected}, came {shown}")


def keys_of(value: Any, names: Collection[str], where: str) -> dict[str, Any]:
    """Check that a value is an object with exactly the keys ``names``."""
    fields = object_of(value, where)
    missing = [name for name in names if name not in fields]
    surplus = [name for name in fields if name not in names]
    if missing or surplus:
        came = [f"without {', '.join(missing)}"] if missing else []
        came += [f"with the unknown {', '.join(map(repr, surplus))}"] if surplus else []
        raise ValueError(
            f"{where}: expected the keys {', '.join(names)}, came {' and '.join(came)}"
        )
    return fields


def object_of(value: Any, where: str) -> dict[str, Any]:
    """Check that a value is a JSON object with names as keys."""
    if not isinstance(value, dict) or not all(isinstance(k, str) and k for k in value):
        raise fault(where, "an object with names as keys", value)
    return value


def list_of(value: Any, where: str) -> list[Any]:
    """Check that a value is a list."""
    if not isinstance(value, list):
        raise fault(where, "a list", value)
    return value


def text_of(value: Any, where: str) -> str:
    """Check that a value is a text with something in it."""
    if not isinstance(value, str) or not value.strip():
        raise fault(where, "a text that is not empty", value)
    return value


def integer_of(value: Any, where: str) -> int:
    """Check that a value is a whole number; true and false are none."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise fault(where, "a whole number", value)
    return value


def number_of(value: Any, where: str) -> float:
    """Check that a value is a finite number; true and false are none."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            if math.isfinite(value):
                return float(value)
        except OverflowError:
            pass
    raise fault(where, "a finite number", value)
