"""Plots of the parts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from configs.genes import Config
from jeff_llm.genes.evaluation import Evaluation
from train_scripts.genes.sets import Sets, strategy_names
from train_scripts.genes.solvable import Solvable
from train_scripts.running import plots

__all__ = ["plot_measures", "plot_sets", "plot_solvable", "plot_strategies"]


def plot_measures(
    path: Path,
    found: Mapping[str, Mapping[str, Evaluation]],
    published: Sequence[float],
) -> None:
    """Draw top 1, 3 and 10 of the best measures of one source.

    Args:
      path: file to write.
      found: evaluations by setting, then measure.
      published: published top 1, 3 and 10, as lines; empty for none.
    """
    first = next(iter(found.values()))
    names = list(first)[:8][::-1]
    with plots.figure(path, (6.0, 4.2)) as axes:
        colours = [plots.COLOURS[c] for c in ("line", "fixed")]
        places = np.arange(len(names))
        height = 0.8 / len(found)
        for number, (setting, rows) in enumerate(found.items()):
            values = np.array(
                [rows[name].top1 if name in rows else (0, 0, 0) for name in names]
            )
            axes.barh(
                places - 0.4 + height * (len(found) - number - 0.5),
                100 * values[:, 0],
                height,
                xerr=100 * np.abs(values[:, 1:].T - values[:, 0]),
                color=colours[number],
                label=setting,
                error_kw={"elinewidth": 0.8},
            )
        if published:
            axes.axvline(
                100 * published[0],
                color=plots.COLOURS["plain"],
                linestyle="--",
                label="PhenoBrain's ensemble",
            )
        axes.set_yticks(places, [name.replace("_", " ") for name in names])
        axes.set_xlabel("right at rank 1, %")
        # Above the bars, of which any may be long.
        above = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 3}
        axes.legend(frameon=False, fontsize=8, **above)


def plot_sets(path: Path, config: Config, found: Sets) -> None:
    """Draw accuracy against the size of the candidate set.

    Args:
      path: file to write.
      config: settings of the run.
      found: the measurements.
    """
    kind = config.distractors[0]
    with plots.figure(path) as axes:
        axes.plot(
            config.sizes,
            [100 / size for size in config.sizes],
            ":",
            color=plots.COLOURS["plain"],
            label="chance",
        )
        for ranker, colour in zip(found.cases, _colours(), strict=False):
            wanted = {"kind": "size", "ranker": ranker, "distractors": kind}
            points = {
                size: 100 * values.mean()
                for size in config.sizes
                if len(values := found.values("top1", size=size, **wanted))
            }
            axes.plot(
                list(points),
                list(points.values()),
                "o-",
                markersize=4,
                color=colour,
                label=ranker,
            )
        axes.set_xscale("log")
        axes.set_xticks(config.sizes, [str(size) for size in config.sizes])
        axes.minorticks_off()
        axes.set_ylim(0, 100)
        axes.set_xlabel("candidate genes")
        axes.set_ylabel("right at rank 1, %")


def plot_strategies(path: Path, config: Config, found: Sets) -> None:
    """Draw accuracy against calls, a point per strategy.

    Args:
      path: file to write.
      config: settings of the run.
      found: the measurements.
    """
    rankers = dict.fromkeys(i.ranker for i in found.items if i.kind == "strategy")
    with plots.figure(path, (6.0, 4.2)) as axes:
        places: dict[str, tuple[float, float]] = {}
        for ranker, colour in zip(rankers, _colours(), strict=False):
            for name in strategy_names(config, ranker):
                wanted = {"kind": "strategy", "ranker": ranker, "strategy": name}
                calls = float(found.values("calls", **wanted).mean())
                top1 = 100 * float(found.values("top1", **wanted).mean())
                axes.plot(
                    calls,
                    top1,
                    "o",
                    color=colour,
                    label=ranker if name == "full list" else None,
                )
                places[f"{name}{' ' * len(places)}"] = (calls, top1)
        axes.set_xscale("log")
        axes.set_ylim(0, 100)
        axes.set_xlim(0.7, 3 * max(x for x, _ in places.values()))
        axes.set_xlabel("calls per case")
        axes.set_ylabel("right at rank 1, %")
        plots.label_points(axes, places)


def plot_solvable(path: Path, found: Mapping[str, Solvable]) -> None:
    """Draw the share of wrong answers against the share of cases answered.

    Args:
      path: file to write.
      found: measurements by set of annotations.
    """
    with plots.figure(path) as axes:
        for (name, each), colour in zip(found.items(), _colours(), strict=False):
            axes.plot(
                100 * each.quality.coverage,
                100 * each.quality.risk,
                color=colour,
                label=name,
            )
        axes.set_xlabel("cases answered, surest first, %")
        axes.set_ylabel("wrong among them, %")
        axes.set_ylim(0, 100)


def _colours() -> list[str]:
    names = ("line", "fixed", "second", "third")
    return [plots.COLOURS[name] for name in names] + ["#E69F00", "#56B4E9"]
