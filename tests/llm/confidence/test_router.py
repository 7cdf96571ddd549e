"""Test thresholds: the queries they route, and that their guarantee holds."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm.confidence import router, routing

SURE = jnp.array([0.1, 0.4, 0.6, 0.9])
SMALL = jnp.array([False, False, True, True])
LARGE = jnp.ones(4, bool)


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.5, 1.0])
def test_a_rate(rate) -> None:
    found = router.for_rate(SURE, rate)
    assert float(found(SURE).mean()) == rate


def test_ties_are_broken_by_the_numbers_given(key) -> None:
    sure = jnp.full(4000, 0.5)
    found = router.for_rate(sure, 0.3)
    assert not found(sure).any()
    sent = found(sure, uniform=jax.random.uniform(key, (4000,)))
    assert abs(float(sent.mean()) - 0.3) < 0.03


def test_nan_goes_on() -> None:
    assert router.for_rate(SURE, 0.5)(jnp.array([jnp.nan]))[0]


def test_a_router_is_traceable() -> None:
    found = router.for_rate(SURE, 0.5)
    assert jax.jit(found.__call__)(SURE).tolist() == [True, True, False, False]


def test_an_accuracy() -> None:
    found = router.for_accuracy(SURE, SMALL, LARGE, 0.75)
    assert (found.rate, found.accuracy) == (0.25, 0.75)
    assert found(SURE).tolist() == [True, False, False, False]
    with pytest.raises(ValueError, match=r"at most 0.7500, got 0.9"):
        router.for_accuracy(SURE, SMALL, jnp.array([True, False, True, False]), 0.9)


def test_a_budget() -> None:
    """Half of the large model's cost sends half of the queries."""
    found = router.for_budget(SURE, SMALL, LARGE, 1.0, large_cost=2.0)
    assert found.rate == pytest.approx(0.5, abs=1e-3)
    assert found.accuracy == pytest.approx(1.0, abs=1e-2)
    with pytest.raises(ValueError, match="at least the small model's cost, 2"):
        router.for_budget(SURE, SMALL, LARGE, 1.0, small_cost=2.0)


def test_a_budget_never_buys_losses() -> None:
    """Where the large model is worse on sure queries, money is left over."""
    large = jnp.array([True, True, False, False])
    found = router.for_budget(SURE, SMALL, large, 1.0)
    assert found.rate == pytest.approx(0.5, abs=2e-3)


def test_the_guarantee_holds_in_a_thousand_draws() -> None:
    """Errors above the bound in at most delta of the draws, and much is kept."""
    rng = np.random.default_rng(0)
    delta, bound, broken, kept = 0.1, 0.1, 0, []
    for _ in range(1000):
        sure = rng.random(500).astype(np.float32)
        right = rng.random(500) > (1 - sure) ** 2
        found = router.with_guarantee(
            jnp.asarray(sure), jnp.asarray(right), max_error=bound, delta=delta
        )
        share = 1 - min(max(found.threshold, 0.0), 1.0)
        broken += share**2 / 3 > bound  # the error rate above a threshold, exactly
        kept.append(share)
    # Four standard deviations of a binomial above delta.
    assert broken / 1000 <= delta + 4 * math.sqrt(delta * (1 - delta) / 1000)
    # No threshold may keep more than .548 of the queries.
    assert 0.3 < np.mean(kept) < 0.548


@pytest.mark.parametrize("queries", [2, 3, 10, 30, 100])
@pytest.mark.parametrize("ties", [False, True])
def test_the_guarantee_holds_for_few_queries(queries, ties) -> None:
    """Every answer is wrong with probability .35; none may be kept for a .3 limit."""
    rng, draws, broken = np.random.default_rng(queries), 500, 0
    for _ in range(draws):
        sure = rng.integers(0, 3, queries) / 2 if ties else rng.random(queries)
        right = rng.random(queries) > 0.35
        found = router.with_guarantee(sure, right, max_error=0.3, delta=0.2)
        broken += found.threshold < math.inf
    assert broken / draws <= 0.2 + 3 * math.sqrt(0.2 * 0.8 / draws)


