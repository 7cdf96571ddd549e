"""Test measures of efficiency: by hand, published values, identities, jit."""

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import given, settings

from jeff_llm.reasoning import evaluate, metrics

RIGHT = np.array([[True, False, True], [False, False, True], [False, False, False]])
PARTS = np.array([[2, 3, 5], [4, 4, 0], [1, 1, 1]])
TOTAL = np.array([10, 16, 3])


def test_outcome_efficiency_by_hand() -> None:
    """2 of 10 tokens; a right solution without tokens is padding; none right."""
    found = metrics.outcome_efficiency(RIGHT, PARTS, TOTAL)
    assert found == pytest.approx(0.2 / 3)
    assert jax.jit(metrics.outcome_efficiency)(RIGHT, PARTS, TOTAL) == found


def test_process_efficiency_by_hand() -> None:
    """7 of 10 tokens are of new kinds, 8 of 16, and 1 of 3."""
    kind = np.array([[4, 4, 1], [0, 1, 0], [2, 2, 2]])
    found = metrics.process_efficiency(kind, PARTS, TOTAL)
    assert found == pytest.approx((0.7 + 0.5 + 1 / 3) / 3)
    # Padding of a kind does not make the first real solution of it a repetition.
    padded = metrics.process_efficiency(
        np.array([[1, 1]]), np.array([[0, 5]]), np.array([5])
    )
    assert padded == 1


def test_responses_that_stop_at_once_are_efficient() -> None:
    one, tokens = np.ones((4, 1), bool), np.full((4, 1), 7)
    assert metrics.outcome_efficiency(one, tokens, tokens[:, 0]) == 1
    assert metrics.process_efficiency(one.astype(int), tokens, tokens[:, 0]) == 1


def test_aes_of_the_published_table() -> None:
    """Marco-o1-7B on MATH: the baseline, DPO, and the prompt for fast solving.

    The table prints .42 and .15, which is what adding 3 |dA| for a loss gives.
    """
    accuracy, length = np.array([73.8, 71.8, 71.0]), np.array([1156, 761, 1113])
    found = metrics.aes(accuracy, length, accuracy[0], length[0])
    np.testing.assert_allclose(found, [0, 0.21, -0.15], atol=0.005)
    saved, loss = 1 - length / length[0], 1 - accuracy / accuracy[0]
    np.testing.assert_allclose((saved + 3 * loss)[1:], [0.42, 0.15], atol=0.005)


def test_aes_rewards_gains_less_than_it_punishes_losses() -> None:
    assert metrics.aes(0.9, 100, 0.8, 100) == pytest.approx(3 / 8, rel=1e-5)
    assert metrics.aes(0.7, 100, 0.8, 100) == pytest.approx(-5 / 8, rel=1e-5)
    own = {"gain_weight": 1.0, "loss_weight": 10.0}
    assert metrics.aes(0.9, 100, 0.8, 100, **own) == pytest.approx(1 / 8, rel=1e-5)
    assert metrics.aes(0.7, 100, 0.8, 100, **own) == pytest.approx(-10 / 8, rel=1e-5)


def test_tokens_and_rates_by_hand() -> None:
    right, length = np.array([True, False, True]), np.array([10, 20, 30])
    assert metrics.tokens_per_correct(right, length) == 30
    assert metrics.tokens_per_correct(~right & False, length) == np.inf
    assert metrics.compression_rate(length, 2 * length) == 0.5


SAMPLES = st.tuples(
    st.lists(st.booleans(), min_size=5, max_size=5),
    st.lists(st.integers(0, 30), min_size=5, max_size=5),
)


@settings(deadline=None)  # the first example compiles
@given(SAMPLES)
def test_accuracy_at_budget(samples) -> None:
    """It grows, ends at the accuracy, and its area is the mean over budgets."""
    right, length = map(np.array, samples)
    # Steps are at whole tokens: the accuracy in between is that of the whole number.
    budgets = np.arange(31) + 0.5
    found = np.asarray(metrics.accuracy_at_budget(right, length, budgets))
    assert (np.diff(found) >= 0).all()
    assert found[-1] == pytest.approx(right.mean())
    area = metrics.area_under_budget(right, length, max_budget=31)
    assert area == pytest.approx(found.mean(), abs=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: metrics.outcome_efficiency.__wrapped__(RIGHT[:, :2], PARTS, TOTAL),
            r"solution_correct: expected shape \(3, 3\) .* got \(3, 2\)",
        ),
        (
            lambda: metrics.process_efficiency.__wrapped__(PARTS, PARTS, TOTAL[:2]),
            r"length: expected shape \(3,\) .* got \(2,\)",
        ),
        (
            lambda: metrics.outcome_efficiency(RIGHT, -PARTS, TOTAL),
            "length: expected finite numbers",
        ),
        (
            lambda: metrics.outcome_efficiency(RIGHT, PARTS, 0 * TOTAL),
            "length: expected positive tokens, got 0",
        ),
        (
            lambda: metrics.outcome_efficiency(RIGHT[:, :0], PARTS[:, :0], TOTAL),
            "at least 1 solution, got 0",
        ),
        (
            lambda: metrics.outcome_efficiency(RIGHT.astype(int) * 2, PARTS, TOTAL),
            "solution_correct: expected only 0 and 1",
        ),
        (
            lambda: metrics.accuracy_at_budget(RIGHT[0], TOTAL, np.array([np.nan])),
            "budgets: expected numbers of tokens, got NaN",
        ),
        (
            lambda: metrics.compression_rate(TOTAL, -TOTAL),
            r"baseline_length: expected finite numbers in \[0, inf\]",
        ),
        (
            lambda: evaluate(
                RIGHT[0], TOTAL, baseline_correct=5 * TOTAL, baseline_length=TOTAL
            ),
            r"baseline_correct: expected finite numbers in \[0, 1\]",
        ),
        (
            lambda: evaluate(
                RIGHT[0], TOTAL, baseline_correct=RIGHT[0], baseline_length=0 * TOTAL
            ),
            "baseline_length: expected some tokens, got 0",
        ),
        (
            lambda: metrics.area_under_budget(RIGHT[0], TOTAL, max_budget=0),
            "max_budget: expected positive tokens, got 0",
        ),
    ],
)
def test_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_scores_are_not_marks() -> None:
    """NaN and 0.3 are true as bool; neither says that a solution is right."""
    with pytest.raises(TypeError, match="solution_correct: expected a bool or 0/1"):
        metrics.outcome_efficiency(RIGHT * np.nan, PARTS, TOTAL)
    with pytest.raises(TypeError, match="kind: expected integers, got float"):
        metrics.process_efficiency(RIGHT * np.nan, PARTS, TOTAL)


def test_nan_stays_nan_where_values_cannot_be_checked() -> None:
    right = np.array([1.0, np.nan, 1.0])
    assert np.isnan(jax.jit(metrics.tokens_per_correct)(right, TOTAL))
