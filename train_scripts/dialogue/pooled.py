"""Scores of a method over seeds: one row an item, so that items can be resampled."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

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
]

_INTERVALS = 31


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


def pooled(chosen: Sequence[Chosen], ids: Iterable[str] | None = None) -> Scores:
    """Mean scores of each item over seeds, rounds and levels of noise.

    Args:
      chosen: choices of one method.
      ids: of the items to keep; all by default.

    Returns:
      One row an item, in the order of their ids.
    """
    rows, names = [], []
    for each in chosen:
        scores = evaluation.evaluate(each.mazes, list(each.picks))
        rows.append(np.stack([np.asarray(x, float) for x in scores], axis=1))
        names += [maze.item.id for maze in each.mazes]
    return _by_item(np.concatenate(rows), names, ids)


def chance(chosen: Sequence[Chosen], ids: Iterable[str] | None = None) -> Scores:
    """Expected scores of a random choice in the same mazes.

    Args:
      chosen: choices of any method.
      ids: as in `pooled`.

    Returns:
      As `pooled`.
    """
    rows, names = [], []
    for each in chosen:
        scores = evaluation.expected_random(each.mazes)
        rows.append(np.stack([np.asarray(x, float) for x in scores], axis=1))
        names += [maze.item.id for maze in each.mazes]
    return _by_item(np.concatenate(rows), names, ids)


def _by_item(
    rows: np.ndarray, names: Sequence[str], ids: Iterable[str] | None
) -> Scores:
    kept = sorted(set(names) if ids is None else set(ids) & set(names))
    place = {name: row for row, name in enumerate(kept)}
    total, count = np.zeros((len(kept), rows.shape[1])), np.zeros(len(kept))
    for row, name in zip(rows, names, strict=True):
        if name in place:
            total[place[name]] += row
            count[place[name]] += 1
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
    """Difference in POS on the items that both methods saw.

    Args:
      config: settings of the run.
      first: choices of one method.
      second: of the other.

    Returns:
      Mean of first less second, with its interval over items.
    """
    ids = _ids(first) & _ids(second)
    found = evaluation.paired_difference(
        pooled(first, ids),
        pooled(second, ids),
        key=seed_key(config.seeds[0], _INTERVALS),
        num_resamples=config.resamples,
    )
    return found.position


def best_rule(
    found: Sequence[Chosen], rules: Sequence[str], chosen: Sequence[Chosen]
) -> str:
    """The rule with the highest POS on the items and levels of other choices.

    Args:
      found: choices of all methods.
      rules: names of the rules.
      chosen: choices of the method to compare.

    Returns:
      Its name. It is chosen on the items on which it is compared, which favours it.
    """
    ids, noise = _ids(chosen), sorted({each.noise for each in chosen})

    def value(rule: str) -> float:
        own = select(found, "rules", rule, noise=noise)
        return float(pooled(own, ids).position.mean())

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


def _ids(chosen: Sequence[Chosen]) -> set[str]:
    return {maze.item.id for each in chosen for maze in each.mazes}
