"""Scores of a method over seeds: one row an item, so that items can be resampled."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np

from configs.dialogue import Config
from jeff import metrics
from jeff_llm.clinic import evaluation
from jeff_llm.clinic.evaluation import Measure, Scores, Summary
from train_scripts.dialogue.measure import Chosen
from train_scripts.running.seeds import seed_key

__all__ = [
    "Calibration",
    "best_rule",
    "calibration",
    "chance",
    "difference",
    "outcomes",
    "pooled",
    "select",
    "summary",
    "tasks",
]

_INTERVALS = 31

# Id of an item, and the sentences as they are listed.
Task: TypeAlias = tuple[str, tuple[str, ...]]


class Calibration(NamedTuple):
    """How far the probability of a pick tells whether it is right at its position.

    Attributes:
      error: expected calibration error.
      brier: Brier score.
      auroc: of the probability; NaN if all picks are right or all are wrong.
      right: share of picks that are right.
      picks: their number.
    """

    error: float
    brier: float
    auroc: float
    right: float
    picks: int


def select(
    found: Iterable[Chosen],
    part: str,
    method: str,
    *,
    rounds: Sequence[str] = ("one", "several"),
    noise: Sequence[int] | None = None,
) -> list[Chosen]:
    """Choices of one method.

    Args:
      found: choices of all methods and seeds.
      part: as in `Chosen`.
      method: likewise.
      rounds: to keep.
      noise: to keep; all levels by default.

    Returns:
      The choices of all seeds.
    """
    return [
        each
        for each in found
        if (each.part, each.method) == (part, method)
        and each.rounds in rounds
        and (noise is None or each.noise in noise)
    ]


def tasks(chosen: Iterable[Chosen]) -> set[Task]:
    """Mazes that a method saw.

    Two seeds may test one item in different mazes, so the item alone is not enough.

    Args:
      chosen: its choices.

    Returns:
      Id of the item and listed sentences of each.
    """
    return {(m.item.id, m.listed) for each in chosen for m in each.mazes}


def pooled(chosen: Sequence[Chosen], kept: set[Task] | None = None) -> Scores:
    """Mean scores of each item over seeds, rounds and levels of noise.

    Args:
      chosen: choices of one method.
      kept: mazes that count, from `tasks`; all by default.

    Returns:
      One row an item, in the order of their ids.
    """
    return _by_item(
        [evaluation.evaluate(each.mazes, list(each.picks)) for each in chosen],
        [(m.item.id, m.listed) for each in chosen for m in each.mazes],
        kept,
    )


def chance(chosen: Sequence[Chosen]) -> Scores:
    """Expected scores of a random choice in the same mazes.

    Args:
      chosen: choices of any method.

    Returns:
      As `pooled`.
    """
    return _by_item(
        [evaluation.expected_random(each.mazes) for each in chosen],
        [(m.item.id, m.listed) for each in chosen for m in each.mazes],
        None,
    )


def _by_item(
    scores: Sequence[Scores], seen: Sequence[Task], kept: set[Task] | None
) -> Scores:
    rows = np.concatenate([np.stack(each, axis=1) for each in scores])
    names = sorted({task[0] for task in seen if kept is None or task in kept})
    place = {name: row for row, name in enumerate(names)}
    total, count = np.zeros((len(names), rows.shape[1])), np.zeros(len(names))
    for row, task in zip(rows, seen, strict=True):
        if kept is None or task in kept:
            total[place[task[0]]] += row
            count[place[task[0]]] += 1
    position, adjacency, f1, tau, failed = (total / count[:, None]).T
    return Scores(position, adjacency, f1, tau, failed > 0)


def summary(config: Config, scores: Scores) -> Summary:
    """Means with intervals over items.

    Args:
      config: settings of the run.
      scores: from `pooled`.

    Returns:
      The summary.
    """
    return evaluation.summarise(
        scores,
        key=seed_key(config.seeds[0], _INTERVALS),
        num_resamples=config.resamples,
    )


def difference(
    config: Config, first: Sequence[Chosen], second: Sequence[Chosen]
) -> Measure:
    """Difference in POS on the mazes that both methods saw.

    Args:
      config: settings of the run.
      first: choices of one method.
      second: of the other.

    Returns:
      Mean of first less second, with its interval over items.
    """
    kept = tasks(first) & tasks(second)
    found = evaluation.paired_difference(
        pooled(first, kept),
        pooled(second, kept),
        key=seed_key(config.seeds[0], _INTERVALS),
        num_resamples=config.resamples,
    )
    return found.position


def best_rule(
    found: Sequence[Chosen], rules: Sequence[str], chosen: Sequence[Chosen]
) -> str:
    """The rule with the highest POS on the mazes of other choices.

    Args:
      found: choices of all methods.
      rules: names of the rules.
      chosen: choices of the method to compare.

    Returns:
      Its name. It is chosen on the mazes on which it is compared, which favours it.
    """
    kept = tasks(chosen)

    def value(rule: str) -> float:
        own = select(found, "rules", rule)
        return float(pooled(own, kept).position.mean())

    return max(rules, key=value)


def calibration(chosen: Sequence[Chosen]) -> Calibration:
    """Compare the probabilities of picks with their outcomes.

    Args:
      chosen: choices of one method that gives probabilities.

    Returns:
      The calibration over all picks.
    """
    probability, right = map(jnp.asarray, outcomes(chosen))
    both = bool(0 < right.sum() < len(right))
    return Calibration(
        float(metrics.expected_calibration_error(probability, right)),
        float(metrics.brier_score(probability, right)),
        float(metrics.auroc(probability, right)) if both else float("nan"),
        float(right.mean()),
        len(right),
    )


def outcomes(chosen: Sequence[Chosen]) -> tuple[np.ndarray, np.ndarray]:
    """Probability of every pick among several, and whether it is right at its position.

    Args:
      chosen: choices of one method that gives probabilities.

    Returns:
      Two arrays of the same length.
    """
    rows = [
        (share, pick == gold)
        for each in chosen
        for maze, picks, shares in zip(
            each.mazes, each.picks, each.probability, strict=True
        )
        for place, (share, pick, gold) in enumerate(
            zip(shares, picks or (), maze.gold, strict=True)
        )
        # The last free sentence is no choice.
        if place < len(maze.listed) - 1
    ]
    probability, right = zip(*rows, strict=True)
    return np.clip(np.array(probability, np.float32), 0, 1), np.array(right)
