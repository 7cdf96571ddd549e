"""Make mazes: every sentence is shuffled at every level of noise.

In the published benchmark it is not, so that a place tells evidence from distractor;
`jeff_llm.clinic.official` has that construction.
"""

from collections.abc import Sequence

import numpy as np

from jeff.bootstrap import RandomKey
from jeff_llm.clinic.items import Item
from jeff_llm.clinic.maze import (
    NOISE,
    Distractor,
    Maze,
    Source,
    check_noise,
    choose_distractors,
    generator,
)
from jeff_llm.clinic.official import make_official

__all__ = ["make_mazes"]


def make_mazes(
    items: Sequence[Item],
    *,
    noise: Sequence[int] = NOISE,
    official_protocol: bool = False,
    key: RandomKey,
) -> dict[int, list[Maze]]:
    """Make one maze of every item at every level of noise.

    The distractors of a low level are among those of a higher one, so that levels
    differ by what was added. The order is drawn anew, uniformly, at every level.

    Args:
      items: the cases; each takes its distractors from the others.
      noise: numbers of distractors, each at least 0.
      official_protocol: keep the flaws of the published construction, to compare
        (`jeff_llm.clinic.official`); the distractors are the same.
      key: random key. A maze depends on it, its place among the items and its level,
        and not on which other levels are made.

    Returns:
      The mazes by level, in the order of the items.

    Raises:
      ValueError: if there is no item, a level is negative or occurs twice, or the
        items have too few sentences that can be distractors.
    """
    if official_protocol:
        return make_official(items, noise=noise, key=key)
    check_noise(noise)
    chosen = choose_distractors(items, count=max(noise), key=key)
    return {
        level: [
            _shuffled(item, added[:level], generator(key, place, level))
            for place, (item, added) in enumerate(zip(items, chosen, strict=True))
        ]
        for level in noise
    }


def _shuffled(
    item: Item, added: Sequence[Distractor], random: np.random.Generator
) -> Maze:
    sentences = (*item.evidence, *(each.sentence for each in added))
    kinds = (*item.kinds, *(each.kind for each in added))
    sources: tuple[Source, ...] = (
        *("evidence" for _ in item.evidence),
        *(each.source for each in added),
    )
    order = random.permutation(len(sentences)).tolist()
    # `order` says which sentence stands at a place; gold is its inverse.
    places = np.argsort(order).tolist()
    return Maze(
        item,
        tuple(sentences[each] for each in order),
        tuple(places[: len(item.evidence)]),
        tuple(kinds[each] for each in order),
        tuple(sources[each] for each in order),
        len(added),
    )
