"""Tables and plots of the anomaly script."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from configs.anomaly import Config
from train_scripts.anomaly.quality import Alarm, Gain, Quality
from train_scripts.anomaly.selecting import Selection
from train_scripts.running.plots import COLOURS, figure

__all__ = [
    "alarm_table",
    "augment_table",
    "plot_alarms",
    "plot_augment",
    "plot_quality",
    "plot_regret",
    "quality_table",
    "select_table",
]


def quality_table(name: str, rows: Sequence[Quality]) -> str:
    """Write one data set's table.

    Args:
      name: of the data set.
      rows: methods, best first within their kind.

    Returns:
      Markdown.
    """
    lines = [
        f"\n### {name}\n",
        "| method | texts | AUROC | 95% | over seeds | average precision | 95% |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        spread = f"{row.mean:.3f} ± {row.std:.3f}" if row.seeds > 1 else ""
        lines.append(
            f"| {row.method} | {row.texts} | {row.auroc.estimate:.3f} | "
            f"{_ends(row.auroc)} | {spread} | {row.precision.estimate:.3f} | "
            f"{_ends(row.precision)} |"
        )
    return "\n".join(lines) + "\n"


def alarm_table(name: str, rows: Sequence[Alarm]) -> str:
    """Write what thresholds flag on one data set.

    Args:
      name: of the data set.
      rows: one per level and method.

    Returns:
      Markdown.
    """
    lines = [
        f"\n### {name}\n",
        "| method | level | kept aside | false alarms | 95% | caught | 95% | "
        "false share of discoveries | caught by discoveries |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.refused:
            lines.append(
                f"| {row.method} | {row.level:.0%} | {row.calibration} | refused: "
                f"{row.refused} | | | | | |"
            )
            continue
        lines.append(
            f"| {row.method} | {row.level:.0%} | {row.calibration} | "
            f"{100 * row.false_alarms.estimate:.1f}% | {_percent(row.false_alarms)} | "
            f"{100 * row.power.estimate:.1f}% | {_percent(row.power)} | "
            f"{_share(row.false_share)} | {_share(row.discovered)} |"
        )
    return "\n".join(lines) + "\n"


def augment_table(name: str, gains: Sequence[Gain]) -> str:
    """Write what synthetic texts change.

    Args:
      name: of the data set.
      gains: one per source and detector.

    Returns:
      Markdown.
    """
    lines = [
        f"\n### {name}\n",
        "| written by | detector | small part | + synthetic | gain | 95% | "
        "+ as many real | everything |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.source} | {row.detector} | {row.small:.3f} | {row.synthetic:.3f} | "
        f"{row.gain.estimate:+.3f} | {_ends(row.gain)} | {row.real:.3f} | "
        f"{row.everything:.3f} |"
        for row in gains
    ]
    return "\n".join(lines) + "\n"


def select_table(title: str, found: Selection) -> str:
    """Write the regrets of choosing a detector.

    Args:
      title: which table was chosen from.
      found: regrets.

    Returns:
      Markdown.
    """
    best = np.nanargmax(found.table.auroc, axis=1)
    lines = [
        f"\n### {title}\n",
        "| data set | best pair | its AUROC | SmolLM2 | SmolLM2 told nothing | "
        "best on the others | random |",
        "|---|---|---|---|---|---|---|",
    ]
    for place, name in enumerate(found.table.data_sets):
        pair = " + ".join(found.table.candidates[best[place]])
        lines.append(
            f"| {name} | {pair} | {np.nanmax(found.table.auroc[place]):.3f} | "
            f"{_asked(found.told[place])} | {_asked(found.control[place])} | "
            f"{found.baselines.average[place]:.3f} | "
            f"{found.baselines.random[place]:.3f} |"
        )
    lines.append(
        f"| mean | | | {_asked(found.told.mean())} | {_asked(found.control.mean())} | "
        f"{found.baselines.average.mean():.3f} | {found.baselines.random.mean():.3f} |"
    )
    failed, nothing = found.failed
    if np.isnan(failed):
        return "\n".join(lines) + "\n\nNo model was asked (`--queries 5` asks).\n"
    return (
        "\n".join(lines)
        + f"\n\nAnswers that name no pair: {failed:.0%} told, {nothing:.0%} told "
        "nothing; they count as random.\n"
    )


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


def plot_alarms(path: Path, found: Mapping[str, Sequence[Alarm]], method: str) -> None:
    """Plot measured false-alarm rates and power against the level.

    Args:
      path: file to write.
      found: rows by data set.
      method: whose rows are drawn.
    """
    with figure(path, (5.6, 4.0)) as axes:
        for number, (name, rows) in enumerate(found.items()):
            own = [row for row in rows if row.method == method and not row.refused]
            if not own:
                continue
            colour = list(COLOURS.values())[number % len(COLOURS)]
            level = np.array([row.level for row in own])
            rate = np.array([row.false_alarms.estimate for row in own])
            ends = [[r.false_alarms.low, r.false_alarms.high] for r in own]
            low, high = np.array(ends).T
            axes.errorbar(
                level,
                rate,
                yerr=np.maximum(0, np.stack([rate - low, high - rate])),
                fmt="o-",
                color=colour,
                label=f"{name}: false alarms",
            )
            power = [row.power.estimate for row in own]
            axes.plot(level, power, "^--", color=colour, label=f"{name}: caught")
        limit = np.array([5e-3, 0.2])
        axes.plot(limit, limit, color="#999999", label="allowed")
        axes.set(xscale="log", yscale="log", xlabel="level", ylabel="share flagged")
        axes.legend(frameon=False, fontsize=7, ncols=2)


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


def notes(config: Config) -> str:
    """Say how the tables were made.

    Args:
      config: settings of the run.

    Returns:
      A paragraph.
    """
    train, aside = config.split
    return (
        f"Normal texts: {train:.0%} to train, {aside:.0%} kept aside, the rest for the "
        "test; each text once. Intervals resample the test texts of the first seed. "
        f"Zero-shot scorers read at most {config.model_texts} texts of each side.\n"
    )


def _ends(interval: tuple[float, float, float]) -> str:
    return f"{interval[1]:.3f} to {interval[2]:.3f}"


def _percent(interval: tuple[float, float, float]) -> str:
    return f"{100 * interval[1]:.1f} to {100 * interval[2]:.1f}"


def _asked(regret: float) -> str:
    return "not asked" if np.isnan(regret) else f"{regret:.3f}"


def _share(value: float) -> str:
    return "nothing discovered" if np.isnan(value) else f"{100 * value:.1f}%"
