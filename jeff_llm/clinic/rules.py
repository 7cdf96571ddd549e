"""Rules that choose evidence without a language model.

A model that does not beat them has shown nothing: two see places alone, two the
likeness of a sentence to the case, and one adds the usual order of a case report, which
shows how much of the order is style.

A rule picks as many places as there is evidence. The package `bm25s` has the best known
measure of likeness by words.

References:
  Robertson et al., "Okapi at TREC-3", 1994 (BM25).
"""

import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from jeff.bootstrap import RandomKey
from jeff.extras import require
from jeff_llm.clinic.kinds import KINDS
from jeff_llm.clinic.maze import Maze, generator

__all__ = [
    "RULES",
    "apply_rules",
    "bm25",
    "by_embedding",
    "identity",
    "last",
    "random",
    "usual_order",
]

Encode: TypeAlias = Callable[[Sequence[str]], np.ndarray]

RULES = ("identity", "last", "random", "bm25", "embedding", "usual_order")


def identity(maze: Maze) -> tuple[int, ...]:
    """Pick the first places, in the order in which they are listed.

    Args:
      maze: the task.

    Returns:
      Places 0 to n - 1.
    """
    return tuple(range(len(maze.gold)))


def last(maze: Maze) -> tuple[int, ...]:
    """Pick the last places, in the order in which they are listed.

    It beats every published model in noise under the published construction; see
    `jeff_llm.clinic.official`.

    Args:
      maze: the task.

    Returns:
      The last n places.
    """
    return tuple(range(maze.noise, len(maze.listed)))


def random(mazes: Sequence[Maze], *, key: RandomKey) -> list[tuple[int, ...]]:
    """Pick places at random, in random order.

    `jeff_llm.clinic.evaluation.expected_random` has the exact expectation.

    Args:
      mazes: the tasks.
      key: random key.

    Returns:
      Places of each maze.
    """
    drawn = generator(key)
    return [
        tuple(drawn.permutation(len(maze.listed))[: len(maze.gold)].tolist())
        for maze in mazes
    ]


def bm25(maze: Maze) -> tuple[int, ...]:
    """Pick the sentences most like the case by their words, the most like first.

    The query is background, question and answer; the listed sentences are the corpus.

    Args:
      maze: the task.

    Returns:
      Places by falling BM25; equal ones as they are listed.

    Raises:
      ImportError: if the package `bm25s` is missing.
    """
    package = require("bm25s", extra="llm")
    # It writes a line for each index, and here each maze has one.
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    words = package.tokenize(
        [_query(maze), *maze.listed], return_ids=False, show_progress=False
    )
    query, corpus = words[0], words[1:]
    # `bm25s` divides by the mean number of words, which may be 0.
    if not any(set(query) & set(each) for each in corpus):
        return identity(maze)
    index = package.BM25()
    index.index(corpus, show_progress=False)
    return _most_alike(maze, index.get_scores(query))


def by_embedding(mazes: Sequence[Maze], encode: Encode) -> list[tuple[int, ...]]:
    """Pick the sentences most like the case by cosine of their embeddings.

    The case is background, question and answer, as for `bm25`.

    Args:
      mazes: the tasks.
      encode: makes embeddings [texts, width] of texts, such as ``encode`` of a
        `jeff_llm.models.encoder.SentenceEncoder`. Called once, with each text once.

    Returns:
      Places of each maze by falling cosine; equal ones as they are listed.

    Raises:
      ValueError: if ``encode`` returns another number of rows, or a value that is not
        finite.
    """
    texts = dict.fromkeys(t for maze in mazes for t in (_query(maze), *maze.listed))
    row = {text: place for place, text in enumerate(texts)}
    if not row:
        return []
    vectors = np.asarray(encode(list(row)), float)
    if vectors.ndim != 2 or len(vectors) != len(row) or not np.isfinite(vectors).all():
        raise ValueError(
            f"encode: expected finite embeddings [{len(row)}, width], got shape "
            f"{vectors.shape}"
        )
    # Not every encoder gives unit length; a text without words may have length 0.
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = vectors / np.where(length > 0, length, 1)
    return [
        _most_alike(
            maze, vectors[[row[t] for t in maze.listed]] @ vectors[row[_query(maze)]]
        )
        for maze in mazes
    ]


def usual_order(maze: Maze, picks: Sequence[int]) -> tuple[int, ...]:
    """Put picks into the usual order of a case report.

    Background, symptom, examination, treatment, diagnosis; within a kind the order
    stays.

    Args:
      maze: the task.
      picks: places in its list.

    Returns:
      The same places.
    """
    return tuple(sorted(picks, key=lambda place: KINDS.index(maze.kinds[place])))


def apply_rules(
    mazes: Sequence[Maze], encode: Encode | None = None, *, key: RandomKey
) -> dict[str, list[tuple[int, ...]]]:
    """Picks of every rule.

    Args:
      mazes: the tasks.
      encode: as in `by_embedding`; the two rules that need it are left out without it.
      key: random key of `random`.

    Returns:
      Picks of each maze by the name of the rule, in the order of `RULES`.
    """
    found = {
        "identity": [identity(maze) for maze in mazes],
        "last": [last(maze) for maze in mazes],
        "random": random(mazes, key=key),
        "bm25": [bm25(maze) for maze in mazes],
    }
    if encode is not None:
        alike = by_embedding(mazes, encode)
        found["embedding"] = alike
        found["usual_order"] = [
            usual_order(maze, picks) for maze, picks in zip(mazes, alike, strict=True)
        ]
    return found


def _query(maze: Maze) -> str:
    item = maze.item
    return " ".join(filter(None, (item.background, item.question, item.answer)))


def _most_alike(maze: Maze, scores: np.ndarray) -> tuple[int, ...]:
    order = np.argsort(-np.asarray(scores, float), kind="stable")
    return tuple(order[: len(maze.gold)].tolist())
