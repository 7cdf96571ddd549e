"""Read the thresholds that a run of `train_scripts.routing` wrote.

The file is one JSON object, a router by name, each with the fields of
`jeff_llm.confidence.Router`. JSON has no infinity: a threshold that sends
everything on is "inf", and a number that was not computed is null.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

from jeff import files
from jeff_llm.confidence.router import Router

__all__ = ["load"]

_NAMES = tuple(field.name for field in dataclasses.fields(Router))
_INFINITE = {"inf": math.inf, "-inf": -math.inf}


def load(path: str | Path) -> dict[str, Router]:
    """Read the routers of a file.

    Args:
      path: ``router.json`` of a routing run.

    Returns:
      The routers by name.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: naming the file, the router and the field, if one is missing, unknown
        or out of its range.
    """
    found = files.read_json(path)
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{path}: expected routers by name, got {found!r:.80}")
    return {name: _router(fields, f"{path}: {name}") for name, fields in found.items()}


def _router(fields: Any, where: str) -> Router:
    if isinstance(fields, dict):  # a file of an earlier jeff names no measure
        fields = {"measure": ""} | fields
    if not isinstance(fields, dict) or set(fields) != set(_NAMES):
        raise ValueError(f"{where}: expected the fields {_NAMES}, got {fields!r:.120}")
    threshold = fields["threshold"]
    if isinstance(threshold, str) and threshold in _INFINITE:
        threshold = _INFINITE[threshold]
    else:
        _number(where, "threshold", threshold, -math.inf, math.inf)
    _number(where, "tie_rate", fields["tie_rate"], 0, 1)
    for name in ("rate", "accuracy", "max_error", "delta"):
        if fields[name] is not None:
            _number(where, name, fields[name], 0, 1)
    # One without the other would promise something else.
    if (fields["max_error"] is None) != (fields["delta"] is None):
        raise ValueError(
            f"{where}: expected max_error and delta together, got "
            f"{fields['max_error']!r} and {fields['delta']!r}"
        )
    if not isinstance(fields["measure"], str):
        raise ValueError(
            f"{where}: measure: expected a name, got {fields['measure']!r:.60}"
        )
    # Some writers of JSON make 1.0 a 1.
    read: dict[str, Any] = {
        name: float(value) if isinstance(value, int) else value
        for name, value in (fields | {"threshold": threshold}).items()
    }
    return Router(**read)


def _number(
    where: str, name: str, value: Any, least: float | int, most: float | int
) -> None:
    # A bool is an int in Python, and no number here.
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not fits or not least <= value <= most:
        raise ValueError(
            f"{where}: {name}: expected a number from {least} to {most}, got {value!r}"
        )
