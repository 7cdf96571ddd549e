"""Test the protocol: scores, intervals, differences, and what was picked."""

import jax
import numpy as np
import pytest

from jeff_llm.clinic.evaluation import (
    Scores,
    evaluate,
    expected_random,
    paired_difference,
    summarise,
)
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


def test_scores_of_mazes_of_different_lengths():
    picks = [(3, 1, 4), (1,), (0, 3, 1), (0,), None, None, (3,), ()]
    found = evaluate([THREE, ONE, THREE, ONE, THREE, ONE, THREE, ONE], picks)
    nan = np.nan
    third = 1 / 3
    np.testing.assert_allclose(found.position, [1, 1, 0, 0, 0, 0, third, 0])
    np.testing.assert_allclose(found.adjacency, [1, nan, 0.5, nan, 0, nan, 0, nan])
    np.testing.assert_allclose(found.f1, [1, 1, 2 / 3, 0, 0, 0, 0.5, 0])
    np.testing.assert_allclose(found.tau, [1, nan, third, nan, 0, nan, 0, nan])
    assert found.failed.tolist() == [False] * 4 + [True] * 2 + [False] * 2


@pytest.mark.parametrize(
    ("picks", "match"),
    [
        ([(3, 1, 4)], "expected 2, one a maze, got 1"),
        ([(3, 1, 1), (1,)], r"got \(3, 1, 1\) for maze 0"),
        ([(3, 1, 4), (2,)], r"different places from 0 to 1, got \(2,\) for maze 1"),
        ([(-1, 1, 4), (1,)], r"got \(-1, 1, 4\)"),
        ([(3, 1, 4), (1, 0)], r"at most 1 different places"),
    ],
)
@pytest.mark.parametrize("function", [evaluate, by_source, by_kind])
def test_refused_picks(function, picks, match):
    with pytest.raises(ValueError, match=match):
        function([THREE, ONE], picks)


@pytest.mark.parametrize("function", [evaluate, by_source, by_kind])
def test_no_mazes(function):
    with pytest.raises(ValueError, match="at least one maze"):
        function([], [])
    with pytest.raises(ValueError, match="at least one maze"):
        expected_random([])


def test_expectation_of_a_random_choice_is_that_of_many():
    rng = np.random.default_rng(0)
    expected = expected_random([THREE, ONE])
    assert not expected.failed.any() and np.isnan(expected.tau[1])
    for number, one in enumerate((THREE, ONE)):
        size, listed = len(one.gold), len(one.listed)
        picks = [rng.permutation(listed)[:size].tolist() for _ in range(6000)]
        scores = evaluate([one] * 6000, picks)
        for name in ("position", "adjacency", "f1", "tau"):
            values, wanted = getattr(scores, name), getattr(expected, name)[number]
            band = 4 * values.std() / 6000**0.5
            np.testing.assert_allclose(values.mean(), wanted, atol=band)


def scores(values, failed=None):
    values = np.asarray(values, float)
    nan = np.where(np.arange(len(values)) % 4 == 0, np.nan, values)
    failed = np.zeros(len(values), bool) if failed is None else failed
    return Scores(values, nan, values, nan, failed)


def test_summary_leaves_out_what_has_no_value():
    values = np.random.default_rng(0).random(200)
    found = summarise(scores(values), key=jax.random.key(0))
    known = scores(values).tau
    for measure, among in (
        (found.f1, values),
        (found.tau, known[~np.isnan(known)]),
    ):
        assert measure.count == len(among)
        np.testing.assert_allclose(measure.estimate, among.mean())
        half = 1.96 * among.std() / len(among) ** 0.5
        np.testing.assert_allclose(measure.low, measure.estimate - half, rtol=0.03)
        np.testing.assert_allclose(measure.high, measure.estimate + half, rtol=0.03)
    # No reply failed among 200: the exact limit, and no width of 0.
    assert found.failed[:2] == (0, 0)
    np.testing.assert_allclose(found.failed.high, 1 - 0.025 ** (1 / 200))


def test_interval_of_equal_values_uses_their_range():
    found = summarise(scores(np.zeros(8)), key=jax.random.key(0), num_resamples=10)
    unseen = 1 - 0.025 ** (1 / 6)
    np.testing.assert_allclose(found.tau[1:3], [-unseen, unseen])
    np.testing.assert_allclose(found.adjacency[1:3], [0, unseen])


def test_a_score_without_values_is_refused():
    only = evaluate([ONE, ONE], [(1,), (0,)])
    with pytest.raises(ValueError, match="adjacency: expected a value of at least one"):
        summarise(only, key=jax.random.key(0))


def test_differences_are_paired():
    """A model that is better by 0.1 everywhere is, however different the mazes are."""
    rng = np.random.default_rng(1)
    hard = rng.random(100) * 0.8
    first = scores(hard + 0.1 + 0.01 * rng.normal(size=100))
    found = paired_difference(first, scores(hard), key=jax.random.key(0))
    assert 0.09 < found.f1.low < found.f1.estimate < found.f1.high < 0.11
    assert found.f1.count == 100 and found.tau.count == 75
    none = paired_difference(first, first, key=jax.random.key(0))
    unseen = 1 - 0.025 ** (1 / 100)
    np.testing.assert_allclose(none.f1[:3], [0, -unseen, unseen])
    back = paired_difference(scores(hard), first, key=jax.random.key(0))
    np.testing.assert_allclose(back.f1.estimate, -found.f1.estimate)


def test_differences_of_other_mazes_are_refused():
    with pytest.raises(ValueError, match="same 8 mazes as in first, got 7 mazes"):
        paired_difference(scores(np.ones(8)), scores(np.ones(7)), key=jax.random.key(0))
    moved = scores(np.ones(8))
    moved = moved._replace(tau=moved.tau[::-1])
    with pytest.raises(ValueError, match="second: expected scores of the same"):
        paired_difference(scores(np.ones(8)), moved, key=jax.random.key(0))


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
