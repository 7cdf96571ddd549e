"""The published construction of the benchmark, for comparison.

Two flaws set it apart from `jeff_llm.clinic.making`.

- With noise, the evidence keeps its order and distractors are put before its end alone.
  The last sentences are always evidence, so "the last n in order" beats every published
  model at noise 3 and 5.
- Without noise the sentences are shuffled, and gold is the permutation where its
  inverse is meant. Picks in the right order are then scored as wrong.

References:
  Liu et al., "Dialogue is Better Than Monologue: Instructing Medical LLMs via
  Strategical Conversations", 2025 (arXiv 2501.17860), and its code.
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

__all__ = ["make_official", "true_order"]


def make_official(
    items: Sequence[Item], *, noise: Sequence[int] = NOISE, key: RandomKey
) -> dict[int, list[Maze]]:
    """Make mazes as the published benchmark does.

    The distractors are those of `jeff_llm.clinic.making.make_mazes` for the same key;
    order and gold alone differ.

    Args:
      items: the cases.
      noise: numbers of distractors, each at least 0.
      key: random key.

    Returns:
      The mazes by level, in the order of the items. At noise 0, ``gold`` is the
      published one, which is wrong; `true_order` has the right one.

    Raises:
      ValueError: as `jeff_llm.clinic.making.make_mazes`.
    """
    check_noise(noise)
    chosen = choose_distractors(items, count=max(noise), key=key)
    return {
        level: [
            _with_noise(item, added[:level], generator(key, place, level))
            if level
            else _without_noise(item, generator(key, place, level))
            for place, (item, added) in enumerate(zip(items, chosen, strict=True))
        ]
        for level in noise
    }


def true_order(maze: Maze) -> tuple[int, ...]:
    """Places of the evidence in its logical order, read from the sentences.

    Args:
      maze: of either construction.

    Returns:
      The places. They are ``maze.gold`` unless the maze is a published one at noise 0.
    """
    place = {sentence: at for at, sentence in enumerate(maze.listed)}
    return tuple(place[sentence] for sentence in maze.item.evidence)


def _with_noise(
    item: Item, added: Sequence[Distractor], random: np.random.Generator
) -> Maze:
    listed: list[tuple[str, str, Source]] = [
        (sentence, kind, "evidence")
        for sentence, kind in zip(item.evidence, item.kinds, strict=True)
    ]
    for each in added:
        # Before position n, whatever was put there already: the tail stays evidence.
        at = int(random.integers(len(item.evidence)))
        listed.insert(at, (each.sentence, each.kind, each.source))
    sentences, kinds, sources = zip(*listed, strict=True)
    gold = tuple(at for at, source in enumerate(sources) if source == "evidence")
    return Maze(item, sentences, gold, kinds, sources, len(added))


def _without_noise(item: Item, random: np.random.Generator) -> Maze:
    order = random.permutation(len(item.evidence)).tolist()
    return Maze(
        item,
        tuple(item.evidence[each] for each in order),
        # The flaw: which sentence stands at a place, not where a sentence stands.
        tuple(order),
        tuple(item.kinds[each] for each in order),
        tuple("evidence" for _ in order),
        0,
    )
