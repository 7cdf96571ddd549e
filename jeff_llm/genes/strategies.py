"""The strategies of `jeff_llm.genes.conquer`: options in, rounds out.

Each function checks its options and gives a `Plan`: from the number of genes and random
numbers, the generator that `rounds.play` plays. It yields the groups of a round as
arrays of positions, is sent their rankings, and returns the standing. A single gene is
never asked for.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from jeff.checks import check_choice
from jeff_llm.genes import fusion
from jeff_llm.genes.pairing import pair
from jeff_llm.genes.rounds import Rounds, Standing

__all__ = ["Plan", "check_at_least", "division", "tournament", "whole", "windows"]

# Plans that shuffle nothing take no random numbers.
Plan: TypeAlias = Callable[..., Rounds]
JOINED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "borda": fusion.borda,
    "plackett_luce": lambda orders: fusion.plackett_luce(orders, orders.shape[1]),
}


def whole() -> Plan:
    """One group of all genes.

    Returns:
      The plan, of one round.
    """
    return _whole


def division(*, group_size: int, keep: int, permutations: int, points: str) -> Plan:
    """Divide and conquer; all permutations have the same round at the same time.

    Args:
      group_size: genes of a group, at least 2.
      keep: genes that a group keeps, from 1 to ``group_size - 1``.
      permutations: repeats, at least 1.
      points: ``"borda"`` or ``"plackett_luce"``.

    Returns:
      The plan. Groups of at most ``keep`` genes are not asked for but in the last
      round.

    Raises:
      ValueError: if an option is out of its range.
    """
    check_at_least(2, group_size=group_size)
    check_at_least(1, keep=keep, permutations=permutations)
    _check_below("keep", keep, "group_size", group_size, "no gene would ever leave")
    check_choice("points", points, tuple(JOINED))
    return functools.partial(
        _divide,
        group_size=group_size,
        keep=keep,
        permutations=permutations,
        join=JOINED[points],
    )


def windows(*, window: int, step: int) -> Plan:
    """A window from the back of the list to its front.

    Args:
      window: genes of a window, at least 2.
      step: places that it moves, from 1 to ``window - 1``.

    Returns:
      The plan, of one window a round.

    Raises:
      ValueError: if an option is out of its range.
    """
    check_at_least(2, window=window)
    check_at_least(1, step=step)
    _check_below("step", step, "window", window, "no gene would rise to the front")
    return functools.partial(_slide, window=window, step=step)


def tournament(*, rounds: int | None) -> Plan:
    """A Swiss tournament.

    Args:
      rounds: at least 1; ``ceil(log2(genes))`` by default.

    Returns:
      The plan, of pairs.

    Raises:
      ValueError: if ``rounds`` is not positive.
    """
    if rounds is not None:
        check_at_least(1, rounds=rounds)
    return functools.partial(_swiss, num_rounds=rounds)


def check_at_least(least: int, **counts: int) -> None:
    """Check that every argument is large enough.

    Args:
      least: the least value allowed.
      **counts: numbers by argument name.

    Raises:
      ValueError: if one is smaller; names the first.
    """
    for name, count in counts.items():
        if count < least:
            raise ValueError(f"{name}: expected at least {least}, got {count}")


def _check_below(name: str, value: int, other: str, limit: int, why: str) -> None:
    if value >= limit:
        raise ValueError(
            f"{name}: expected less than {other} = {limit}, or {why}, got {value}"
        )


def _whole(count: int) -> Rounds:
    if count == 1:
        return Standing(np.zeros(1, int), np.zeros(1))
    (ranking,) = yield [np.arange(count)]
    return Standing(ranking.order, ranking.scores)


def _divide(
    count: int,
    rng: np.random.Generator,
    *,
    group_size: int,
    keep: int,
    permutations: int,
    join: Callable[[np.ndarray], np.ndarray],
) -> Rounds:
    left = [np.arange(count)] * permutations
    # Those that left by round, the last round first.
    gone: list[list[np.ndarray]] = [[] for _ in left]
    while len(left[0]) > 1:
        # One group is the last round: it is ranked to its end, and all of it leaves.
        kept = keep if len(left[0]) > group_size else 0
        cuts = range(group_size, len(left[0]), group_size)
        groups = [np.split(rng.permutation(genes), cuts) for genes in left]
        rankings = iter((yield [g for each in groups for g in each if len(g) > kept]))
        for run, each in enumerate(groups):
            ranked = [g[next(rankings).order] if len(g) > kept else g for g in each]
            left[run] = np.concatenate([group[:kept] for group in ranked])
            gone[run].insert(0, _by_place([group[kept:] for group in ranked]))
    orders = np.stack(
        [np.concatenate([own, *rest]) for own, rest in zip(left, gone, strict=True)]
    )
    points = join(orders)
    # Equal points in the order of a shuffle: that of the input would favour its front.
    return Standing(np.lexsort((np.argsort(orders[0]), -points)), points)


def _slide(count: int, *, window: int, step: int) -> Rounds:
    order, start = np.arange(count), max(count - window, 0)
    while count > 1:
        part = order[start : start + window].copy()
        (ranking,) = yield [part]
        order[start : start + window] = part[ranking.order]
        if not start:
            break
        start = max(start - step, 0)
    return Standing(order, -1.0 - np.argsort(order))


def _swiss(count: int, rng: np.random.Generator, *, num_rounds: int | None) -> Rounds:
    if num_rounds is None:
        num_rounds = math.ceil(math.log2(count))
    wins = np.zeros(count)
    games, had_bye = np.zeros((count, count), int), np.zeros(count, bool)
    for played in range(num_rounds if count > 1 else 0):
        standing = np.lexsort((rng.random(count), -wins))
        pairs, bye = pair(standing.tolist(), games > 0, had_bye, wins == played)
        # Either of a pair may be named first, so that no position is favoured.
        groups = [rng.permutation(each) for each in pairs]
        rankings = yield groups
        for group, ranking in zip(groups, rankings, strict=True):
            wins[group[ranking.order[0]]] += 1
            games[group[0], group[1]] += 1
            games[group[1], group[0]] += 1
        if bye is not None:
            had_bye[bye] = True
            wins[bye] += 1
    met = games @ wins
    scores = wins + met / (1 + met.max())
    return Standing(np.lexsort((rng.random(count), -scores)), scores)


def _by_place(groups: Sequence[np.ndarray]) -> np.ndarray:
    """Genes of groups in random order, by their place in the group."""
    place = np.concatenate([np.arange(len(group)) for group in groups])
    return np.concatenate(groups)[np.argsort(place, kind="stable")]
