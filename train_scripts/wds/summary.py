"""Summary of a run on gene pairs: numbers and plots."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.wds import Config
from train_scripts.running import plots
from train_scripts.running.seeds import mean_and_std
from train_scripts.wds.table import Table

__all__ = ["NAMES", "Report", "numbers", "paired", "plot", "values"]

NAMES = {
    "wds": "weighted diversified",
    "uniform": "uniform",
    "k-centre": "k-centre",
    "geosketch": "geometric sketch",
}
_COLOURS = dict(zip(NAMES, ("line", "plain", "fixed", "second"), strict=True))


class Report(NamedTuple):
    """Measurements of a run.

    Attributes:
      config: settings of the run.
      rows: numbers by name, one row per seed.
      table: data of the first seed for the plots.
    """

    config: Config
    rows: list[dict[str, Any]]
    table: Table


def values(report: Report, name: str) -> np.ndarray:
    """One number of every seed; seeds without it are left out.

    Args:
      report: measurements of the run.
      name: name of the number.

    Returns:
      The values, at most one per seed.
    """
    return paired(report, name)[0]


def paired(report: Report, *names: str) -> tuple[np.ndarray, ...]:
    """Several numbers of every seed that has them all, so that they stay in pairs.

    Args:
      report: measurements of the run.
      *names: names of the numbers.

    Returns:
      The values of each name, one per seed.
    """
    rows = [row for row in report.rows if all(name in row for name in names)]
    return tuple(np.array([row[name] for row in rows], float) for name in names)


def numbers(report: Report) -> dict[str, float]:
    """Mean of every number, and its standard deviation over the seeds.

    Args:
      report: measurements of the run.

    Returns:
      Numbers by name.
    """
    # A number may be missing in the first seed and there in another.
    names = dict.fromkeys(name for row in report.rows for name in row)
    columns = {n: values(report, n) for n in names if n != "step"}
    return mean_and_std({n: v for n, v in columns.items() if np.isfinite(v).all()})


def plot(report: Report, workdir: Path) -> None:
    """Plot the heat map, the network, the fidelity curves, and the effect of the power.

    Args:
      report: measurements of the run.
      workdir: folder for the PNG files.
    """
    with plots.figure(workdir / "01_pairs.png") as axes:
        _plot_map(axes, report.table)
    with plots.figure(workdir / "02_network.png") as axes:
        _plot_network(axes, report.table)
    for number, (measure, label) in enumerate(_curves(report), 3):
        with plots.figure(workdir / f"{number:02d}_{measure}.png") as axes:
            _plot_curves(axes, report, measure, label)
    with plots.figure(workdir / "06_power.png") as axes:
        _plot_power(axes, report)


def _curves(report: Report) -> list[tuple[str, str]]:
    known = any(name.endswith("_auroc") for name in report.rows[0])
    first = ("auroc", "AUROC of the known pairs")
    return [
        *([first] if known else []),
        ("agreement", "rank correlation with the map of all cells"),
        ("overlap", "share of the top 100 pairs of all cells"),
    ]


def _plot_map(axes: Any, table: Table) -> None:
    import matplotlib

    colours = matplotlib.colormaps["viridis"].with_extremes(bad="#eeeeee")
    image = axes.imshow(table.scores, cmap=colours, aspect="equal")
    axes.figure.colorbar(image, ax=axes, shrink=0.8, label="attention, mean over cells")
    ticks = np.arange(len(table.genes))
    axes.set_xticks(ticks, table.genes, rotation=90, fontsize=5)
    axes.set_yticks(ticks, table.genes, fontsize=5)
    axes.grid(False)
    axes.set_title(
        "genes of the strongest pairs (grey: never seen together)", fontsize=8
    )


def _plot_network(axes: Any, table: Table) -> None:
    import networkx

    graph = networkx.Graph()
    for first, second, score, *_ in table.pairs:
        graph.add_edge(first, second, weight=score)
    # The layout starts at random; a fixed seed makes the plot reproducible.
    place = networkx.spring_layout(graph, seed=0, k=1.2 / max(len(graph), 1) ** 0.5)
    weight = np.array([graph.edges[edge]["weight"] for edge in graph.edges])
    size = 0.6 + 2.4 * (weight - weight.min()) / max(np.ptp(weight), 1e-12)
    style = {"edge_color": plots.COLOURS["line"], "alpha": 0.6}
    networkx.draw_networkx_edges(graph, place, ax=axes, width=size.tolist(), **style)
    networkx.draw_networkx_nodes(
        graph, place, ax=axes, node_size=18, node_color=plots.COLOURS["plain"]
    )
    above = {name: (x, y + 0.045) for name, (x, y) in place.items()}
    networkx.draw_networkx_labels(graph, above, ax=axes, font_size=6)
    axes.set_axis_off()
    axes.set_title(f"the {len(table.pairs)} strongest pairs", fontsize=9)


def _plot_curves(axes: Any, report: Report, measure: str, label: str) -> None:
    shares = np.array(report.config.shares)
    order = np.argsort(shares)
    for way in report.config.samplers:
        names = [f"{way}_{share:g}_{measure}" for share in shares[order]]
        runs = np.stack(paired(report, *names), 1)
        if not runs.size:
            continue
        plots.band(
            axes, 100 * shares[order], runs, NAMES[way], plots.COLOURS[_COLOURS[way]]
        )
    whole = values(report, f"all_{measure}")
    if whole.size:
        style = {"color": "#999999", "linestyle": "--", "linewidth": 1.2}
        axes.axhline(whole.mean(), label="all cells", **style)
    axes.set_xscale("log")
    axes.set_xticks(
        100 * shares[order], [f"{100 * share:g}" for share in shares[order]]
    )
    axes.minorticks_off()
    axes.set(xlabel="cells, %", ylabel=label)


def _plot_power(axes: Any, report: Report) -> None:
    table = report.table
    axes.plot(
        table.powers,
        100 * table.effective,
        color=plots.COLOURS["plain"],
        label="effective size, % of the sample",
    )
    for number, (name, multiple) in enumerate(table.multiples.items()):
        rare = name in table.rare
        colour = plots.COLOURS["fixed"] if rare else "#bbbbbb"
        first = rare and name == table.rare[0]
        label = "rare types, times their share" if first else None
        label = "other types" if number == 0 and not rare else label
        axes.plot(table.powers, multiple, color=colour, label=label)
    used = values(report, "power").mean()
    axes.axvline(used, color="#999999", linestyle="--", linewidth=1.2, label="used")
    axes.set_yscale("log")
    axes.set(xlabel="power of 1 / density", ylabel="% and multiples, logarithmic")
