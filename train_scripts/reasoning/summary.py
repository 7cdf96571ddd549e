"""Summary of the plane: numbers, table and plots."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from configs.reasoning import Config
from jeff_llm.reasoning import metrics
from train_scripts.running import plots
from train_scripts.running.seeds import mean_and_std, spread

__all__ = ["BASE", "FAMILIES", "Line", "Report", "numbers", "plot", "table"]

BASE = "one sample"
FAMILIES = {
    "base": ("the base", "plain", "o"),
    "votes": ("output: votes", "line", "s"),
    "controls": ("output: controls", "second", "^"),
    "exits": ("output: early exits", "third", "v"),
    "prompts": ("prompt", "prompt", "D"),
    "selected": ("model: selected samples, valve", "tuned", "P"),
    "latent": ("model: latent thoughts", "latent", "X"),
    "rl": ("model: reinforcement learning", "fixed", "*"),
}
_COLOURS = plots.COLOURS | {
    "prompt": "#E69F00",
    "tuned": "#56B4E9",
    "latent": "#F0E442",
}


class Line(NamedTuple):
    """A point on the plane, over seeds.

    Attributes:
      branch: the branch that it belongs to.
      accuracy: share of right answers, one per seed.
      tokens: mean tokens per question, one per seed.
      samples: mean samples per question, one per seed.
    """

    branch: str
    accuracy: np.ndarray
    tokens: np.ndarray
    samples: np.ndarray

    @property
    def family(self) -> str:
        """Family of the branch, for plots."""
        return self.branch.partition(":")[0]


class Report(NamedTuple):
    """Measurements of a run.

    Attributes:
      config: settings of the run.
      points: measurements by name of the point.
    """

    config: Config
    points: dict[str, Line]

    @property
    def base(self) -> Line:
        """A single sample of the base at temperature 1: what is compared with."""
        return self.points[BASE]

    @property
    def solved(self) -> np.ndarray:
        """Accuracy of the base, one per seed; NaN where no ratio to it is defined."""
        accuracy = self.base.accuracy
        return np.where(accuracy > 0, accuracy, np.nan)

    def aes(self, name: str) -> np.ndarray:
        """Accuracy-efficiency score of a point against the base, one per seed.

        Args:
          name: name of the point.

        Returns:
          The scores; NaN where the base solves nothing.
        """
        point = self.points[name]
        return np.asarray(
            metrics.aes(point.accuracy, point.tokens, self.solved, self.base.tokens)
        )

    def rivals(self) -> list[str]:
        """Points that are methods: all but those of the base's own samples.

        Returns:
          Their names.
        """
        return [n for n, each in self.points.items() if each.branch != "base"]


def numbers(report: Report) -> dict[str, float]:
    """Means and standard deviations over seeds.

    Args:
      report: measurements of the run.

    Returns:
      Numbers by name.
    """
    found: dict[str, np.ndarray] = {}
    for name, point in report.points.items():
        found[f"{name}|accuracy"] = point.accuracy
        found[f"{name}|tokens"] = point.tokens
        if name != BASE:
            found[f"{name}|aes"] = report.aes(name)
        if point.branch == "votes":
            found[f"{name}|samples"] = point.samples
    return mean_and_std(found)


def table(report: Report) -> str:
    """All points as a Markdown table.

    Args:
      report: measurements of the run.

    Returns:
      The table.
    """
    seeds = len(report.config.seeds)
    lines = [
        f"Small model, {report.config.test} test questions, {seeds} "
        f"{'seed' if seeds == 1 else 'seeds'}; mean ± standard deviation.",
        "",
        "| branch | method | accuracy, % | tokens | samples | AES |",
        "|---|---|---|---|---|---|",
    ]
    for name, point in report.points.items():
        score = "-" if name == BASE else spread(report.aes(name))
        family = FAMILIES[point.family][0]
        lines.append(
            f"| {family} | {name} | {spread(100 * point.accuracy, 1)} | "
            f"{spread(point.tokens, 1)} | {spread(point.samples, 1)} | {score} |"
        )
    return "\n".join(lines) + "\n"


def plot(report: Report, workdir: Path) -> None:
    """Draw the plane, the valve and the branches by score.

    Args:
      report: measurements of the run.
      workdir: the run's folder.
    """
    _plane(report, workdir / "01_plane.png")
    _scores(report, workdir / "02_scores.png")
    _controls(report, workdir / "03_budgets.png")


def _plane(report: Report, path: Path) -> None:
    with plots.figure(path, size=(7.6, 5.0)) as axes:
        for family, (label, colour, marker) in FAMILIES.items():
            some = {n: p for n, p in report.points.items() if p.family == family}
            if not some:
                continue
            axes.plot(
                [point.tokens.mean() for point in some.values()],
                [100 * point.accuracy.mean() for point in some.values()],
                marker,
                color=_COLOURS[colour],
                label=label,
                markersize=9 if marker == "*" else 6,
            )
        base = report.base
        axes.axhline(100 * base.accuracy.mean(), color="#999999", linewidth=0.8)
        axes.axvline(base.tokens.mean(), color="#999999", linewidth=0.8)
        axes.set_xscale("log")
        axes.set_xlabel("tokens per question, all samples counted")
        axes.set_ylabel("accuracy, %")
        axes.legend(frameon=False, fontsize=8, loc="lower right")
        places = {
            name: (
                report.points[name].tokens.mean(),
                100 * report.points[name].accuracy.mean(),
            )
            for name in _labelled(report)
        }
        plots.label_points(axes, places)


def _labelled(report: Report) -> list[str]:
    """Names on the plane: the base, the votes, and the best of each other family."""
    chosen = [BASE, "greedy"]
    for family in FAMILIES:
        names = [n for n in report.rivals() if report.points[n].family == family]
        names.sort(key=lambda name: -float(report.aes(name).mean()))
        chosen += names if family == "votes" else names[:2]
    return [name for name in report.points if name in chosen]


def _scores(report: Report, path: Path) -> None:
    """The best fifteen points by score, with every seed."""
    names = sorted(report.rivals(), key=lambda name: -float(report.aes(name).mean()))
    names = names[:15][::-1]
    with plots.figure(path, size=(5.6, 4.6)) as axes:
        for row, name in enumerate(names):
            values = report.aes(name)
            colour = _COLOURS[FAMILIES[report.points[name].family][1]]
            axes.barh(row, values.mean(), color=colour, alpha=0.55)
            axes.plot(values, np.full(len(values), row), ".", color="#222222")
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.axvline(0, color="#222222", linewidth=0.8)
        axes.set_xlabel("accuracy-efficiency score against one sample of the base")


def _controls(report: Report, path: Path) -> None:
    """Accuracy against tokens for the branches with a dial."""
    dials = {
        "budget in the prompt": "budget ",
        "forced cap": "cap ",
        "forced waits": "wait x",
        "valve": "valve ",
    }
    with plots.figure(path) as axes:
        for (label, prefix), colour in zip(
            dials.items(), ("prompt", "second", "third", "tuned"), strict=True
        ):
            some = [p for n, p in report.points.items() if n.startswith(prefix)]
            if not some:  # a branch that this run leaves out
                continue
            some.sort(key=lambda point: point.tokens.mean())
            axes.errorbar(
                [point.tokens.mean() for point in some],
                [100 * point.accuracy.mean() for point in some],
                yerr=[100 * point.accuracy.std() for point in some],
                fmt="o-",
                color=_COLOURS[colour],
                label=label,
                markersize=4,
                capsize=2,
            )
        axes.plot(
            report.base.tokens.mean(),
            100 * report.base.accuracy.mean(),
            "ko",
            label="one sample",
        )
        axes.set_xlabel("tokens per question")
        axes.set_ylabel("accuracy, %")
