"""The report's explorer: check ``explorer.json`` and lay out its curve as a chart.

A script that trains a family of models along one parameter writes ``explorer.json``
next to its result. The report shows it as a slider, numbers for the chosen level, and a
curve with a marker. This module computes all coordinates; the page's script only looks
up the chosen level.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, TypeAdapter, model_validator

from train_scripts.running import schema
from train_scripts.running.schema import Text

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
      dots: positions of the levels, (x, y); empty if there are too many to tell apart.
      marks: x, y and the ends of the spread for each level (None without a spread).
      x_ticks: position and text of each tick.
      y_ticks: position and text of each tick.
      references: x, y, shape (the ``d`` of a path) and label of each reference point.
      legend: shape and label, one entry per label.
    """

    line: str
    dots: list[tuple[float, float]]
    marks: list[dict[str, float | None]]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    references: list[tuple[float, float, str, str]]
    legend: list[tuple[str, str]]


class _Strict(BaseModel):
    model_config = schema.STRICT


class _Slider(_Strict):
    label: Text
    values: list[float] = Field(min_length=2)
    low_label: Text
    high_label: Text
    # What each level is called, where it has a name.
    names: list[Text] | None = None


class _Readout(_Strict):
    label: Text
    unit: Literal["%", ""]
    values: list[float]
    low: list[float] | None
    high: list[float] | None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.unit == "%" and not all(0 <= value <= 100 for value in self.values):
            raise ValueError("expected percentages from 0 to 100")
        if (self.low is None) != (self.high is None):
            raise ValueError("expected both low and high, or neither")
        for low, high in zip(self.low or [], self.high or [], strict=False):
            if low > high:
                raise ValueError(f"expected low <= high, got {low} and {high}")
        return self


class _Curve(_Strict):
    x: int = Field(ge=0)
    y: int = Field(ge=0)
    x_label: Text
    y_label: Text


class _Reference(_Strict):
    label: Text
    x: float
    y: float


class _Explorer(_Strict):
    title: Text
    slider: _Slider
    readouts: list[_Readout] = Field(min_length=1)
    curve: _Curve
    references: list[_Reference]

    @model_validator(mode="after")
    def _check(self) -> Self:
        count = len(self.slider.values)
        if self.slider.names is not None and len(self.slider.names) != count:
            raise ValueError(
                f"slider.names: expected {count} names, one for each value of the "
                f"slider, got {len(self.slider.names)}"
            )
        for index, readout in enumerate(self.readouts):
            for name in ("values", "low", "high"):
                numbers = getattr(readout, name)
                if numbers is not None and len(numbers) != count:
                    raise ValueError(
                        f"readouts[{index}].{name}: expected {count} numbers, one for "
                        f"each value of the slider, got {len(numbers)}"
                    )
        last = len(self.readouts) - 1
        for axis in ("x", "y"):
            if getattr(self.curve, axis) > last:
                raise ValueError(
                    f"curve.{axis}: expected the index of a readout, 0 to {last}"
                )
        return self


_EXPLORER = TypeAdapter(_Explorer)


def read(path: Path) -> dict[str, Any]:
    """Read and validate an ``explorer.json``.

    Args:
      path: the file: ``{"title", "slider": {"label", "values", "low_label",
        "high_label", "names" (optional)}, "readouts": [{"label", "unit", "values",
        "low", "high"}], "curve": {"x", "y", "x_label", "y_label"}, "references":
        [{"label", "x", "y"}]}``. Values with the unit ``"%"`` are percentages in
        [0, 100].

    Returns:
      The document, checked.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file does not have this form; names the file, the field, and
        the expected and actual value.
    """
    return schema.read(_EXPLORER, path).model_dump(exclude_unset=True)


def chart(explorer: dict[str, Any]) -> Chart:
    """Lay out the curve of an explorer.

    Args:
      explorer: document from :func:`read`.

    Returns:
      The chart. Its axes contain every spread and every reference point.
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
    # Constant values get a margin too: an axis of length 0 would divide by zero. An
    # axis of non-negative values, such as percentages, never starts below 0.
    pad = 0.06 * (high - low) or max(abs(low), 1.0) * 0.06
    start = max(low - pad, 0.0) if low >= 0 else low - pad
    return start, high + pad


def ticks(low: float, high: float, about: int) -> list[tuple[float, str]]:
    """Round numbers within a range, spaced by 1, 2 or 5 times a power of ten.

    Args:
      low: start of the range.
      high: end of the range, above ``low``.
      about: approximate number of ticks.

    Returns:
      Value and text of each tick.

    >>> ticks(0.0, 1.0, 2)
    [(0.0, '0.0'), (0.5, '0.5'), (1.0, '1.0')]
    """
    # The small factors below absorb rounding: log10 and the quotients may fall just
    # short of a whole number. Adding 0.0 turns -0.0 into 0.0.
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    decimals = max(0, -math.floor(math.log10(step * 1.001)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    values = [round(index * step, decimals) + 0.0 for index in range(first, last + 1)]
    return [(value, f"{value:.{decimals}f}") for value in values]
