"""Test that the published construction has its flaws, and that ours has not."""

import jax
import numpy as np
import pytest

from jeff_llm.clinic.evaluation import evaluate, expected_random
from jeff_llm.clinic.items import Item
from jeff_llm.clinic.making import make_mazes
from jeff_llm.clinic.maze import NOISE, perfect
from jeff_llm.clinic.official import make_official, true_order
from jeff_llm.clinic.rules import last

NUMBER = 1000


@pytest.fixture(scope="module")
def items():
    """A thousand cases of 2 to 7 sentences, 4.5 on average."""
    kinds = ("symptom", "examination", "background", "treatment")
    return [
        Item(
            id=str(n),
            background=f"Patient {n}.",
            evidence=tuple(f"Finding {n}-{k}." for k in range(2 + n % 6)),
            question="What is it?",
            answer=f"disease {n}",
            options=(),
            level="",
            kinds=tuple(kinds[(n + k) % 4] for k in range(2 + n % 6)),
            organs=frozenset({("heart", "skin", "lungs")[n % 3]}),
            age_group=("adult", "child")[n % 2],
            sex="unknown",
            simulated=True,
        )
        for n in range(NUMBER)
    ]


@pytest.fixture(scope="module")
def ours(items):
    return make_mazes(items, key=jax.random.key(0))


@pytest.fixture(scope="module")
def official(items):
    return make_mazes(items, official_protocol=True, key=jax.random.key(0))


def excess(mazes, picks, name):
    """Mean score above chance, in standard errors."""
    gained = getattr(evaluate(mazes, picks), name) - getattr(
        expected_random(mazes), name
    )
    return gained.mean() / (gained.std() / len(gained) ** 0.5)


def test_the_same_sentences_in_another_order(ours, official):
    for noise in NOISE:
        for our, their in zip(ours[noise], official[noise], strict=True):
            assert our.item is their.item and our.noise == their.noise == noise
            rows = [
                sorted(zip(m.listed, m.kinds, m.sources, strict=True))
                for m in (our, their)
            ]
            assert rows[0] == rows[1]


@pytest.mark.parametrize("noise", [1, 3, 5])
def test_published_mazes_keep_the_order_and_end_in_evidence(official, noise):
    for maze in official[noise]:
        assert list(maze.gold) == sorted(maze.gold)
        assert tuple(maze.listed[at] for at in maze.gold) == maze.item.evidence
        assert maze.gold[-1] == len(maze.listed) - 1


@pytest.mark.parametrize("noise", [3, 5])
def test_the_last_n_in_order_beat_chance_in_published_mazes_alone(
    ours, official, noise
):
    """Spec: .464 at both levels, above every published model (.319 and .253)."""
    picks = [last(maze) for maze in official[noise]]
    theirs = evaluate(official[noise], picks)
    chance = expected_random(official[noise])
    assert theirs.position.mean() > 2 * chance.position.mean()
    assert theirs.position.mean() > 0.35
    assert theirs.tau[~np.isnan(theirs.tau)].mean() > 0.2
    for name in ("position", "adjacency", "f1", "tau"):
        assert excess(official[noise], picks, name) > 8
        assert abs(excess(ours[noise], picks, name)) < 4


def rules_of_places():
    """Rules that see the number of sentences alone, as places of n among N."""
    return {
        "first": lambda n, N: range(n),
        "last": lambda n, N: range(N - n, N),
        "first, turned": lambda n, N: range(n)[::-1],
        "last, turned": lambda n, N: range(N - n, N)[::-1],
        "middle": lambda n, N: range((N - n) // 2, (N - n) // 2 + n),
        "spread": lambda n, N: [each * N // n for each in range(n)],
        "outside in": lambda n, N: [0, *range(N - n + 1, N)],
    }


@pytest.mark.parametrize("name", rules_of_places())
@pytest.mark.parametrize("noise", NOISE)
def test_no_rule_of_places_beats_chance_in_ours(ours, noise, name):
    rule = rules_of_places()[name]
    picks = [list(rule(len(m.gold), len(m.listed))) for m in ours[noise]]
    for score in ("position", "adjacency", "tau"):
        assert abs(excess(ours[noise], picks, score)) < 4, score
    if noise:  # without noise every choice has all evidence
        assert abs(excess(ours[noise], picks, "f1")) < 4


@pytest.mark.parametrize("noise", NOISE)
def test_evidence_stands_at_every_place_as_often(ours, noise):
    """For each number of sentences: all pairs of rank in gold and place."""
    for size in range(2, 8):
        gold = np.array([m.gold for m in ours[noise] if len(m.gold) == size])
        counts = np.stack([(gold == at).sum(0) for at in range(size + noise)], axis=1)
        share = 1 / (size + noise)
        band = 4.5 * np.sqrt(len(gold) * share * (1 - share))
        assert (abs(counts - len(gold) * share) < band).all()


def test_published_gold_without_noise_is_the_inverse(items, ours, official):
    """Right picks score (1 + 1) / n there: fixed points and swaps of two."""
    right = [true_order(maze) for maze in official[0]]
    for maze, places in zip(official[0], right, strict=True):
        assert tuple(maze.listed[at] for at in places) == maze.item.evidence
        # The inverse of the published gold is the right order.
        assert tuple(np.argsort(maze.gold).tolist()) == places
    scores = evaluate(official[0], right).position
    expected = np.array([2 / len(item.evidence) for item in items])
    band = 4 * (scores - expected).std() / NUMBER**0.5
    assert abs(scores.mean() - expected.mean()) < band
    assert scores.mean() < 0.7
    at_length_5 = scores[[len(item.evidence) == 5 for item in items]]
    assert 0.3 < at_length_5.mean() < 0.5
    for noise in NOISE:
        assert [true_order(maze) for maze in ours[noise]] == [
            perfect(maze) for maze in ours[noise]
        ]
        scores = evaluate(ours[noise], [perfect(maze) for maze in ours[noise]])
        assert all((each == 1).all() for each in scores[:4])


def test_published_mazes_are_deterministic_and_refuse_what_ours_refuse(items, official):
    again = make_official(items[:20], noise=(0,), key=jax.random.key(0))
    assert again[0] == official[0][:20]
    with pytest.raises(ValueError, match="noise: expected different numbers"):
        make_official(items, noise=(3, 3), key=jax.random.key(0))
    with pytest.raises(ValueError, match="add items with other answers"):
        make_official(items[:1], noise=(2,), key=jax.random.key(0))
