"""The strategies of `jeff_llm.genes.conquer`, as generators that `rounds.play` plays.

Each takes the number of genes first, yields the groups of a round as arrays of
positions, is sent their rankings, and returns the standing. A single gene is never
asked for. Options are checked in `jeff_llm.genes.conquer`: a generator would raise only
when it starts.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from jeff_llm.genes.pairing import pair
from jeff_llm.genes.rounds import Rounds, Standing

__all__ = ["divide", "slide", "tournament", "whole"]


def whole(count: int) -> Rounds:
    """One group of all genes.

    Args:
      count: number of genes.

    Returns:
      The rounds: one group.
    """
    if count == 1:
        return Standing(np.zeros(1, int), np.zeros(1))
    (ranking,) = yield [np.arange(count)]
    return Standing(ranking.order, ranking.scores)


def divide(
    count: int,
    rng: np.random.Generator,
    *,
    group_size: int,
    keep: int,
    permutations: int,
    join: Callable[[np.ndarray], np.ndarray],
) -> Rounds:
    """Divide and conquer; all permutations have the same round at the same time.

    Args:
      count: number of genes.
      rng: random numbers of the shuffles.
      group_size: genes of a group.
      keep: genes that a group keeps.
      permutations: repeats.
      join: points from orders [permutations, genes].

    Returns:
      The rounds; groups of at most ``keep`` genes are not asked for but in the last.
    """
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


def slide(count: int, *, window: int, step: int) -> Rounds:
    """A window from the back of the list to its front.

    Args:
      count: number of genes.
      window: genes of a window.
      step: places that it moves.

    Returns:
      The rounds, one window each.
    """
    order, start = np.arange(count), max(count - window, 0)
    while count > 1:
        part = order[start : start + window].copy()
        (ranking,) = yield [part]
        order[start : start + window] = part[ranking.order]
        if not start:
            break
        start = max(start - step, 0)
    return Standing(order, -1.0 - np.argsort(order))


def tournament(
    count: int, rng: np.random.Generator, *, num_rounds: int | None
) -> Rounds:
    """A Swiss tournament.

    Args:
      count: number of genes.
      rng: random numbers of the draws.
      num_rounds: rounds; ``ceil(log2(count))`` by default.

    Returns:
      The rounds, of pairs.
    """
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
