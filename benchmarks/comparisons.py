"""Comparisons with peers, how they are decided, and the table of them all.

A ratio is the peer's time over jeff's in the same run, or bytes likewise, so that more
is better. A goal is decided as a claim of a paper is: met or not met where all
repetitions lie on one side of it, and too small to tell where they do not. A single
pass decides only what is twice the goal away.
"""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Comparison", "decide", "outcome", "table"]

# How far off a single pass may be: machines are noisy, but not that noisy.
_ONE_PASS = 2.0


class Comparison(NamedTuple):
    """One quantity against one peer.

    Attributes:
      what: the quantity.
      peer: what it is compared with.
      ratios: of each repetition, above 1 where jeff is better.
      goal: least ratio that was aimed at, or None.
      floor: the least that the machine allows over what jeff takes, at most 1, or None
        where it was not computed.
    """

    what: str
    peer: str
    ratios: tuple[float, ...]
    goal: float | None = None
    floor: float | None = None

    @property
    def typical(self) -> float:
        """Median of the ratios."""
        return statistics.median(self.ratios)


def decide(comparison: Comparison) -> bool | None:
    """Whether a goal is met.

    Args:
      comparison: the quantity, with a goal.

    Returns:
      True or False where all repetitions agree, None where they do not.
    """
    if comparison.goal is None:
        return None
    ends = min(comparison.ratios), max(comparison.ratios)
    if len(comparison.ratios) == 1:
        ends = ends[0] / _ONE_PASS, ends[1] * _ONE_PASS
    if ends[0] >= comparison.goal:
        return True
    return False if ends[1] < comparison.goal else None


def outcome(comparison: Comparison) -> str:
    """The decision in words.

    Args:
      comparison: the quantity.

    Returns:
      "met", "not met", "too small to tell", or nothing where there is no goal.
    """
    if comparison.goal is None:
        return ""
    return {True: "met", False: "not met", None: "too small to tell"}[
        decide(comparison)
    ]


def table(found: Sequence[tuple[str, str, Sequence[Comparison]]]) -> str:
    """Lay comparisons out in Markdown.

    Args:
      found: benchmark, device and comparisons of each record.

    Returns:
      A table per device, a row per comparison.
    """
    lines = []
    for device in dict.fromkeys(device for _, device, _ in found):
        lines += [
            f"## {device}",
            "",
            "| benchmark | what | peer | times better | spread | goal | outcome "
            "| of the floor |",
            8 * "|---" + "|",
        ]
        for name, where, comparisons in found:
            if where == device:
                lines += [_line(name, each) for each in comparisons]
        lines.append("")
    return "\n".join(lines)


def _line(name: str, each: Comparison) -> str:
    few, most = (f"{end(each.ratios):.2f}" for end in (min, max))
    cells = (
        name,
        each.what,
        each.peer,
        f"{each.typical:.2f}",
        f"{few} to {most}" if len(each.ratios) > 1 else "one pass",
        "" if each.goal is None else f"{each.goal:.2f}",
        outcome(each),
        "" if each.floor is None else f"{each.floor:.0%}",
    )
    return "| " + " | ".join(cells) + " |"
