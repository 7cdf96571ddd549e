"""Summary of a YODO run: numbers, plots, and data of the report's explorer."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from configs.yodo import Config
from jeff.fairness.evaluation import Choice, Evaluation
from train_scripts.running import plots
from train_scripts.running.seeds import mean_and_std

__all__ = ["Seed", "each_seed", "explorer", "numbers", "plot", "unknown_note"]


@dataclasses.dataclass(frozen=True)
class Seed:
    """Measurements of one seed on the test part.

    Attributes:
      line: metrics of the line at every level.
      fixed: metrics of the separately trained models; the first is plain training.
      choice: level chosen on the validation part, or None if no level met the limit.
      chosen: test metrics of the chosen level, or None.
      tau: Kendall's tau between alpha and the gap used in training.
      growth: largest increase of that gap over the smallest gap at an earlier level.
      growth_served: as ``growth``, for the levels that
        `jeff.fairness.monotone_levels` chooses on the validation part.
      cosine: squared cosine between the trained ends.
      line_seconds: time to train the line, without compilation.
      levels_seconds: time to measure all levels, without compilation.
      fixed_seconds: time to train all fixed models, without compilation.
    """

    line: Evaluation
    fixed: Evaluation
    choice: Choice | None
    chosen: dict[str, float] | None
    tau: float
    growth: float
    growth_served: float
    cosine: float
    line_seconds: float
    levels_seconds: float
    fixed_seconds: float

    @property
    def speedup(self) -> float:
        """Time for 100 fixed models relative to one line with all its levels."""
        # Fewer models are trained; their time is extrapolated linearly to 100.
        each = self.fixed_seconds / len(self.fixed.alpha)
        return 100 * each / (self.line_seconds + self.levels_seconds)


def each_seed(seeds: list[Seed]) -> dict[str, list[float]]:
    """Values of every headline number, one per seed.

    Args:
      seeds: measurements of each seed.

    Returns:
      Values by name.
    """
    rows: dict[str, list[float]] = {}

    def add(name: str, value: Any) -> None:
        rows.setdefault(name, []).append(float(value))

    for seed in seeds:
        for name, where, place in [
            ("plain", seed.fixed, 0),
            ("start", seed.line, 0),
            ("end", seed.line, -1),
        ]:
            add(f"accuracy_{name}", where.accuracy[place])
            add(f"auroc_{name}", where.auroc[place])
            add(f"demographic_parity_{name}", where.demographic_parity[place])
            add(f"equal_opportunity_{name}", where.equal_opportunity[place])
            add(f"soft_demographic_parity_{name}", where.soft_demographic_parity[place])
        for gap in ("demographic_parity", "equal_opportunity", "equalized_odds"):
            add(f"hypervolume_{gap}_line", seed.line.hypervolume(gap))
            add(f"hypervolume_{gap}_fixed", seed.fixed.hypervolume(gap))
        add("kendall_tau", seed.tau)
        add("gap_growth", seed.growth)
        add("gap_growth_served", seed.growth_served)
        add("cosine_squared", seed.cosine)
        add("seconds_line", seed.line_seconds)
        add("seconds_levels", seed.levels_seconds)
        add("seconds_fixed_models", seed.fixed_seconds)
        add("speedup_100_models", seed.speedup)
        if seed.choice and seed.chosen:
            add("chosen_alpha", seed.choice.alpha)
            add("chosen_gap_bound", seed.choice.gap_upper)
            for name, value in seed.chosen.items():
                add(f"chosen_test_{name}", value)
    return rows


def numbers(seeds: list[Seed]) -> dict[str, float]:
    """Mean of every headline number, and its standard deviation over the seeds.

    A number that some seed does not have is left out (`unknown_note`): the mean of the
    other seeds would be that of a selection.

    Args:
      seeds: measurements of each seed.

    Returns:
      ``name``, and ``name_std`` if there are at least two seeds.
    """
    rows = each_seed(seeds)
    return mean_and_std(
        {n: each for n, each in rows.items() if n not in _unknown(rows)}
    )


def unknown_note(seeds: list[Seed]) -> str:
    """Say which numbers are left out.

    Args:
      seeds: measurements of each seed.

    Returns:
      A sentence; empty where all numbers are known.
    """
    missing = _unknown(each_seed(seeds))
    if not missing:
        return ""
    return (
        f"Left out, since these data do not determine them: {', '.join(missing)}. A "
        "correlation needs a gap that varies; a gap needs people of both groups, with "
        "the outcomes that it compares, in the parts for validation and test.\n"
    )


def _unknown(rows: dict[str, list[float]]) -> list[str]:
    return [name for name, each in rows.items() if not np.isfinite(each).all()]


def explorer(
    config: Config, seeds: list[Seed], groups: tuple[str, str]
) -> dict[str, Any]:
    """Data of the report's slider along the line.

    Args:
      config: settings of the run.
      seeds: measurements of each seed.
      groups: names of groups 0 and 1.

    Returns:
      Contents of ``explorer.json``; see `train_scripts.report.explorer`.
    """

    def percent(label: str, runs: np.ndarray) -> dict[str, Any]:
        runs = 100 * runs
        return {
            "label": label,
            "unit": "%",
            "values": runs.mean(0).tolist(),
            "low": runs.min(0).tolist() if len(runs) > 1 else None,
            "high": runs.max(0).tolist() if len(runs) > 1 else None,
        }

    def stacked(name: str) -> np.ndarray:
        return np.stack([getattr(seed.line, name) for seed in seeds])

    def known(readout: dict[str, Any]) -> bool:
        return bool(np.isfinite(readout["values"]).all())

    rates = stacked("group_rates")
    return {
        "title": "Choose the trade-off after training",
        "slider": {
            "label": "Level alpha",
            "values": seeds[0].line.alpha.tolist(),
            "low_label": "accurate",
            "high_label": "fair",
        },
        "readouts": list(
            filter(
                known,
                [
                    percent("Accuracy", stacked("accuracy")),
                    percent("Demographic parity gap", stacked("demographic_parity")),
                    percent("Equal opportunity gap", stacked("equal_opportunity")),
                    percent(f"Favourable decisions: {groups[0]}", rates[..., 0]),
                    percent(f"Favourable decisions: {groups[1]}", rates[..., 1]),
                ],
            )
        ),
        "curve": {
            "x": 1,
            "y": 0,
            "x_label": "Demographic parity gap (%)",
            "y_label": "Accuracy (%)",
        },
        "references": [
            {
                "label": "plain training" if place == 0 else "a model trained apart",
                "x": 100
                * float(np.mean([s.fixed.demographic_parity[place] for s in seeds])),
                "y": 100 * float(np.mean([s.fixed.accuracy[place] for s in seeds])),
            }
            for place in range(len(seeds[0].fixed.alpha))
        ],
    }


def plot(seeds: list[Seed], groups: tuple[str, str], workdir: Path) -> None:
    """Plot the front, gap and accuracy by level, and the rates of the groups.

    Args:
      seeds: measurements of each seed.
      groups: names of groups 0 and 1.
      workdir: folder for the PNG files.
    """
    alpha = np.asarray(seeds[0].line.alpha)
    colours = plots.COLOURS

    def stacked(name: str) -> np.ndarray:
        return 100 * np.stack([getattr(seed.line, name) for seed in seeds])

    with plots.figure(workdir / "01_accuracy_against_gap.png") as axes:
        _plot_front(axes, seeds)
    with plots.figure(workdir / "02_gap_against_level.png") as axes:
        for name, colour in [
            ("demographic_parity", "line"),
            ("equal_opportunity", "second"),
        ]:
            label = name.replace("_", " ")
            plots.band(axes, alpha, stacked(name), label, colours[colour])
        axes.set(xlabel="alpha", ylabel="gap (%)", ylim=(0, None))
    with plots.figure(workdir / "03_accuracy_against_level.png") as axes:
        plots.band(axes, alpha, stacked("accuracy"), "the line", colours["line"])
        plain = 100 * float(np.mean([seed.fixed.accuracy[0] for seed in seeds]))
        style = {"color": colours["plain"], "linestyle": "--", "linewidth": 1}
        axes.axhline(plain, label="plain training", **style)
        axes.set(xlabel="alpha", ylabel="accuracy (%)")
    with plots.figure(workdir / "04_favourable_decisions_by_group.png") as axes:
        rates = stacked("group_rates")
        for place, colour in enumerate(("third", "line")):
            plots.band(axes, alpha, rates[..., place], groups[place], colours[colour])
        axes.set(xlabel="alpha", ylabel="favourable decisions (%)", ylim=(0, None))


def _plot_front(axes: Axes, seeds: list[Seed]) -> None:
    for number, seed in enumerate(seeds):
        first = number == 0
        axes.plot(
            100 * seed.line.demographic_parity,
            100 * seed.line.accuracy,
            color=plots.COLOURS["line"],
            linewidth=1.4,
            label="one line, a seed each" if first else None,
        )
        axes.scatter(
            100 * seed.fixed.demographic_parity,
            100 * seed.fixed.accuracy,
            color=plots.COLOURS["fixed"],
            s=14,
            label="models trained apart" if first else None,
        )
    axes.set(xlabel="demographic parity gap (%)", ylabel="accuracy (%)")
