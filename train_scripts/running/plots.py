"""Common style of all plots, and plot elements shared by several systems."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jeff import files

__all__ = ["COLOURS", "band", "figure", "label_points", "marked"]

# Okabe and Ito's palette, which colour-blind readers can distinguish, also in print.
COLOURS = {
    "line": "#0072B2",
    "fixed": "#D55E00",
    "plain": "#222222",
    "second": "#009E73",
    "third": "#CC79A7",
}


@contextlib.contextmanager
def figure(path: str | Path, size: tuple[float, float] = (5.2, 3.8)) -> Iterator[Axes]:
    """Draw a figure and write it atomically as a PNG file.

    Args:
      path: file to write.
      size: width and height in inches.

    Yields:
      The axes.
    """
    # Not pyplot: it keeps figures in global state and picks a back end by the display.
    drawing = Figure(figsize=size, dpi=150, layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    yield axes
    if axes.get_legend_handles_labels()[0] and axes.get_legend() is None:
        axes.legend(frameon=False, fontsize=9)
    with files.replacing(path) as part:
        drawing.savefig(part, format="png")


def marked(axes: Axes, confidence: np.ndarray, correct: np.ndarray) -> None:
    """Draw histograms of the confidence in right and in wrong answers.

    Args:
      axes: where to draw.
      confidence: confidence in each answer, in [0, 1].
      correct: whether each answer is right.
    """
    edges = np.linspace(0, 1, 31).tolist()
    for name, right, colour in (("right", True, "second"), ("wrong", False, "fixed")):
        axes.hist(
            confidence[correct == right],
            edges,
            alpha=0.6,
            color=COLOURS[colour],
            label=name,
        )


def label_points(
    axes: Axes, places: dict[str, tuple[float, float]], *, size: float = 7.0
) -> None:
    """Write a label beside each point where it covers no other label.

    Args:
      axes: where to draw; its scales and limits must be final.
      places: points by label.
      size: font size in points.
    """
    taken: list[tuple[float, float, float, float]] = []
    drawing = axes.get_figure()
    pixel = (drawing.dpi if drawing else 72) / 72
    for text, place in places.items():
        x, y = axes.transData.transform(place) / pixel
        width, height = 0.56 * size * len(text), 1.15 * size
        # Right of the point, then above and below it, then left of it.
        shifts = [(side, dy) for side in (1, -1) for dy in (0, 9, -9, 17, -17, 26, -26)]
        for side, dy in shifts:
            left = x + 6 if side > 0 else x - 6 - width
            box = (left, y + dy - height / 2, left + width, y + dy + height / 2)
            if not any(_overlap(box, other) for other in taken):
                break
        taken.append(box)
        axes.annotate(
            text,
            place,
            xytext=(6 * side, dy),
            textcoords="offset points",
            fontsize=size,
            va="center",
            ha="left" if side > 0 else "right",
            arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.5}
            if dy
            else None,
        )


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return (
        one[0] < other[2]
        and other[0] < one[2]
        and one[1] < other[3]
        and other[1] < one[3]
    )


def band(axes: Axes, x: np.ndarray, runs: np.ndarray, label: str, colour: str) -> None:
    """Draw the mean over seeds, and the range of the seeds as a band.

    A single position has no line: its mean is a dot, with the range as a bar beside
    those of others.

    Args:
      axes: where to draw.
      x: positions, [points].
      runs: values, [seeds, points].
      label: legend entry.
      colour: a matplotlib colour.
    """
    mean = runs.mean(0)
    if len(x) == 1:
        beside = x * 1.03 ** len(axes.containers)
        reach = np.abs(np.stack([runs.min(0), runs.max(0)]) - mean)
        axes.errorbar(beside, mean, reach, fmt="o", color=colour, label=label)
        return
    axes.plot(x, mean, color=colour, label=label, linewidth=1.8)
    if len(runs) > 1:
        axes.fill_between(
            x, runs.min(0), runs.max(0), color=colour, alpha=0.18, linewidth=0
        )
