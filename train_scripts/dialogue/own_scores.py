"""Scores on the user's own mazes, and whether a model has shown anything."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from configs.dialogue import Config
from jeff_llm.clinic.evaluation import (
    Measure,
    Scores,
    Summary,
    by_source,
    evaluate,
    expected_random,
    paired_difference,
    summarise,
)
from jeff_llm.clinic.maze import Maze
from jeff_llm.clinic.picked import Picks
from train_scripts.dialogue.claims import FEWEST_ITEMS, decided
from train_scripts.running.cells import table_cell
from train_scripts.running.seeds import seed_key

__all__ = ["Contender", "Tested", "numbers", "table"]

_BOOTSTRAP = 43  # purpose of the random key
_FEW = 30  # mazes below which a percentile bootstrap covers too seldom
_HEAD = (
    "| noise | rounds | picks by | mazes | POS | ADJ | F1 | tau | failed |",
    "|---|---|---|---|---|---|---|---|---|",
)


class Contender(NamedTuple):
    """A language model and its choices.

    Attributes:
      kind: "chat" or "model", for the names of numbers.
      name: of the model.
      rows: which of the tested mazes it was asked about, at every level.
      picks: of these mazes, by rounds and noise.
      note: a report in Markdown.
    """

    kind: str
    name: str
    rows: list[int]
    picks: Mapping[tuple[str, int], Sequence[Picks]]
    note: str


class Tested(NamedTuple):
    """What was tested.

    Attributes:
      mazes: the tasks by noise, the same items at each level.
      rules: scores of each rule by noise.
      contenders: the language models.
    """

    mazes: dict[int, list[Maze]]
    rules: dict[int, dict[str, Scores]]
    contenders: list[Contender]


class _Verdict(NamedTuple):
    """A model beside the rules at one setting."""

    contender: Contender
    rounds: str
    noise: int
    scores: Scores
    best: str
    difference: Measure
    chance: float

    @property
    def outcome(self) -> str:
        if self.holds is None:
            return "has shown nothing beyond the best rule"
        return "beats the best rule" if self.holds else "is below the best rule"

    @property
    def holds(self) -> bool | None:
        return decided(self.difference)


def numbers(tested: Tested) -> dict[str, float]:
    """Numbers of the result.

    Args:
      tested: the scores.

    Returns:
      Mean shares of right positions, and of replies that could not be read.
    """
    found: dict[str, float] = {}
    for noise, by_rule in tested.rules.items():
        for name, scores in by_rule.items():
            found[f"{name}_noise_{noise}_position"] = float(scores.position.mean())
    for each in tested.contenders:
        for (rounds, noise), picks in each.picks.items():
            scores = evaluate(_part(tested, each, noise), picks)
            stem = f"{each.kind}_{rounds}_noise_{noise}"
            found[f"{stem}_position"] = float(scores.position.mean())
            found[f"{stem}_failed"] = float(scores.failed.mean())
    return found


def table(config: Config, tested: Tested) -> list[str]:
    """Scores of rules and models, and in words what each model has shown.

    Args:
      config: settings of the run.
      tested: the scores.

    Returns:
      Lines of Markdown.
    """
    lines = [
        "\nMean scores over mazes with 95% bootstrap intervals. POS: share of right "
        "positions, ADJ: of right neighbours; a perfect orderer scores 1 everywhere.\n",
        *_HEAD,
    ]
    verdicts = []
    for noise, by_rule in tested.rules.items():
        count = len(tested.mazes[noise])
        for name, scores in by_rule.items():
            lines.append(_line(config, noise, "-", name, count, scores))
        chance = expected_random(tested.mazes[noise])
        means = " | ".join(f"{np.nanmean(each):.3f}" for each in chance[:4])
        lines.append(f"| {noise} | - | random, expected | {count} | {means} | - |")
        for each in tested.contenders:
            for rounds in config.rounds:
                verdict = _verdict(config, tested, each, rounds, noise)
                verdicts.append(verdict)
                lines.append(
                    _line(
                        config,
                        noise,
                        rounds,
                        f"**{table_cell(each.name)}**",
                        len(each.rows),
                        verdict.scores,
                    )
                )
    for each in tested.contenders:
        lines += _shown(tested, each, [v for v in verdicts if v.contender is each])
    return lines


def _line(
    config: Config, noise: int, rounds: str, name: str, count: int, scores: Scores
) -> str:
    found = summarise(scores, key=_key(config), num_resamples=config.resamples)
    failed = "-" if rounds == "-" else _interval(found.failed)
    cells = " | ".join(map(_interval, found[:4]))
    return f"| {noise} | {rounds} | {name} | {count} | {cells} | {failed} |"


def _verdict(
    config: Config, tested: Tested, contender: Contender, rounds: str, noise: int
) -> _Verdict:
    mazes = _part(tested, contender, noise)
    scores = evaluate(mazes, contender.picks[rounds, noise])
    own = {
        name: Scores._make(each[contender.rows] for each in whole)
        for name, whole in tested.rules[noise].items()
    }
    best = max(own, key=lambda name: own[name].position.mean())
    found: Summary = paired_difference(
        scores, own[best], key=_key(config), num_resamples=config.resamples
    )
    chance = float(expected_random(mazes).position.mean())
    return _Verdict(contender, rounds, noise, scores, best, found.position, chance)


def _shown(
    tested: Tested, contender: Contender, verdicts: Sequence[_Verdict]
) -> Iterator[str]:
    """Whether a model has shown anything, in words."""
    name = table_cell(contender.name)
    yield f"\n## What {name} has shown\n"
    wins = sum(each.holds is True for each in verdicts)
    below = sum(each.holds is False for each in verdicts)
    yield (
        f"{name} beats the best rule without a model in {wins} of {len(verdicts)} "
        f"settings, is below it in {below}, and has shown nothing beyond it in "
        f"{len(verdicts) - wins - below}.\n"
    )
    if len(contender.rows) < _FEW:
        yield (
            f"With {len(contender.rows)} mazes a setting, bootstrap intervals are too "
            f"narrow: take at least {_FEW} before you believe them. Fewer than "
            f"{FEWEST_ITEMS} decide nothing.\n"
        )
    for each in verdicts:
        mean, gap = float(each.scores.position.mean()), each.difference
        yield (
            f"* Noise {each.noise}, {each.rounds} round{'s' * (each.rounds != 'one')}: "
            f"{name} {each.outcome}, {each.best}: POS {mean:.3f}, difference "
            f"{gap.estimate:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]. {_way(mean, each)}"
        )
        if each.noise:
            mazes = _part(tested, contender, each.noise)
            shares = by_source(mazes, contender.picks[each.rounds, each.noise])
            said = ", ".join(
                f"{source} {share.share:.0%} of {share.listed}"
                for source, share in shares.items()
                if share.listed
            )
            if said:
                yield f"  Distractors picked, by relation to the patient: {said}."
    yield f"\n{contender.note}"


def _way(mean: float, verdict: _Verdict) -> str:
    """How far a model is on the way from chance to a perfect orderer."""
    chance = verdict.chance
    if mean < chance:
        return f"That is below chance ({chance:.3f})."
    way = (mean - chance) / (1 - chance) if chance < 1 else 1.0
    return (
        f"That is {way:.0%} of the way from chance ({chance:.3f}) to a perfect "
        "orderer (1)."
    )


def _part(tested: Tested, contender: Contender, noise: int) -> list[Maze]:
    return [tested.mazes[noise][row] for row in contender.rows]


def _interval(measure: Measure) -> str:
    return f"{measure.estimate:.3f} [{measure.low:.3f}, {measure.high:.3f}]"


def _key(config: Config) -> jax.Array:
    return seed_key(config.seeds[0], _BOOTSTRAP)
