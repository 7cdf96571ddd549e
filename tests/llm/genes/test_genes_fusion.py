"""Test points that join rankings: by hand, against scipy, against the likelihood."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from scipy.optimize import minimize

from jeff_llm.genes import fusion


def test_ranks_share_their_mean_and_keep_the_axes():
    scores = np.array([[[3, 3, 1], [np.inf, 0, -np.inf]]], float)
    assert fusion.ranks(scores).tolist() == [[[1.5, 1.5, 3], [1, 2, 3]]]


def test_rank_sum_by_hand():
    scores = np.array([[0.3, 0.2, 0.1], [10, 30, 30]])
    assert fusion.rank_sum(scores).tolist() == [-4, -3.5, -4.5]
    # Only the order counts.
    np.testing.assert_array_equal(
        fusion.rank_sum(np.exp(scores * 2)), fusion.rank_sum(scores)
    )


def test_borda_and_reciprocal_rank_by_hand():
    orders = np.array([[2, 0, 1, 3], [2, 1, 0, 3]])
    assert fusion.borda(orders).tolist() == [3, 3, 6, 0]
    expected = [1 / 62 + 1 / 63, 1 / 63 + 1 / 62, 2 / 61, 2 / 64]
    np.testing.assert_allclose(fusion.reciprocal_rank(orders), expected)


def test_a_small_constant_prefers_one_first_rank_to_two_second_ones():
    orders = np.array([[0, 1, 2, 3], [2, 1, 3, 0]])
    steep = fusion.reciprocal_rank(orders, constant=0.0)
    flat = fusion.reciprocal_rank(orders, constant=1000.0)
    assert steep[0] > steep[1] and flat[0] < flat[1]


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 7))
def test_a_batch_of_cases_is_a_loop(seed, rankings, genes):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(rankings, 3, genes))
    orders = np.argsort(-scores, axis=-1)
    for function, rows in [
        (fusion.borda, orders),
        (fusion.reciprocal_rank, orders),
        (fusion.rank_sum, scores),
    ]:
        alone = [function(rows[:, case]) for case in range(3)]
        np.testing.assert_allclose(function(rows), alone)
    # Without ties, Borda points and rank sums differ by a constant.
    np.testing.assert_allclose(
        fusion.borda(orders) - rankings * genes, fusion.rank_sum(scores)
    )


def test_plackett_luce_of_two_genes_is_the_log_odds():
    """Seven wins against three, with the imagined ones of no weight."""
    found = fusion.plackett_luce(
        [[0, 1]] * 7 + [[1, 0]] * 3, 2, prior=1e-6, num_steps=2000
    )
    np.testing.assert_allclose(found[0] - found[1], np.log(7 / 3), rtol=1e-4)


def test_plackett_luce_is_the_maximum_of_its_likelihood():
    """A general optimiser finds the same strengths, from rankings of subsets."""
    rng = np.random.default_rng(0)
    orders = [rng.permutation(6)[: rng.integers(2, 6)] for _ in range(12)]
    orders += [np.array([5, other]) for other in range(5)]
    prior = 0.3

    def loss(log_strength):
        total = np.sum(2 * prior * np.logaddexp(log_strength, 0) - prior * log_strength)
        for order in orders:
            utility = log_strength[order]
            for place in range(len(order) - 1):
                total += np.logaddexp.reduce(utility[place:]) - utility[place]
        return total

    found = fusion.plackett_luce(orders, 6, prior=prior, num_steps=1000)
    best = minimize(loss, np.zeros(6), method="BFGS", tol=1e-8)
    np.testing.assert_allclose(found, best.x, atol=1e-4)
    # Every step climbs.
    losses = [
        loss(fusion.plackett_luce(orders, 6, prior=prior, num_steps=steps))
        for steps in range(1, 12)
    ]
    assert (np.diff(losses) < 1e-12).all()


def test_plackett_luce_recovers_strengths():
    """Rankings drawn from the model, by Gumbel noise."""
    rng = np.random.default_rng(5)
    true = np.linspace(-1.5, 1.5, 8)
    orders = np.argsort(-(true + rng.gumbel(size=(3000, 8))), axis=1)
    found = fusion.plackett_luce(orders, 8)
    np.testing.assert_allclose(found - found.mean(), true, atol=0.12)


def test_plackett_luce_stays_finite():
    """Gene 0 always wins, 4 always loses, 3 is never compared, 5 is ranked alone."""
    found = fusion.plackett_luce(
        [[0, 1, 2, 4]] * 50 + [[0, 2, 1, 4]] * 50 + [[5]], 6, num_steps=3000
    )
    assert np.isfinite(found).all()
    assert found.argmax() == 0 and found.argmin() == 4
    np.testing.assert_allclose(found[1], found[2], atol=1e-6)
    np.testing.assert_allclose(found[[3, 5]], 0, atol=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(2, 9))
def test_the_gene_that_is_first_everywhere_is_first(seed, rankings, genes):
    rng = np.random.default_rng(seed)
    orders = np.array([rng.permutation(np.arange(1, genes)) for _ in range(rankings)])
    orders = np.concatenate([np.zeros((rankings, 1), int), orders], axis=1)
    for points in (
        fusion.borda(orders),
        fusion.reciprocal_rank(orders),
        fusion.plackett_luce(orders, genes, num_steps=20),
    ):
        assert (points[1:] < points[0]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fusion.ranks(np.array([1.0, np.nan])), r"got NaN at \(1,\)"),
        (lambda: fusion.ranks(np.ones((2, 0))), "at least one gene"),
        (lambda: fusion.rank_sum(np.ones((0, 3))), "one or more rankings"),
        (lambda: fusion.borda(np.array([[0, 0, 2]])), r"once.*got \[0, 0, 2\]"),
        (lambda: fusion.borda(np.array([[1, 2, 3]])), r"from 0 to 2"),
        (lambda: fusion.borda(np.zeros((0, 3), int)), "one or more rankings"),
        (
            lambda: fusion.reciprocal_rank(np.array([[0]]), constant=-1.0),
            "constant: expected .* got -1.0",
        ),
        (lambda: fusion.plackett_luce([], 2), "one or more rankings"),
        (lambda: fusion.plackett_luce([[0], []], 2), r"got lengths \[1, 0\]"),
        (lambda: fusion.plackett_luce([[0, 2]], 2), "different positions from 0 to 1"),
        (lambda: fusion.plackett_luce([[0, 0]], 2), "different positions"),
        (lambda: fusion.plackett_luce([[0, 1]], 2, prior=0.0), "prior: expected"),
        (lambda: fusion.plackett_luce([[0]], 0), "num_genes: expected at least 1"),
        (lambda: fusion.plackett_luce([[0]], 1, num_steps=0), "num_steps"),
    ],
)
def test_bad_rankings(call, message):
    with pytest.raises(ValueError, match=message):
        call()
