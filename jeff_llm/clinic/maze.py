"""Mazes: the evidence of a patient among sentences of others, in any order."""

from typing import Literal, NamedTuple, TypeAlias, get_args

from jeff_llm.clinic.items import Item

__all__ = ["NOISE", "SOURCES", "Maze", "Source"]

# Number of distractors, as in MuddyMaze.
NOISE = (0, 1, 3, 5)

Source: TypeAlias = Literal["evidence", "organ", "age", "random"]
SOURCES: tuple[Source, ...] = get_args(Source)


class Maze(NamedTuple):
    """One task: choose the evidence among the listed sentences, in its order.

    Attributes:
      item: the case.
      listed: the sentences as they are shown; sentence number ``k`` is ``listed[k-1]``.
      gold: places in ``listed`` of the evidence, in its logical order.
      kinds: kind of each listed sentence.
      sources: "evidence", or by what a distractor was chosen: "organ" is from an item
        with a common organ system, "age" from one of the same age group and no common
        organ, "random" from one with neither.
      noise: number of distractors.
    """

    item: Item
    listed: tuple[str, ...]
    gold: tuple[int, ...]
    kinds: tuple[str, ...]
    sources: tuple[Source, ...]
    noise: int
