"""Test the rules without a language model."""

import jax
import numpy as np
import pytest

from jeff_llm.clinic.items import Item
from jeff_llm.clinic.making import make_mazes
from jeff_llm.clinic.maze import Maze
from jeff_llm.clinic.rules import (
    RULES,
    apply_rules,
    bm25,
    by_embedding,
    identity,
    last,
    random,
    usual_order,
)


def case(number, evidence, kinds=None, **others):
    fields = {
        "id": str(number),
        "background": f"Person {number} has asthma.",
        "evidence": tuple(evidence),
        "question": "Which drug?",
        "answer": f"albuterol {number}",
        "options": (),
        "level": "",
        "kinds": tuple(kinds or ["symptom"] * len(evidence)),
        "organs": frozenset(),
        "age_group": "adult",
        "sex": "unknown",
        "simulated": True,
    }
    return Item(**(fields | others))


@pytest.fixture
def one():
    """Three sentences of evidence among five."""
    listed = (
        "A rash on the back.",
        "Albuterol helps the asthma.",
        "His knee hurts.",
        "The asthma began early.",
        "A test shows wheezing.",
    )
    kinds = ("symptom", "treatment", "symptom", "background", "examination")
    gold = (3, 4, 1)
    item = case(0, [listed[place] for place in gold], [kinds[place] for place in gold])
    sources = ("organ", "evidence", "age", "evidence", "evidence")
    return Maze(item, listed, gold, kinds, sources, 2)


def test_places_alone(one):
    assert identity(one) == (0, 1, 2)
    assert last(one) == (2, 3, 4)


def test_random_choices_are_uniform_and_depend_on_the_key(one):
    drawn = random([one] * 2000, key=jax.random.key(0))
    assert all(len(set(picks)) == 3 for picks in drawn)
    counts = np.bincount([place for picks in drawn for place in picks[:1]], minlength=5)
    assert (abs(counts - 400) < 4 * np.sqrt(2000 * 0.2 * 0.8)).all()
    assert random([one] * 9, key=jax.random.key(0)) == drawn[:9]
    assert random([one] * 9, key=jax.random.key(1)) != drawn[:9]


def test_bm25_finds_common_words(one):
    pytest.importorskip("bm25s")
    # Two words of the query, one, none: equal sentences stay in their order.
    assert bm25(one) == (1, 3, 0)


@pytest.mark.parametrize("listed", [("?", "!"), ("", "Of the"), ("Knee", "Elbow")])
def test_bm25_without_a_common_word_stays_as_listed(listed):
    pytest.importorskip("bm25s")
    empty = Maze(
        case(0, listed), listed, (1, 0), ("symptom",) * 2, ("evidence",) * 2, 0
    )
    assert bm25(empty) == (0, 1)


def letters(texts):
    """An encoder of the tests: how often each letter occurs."""
    return np.array([[text.lower().count(c) for c in "albutero"] for text in texts])


def test_embeddings_by_cosine(one):
    calls = []

    def encode(texts):
        calls.append(list(texts))
        return letters(texts)

    found = by_embedding([one, one], encode)
    query = letters(["Person 0 has asthma. Which drug? albuterol 0"])[0]
    rows = letters(one.listed)
    cosine = rows @ query / np.linalg.norm(rows, axis=1)
    assert found[0] == found[1] == tuple(np.argsort(-cosine)[:3].tolist())
    # Once, and each text once.
    assert len(calls) == 1 and len(calls[0]) == len(set(calls[0])) == 6
    # Neither length nor scale matters.
    assert by_embedding([one], lambda texts: 100.0 * letters(texts)) == found[:1]


def test_embeddings_at_the_edges(one):
    assert by_embedding([], letters) == []
    equal = by_embedding([one], lambda texts: np.zeros((len(texts), 2)))
    assert equal == [(0, 1, 2)]
    with pytest.raises(
        ValueError, match=r"embeddings \[6, width\], got shape \(5, 8\)"
    ):
        by_embedding([one], lambda texts: letters(texts)[1:])
    with pytest.raises(ValueError, match="encode: expected finite"):
        by_embedding([one], lambda texts: np.full((len(texts), 2), np.nan))


def test_usual_order_sorts_by_kind_alone(one):
    assert usual_order(one, (1, 2, 0, 4, 3)) == (3, 2, 0, 4, 1)
    assert usual_order(one, ()) == ()


def test_all_rules_pick_as_many_places_as_there_is_evidence():
    pytest.importorskip("bm25s")
    items = [
        case(n, [f"Sentence {n} {k} of asthma." for k in range(1 + n % 4)])
        for n in range(20)
    ]
    mazes = make_mazes(items, noise=(3,), key=jax.random.key(0))[3]
    found = apply_rules(mazes, letters, key=jax.random.key(1))
    assert tuple(found) == RULES
    for name, picks in found.items():
        for maze, places in zip(mazes, picks, strict=True):
            assert len(set(places)) == len(places) == len(maze.gold), name
            assert set(places) <= set(range(len(maze.listed)))
    assert found["random"] == random(mazes, key=jax.random.key(1))
    alike = zip(mazes, found["embedding"], found["usual_order"], strict=True)
    assert all(usual_order(maze, one) == two for maze, one, two in alike)
    assert tuple(apply_rules(mazes, key=jax.random.key(1))) == RULES[:4]
