"""Plots of an analysis of traces."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

from jeff_llm.reasoning import metrics
from jeff_llm.reasoning.traces import Traces
from train_scripts.reasoning.trace_report import RuleRow, marks
from train_scripts.running import plots

__all__ = ["plot_budgets", "plot_lengths", "plot_rules"]

# Kinds of rules, by the first word of their names.
_KINDS = {
    "first": ("fixed number of samples", "plain"),
    "esc": ("windows that agree", "line"),
    "adaptive": ("adaptive consistency", "fixed"),
    "certaindex": ("certainty of the answers", "second"),
    "short": ("first to finish, in parallel", "third"),
}
# Settings of these do not lie on a line.
_STYLES = {"short": "s", "certaindex": "o"}


def plot_lengths(path: Path, traces: Traces) -> None:
    """Draw the distribution of the lengths.

    Args:
      path: file to write.
      traces: samples.
    """
    top = max(float(np.quantile(traces.length, 0.995)), 1.0)
    edges = np.linspace(0, top, 41).tolist()
    groups = [("samples", np.ones(len(traces.length), bool), "line")]
    if traces.correct is not None:
        right = traces.correct >= 1
        groups = [("right", right, "second"), ("wrong", ~right, "fixed")]
    with plots.figure(path) as axes:
        for name, rows, colour in groups:
            axes.hist(
                np.minimum(traces.length[rows], top),
                edges,
                alpha=0.6,
                label=name,
                color=plots.COLOURS[colour],
            )
        axes.set_xlabel(f"length of a sample, {traces.unit} (last bar: and more)")
        axes.set_ylabel("samples")


def plot_budgets(path: Path, traces: Traces) -> None:
    """Draw the accuracy against the budget, one line for each name of a sample.

    Args:
      path: file to write.
      traces: samples.
    """
    grid = np.linspace(0, float(traces.length.max()), 200)
    right = marks(traces)
    names, run = traces.runs, traces.run
    # A legend of more names than this would cover the curves.
    if run is None or len(names) > 12:
        names, run = ("all samples",), np.zeros(len(right), int)
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.9, len(names)))
    with plots.figure(path) as axes:
        for number, name in enumerate(names):
            rows = run == number
            found = metrics.accuracy_at_budget(right[rows], traces.length[rows], grid)
            axes.plot(grid, np.asarray(found), color=shades[number], label=name)
        axes.set_xlabel(f"budget, {traces.unit}")
        known = traces.correct is not None
        axes.set_ylabel("accuracy" if known else "share finished")
        axes.set_ylim(bottom=0)


def plot_rules(path: Path, rows: Sequence[RuleRow]) -> None:
    """Draw accuracy, or agreement with the full vote, against the samples of a rule.

    Args:
      path: file to write.
      rows: of the rules, the vote of all samples last.
    """
    known = np.isfinite(rows[-1].accuracy)

    def height(row: RuleRow) -> float:
        return row.accuracy if known else row.agreement

    with plots.figure(path) as axes:
        for kind, (label, colour) in _KINDS.items():
            mine = [row for row in rows if row.name.split()[0] == kind]
            mine.sort(key=lambda row: row.samples)
            if mine:
                axes.plot(
                    [row.samples for row in mine],
                    [height(row) for row in mine],
                    _STYLES.get(kind, "o-"),
                    markersize=4,
                    linewidth=1,
                    label=label,
                    color=plots.COLOURS[colour],
                )
        axes.axhline(height(rows[-1]), linestyle=":", color="#999999")
        axes.set_xlabel("samples of a question, mean (dotted: the vote of all)")
        axes.set_ylabel("accuracy" if known else "agreement with the vote of all")
