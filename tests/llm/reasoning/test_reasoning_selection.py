"""Test the choice of samples, tokens and questions by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm.generate import score
from jeff_llm.reasoning import compression, curation, selection

CORRECT = np.array([1, 0, 1, 1, 0, 0, 1], bool)
LENGTH = np.array([30, 5, 20, 20, 3, 4, 8])
GROUP = np.array([0, 0, 0, 0, 1, 1, 3])


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_shortest_and_longest_by_hand(array):
    """The first of equally short ones; -1 where none is right or there is none."""
    arrays = [array(each) for each in (CORRECT, LENGTH, GROUP)]
    assert selection.shortest_correct(*arrays).tolist() == [2, -1, -1, 6]
    assert selection.longest_correct(*arrays).tolist() == [0, -1, -1, 6]


def test_selection_against_a_loop():
    rng = np.random.default_rng(0)
    correct, group = rng.random(200) < 0.4, rng.integers(0, 40, 200)
    length = rng.integers(1, 12, 200)
    short = selection.shortest_correct(correct, length, group)
    long = selection.longest_correct(correct, length, group)
    for number in range(group.max() + 1):
        mine = np.flatnonzero(correct & (group == number))
        if not mine.size:
            assert short[number] == long[number] == -1
            continue
        assert short[number] == mine[length[mine].argmin()]
        assert long[number] == mine[length[mine].argmax()]


def test_mixture_by_hand():
    found = selection.mixed(CORRECT, LENGTH, GROUP)
    assert found.sample.tolist() == [0, 2, 6]
    assert found.short.tolist() == [False, True, False]
    none = selection.mixed(np.zeros(2, bool), np.ones(2, int), np.zeros(2, int))
    assert none.sample.shape == none.short.shape == (0,)


SOLUTIONS = np.array([[0, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 1], [1, 1, 0, 0]], bool)
WHERE = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]], bool)


def test_first_correct_solutions_by_hand():
    found = selection.first_correct_solution(SOLUTIONS, WHERE)
    assert found.tolist() == [2, 1, 0, 1]
    found = selection.first_correct_solution(SOLUTIONS, WHERE, reflection=True)
    assert found.tolist() == [3, 1, 0, 2]


def test_pairs_by_hand():
    tokens = np.array([[5, 5, 5, 9], [20, 1, 1, 1], [1, 1, 1, 1], [4, 4, 0, 0]])
    group = np.array([0, 0, 1, 2])
    found = selection.first_correct_pairs(SOLUTIONS, tokens, WHERE, group)
    # Group 0: 10 tokens of sample 0 against sample 1, of 23; group 1 has no right one.
    assert [each.tolist() for each in found] == [[0, 2], [0, 3], [2, 1], [1, 3]]
    found = selection.first_correct_pairs(
        SOLUTIONS, tokens, WHERE, group, reflection=True
    )
    # In group 2 both solutions are kept, so nothing of it is longer.
    assert [each.tolist() for each in found] == [[0], [0], [3], [1]]


def test_compression_keeps_the_most_important_tokens():
    importance = jnp.array([0.5, 3.0, 0.1, 2.0, 2.0, 9.0])
    where = jnp.arange(6) < 5
    for ratio, kept in ((0.2, [1]), (0.4, [1, 3]), (0.5, [1, 3, 4]), (1, [*range(5)])):
        found = compression.compress_tokens(importance, ratio=ratio, where=where)
        assert np.flatnonzero(found).tolist() == kept
    many = jax.random.normal(jax.random.key(0), (50,))
    for ratio in np.linspace(0.1, 1, 10):
        kept = compression.compress_tokens(many, ratio=float(ratio))
        assert kept.sum() == round(50 * ratio)
        assert kept.all() or many[kept].min() > many[~kept].max()
    batch = jnp.stack([many, -many])
    mapped = jax.jit(jax.vmap(lambda row: compression.compress_tokens(row, ratio=0.3)))
    for row, keep in zip(batch, mapped(batch), strict=True):
        np.testing.assert_array_equal(keep, compression.compress_tokens(row, ratio=0.3))


def test_compression_at_the_edges():
    """Padding never takes the place of a token, and some token is always kept."""
    importance, where = jnp.array([5.0, 5.0, -jnp.inf]), jnp.array([False, True, True])
    found = compression.compress_tokens(importance, ratio=1, where=where)
    assert found.tolist() == [False, True, True]
    assert compression.compress_tokens(jnp.arange(5.0), ratio=1e-6).sum() == 1
    assert not compression.compress_tokens(
        importance, ratio=1, where=where & False
    ).any()
    assert compression.compress_tokens(jnp.zeros(0), ratio=0.5).shape == (0,)
    with pytest.raises(ValueError, match="importance: expected numbers, got NaN"):
        compression.compress_tokens(jnp.array([jnp.nan, 1.0]), ratio=0.5)


def test_unsigned_lengths():
    arrays = CORRECT, LENGTH.astype(np.uint8), GROUP
    assert selection.longest_correct(*arrays).tolist() == [0, -1, -1, 6]
    assert selection.longest_correct(*(each[:0] for each in arrays)).size == 0


def test_importance_is_surprisal(tiny):
    found = compression.token_importance(tiny, [[5, 6], [7]], [[8, 9, 10], [11]])
    scores = score(tiny, [[5, 6], [7]], [[[8, 9, 10]], [[11]]])
    assert [len(each) for each in found] == [3, 1]
    for each, (alone,) in zip(found, scores, strict=True):
        assert (each > 0).all()
        assert each.sum() == pytest.approx(-alone.total, rel=1e-5)


def questions(count=400, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "quality": rng.random(count) < 0.9,
        "small_correct": rng.random(count) < 0.3,
        "large_correct": rng.random(count) < 0.5,
        "length": rng.integers(10, 1000, count),
        # One kind has nine tenths of the questions.
        "kind": np.where(rng.random(count) < 0.9, 0, rng.integers(1, 4, count)),
    }


def test_s1k_filters_and_draws_kinds_evenly(key):
    data = questions()
    found = curation.s1k_select(**data, count=30, key=key)
    assert len(set(found.tolist())) == 30
    assert data["quality"][found].all()
    assert not (data["small_correct"] | data["large_correct"])[found].any()
    share = np.bincount(data["kind"][found], minlength=4) / 30
    assert share[0] < 0.6, "kinds are drawn, not questions"
    left = data["quality"] & ~data["small_correct"] & ~data["large_correct"]
    assert data["length"][found].mean() > 1.2 * data["length"][left].mean()
    again = curation.s1k_select(**data, count=30, key=key)
    np.testing.assert_array_equal(found, again)


def test_s1k_prefers_long_solutions_by_powers_of_two():
    """Of one kind the k-th longest is drawn first with probability 2^-k."""
    data = {
        "quality": np.ones(5, bool),
        "small_correct": np.zeros(5, bool),
        "large_correct": np.zeros(5, bool),
        "length": np.array([10, 50, 40, 30, 20]),
        "kind": np.zeros(5, int),
    }
    draws = 2000
    first = [
        int(curation.s1k_select(**data, count=1, key=key)[0])
        for key in jax.random.split(jax.random.key(1), draws)
    ]
    share = np.bincount(first, minlength=5) / draws
    want = np.array([1, 16, 8, 4, 2]) / 31
    np.testing.assert_allclose(share, want, atol=4 * (0.25 / draws) ** 0.5)


def test_s1k_takes_all_where_few_are_left(key):
    data = questions(40)
    left = data["quality"] & ~data["small_correct"] & ~data["large_correct"]
    found = curation.s1k_select(**data, count=1000, key=key)
    assert sorted(found.tolist()) == np.flatnonzero(left).tolist()


def test_limo_by_hand():
    small = np.array([0, 0, 0.5, 0, 0, 0, 0])
    large = np.array([0.05, 0.0, 0.05, 0.5, 0.05, 0.05, 0.05])
    quality = np.array([0.1, 0.9, 0.9, 0.9, 0.5, 0.7, 0.2])
    kind = np.array([1, 1, 1, 1, 1, 2, 2])
    settings = {"small_rate": small, "large_rate": large, "quality": quality}
    found = curation.limo_select(**settings, kind=kind, count=3)
    assert found.tolist() == [4, 5, 0]
    found = curation.limo_select(**settings, kind=kind, count=9, max_large_rate=0.5)
    assert found.tolist() == [3, 5, 4, 6, 0]


def test_errors_name_the_argument(key):
    with pytest.raises(ValueError, match=r"ratio: expected .*, got 0"):
        compression.compress_tokens(jnp.ones(3), ratio=0)
    with pytest.raises(ValueError, match="group: expected numbers from 0, got -1"):
        selection.shortest_correct(CORRECT[:1], LENGTH[:1], np.array([-1]))
    with pytest.raises(ValueError, match=r"length: expected numbers, got \[nan\]"):
        selection.shortest_correct(CORRECT[:1], np.array([np.nan]), GROUP[:1])
    with pytest.raises(ValueError, match="correct: expected only 0 and 1"):
        selection.shortest_correct(np.array([2]), LENGTH[:1], GROUP[:1])
    with pytest.raises(ValueError, match="small_rate: expected numbers in"):
        curation.limo_select(
            np.array([1.5]), np.array([0.1]), np.array([0.1]), np.array([0]), count=1
        )
    with pytest.raises(ValueError, match="count: expected at least 0, got -1"):
        curation.s1k_select(**questions(3), count=-1, key=key)


@pytest.mark.usefixtures("unchecked")
def test_lengths_are_checked():
    with pytest.raises(ValueError, match="length: expected 7 elements"):
        selection.shortest_correct(CORRECT, LENGTH[:3], GROUP)
    with pytest.raises(ValueError, match=r"where: expected shape \(1, 2\) as correct"):
        selection.first_correct_solution(np.ones((1, 2), bool), np.ones((1, 3), bool))
    with pytest.raises(TypeError, match="group: expected integers, got bool"):
        selection.shortest_correct(CORRECT, LENGTH, GROUP > 0)
