"""Test ranks of the causal gene, top-k accuracy, and intervals over genes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm.genes import evaluation

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("ties", "wanted"),
    [("mean", [3.0, 1.0, 2.0]), ("worst", [4, 1, 3]), ("first", [3, 1, 1])],
)
def test_ranks_by_hand(ties, wanted):
    scores = np.array([[5, 3, 3, 3, 1], [1, 2, 9, 2, 1], [2, 0, 2, 2, 1]], float)
    found = evaluation.rank_of(scores, np.array([2, 2, 0]), ties=ties)
    assert found.tolist() == wanted


def test_ranks_of_float_arrays_of_jax_are_the_same():
    scores = np.random.default_rng(0).integers(0, 4, (20, 6))
    index = np.arange(20) % 6
    found = evaluation.rank_of(jnp.asarray(scores), jnp.asarray(index))
    np.testing.assert_array_equal(found, evaluation.rank_of(scores, index))
    # Mean ranks of a row sum to the same as ranks without ties.
    rows = [evaluation.rank_of(scores, np.full(20, gene)) for gene in range(6)]
    np.testing.assert_array_equal(np.sum(rows, axis=0), 21)


@pytest.mark.parametrize("ties", ["mean", "worst", "first"])
def test_genes_without_a_score_stand_last(ties):
    scores = np.array([[np.nan, 0.5, np.nan], [np.nan, 0.5, -np.inf]])
    index = np.array([0, 2])
    found = evaluation.rank_of(scores, index, ties=ties)
    assert found.tolist() == [np.inf, 2.0]


def test_evaluate_by_hand():
    """Six cases: 1, 1, 2.5, 4, 11 and one that was not ranked."""
    ranks = np.array([1, 1, 2.5, 4, 11, np.inf])
    found = evaluation.evaluate(ranks, np.arange(6), key=KEY)
    estimates = [each.estimate for each in found]
    np.testing.assert_allclose(estimates[:4], [2 / 6, 3 / 6, 4 / 6, 4 / 6])
    np.testing.assert_allclose(found.mrr.estimate, (2 + 0.4 + 0.25 + 1 / 11) / 6)
    assert all(0 <= e.low <= e.estimate <= e.high <= 1 for e in found)
    again = evaluation.evaluate(ranks, np.arange(6), key=KEY)
    assert again == found


def test_interval_is_over_genes_not_over_cases():
    """Twenty copies of each case say no more than one; independent, they would."""
    rng = np.random.default_rng(1)
    ranks = rng.choice([1.0, 2.0, 20.0], 100)
    single = evaluation.evaluate(ranks, np.arange(100), key=KEY)
    names = np.repeat([f"G{i}" for i in range(100)], 20)
    copies = evaluation.evaluate(np.repeat(ranks, 20), names, key=KEY)
    as_if = evaluation.evaluate(np.repeat(ranks, 20), np.arange(2000), key=KEY)
    width = [each.top1.high - each.top1.low for each in (single, copies, as_if)]
    np.testing.assert_allclose(width[1], width[0], atol=0.03)
    assert width[2] < 0.35 * width[0]


def test_interval_agrees_with_the_normal_one():
    ranks = np.where(np.random.default_rng(2).random(900) < 0.3, 1.0, 7.0)
    found = evaluation.evaluate(ranks, np.arange(900), key=KEY).top1
    half = 1.96 * np.std(ranks == 1) / 30
    np.testing.assert_allclose(found.low, found.estimate - half, atol=0.006)
    np.testing.assert_allclose(found.high, found.estimate + half, atol=0.006)


def test_intervals_have_a_width_where_no_case_differs():
    """All found: the low end is the exact binomial one; one gene tells little."""
    found = evaluation.evaluate(np.ones(20), np.arange(20), key=KEY)
    np.testing.assert_allclose(found.top1.low, 0.025 ** (1 / 20))
    assert found.top1.high == found.top1.estimate == 1
    missed = evaluation.evaluate(np.full(20, np.inf), np.arange(20), key=KEY)
    np.testing.assert_allclose(missed.mrr.high, 1 - 0.025 ** (1 / 20))
    one = evaluation.evaluate(np.array([1.0, 30.0]), np.array([4, 4]), key=KEY)
    assert one.top1.low < 0.02 and one.top1.high > 0.98
    same = evaluation.paired_difference(np.ones(9), np.ones(9), np.arange(9), key=KEY)
    assert same.top1.low == -same.top1.high < -0.3


def test_small_samples_are_covered():
    """Thirty genes, 90% of them found: 95% intervals cover at least 90% of the time."""
    rng = np.random.default_rng(3)
    covered = []
    for _ in range(50):
        ranks = np.where(rng.random(30) < 0.9, 1.0, 50.0)
        found = evaluation.evaluate(ranks, np.arange(30), key=KEY, num_resamples=300)
        covered.append(found.top1.low <= 0.9 <= found.top1.high)
    assert np.mean(covered) >= 0.9


def test_paired_difference_is_narrower_than_two_intervals():
    rng = np.random.default_rng(4)
    hard = rng.random(300)
    ranks_a = np.where(hard < 0.5, 1.0, 8.0)
    ranks_b = np.where(hard < 0.45, 1.0, 8.0)
    cluster = rng.integers(0, 120, 300)
    found = evaluation.paired_difference(ranks_a, ranks_b, cluster, key=KEY)
    expected = np.mean(ranks_a == 1) - np.mean(ranks_b == 1)
    np.testing.assert_allclose(found.top1.estimate, expected)
    assert found.top1.low > 0
    alone = evaluation.evaluate(ranks_a, cluster, key=KEY).top1
    assert found.top1.high - found.top1.low < 0.7 * (alone.high - alone.low)
    back = evaluation.paired_difference(ranks_b, ranks_a, cluster, key=KEY)
    np.testing.assert_allclose(back.top1.low, -found.top1.high, atol=0.01)


@pytest.mark.parametrize(
    ("ranks", "cluster", "message"),
    [
        ([], [], r"ranks: expected a vector of at least one case"),
        ([1.0, np.nan], [0, 1], r"got nan for case 1"),
        ([0.0], [0], r"ranks of at least 1.*got 0.0"),
        ([1.0, 2.0], [0], r"cluster: expected shape \(2,\)"),
    ],
)
def test_bad_ranks(ranks, cluster, message):
    with pytest.raises(ValueError, match=message):
        evaluation.evaluate.__wrapped__(np.array(ranks), np.array(cluster), key=KEY)


def test_bad_scores():
    scores = np.ones((2, 3))
    for wrong, index, message in [
        (scores, [0, 3], "from 0 to 2, got 0 to 3"),
        (scores, [-1, 0], "got -1 to 0"),
        (np.ones((0, 3)), [], "at least one of each"),
    ]:
        with pytest.raises(ValueError, match=message):
            evaluation.rank_of(wrong, np.array(index, int))
    with pytest.raises(TypeError, match="integer"):
        evaluation.rank_of(scores, np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="ranks_b: expected 2 cases"):
        evaluation.paired_difference.__wrapped__(
            np.ones(2), np.ones(3), np.arange(2), key=KEY
        )
