"""Who meets whom in a round of a Swiss tournament."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

__all__ = ["pair"]


def pair(
    standing: Sequence[int],
    met: Bool[np.ndarray, "genes genes"],
    had_bye: Bool[np.ndarray, " genes"],
    undefeated: Bool[np.ndarray, " genes"],
) -> tuple[list[tuple[int, int]], int | None]:
    """Pair neighbours in the standing that have not met.

    From the top, each gene meets the next one that it has not met. Where the genes that
    remain have all met, a pair made before is exchanged with them, from the bottom up,
    but never so that fewer undefeated genes meet: that is what finds the best one.
    Where no exchange helps, a pair meets again.

    Args:
      standing: positions of all genes, best first.
      met: whether two genes have met; symmetric.
      had_bye: whether a gene had a bye.
      undefeated: whether a gene has won every time; these head the standing, and no two
        of them have met.

    Returns:
      The pairs, and the gene with a bye: the last one that had none, if the count is
      odd.

    >>> met = np.zeros((4, 4), bool)
    >>> met[0, 1] = met[1, 0] = True
    >>> pair([0, 1, 2, 3], met, np.zeros(4, bool), np.zeros(4, bool))
    ([(0, 2), (1, 3)], None)
    """
    waiting, bye = list(standing), None
    if len(waiting) % 2:
        bye = next((g for g in reversed(waiting) if not had_bye[g]), waiting[-1])
        waiting.remove(bye)
    pairs: list[tuple[int, int]] = []
    stuck: list[int] = []
    while waiting:
        gene = waiting.pop(0)
        place = next((i for i, g in enumerate(waiting) if not met[gene, g]), None)
        if place is None:
            stuck.append(gene)
        else:
            pairs.append((gene, waiting.pop(place)))
    while stuck:
        pairs += _exchanged(stuck.pop(), stuck.pop(), pairs, met, undefeated)
    return pairs, bye


def _exchanged(
    first: int,
    second: int,
    pairs: list[tuple[int, int]],
    met: np.ndarray,
    undefeated: np.ndarray,
) -> list[tuple[int, int]]:
    """New pairs for two genes that have met; takes one out of ``pairs`` if it helps."""
    # With an undefeated gene among the two, an exchange makes as many pairs of
    # undefeated genes as it takes apart.
    free = undefeated[first] or undefeated[second]
    for place in reversed(range(len(pairs))):
        one, other = pairs[place]
        if undefeated[one] and undefeated[other] and not free:
            continue
        for a, b in ((one, other), (other, one)):
            if not met[first, a] and not met[second, b]:
                del pairs[place]
                return [(first, a), (second, b)]
    return [(first, second)]
