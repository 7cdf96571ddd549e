"""Test the shares of evidence and distractors that were picked."""

import numpy as np

from jeff_llm.clinic.items import Item
from jeff_llm.clinic.maze import Maze
from jeff_llm.clinic.picked import Share, by_kind, by_source


def maze(gold, sources, kinds=None):
    """A maze without words: what is scored are places."""
    listed = tuple(f"sentence {n}" for n in range(len(sources)))
    kinds = tuple(kinds or ["symptom"] * len(listed))
    evidence = tuple(listed[place] for place in gold)
    item = Item(
        "it",
        "background",
        evidence,
        "",
        "answer",
        (),
        "",
        tuple(kinds[place] for place in gold),
        frozenset(),
        "adult",
        "female",
        True,
    )
    noise = len(sources) - len(gold)
    return Maze(item, listed, tuple(gold), kinds, tuple(sources), noise)


THREE = maze(
    (3, 1, 4),
    ("organ", "evidence", "age", "evidence", "evidence"),
    ("symptom", "symptom", "diagnosis", "examination", "treatment"),
)
ONE = maze((1,), ("random", "evidence"))


def test_what_was_picked():
    mazes = [THREE, THREE, ONE, ONE, ONE]
    picks = [(0, 1, 4), (2, 0), (0,), (1,), None]
    sources = by_source(mazes, picks)
    assert list(sources) == ["organ", "age", "random"]
    assert sources["organ"] == Share(1.0, 2, 2)
    assert sources["age"] == Share(0.5, 1, 2)
    assert sources["random"] == Share(0.5, 1, 2)
    kinds = by_kind(mazes, picks)
    assert kinds["symptom"].evidence == Share(0.5, 2, 4)
    assert kinds["symptom"].distractors == Share(0.75, 3, 4)
    assert kinds["treatment"].evidence == Share(0.5, 1, 2)
    assert kinds["examination"].evidence == Share(0.0, 0, 2)
    assert kinds["diagnosis"].distractors == Share(0.5, 1, 2)
    nothing = kinds["background"].evidence
    assert np.isnan(nothing.share) and nothing[1:] == (0, 0)