@pytest.mark.parametrize("error", [ValueError, TypeError])
def test_a_share_of_right_is_neither_right_nor_wrong(error) -> None:
    correct = {ValueError: np.array([0, 1, 2, 1]), TypeError: np.full(4, 0.5)}[error]
    with pytest.raises(error, match="correct: expected"):
        router.with_guarantee(SURE, correct, max_error=0.1)


def test_confidences_that_differ_in_double_alone_are_ties() -> None:
    """The router compares in its own precision, so the guarantee is tested there."""
    sure = np.concatenate([0.5 + np.arange(200) * 1e-12, np.zeros(200)])
    right = np.arange(400) < 200
    found = router.with_guarantee(sure, right, max_error=0.1)
    assert found.rate == float(found(jnp.asarray(sure)).mean()) == 0.5


def test_the_guarantee_is_not_free() -> None:
    """Without the bound's margin it would fail far more often than delta."""
    rng = np.random.default_rng(1)
    broken = 0
    for _ in range(200):
        sure = rng.random(500)
        wrong = rng.random(500) < (1 - sure) ** 2
        order = np.argsort(-sure)
        rate = np.cumsum(wrong[order]) / np.arange(1, 501)
        share = 1 - sure[order][np.flatnonzero(rate <= 0.1).max()]
        broken += share**2 / 3 > 0.1
    assert broken / 200 > 0.3


def test_the_guarantee_with_ties() -> None:
    """Agreement of two answers is 0 or 1: all or none of the agreeing are kept."""
    sure = jnp.repeat(jnp.array([1.0, 0.0]), 200)
    right = jnp.arange(400) % 40 != 0
    right = right.at[200:].set(jnp.arange(200) % 2 == 0)
    found = router.with_guarantee(sure, right, max_error=0.1)
    assert found.rate == 0.5 and found(sure).tolist() == [False] * 200 + [True] * 200


def test_where_nothing_can_be_proved_all_is_sent_on() -> None:
    wrong = jnp.zeros(100, bool)
    found = router.with_guarantee(jnp.linspace(0, 1, 100), wrong, max_error=0.05)
    assert found.threshold == math.inf and found.rate == 1
    assert found(jnp.array([1.0]))[0]


def test_where_all_are_right_all_are_kept() -> None:
    found = router.with_guarantee(
        jnp.linspace(0, 1, 400), jnp.ones(400, bool), max_error=0.05
    )
    assert (found.threshold, found.rate) == (-math.inf, 0.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: router.for_rate(SURE, 1.5), r"rate: expected numbers in \[0, 1\]"),
        (lambda: router.for_rate(jnp.zeros(0), 0.5), "expected one number a query"),
        (lambda: router.for_rate(jnp.array([jnp.inf]), 0.5), "expected finite numbers"),
        (
            lambda: router.with_guarantee(SURE, SMALL, max_error=0.0),
            r"max_error: expected a number in \(0, 1\), got 0.0",
        ),
        (
            lambda: router.with_guarantee(SURE[:1], SMALL[:1], max_error=0.1),
            "at least 2 queries, got 1",
        ),
        (
            lambda: router.with_guarantee(SURE, SMALL[:2], max_error=0.1),
            "small_correct: expected 4 values",
        ),
    ],
)
def test_bad_calls(call, message, unchecked) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_the_threshold_does_what_the_curve_says(key) -> None:
    sure = jax.random.uniform(key, (500,))
    small = jax.random.bernoulli(jax.random.fold_in(key, 1), sure)
    large = jnp.ones(500, bool)
    found = router.for_accuracy(sure, small, large, 0.8)
    sent = found(sure)
    reached = float(jnp.where(sent, large, small).mean())
    curve = routing.curve(sure, small, large, jnp.array([found.rate]))
    assert reached == pytest.approx(0.8, abs=3e-3)
    assert float(curve.accuracy[0]) == pytest.approx(0.8, abs=1e-4)
