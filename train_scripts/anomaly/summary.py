"""Tables of the anomaly script."""

from collections.abc import Sequence

import numpy as np

from configs.anomaly import Config
from train_scripts.anomaly.quality import Alarm, Gain, Quality
from train_scripts.anomaly.selecting import Selection

__all__ = [
    "alarm_table",
    "augment_table",
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
