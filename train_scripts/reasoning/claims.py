"""Claims of the survey that the small model can test."""

import dataclasses

import numpy as np

from train_scripts.reasoning.branches.output import WAITS
from train_scripts.reasoning.summary import Line, Report
from train_scripts.running.claims import above, all_of, at_least, at_most, below
from train_scripts.running.results import Claim
from train_scripts.running.seeds import spread

__all__ = ["claims"]


def claims(report: Report) -> tuple[Claim, ...]:
    """Decide the claims from the measurements of all seeds.

    Args:
      report: measurements of the run.

    Returns:
      The claims; none is decided where the base solves nothing or was not measured.
    """
    found = [
        *(_reward(report, f"RL, {name}") for name in report.config.rewards),
        *(
            _vote(report, name)
            for name in ("early stopping (ESC)", "adaptive consistency")
        ),
        _score(report),
        _not_longer(report),
        _forced(report),
        _short_chains(report),
        _cheapest(report),
    ]
    claims = tuple(each for each in found if each is not None)
    if np.isnan(report.solved).any():
        return tuple(dataclasses.replace(each, holds=None) for each in claims)
    return claims


def _reward(report: Report, name: str) -> Claim | None:
    """A length reward keeps 98% of the accuracy at half of the tokens."""
    if name == "RL, correct":  # the control without a length reward
        return None
    point, base = report.points[name], report.base
    kept, share = point.accuracy / report.solved, point.tokens / base.tokens
    return Claim(
        f"{name}: reinforcement learning with this length reward keeps at least 98% of "
        "the base's accuracy with at most 50% of its tokens.",
        "shorter chains at equal accuracy",
        f"{spread(100 * kept, 1)}% of the accuracy, {spread(100 * share, 1)}% of the "
        "tokens",
        all_of(at_least(kept, 0.98), at_most(share, 0.5)),
    )


def _vote(report: Report, name: str) -> Claim | None:
    """A stopping rule keeps the accuracy of the full vote with far fewer samples."""
    if name not in report.points:
        return None
    most = report.config.votes
    point, full = report.points[name], report.points[f"vote of {most}"]
    lost = full.accuracy - point.accuracy
    share = point.samples / most
    return Claim(
        f"{name}: within 0.5 points of the vote of {most} samples, with at least 60% "
        "fewer samples.",
        "equal accuracy with 34% to 84% fewer samples (ESC); up to 7.9 times fewer "
        "(adaptive consistency)",
        f"{spread(100 * lost)} points lost, {spread(100 * (1 - share), 1)}% fewer "
        "samples",
        all_of(at_most(lost, 0.005), at_most(share, 0.4)),
    )


def _score(report: Report) -> Claim:
    """The best branch is better than the base on both axes together."""
    best = max(report.rivals(), key=lambda name: report.aes(name).mean())
    score = report.aes(best)
    return Claim(
        f"The best branch ({best}) has a positive accuracy-efficiency score.",
        "positive for most methods",
        f"{spread(score)}; positive for {(score > 0).sum()} of {len(score)} seeds",
        above(score, np.zeros_like(score)),
    )


def _not_longer(report: Report) -> Claim:
    """Longer samples of a question are better only up to a point."""
    shortest, middle, longest = (
        report.points[f"{name} third"] for name in ("shortest", "middle", "longest")
    )
    gain = longest.accuracy - middle.accuracy
    return Claim(
        "Longer is not better past a point: of each question's samples the middle "
        "third is more accurate than the shortest, and the longest third at most half "
        "a point more than the middle.",
        "overlong chains do not help",
        f"{_accuracy(shortest)}, {_accuracy(middle)}, {_accuracy(longest)}%",
        all_of(above(middle.accuracy, shortest.accuracy), at_most(gain, 0.005)),
    )


def _forced(report: Report) -> Claim | None:
    """Making a thought longer by force does not make it better."""
    base = report.base
    longest = report.points.get(f"wait x{max(WAITS)}")
    if longest is None:
        return None
    return Claim(
        "Longer by force is not better: replacing the end of the thought by a wait "
        f"{max(WAITS)} times gains at most half a point.",
        "forced thinking helps at first, then turns flat or falls",
        f"{_accuracy(longest)}% at {spread(longest.tokens, 1)} tokens against "
        f"{_accuracy(base)}% at {spread(base.tokens, 1)}",
        at_most(longest.accuracy - base.accuracy, 0.005),
    )


def _short_chains(report: Report) -> Claim | None:
    """Short correct chains teach as well as long ones."""
    if "valve 0" not in report.points:
        return None
    long, short = report.points["valve 0"], report.points["valve 1"]
    return Claim(
        "Short correct chains teach as well as long ones: fine-tuning on the shortest "
        "right sample of eight loses at most 2 points against the longest, with fewer "
        "tokens.",
        "equal or better accuracy with fewer tokens",
        f"{_accuracy(short)}% at {spread(short.tokens, 1)} tokens against "
        f"{_accuracy(long)}% at {spread(long.tokens, 1)}",
        all_of(
            at_most(long.accuracy - short.accuracy, 0.02),
            below(short.tokens, long.tokens),
        ),
    )


def _cheapest(report: Report) -> Claim | None:
    """Which branch needs the fewest tokens at the base's accuracy."""
    base = report.base
    # At equal accuracy on average; a family is compared by its cheapest such point.
    able = [
        name
        for name in report.rivals()
        if report.points[name].accuracy.mean() >= base.accuracy.mean()
    ]
    families: dict[str, str] = {}
    for name in sorted(able, key=lambda name: report.points[name].tokens.mean()):
        families.setdefault(report.points[name].family, name)
    if len(families) < 2:
        return None
    (_, first), (_, second), *_ = families.items()
    one, other = report.points[first], report.points[second]
    return Claim(
        f"At the accuracy of one sample of the base, {first} is cheapest, before "
        f"{second}, the cheapest of another branch.",
        "the survey compares no branches at equal accuracy",
        f"{spread(one.tokens, 1)} against {spread(other.tokens, 1)} tokens; the base "
        f"{spread(base.tokens, 1)}",
        below(one.tokens, other.tokens),
    )


def _accuracy(point: Line) -> str:
    return spread(100 * point.accuracy, 1)
