"""Summary of a GRE run: numbers, table and plots."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.gre import Config
from train_scripts.running import plots
from train_scripts.running.seeds import mean_and_std

__all__ = [
    "MEASURES",
    "NAMES",
    "Cell",
    "Report",
    "kept_by_age",
    "numbers",
    "plot",
    "table",
    "values",
]

# In percent, percentage points, nats and milliseconds; hop1 to hop3 are drawdowns at
# that distance from the target.
MEASURES = (
    "success",
    "retention",
    "drawdown",
    "hop1",
    "hop2",
    "hop3",
    "divergence",
    "steps",
    "milliseconds",
)

NAMES = {
    "gd": "gradient descent",
    "gre": "GRE",
    "gre+2": "GRE+ (2)",
    "gre+3": "GRE+ (3)",
    "gre+5": "GRE+ (5)",
    "gre+5-update": "GRE+ (5), of updates",
    "enn": "ENN",
    "egnn": "EGNN",
    "seed": "SEED",
    "rehearsal": "rehearsal",
    "memory-rewiring": "memory rewiring",
    "distilled-replay": "distilled replay",
    "minimal-edit": "minimal edit",
}
# Methods that are plotted; there are more methods than colours.
_SHOWN = ("gd", "gre", "gre+5", "distilled-replay", "minimal-edit")


class Cell(NamedTuple):
    """One combination of settings that is measured.

    Attributes:
      network: name of the network.
      method: name of the editing method.
      protocol: "independent", "sequential" or "batch".
      seed: seed of the split, the initial network and the order of edits.
    """

    network: str
    method: str
    protocol: str
    seed: int


class Report(NamedTuple):
    """Measurements of a run.

    Attributes:
      config: settings of the run.
      rows: measures by cell.
    """

    config: Config
    rows: dict[Cell, dict[str, float]]


def values(
    report: Report, network: str, method: str, protocol: str, measure: str
) -> np.ndarray:
    """One measure for each seed; seeds without it are left out.

    Args:
      report: measurements of the run.
      network: name of the network.
      method: name of the editing method.
      protocol: name of the protocol.
      measure: one of `MEASURES`, "accuracy" or "edits".

    Returns:
      The values, at most one per seed.
    """
    rows = [
        report.rows[Cell(network, method, protocol, seed)]
        for seed in report.config.seeds
    ]
    return np.array([row[measure] for row in rows if measure in row], float)


def numbers(report: Report) -> dict[str, float]:
    """Mean of every measure, and its standard deviation over the seeds.

    Args:
      report: measurements of the run.

    Returns:
      Numbers by name.
    """
    found: dict[str, np.ndarray] = {}
    config = report.config
    for network in config.networks:
        first = (network, config.methods[0], config.protocols[0])
        found[f"{network}_accuracy"] = values(report, *first, "accuracy")
        found[f"{network}_edits"] = values(report, *first, "edits")[:1]
        for method in config.methods:
            for protocol in config.protocols:
                cell = (network, method, protocol)
                for measure in MEASURES:
                    found["_".join((*cell, measure))] = values(report, *cell, measure)
    return mean_and_std(found)


def table(report: Report) -> list[dict[str, Any]]:
    """One row per network, method and protocol, with the values of all seeds.

    Args:
      report: measurements of the run.

    Returns:
      The rows, for ``table.json``.
    """
    config = report.config
    return [
        {"network": network, "method": method, "protocol": protocol}
        | {
            measure: values(report, network, method, protocol, measure).tolist()
            for measure in MEASURES
        }
        for network in config.networks
        for method in config.methods
        for protocol in config.protocols
    ]


def kept_by_age(report: Report, network: str, method: str) -> np.ndarray:
    """Share of the latest edits that are still correct after all sequential edits.

    Args:
      report: measurements of the run.
      network: name of the network.
      method: name of the editing method.

    Returns:
      Entry k is the share among the latest k + 1 edits, in percent, mean over seeds.
    """
    curves = []
    for seed in report.config.seeds:
        row = report.rows[Cell(network, method, "sequential", seed)]
        kept = [row[f"kept_{number}"] for number in range(int(row["edits"]))]
        latest_first = np.array(kept[::-1])
        curves.append(100 * np.cumsum(latest_first) / np.arange(1, len(kept) + 1))
    return np.mean(curves, axis=0)


def plot(report: Report, workdir: Path) -> None:
    """Plot drawdown by method and protocol, retention by age, and drawdown by hop.

    Args:
      report: measurements of the run; only the first network is plotted.
      workdir: folder for the PNG files.
    """
    config = report.config
    shown = [name for name in _SHOWN if name in config.methods] or config.methods[:5]
    with plots.figure(workdir / "01_drawdown.png") as axes:
        _plot_drawdown(axes, report, shown)
    if "sequential" in config.protocols:
        with plots.figure(workdir / "02_retention.png") as axes:
            for method, colour in zip(shown, plots.COLOURS.values(), strict=False):
                kept = kept_by_age(report, config.networks[0], method)
                latest = np.arange(1, len(kept) + 1)
                axes.plot(latest, kept, color=colour, label=NAMES[method])
            label = "share of them that is right at the end, %"
            axes.set(xlabel="latest edits, counted back from the end", ylabel=label)
            axes.set_ylim(0, 103)
    with plots.figure(workdir / "03_drawdown_by_hop.png") as axes:
        _plot_hops(axes, report, shown)


def _plot_drawdown(axes: Any, report: Report, shown: Sequence[str]) -> None:
    network, protocols = report.config.networks[0], report.config.protocols
    places = np.arange(len(protocols))
    width = 0.8 / len(shown)
    for number, method in enumerate(shown):
        at = places + (number - (len(shown) - 1) / 2) * width
        for index, (place, protocol) in enumerate(zip(at, protocols, strict=True)):
            each = values(report, network, method, protocol, "drawdown")
            colour = list(plots.COLOURS.values())[number]
            label = NAMES[method] if index == 0 else None
            axes.bar(place, each.mean(), 0.92 * width, color=colour, label=label)
            style = {"color": "#999999", "markeredgecolor": "#ffffff", "ms": 4}
            axes.plot([place] * len(each), each, "o", mew=0.5, **style)
    axes.axhline(0, color="#222222", linewidth=0.8)
    axes.set_xticks(places, protocols)
    axes.set(ylabel="accuracy lost on the test nodes, points")


def _plot_hops(axes: Any, report: Report, shown: Sequence[str]) -> None:
    config = report.config
    protocol = config.protocols[0]
    for method, colour in zip(shown, plots.COLOURS.values(), strict=False):
        lost = [
            values(report, config.networks[0], method, protocol, f"hop{hop}")
            for hop in (1, 2, 3)
        ]
        means = [each.mean() if each.size else np.nan for each in lost]
        axes.plot((1, 2, 3), means, "o-", color=colour, label=NAMES[method])
    axes.axhline(0, color="#222222", linewidth=0.8)
    axes.set_xticks((1, 2, 3))
    ylabel = f"accuracy lost, points ({protocol} edits)"
    axes.set(xlabel="hops from the target", ylabel=ylabel)
