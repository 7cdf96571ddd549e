"""Plots of the anomaly script."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from train_scripts.anomaly.quality import Alarm, Gain, Quality
from train_scripts.anomaly.selecting import Selection
from train_scripts.running.plots import COLOURS, figure

__all__ = ["plot_alarms", "plot_augment", "plot_quality", "plot_regret"]


def plot_quality(path: Path, found: Mapping[str, Sequence[Quality]]) -> None:
    """Plot the AUROC of every method, a colour per data set.

    Args:
      path: file to write.
      found: methods by data set.
    """
    methods = list(dict.fromkeys(row.method for rows in found.values() for row in rows))
    with figure(path, (7.5, 0.28 * len(methods) + 1.4)) as axes:
        width = 0.7 / len(found)
        for number, (name, rows) in enumerate(found.items()):
            shift = (number + 0.5) * width - 0.35
            place = [methods.index(row.method) + shift for row in rows]
            value = np.array([row.auroc.estimate for row in rows])
            ends = np.array([[row.auroc.low, row.auroc.high] for row in rows]).T
            axes.errorbar(
                value,
                place,
                xerr=np.maximum(0, np.stack([value - ends[0], ends[1] - value])),
                fmt="o",
                markersize=4,
                color=list(COLOURS.values())[number % len(COLOURS)],
                label=name,
            )
        axes.set_yticks(range(len(methods)), methods, fontsize=8)
        axes.invert_yaxis()
        axes.axvline(0.5, color="#999999", linewidth=0.8)
        axes.set_xlabel("AUROC, with 95% interval")
        _legend_above(axes, columns=len(found))


def plot_alarms(path: Path, found: Mapping[str, Sequence[Alarm]], method: str) -> None:
    """Plot measured false-alarm rates and power at each level.

    Args:
      path: file to write.
      found: rows by data set.
      method: whose rows are drawn.
    """
    shown = [row for rows in found.values() for row in rows if row.method == method]
    levels = sorted({row.level for row in shown})
    with figure(path, (5.6, 4.0)) as axes:
        for number, (name, rows) in enumerate(found.items()):
            own = [row for row in rows if row.method == method and not row.refused]
            shift = (number + 0.5) * 0.6 / len(found) - 0.3
            place = [levels.index(row.level) + shift for row in own]
            for what, marker, each in (
                ("false alarms", "o", [row.false_alarms for row in own]),
                ("caught", "^", [row.power for row in own]),
            ):
                rate = np.array([share.estimate for share in each])
                low = rate - np.array([share.low for share in each])
                high = np.array([share.high for share in each]) - rate
                axes.errorbar(
                    place,
                    rate,
                    yerr=np.maximum(0, np.stack([low, high])),
                    fmt=marker,
                    clip_on=False,
                    color=list(COLOURS.values())[number % len(COLOURS)],
                    label=f"{name}: {what}",
                )
        middle = np.arange(len(levels))
        axes.hlines(
            levels, middle - 0.4, middle + 0.4, color="#999999", label="allowed"
        )
        for place, level in zip(middle, levels, strict=True):
            if not any(row.level == level and not row.refused for row in shown):
                axes.text(
                    float(place), level, "refused", ha="center", va="bottom", fontsize=8
                )
        axes.set_xticks(middle, [f"{level:.0%}" for level in levels])
        # Wide where rates are small; unlike a logarithm it has a place for 0.
        axes.set_yscale("function", functions=(np.sqrt, np.square))
        shares = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 1)
        axes.set_yticks(shares, [f"{share:.0%}" for share in shares])
        axes.set(ylim=(0, 1), xlabel="level", ylabel="share flagged")
        _legend_above(axes, columns=2)


def plot_augment(path: Path, found: Mapping[str, Sequence[Gain]]) -> None:
    """Plot the gain of synthetic texts by detector.

    Args:
      path: file to write.
      found: gains by data set.
    """
    rows = [
        (f"{name}: {g.detector}", g) for name, gains in found.items() for g in gains
    ]
    sources = list(dict.fromkeys(g.source for _, g in rows))
    labels = list(dict.fromkeys(label for label, _ in rows))
    with figure(path, (6.4, 0.28 * len(labels) + 1.4)) as axes:
        for number, source in enumerate(sources):
            own = [(label, g) for label, g in rows if g.source == source]
            gain = np.array([g.gain.estimate for _, g in own])
            low = gain - np.array([g.gain.low for _, g in own])
            high = np.array([g.gain.high for _, g in own]) - gain
            axes.errorbar(
                gain,
                [labels.index(label) + 0.2 * number for label, _ in own],
                xerr=np.maximum(0, np.stack([low, high])),
                fmt="o",
                color=list(COLOURS.values())[number],
                label=f"written by {source}",
            )
        axes.set_yticks(range(len(labels)), labels, fontsize=8)
        axes.invert_yaxis()
        axes.axvline(0, color="#999999", linewidth=0.8)
        axes.set_xlabel("AUROC gained by synthetic texts, with 95% interval")


def plot_regret(path: Path, found: Mapping[str, Selection]) -> None:
    """Plot the mean regret of each way to choose.

    Args:
      path: file to write.
      found: selections by the table they choose from.
    """
    ways = ("SmolLM2", "told nothing", "best on the others", "random")
    with figure(path, (5.6, 3.4)) as axes:
        width = 0.8 / len(found)
        for number, (title, each) in enumerate(found.items()):
            values = (
                each.told,
                each.control,
                each.baselines.average,
                each.baselines.random,
            )
            axes.bar(
                np.arange(len(ways)) + number * width,
                [value.mean() for value in values],
                width,
                label=title,
                color=list(COLOURS.values())[number],
            )
        axes.set_xticks(np.arange(len(ways)) + 0.2, ways)
        axes.set_ylabel("AUROC lost to the best pair")


def _legend_above(axes: Axes, columns: int) -> None:
    """A legend that covers no point."""
    above = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": columns}
    axes.legend(frameon=False, fontsize=8, **above)
