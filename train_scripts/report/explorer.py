"""The report's explorer: ``explorer.json`` checked, and its curve laid out as a chart.

A script that trains a family of models along one parameter writes ``explorer.json``
beside its result. The report turns it into a slider, numbers that follow it, and a
curve with a marker. All geometry is settled here; the page's script only looks up the
chosen level.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

from train_scripts.running.results import (
    fault,
    integer_of,
    keys_of,
    list_of,
    number_of,
    read_json,
    text_of,
)

__all__ = ["Chart", "chart", "read", "ticks"]

FILE_NAME = "explorer.json"
WIDTH, HEIGHT = 400, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 388, 10, 252
_SHAPES = (
    "M-4 -4H4V4H-4Z",
    "M0 -5L5 4H-5Z",
    "M0 -5.5L5.5 0L0 5.5L-5.5 0Z",
    "M-4 -4L4 4M-4 4L4 -4",
    "M0 5L5 -4H-5Z",
    "M0 -5V5M-5 0H5",
    "M-5 -2.5H5V2.5H-5Z",
    "M-2.5 -5H2.5V5H-2.5Z",
)


@dataclasses.dataclass(frozen=True)
class Chart:
    """A curve laid out in the units of the SVG's view box, ``WIDTH`` by ``HEIGHT``.

    Attributes:
      line: the curve, as the ``points`` of a polyline.
      dots: positions of the levels, (x, y); empty where they would be too dense.
      marks: for each level x, y, and the ends of its spread (None without a spread).
      x_ticks: position and text.
      y_ticks: position and text.
      references: x, y, shape (the ``d`` of a path) and label of each reference point.
      legend: shape and label, each label once.
    """

    line: str
    dots: list[tuple[float, float]]
    marks: list[dict[str, float | None]]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    references: list[tuple[float, float, str, str]]
    legend: list[tuple[str, str]]


def read(path: Path) -> dict[str, Any]:
    """Read and validate an ``explorer.json``.

    Args:
      path: the file: ``{"title", "slider": {"label", "values", "low_label",
        "high_label"}, "readouts": [{"label", "unit", "values", "low", "high"}],
        "curve": {"x", "y", "x_label", "y_label"}, "references": [{"label", "x",
        "y"}]}``. Values with the unit ``"%"`` are percentages in [0, 100].

    Returns:
      The document, checked.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it departs from this form, naming the file, the field, what was
        expected and what came.
    """
    where = str(path)
    names = ("title", "slider", "readouts", "curve", "references")
    document = keys_of(read_json(path), names, where)
    text_of(document["title"], f"{where}: title")
    levels = _slider(document["slider"], f"{where}: slider")
    readouts = list_of(document["readouts"], f"{where}: readouts")
    if not readouts:
        raise fault(f"{where}: readouts", "at least one readout", readouts)
    for index, readout in enumerate(readouts):
        _readout(readout, levels, f"{where}: readouts[{index}]")
    _curve(document["curve"], len(readouts), f"{where}: curve")
    for index, point in enumerate(
        list_of(document["references"], f"{where}: references")
    ):
        at = f"{where}: references[{index}]"
        keys_of(point, ("label", "x", "y"), at)
        text_of(point["label"], f"{at}.label")
        number_of(point["x"], f"{at}.x")
        number_of(point["y"], f"{at}.y")
    return document


def _slider(value: Any, where: str) -> int:
    keys_of(value, ("label", "values", "low_label", "high_label"), where)
    for name in ("label", "low_label", "high_label"):
        text_of(value[name], f"{where}.{name}")
    levels = list_of(value["values"], f"{where}.values")
    if len(levels) < 2:
        raise fault(f"{where}.values", "at least two levels", levels)
    _numbers(levels, len(levels), f"{where}.values")
    return len(levels)


def _readout(value: Any, levels: int, where: str) -> None:
    keys_of(value, ("label", "unit", "values", "low", "high"), where)
    text_of(value["label"], f"{where}.label")
    if value["unit"] not in ("%", ""):
        raise fault(f"{where}.unit", "'%' or ''", value["unit"])
    numbers = _numbers(value["values"], levels, f"{where}.values")
    if value["unit"] == "%" and not all(0 <= number <= 100 for number in numbers):
        raise fault(f"{where}.values", "percentages from 0 to 100", numbers)
    if (value["low"] is None) != (value["high"] is None):
        raise ValueError(f"{where}: expected both low and high, or neither; came one")
    if value["low"] is not None:
        low = _numbers(value["low"], levels, f"{where}.low")
        high = _numbers(value["high"], levels, f"{where}.high")
        for level, pair in enumerate(zip(low, high, strict=True)):
            if pair[0] > pair[1]:
                raise fault(f"{where}.low[{level}]", "low <= high", pair)


def _curve(value: Any, readouts: int, where: str) -> None:
    keys_of(value, ("x", "y", "x_label", "y_label"), where)
    for axis in ("x", "y"):
        index = integer_of(value[axis], f"{where}.{axis}")
        if not 0 <= index < readouts:
            expected = f"the index of a readout, 0 to {readouts - 1}"
            raise fault(f"{where}.{axis}", expected, index)
        text_of(value[f"{axis}_label"], f"{where}.{axis}_label")


def _numbers(value: Any, count: int, where: str) -> list[float]:
    numbers = list_of(value, where)
    if len(numbers) != count:
        raise ValueError(
            f"{where}: expected {count} numbers, one for each value of the slider, "
            f"came {len(numbers)}"
        )
    return [number_of(n, f"{where}[{index}]") for index, n in enumerate(numbers)]


def chart(explorer: dict[str, Any]) -> Chart:
    """Lay out the curve of an explorer.

    Args:
      explorer: what :func:`read` gave.

    Returns:
      The chart; a spread and every reference point lie within its axes.
    """
    x = explorer["readouts"][explorer["curve"]["x"]]
    y = explorer["readouts"][explorer["curve"]["y"]]
    points = explorer["references"]
    x_low, x_high = _domain(x, [point["x"] for point in points])
    y_low, y_high = _domain(y, [point["y"] for point in points])

    def across(value: float) -> float:
        return round(LEFT + (value - x_low) / (x_high - x_low) * (RIGHT - LEFT), 2)

    def up(value: float) -> float:
        return round(BOTTOM - (value - y_low) / (y_high - y_low) * (BOTTOM - TOP), 2)

    def mark(level: int) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        for name, readout, place in (("x", x, across), ("y", y, up)):
            found[name] = place(readout["values"][level])
            for end in ("low", "high"):
                numbers = readout[end]
                found[f"{name}_{end}"] = place(numbers[level]) if numbers else None
        return found

    labels = list(dict.fromkeys(point["label"] for point in points))
    shapes = {label: _SHAPES[i % len(_SHAPES)] for i, label in enumerate(labels)}
    line = [(across(a), up(b)) for a, b in zip(x["values"], y["values"], strict=True)]
    return Chart(
        line=" ".join(f"{a},{b}" for a, b in line),
        dots=line if len(line) <= 30 else [],
        marks=[mark(level) for level in range(len(line))],
        x_ticks=[(across(tick), text) for tick, text in ticks(x_low, x_high, 5)],
        y_ticks=[(up(tick), text) for tick, text in ticks(y_low, y_high, 5)],
        references=[
            (across(p["x"]), up(p["y"]), shapes[p["label"]], p["label"]) for p in points
        ],
        legend=[(shapes[label], label) for label in labels],
    )


def _domain(readout: dict[str, Any], extra: list[float]) -> tuple[float, float]:
    numbers = [*readout["values"], *(readout["low"] or []), *(readout["high"] or [])]
    low, high = min(numbers + extra), max(numbers + extra)
    pad = 0.06 * (high - low) or max(abs(low), 1.0) * 0.06
    start = max(low - pad, 0.0) if low >= 0 else low - pad
    return start, high + pad


def ticks(low: float, high: float, about: int) -> list[tuple[float, str]]:
    """Round numbers within a range, 1, 2 or 5 times a power of ten apart.

    Args:
      low: start of the range.
      high: end of the range, above ``low``.
      about: how many to aim for.

    Returns:
      Value and text of each.

    >>> ticks(0.0, 1.0, 2)
    [(0.0, '0.0'), (0.5, '0.5'), (1.0, '1.0')]
    """
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    decimals = max(0, -math.floor(math.log10(step * 1.001)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    values = [round(index * step, decimals) + 0.0 for index in range(first, last + 1)]
    return [(value, f"{value:.{decimals}f}") for value in values]
