"""Claims of the paper, and of the benchmark, that a run can test."""

from collections.abc import Sequence

import numpy as np

from configs.dialogue import Config
from jeff_llm.clinic.evaluation import Measure
from jeff_llm.clinic.official import true_order
from jeff_llm.clinic.rules import RULES
from train_scripts.dialogue.measure import Chosen
from train_scripts.dialogue.pooled import (
    best_rule,
    chance,
    difference,
    pooled,
    select,
    summary,
)
from train_scripts.dialogue.summary import labels
from train_scripts.running.claims import all_of, at_least, at_most
from train_scripts.running.results import Claim

__all__ = ["FEWEST_ITEMS", "claims", "decided", "points"]

_READINGS = ("number", "text", "heads", "chat")
_AGAINST = {
    "multiple_choice": "multiple-choice tuning",
    "monologue": "monologue tuning",
    "untuned": "no tuning",
}
_FLAW_NOISE = (3, 5)
# A bootstrap over fewer items has no meaning.
FEWEST_ITEMS = 10


def claims(config: Config, name: str, found: Sequence[Chosen]) -> tuple[Claim, ...]:
    """Decide the claims on one data set.

    Args:
      config: settings of the run.
      name: of the data set.
      found: choices of all methods and seeds.

    Returns:
      The claims.
    """
    decided = []
    for part in _READINGS:
        reading = labels(config)[part]
        if select(found, part, "dialogue"):
            decided += _gains(config, name, found, part, reading)
        if any(each.part == part for each in found):
            decided += _best_arm(config, name, found, part, reading)
    if select(found, "heads", "sentences"):
        decided += _steps(config, name, found)
    if select(found, "official", "last"):
        decided += _flaws(config, name, found)
    return tuple(decided)


def decided(found: Measure) -> bool | None:
    """Whether a difference is above 0.

    Args:
      found: the difference with its interval.

    Returns:
      None if the interval contains 0, or there are too few items for an interval.
    """
    if found.count < FEWEST_ITEMS:
        return None
    if found.low > 0:
        return True
    return False if found.high < 0 else None


def points(found: Measure) -> str:
    """A difference in percentage points.

    Args:
      found: the difference.

    Returns:
      The text, with its interval and the number of items.
    """
    return (
        f"{100 * found.estimate:+.1f} points ({100 * found.low:+.1f} to "
        f"{100 * found.high:+.1f}; {found.count} items)"
    )


def _gains(
    config: Config, name: str, found: Sequence[Chosen], part: str, reading: str
) -> list[Claim]:
    noisy = [noise for noise in config.noise if noise]
    # A reading that knows one round alone says nothing about several.
    several = bool(select(found, part, "dialogue", rounds=("several",)))
    tests: list[tuple[str, str, Sequence[str], Sequence[int] | None]] = []
    if several:
        tests.append(("several rounds", "+9.64%", ("several",), None))
    if noisy:
        tests.append(("noise", "+6.18%", config.rounds, noisy))
    made = []
    for where, paper, rounds, noise in tests:
        for other, words in _AGAINST.items():
            pair = [
                select(found, part, method, rounds=rounds, noise=noise)
                for method in ("dialogue", other)
            ]
            if all(pair):
                gain = difference(config, *pair)
                made.append(
                    Claim(
                        f"{name}, {reading}: dialogue tuning is above {words} in "
                        f"{where} (POS).",
                        paper,
                        points(gain),
                        decided(gain),
                    )
                )
    return made


def _steps(config: Config, name: str, found: Sequence[Chosen]) -> list[Claim]:
    """What remains of a dialogue when its doctor is silent."""
    made = []
    for other in ("dialogue", "untuned"):
        own = [select(found, "heads", method) for method in ("sentences", other)]
        if all(own):
            gain = difference(config, *own)
            made.append(
                Claim(
                    f"{name}, {labels(config)['heads']}: a case told sentence by "
                    "sentence, without the doctor's turns, is above "
                    f"{_AGAINST.get(other, 'dialogue tuning')} (POS).",
                    "not compared",
                    points(gain),
                    decided(gain),
                )
            )
    return made


def _best_arm(
    config: Config, name: str, found: Sequence[Chosen], part: str, reading: str
) -> list[Claim]:
    """Whether any arm is above the best rule without a language model."""
    methods = list(dict.fromkeys(each.method for each in found if each.part == part))
    if not select(found, "rules", RULES[0]):
        return []
    gains = {}
    for method in methods:
        own = select(found, part, method)
        rule = best_rule(found, RULES, own)
        against = select(found, "rules", rule)
        gains[method] = (difference(config, own, against), rule)
    best = max(gains, key=lambda method: gains[method][0].estimate)
    gain, rule = gains[best]
    return [
        Claim(
            f"{name}, {reading}: some arm beats the best rule without a model (POS).",
            "no rule is shown",
            f"best arm {best}: {points(gain)} to {rule}",
            decided(gain),
        )
    ]


def _flaws(config: Config, name: str, found: Sequence[Chosen]) -> list[Claim]:
    noise = [each for each in config.noise if each in _FLAW_NOISE]
    made = []
    if noise:
        old = select(found, "official", "last", noise=noise)
        new = select(found, "rules", "last", noise=noise)
        theirs, ours = (summary(config, pooled(each)).position for each in (old, new))
        random = float(chance(new).position.mean())
        made.append(
            Claim(
                f"{name}: under the published construction the last n sentences in "
                "order beat a random choice by 20 points; under ours they do not.",
                "POS .46 (its best model: .32)",
                f"POS {theirs.estimate:.3f} ({theirs.low:.3f} to {theirs.high:.3f}); "
                f"ours {ours.estimate:.3f} ({ours.low:.3f} to {ours.high:.3f}), "
                f"random {random:.3f}",
                None
                if theirs.count < FEWEST_ITEMS
                else all_of(
                    at_least([], random + 0.2, ends=(theirs.low, theirs.high)),
                    at_most([], random + 0.2, ends=(ours.low, ours.high)),
                ),
            )
        )
    if 0 in config.noise:
        old = select(found, "official", "identity", noise=[0])
        scores = _perfect_order(old)
        inverted = float(scores.mean())
        made.append(
            Claim(
                f"{name}: at noise 0 a perfect order scores below 1 against the "
                "published gold.",
                ".43",
                f"POS {inverted:.3f}",
                # A short permutation may be its own inverse.
                None if len(scores) < FEWEST_ITEMS else inverted < 1,
            )
        )
    return made


def _perfect_order(chosen: Sequence[Chosen]) -> np.ndarray:
    perfect = [
        each._replace(picks=[true_order(maze) for maze in each.mazes])
        for each in chosen
    ]
    return pooled(perfect).position
