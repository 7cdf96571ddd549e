"""Plots of the dialogue script."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from configs.dialogue import Config
from jeff_llm.clinic.evaluation import by_source
from jeff_llm.clinic.maze import SOURCES
from train_scripts.dialogue.measure import Chosen
from train_scripts.dialogue.pooled import (
    chance,
    outcomes,
    pooled,
    select,
    summary,
    tasks,
)
from train_scripts.running.plots import figure

__all__ = ["plot_calibration", "plot_noise", "plot_sources"]

_COLOURS = {
    "untuned": "#222222",
    "multiple_choice": "#D55E00",
    "monologue": "#CC79A7",
    "dialogue": "#0072B2",
    "sentences": "#009E73",
}
_BINS = 8


def plot_noise(
    path: Path,
    config: Config,
    found: Sequence[Chosen],
    part: str,
    rounds: str,
    title: str,
) -> None:
    """Plot POS against noise for the arms of a part, with rules and chance.

    Args:
      path: file to write.
      config: settings of the run.
      found: choices of all methods and seeds.
      part: "heads", "number" or "text".
      rounds: "one" or "several".
      title: above the plot.
    """
    levels = sorted(config.noise)
    arms = list(dict.fromkeys(each.method for each in found if each.part == part))
    shown = select(found, part, arms[0], rounds=(rounds,))
    with figure(path, (7.2, 3.8)) as axes:
        for number, arm in enumerate(arms):
            found_by_level = [
                summary(
                    config,
                    pooled(select(found, part, arm, rounds=(rounds,), noise=(level,))),
                ).position
                for level in levels
            ]
            value = np.array([each.estimate for each in found_by_level])
            low = value - np.array([each.low for each in found_by_level])
            high = np.array([each.high for each in found_by_level]) - value
            axes.errorbar(
                np.array(levels) + 0.06 * (number - len(arms) / 2),
                value,
                yerr=np.maximum(0, np.stack([low, high])),
                fmt="o-",
                markersize=4,
                color=_COLOURS.get(arm, "#999999"),
                label=arm.replace("_", " "),
            )
        for rule, style in (("usual_order", "--"), ("embedding", ":")):
            own = [select(found, "rules", rule, noise=(level,)) for level in levels]
            if all(own):
                value = [pooled(each, tasks(shown)).position.mean() for each in own]
                label = f"rule: {rule.replace('_', ' ')}"
                axes.plot(levels, value, style, color="#777777", label=label)
        expected = [
            chance(
                select(found, part, arms[0], rounds=(rounds,), noise=(level,))
            ).position.mean()
            for level in levels
        ]
        axes.plot(levels, expected, color="#bbbbbb", label="random")
        axes.set_xticks(levels)
        axes.set_xlabel("distractors")
        axes.set_ylabel("POS, with 95% interval")
        axes.set_title(title, fontsize=10)
        # Beside the plot: intervals take all of its width.
        axes.legend(
            frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1)
        )


def plot_sources(path: Path, found: Sequence[Chosen], part: str, title: str) -> None:
    """Plot how often distractors are picked, by what they share with the case.

    Args:
      path: file to write.
      found: choices of all methods and seeds.
      part: whose arms are drawn.
      title: above the plot.
    """
    noise = max(each.noise for each in found)
    arms = list(dict.fromkeys(each.method for each in found if each.part == part))
    kinds = SOURCES[1:]
    with figure(path, (5.6, 3.6)) as axes:
        width = 0.8 / len(arms)
        for number, arm in enumerate(arms):
            own = select(found, part, arm, noise=(noise,))
            mazes = [maze for each in own for maze in each.mazes]
            picks = [each for one in own for each in one.picks]
            shares = by_source(mazes, picks)
            axes.bar(
                np.arange(len(kinds)) + (number - (len(arms) - 1) / 2) * width,
                [shares[kind].share for kind in kinds],
                width,
                color=_COLOURS.get(arm, "#999999"),
                label=arm.replace("_", " "),
            )
        axes.set_xticks(range(len(kinds)), ["same organ", "same age group", "neither"])
        axes.set_ylabel(f"share of distractors picked, noise {noise}")
        axes.set_title(title, fontsize=10)
        axes.legend(frameon=False, fontsize=8)


def plot_calibration(
    path: Path, found: Sequence[Chosen], part: str, title: str
) -> None:
    """Plot the share of right picks against their probability.

    Args:
      path: file to write.
      found: choices of all methods and seeds.
      part: whose arms are drawn.
      title: above the plot.
    """
    arms = list(dict.fromkeys(each.method for each in found if each.part == part))
    with figure(path, (4.6, 3.8)) as axes:
        axes.plot([0, 1], [0, 1], color="#bbbbbb", label="calibrated")
        for arm in arms:
            probability, right = outcomes(select(found, part, arm))
            # Bins of as many picks each.
            parts = np.array_split(np.argsort(probability), _BINS)
            parts = [each for each in parts if len(each)]
            axes.plot(
                [probability[each].mean() for each in parts],
                [right[each].mean() for each in parts],
                "o-",
                markersize=3,
                color=_COLOURS.get(arm, "#999999"),
                label=arm.replace("_", " "),
            )
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.set_xlabel("probability of the pick")
        axes.set_ylabel("share right at its position")
        axes.set_title(title, fontsize=10)
        axes.legend(frameon=False, fontsize=8)
