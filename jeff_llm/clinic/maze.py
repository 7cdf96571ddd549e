"""Mazes: the evidence of a patient among sentences of others, and which others.

`jeff_llm.clinic.making` makes them.

References:
  Liu et al., "Dialogue is Better Than Monologue: Instructing Medical LLMs via
  Strategical Conversations", 2025 (arXiv 2501.17860; MuddyMaze).
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, TypeAlias, get_args

import jax
import numpy as np

from jeff.bootstrap import RandomKey
from jeff_llm.clinic.items import Item
from jeff_llm.clinic.kinds import KINDS, Kind, ages, match_pronouns

__all__ = [
    "NOISE",
    "SOURCES",
    "Distractor",
    "Maze",
    "Source",
    "check_noise",
    "choose_distractors",
    "generator",
    "perfect",
]

# Number of distractors, as in MuddyMaze.
NOISE = (0, 1, 3, 5)

Source: TypeAlias = Literal["evidence", "organ", "age", "random"]
SOURCES: tuple[Source, ...] = get_args(Source)


class Distractor(NamedTuple):
    """A sentence of another patient.

    Attributes:
      sentence: with pronouns of the patient to whom it is added.
      kind: as the other patient's item says.
      source: relation of the two items, as in `Maze`; never "evidence".
    """

    sentence: str
    kind: Kind
    source: Source


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


def perfect(maze: Maze) -> tuple[int, ...]:
    """Picks of a perfect model.

    Args:
      maze: the task.

    Returns:
      The gold places, in order.
    """
    return maze.gold


def choose_distractors(
    items: Sequence[Item], *, count: int, key: RandomKey
) -> list[tuple[Distractor, ...]]:
    """Choose sentences of other patients for every item.

    Every distractor is an evidence sentence of another item. Its kind is that of an
    evidence sentence: the item's kinds are taken in random order, again and again. So
    are the sources organ, age and random. Where no sentence has both, the kind is kept
    and the source is whatever exists; where none has the kind, it may be any.

    A sentence is left out if it is one of the item's own or was chosen before, if it
    names an age that the item does not name, or if its item has the same answer or the
    same background.

    Args:
      items: the cases.
      count: number of distractors of each, at least 0.
      key: random key.

    Returns:
      ``count`` distractors of each item; a smaller count gives the first of them.

    Raises:
      ValueError: if there is no item, ``count`` is negative, or an item has too few
        candidates.
    """
    if not items:
        raise ValueError("items: expected at least one item, got none")
    check_noise((count,))
    pool = _Pool.of(items)
    return [_choose(pool, place, count, key) for place in range(len(items))]


def check_noise(noise: Sequence[int]) -> None:
    """Check the levels of noise.

    Args:
      noise: numbers of distractors.

    Raises:
      ValueError: if there is none, one is negative, or one occurs twice.
    """
    if not len(noise) or min(noise) < 0 or len(set(noise)) < len(noise):
        raise ValueError(
            f"noise: expected different numbers of at least 0, got {tuple(noise)}"
        )


def generator(key: RandomKey, *path: int) -> np.random.Generator:
    """Random numbers of one item at one level.

    NumPy's, since thousands of short permutations of many lengths would each be a call
    or a compilation of JAX.

    Args:
      key: random key.
      *path: numbers that tell apart the uses of one key, each at least 0.

    Returns:
      The generator; the same key and path give the same numbers.
    """
    data = jax.random.key_data(key)
    return np.random.default_rng([*np.asarray(data).ravel().tolist(), *path])


class _Pool(NamedTuple):
    """All evidence sentences of all items, and what decides if one may be chosen."""

    items: Sequence[Item]
    sentences: list[str]
    kinds: np.ndarray  # places in `KINDS`, [sentences]
    owners: np.ndarray  # place of the item, [sentences]
    ages: list[frozenset[str]]  # that a sentence names
    organs: np.ndarray  # one bit an organ, [items]
    groups: np.ndarray  # age group, [items]
    answers: np.ndarray  # [items]
    backgrounds: np.ndarray  # [items]

    @classmethod
    def of(cls, items: Sequence[Item]) -> "_Pool":
        sentences = [each for item in items for each in item.evidence]
        names = sorted({name for item in items for name in item.organs})
        bits = [sum(1 << names.index(o) for o in item.organs) for item in items]
        return cls(
            items,
            sentences,
            np.array([KINDS.index(k) for item in items for k in item.kinds]),
            np.repeat(np.arange(len(items)), [len(item.evidence) for item in items]),
            [ages(each) for each in sentences],
            np.array(bits, np.int64),
            np.array([item.age_group for item in items]),
            np.array([item.answer.casefold() for item in items]),
            np.array([item.background for item in items]),
        )


def _choose(
    pool: _Pool, place: int, count: int, key: RandomKey
) -> tuple[Distractor, ...]:
    if not count:
        return ()
    item, random = pool.items[place], generator(key, place)
    relations = _relations(pool, place)[pool.owners]
    allowed = (pool.answers != pool.answers[place]) & (
        pool.backgrounds != pool.backgrounds[place]
    )
    allowed = allowed[pool.owners]
    # With their multiplicity: kinds of distractors are then as frequent as evidence's.
    kinds = random.permutation([KINDS.index(each) for each in item.kinds])
    sources = random.permutation(range(1, len(SOURCES)))
    known_ages = ages(" ".join((item.background, *item.evidence)))
    known = {each.casefold() for each in (item.background, *item.evidence)}
    chosen: list[Distractor] = []
    for index in range(count):
        alike = allowed & (pool.kinds == kinds[index % len(kinds)])
        wanted = relations == sources[index % len(sources)]
        for found in _in_random_order((alike & wanted, alike, allowed), random):
            sentence = match_pronouns(pool.sentences[found], item.sex)
            if pool.ages[found] <= known_ages and sentence.casefold() not in known:
                break
        else:
            raise ValueError(
                f"items: expected sentences of other patients for {count} distractors, "
                f"found {index} for item {item.id!r} among {len(pool.items)} items; "
                "add items with other answers and backgrounds, or lower the noise"
            )
        known.add(sentence.casefold())
        kind, source = KINDS[pool.kinds[found]], SOURCES[relations[found]]
        chosen.append(Distractor(sentence, kind, source))
    return tuple(chosen)


def _in_random_order(
    masks: Sequence[np.ndarray], random: np.random.Generator
) -> Iterator[int]:
    """Places that the masks allow, those of the first mask first."""
    for mask in masks:
        # One by one: the first few are enough, of a hundred thousand.
        yield from map(int, random.permutation(np.flatnonzero(mask)))


def _relations(pool: _Pool, place: int) -> np.ndarray:
    """Source that each item is for the item at ``place``, as a place in `SOURCES`."""
    same_age = (pool.groups == pool.groups[place]) & (pool.groups != "unknown")
    common = (pool.organs & pool.organs[place]) != 0
    return np.select(
        [common, same_age],
        [SOURCES.index("organ"), SOURCES.index("age")],
        SOURCES.index("random"),
    )
