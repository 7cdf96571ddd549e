"""The page of the documentation about benchmarks: its table and its chart."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D

from benchmarks.comparisons import Comparison, outcome, table
from jeff import files
from train_scripts.running import plots

__all__ = ["text", "write"]

_COLOURS = {
    "met": plots.COLOURS["second"],
    "not met": plots.COLOURS["fixed"],
    "too small to tell": "#999999",
    "": plots.COLOURS["line"],
}
_LABELS = {"": "no goal"}
_HEAD = """# Benchmarks: jeff against its peers

Printed by `python -m benchmarks --recorded --page` from the records in
`benchmarks/results/`; `python -m benchmarks` measures anew what your machine can.

"Times better" is the median over repetitions of the peer's time over jeff's, in the
same run, and "spread" its least and largest. A goal is met or not where all repetitions
agree, or where a single pass is twice away; else the run is too small to tell. "Of the
floor" is the least time that the machine allows, from its measured rate of products or
copies, over what jeff takes.

"""
_FIGURE = (
    "![Ratios of all comparisons on a logarithmic axis, with spreads and "
    "goals](../figures/benchmarks.png)\n\n"
)

Found = Sequence[tuple[str, str, Sequence[Comparison]]]


def text(found: Found) -> str:
    """The page.

    Args:
      found: benchmark, device and comparisons of each record.

    Returns:
      Markdown.
    """
    return _HEAD + _FIGURE + table(found)


def write(path: Path, found: Found) -> None:
    """Write the page, and its chart into the folder of figures beside it.

    Args:
      path: the page.
      found: benchmark, device and comparisons of each record.
    """
    files.write_text(path, text(found))
    chart(path.parents[1] / "figures" / "benchmarks.png", found)


def chart(path: Path, found: Found) -> None:
    """Draw all ratios, one above the other.

    Args:
      path: the PNG file.
      found: benchmark, device and comparisons of each record.
    """
    rows = [
        (f"{name}: {each.what} · {each.peer}{_where(device)}", each)
        for name, device, comparisons in found
        for each in comparisons
    ][::-1]
    with plots.figure(path, (8.0, 0.6 + 0.21 * len(rows))) as axes:
        axes.axvline(1, color="#555555", linewidth=0.8)
        for place, (_, each) in enumerate(rows):
            colour = _COLOURS[outcome(each)]
            ends = [min(each.ratios), max(each.ratios)]
            axes.plot(ends, [place, place], color=colour, linewidth=2.5)
            axes.plot(each.typical, place, "o", color=colour, markersize=4.5)
            if each.goal is not None:
                axes.plot(each.goal, place, "|", color="#222222", markersize=9)
        axes.set_xscale("log")
        axes.set_yticks(np.arange(len(rows)), [name for name, _ in rows], fontsize=7)
        axes.set_ylim(-0.8, len(rows) - 0.2)
        axes.set_xlabel("times better than the peer; | is the goal")
        handles = [
            Line2D([], [], color=colour, marker="o", label=_LABELS.get(name, name))
            for name, colour in _COLOURS.items()
        ]
        axes.legend(handles=handles, frameon=False, fontsize=8, loc="upper right")


def _where(device: str) -> str:
    """Other devices than a CPU by name."""
    return "" if device.startswith("cpu") else f" ({device.split(' x', maxsplit=1)[0]})"
