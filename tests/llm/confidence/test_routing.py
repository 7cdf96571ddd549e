"""Test routing curves: straight line, oracle, ties, padding and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from jeff_llm.confidence import routing

RATES = jnp.linspace(0, 1, 11)


def by_hand(confidence, small, large, rate):
    """Mean accuracy over all orders of ties, by brute force over queries."""
    n = len(confidence)
    total, left = 0.0, rate * n
    for value in np.unique(confidence):
        group = confidence == value
        sent = min(1.0, left / group.sum())
        total += (sent * large[group] + (1 - sent) * small[group]).sum()
        left = max(0.0, left - group.sum())
    return total / n


def test_a_curve_by_hand() -> None:
    sure = jnp.array([0.1, 0.9, 0.5, 0.3])
    small = jnp.array([False, True, True, False])
    large = jnp.array([True, True, False, True])
    found = routing.curve(sure, small, large, jnp.array([0.0, 0.25, 0.5, 0.75, 1.0]))
    np.testing.assert_allclose(found.accuracy, [0.5, 0.75, 1.0, 0.75, 0.75])
    np.testing.assert_allclose(found.cost, [0, 0.25, 0.5, 0.75, 1])
    assert found.rate_to_match == 0.25
    assert found.alignment == 1.0
    # 3.5 + 2.5 - 1.5 answers, where an oracle, who sends what loses last, has 5.5.
    np.testing.assert_allclose(found.area, (4.5 - 2) / (5.5 - 2), rtol=1e-6)


def test_random_confidence_is_the_straight_line(key) -> None:
    """All equal confidences are routed at random, in expectation exactly."""
    small = jax.random.bernoulli(key, 0.4, (50,))
    large = jnp.ones(50, bool)
    found = routing.curve(jnp.full(50, 0.3), small, large, RATES)
    line = small.mean() + RATES * (1 - small.mean())
    np.testing.assert_allclose(found.accuracy, line, rtol=1e-5)
    np.testing.assert_allclose(found.area, 0, atol=1e-5)
    assert found.alignment == 0.5


def test_drawn_confidence_is_near_the_line(key) -> None:
    first, second = jax.random.split(key)
    small = jax.random.bernoulli(first, 0.5, (20_000,))
    sure = jax.random.uniform(second, (20_000,))
    area = routing.normalised_area(sure, small, jnp.ones(20_000, bool))
    assert abs(float(area)) < 0.03


def test_perfect_confidence_is_the_oracle(key) -> None:
    """Sent on first: what gains; last: what loses."""
    small = jax.random.bernoulli(key, 0.5, (200,))
    large = jax.random.bernoulli(jax.random.fold_in(key, 1), 0.7, (200,))
    gain = large.astype(float) - small
    found = routing.curve(-gain, small, large, RATES)
    np.testing.assert_allclose(found.area, 1, rtol=1e-5)
    backward = routing.normalised_area(gain, small, large)
    np.testing.assert_allclose(backward, -1, rtol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_ties_by_expectation_not_by_order(seed) -> None:
    """Against brute force, and the same however the queries are ordered."""
    rng = np.random.default_rng(seed)
    sure = rng.integers(0, 4, 37) / 4
    small, large = rng.random(37) < 0.5, rng.random(37) < 0.8
    rates = np.linspace(0, 1, 23)
    found = routing.curve(*map(jnp.asarray, (sure, small, large, rates)))
    expected = [by_hand(sure, small, large, rate) for rate in rates]
    np.testing.assert_allclose(found.accuracy, expected, atol=1e-5)
    order = rng.permutation(37)
    again = routing.curve(
        *map(jnp.asarray, (sure[order], small[order], large[order], rates))
    )
    np.testing.assert_allclose(found.accuracy, again.accuracy, atol=1e-6)
    np.testing.assert_allclose(found.area, again.area, atol=1e-5)
    np.testing.assert_allclose(found.alignment, roc_auc_score(small, sure), rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_area_is_that_of_a_fine_grid(seed) -> None:
    """The closed form against the trapezoid rule over n steps."""
    rng = np.random.default_rng(seed)
    sure, small = rng.random(40), rng.random(40) < 0.4
    large = rng.random(40) < 0.7
    rates = np.arange(41) / 40
    arrays = [jnp.asarray(x) for x in (sure, small, large)]
    area = np.trapezoid(routing.curve(*arrays, jnp.asarray(rates)).accuracy, rates)
    gain = large.astype(float) - small
    best = np.trapezoid(
        routing.curve(jnp.asarray(-gain), *arrays[1:], jnp.asarray(rates)).accuracy,
        rates,
    )
    even = (small.mean() + large.mean()) / 2
    found = routing.normalised_area(*arrays)
    np.testing.assert_allclose(found, (area - even) / (best - even), rtol=1e-4)
    scored = [x.astype(jnp.float32) for x in arrays[1:]]
    np.testing.assert_allclose(
        routing.normalised_area(arrays[0], *scored), found, rtol=1e-4
    )


def test_area_is_twice_auroc_less_one_for_a_perfect_expert() -> None:
    rng = np.random.default_rng(0)
    sure, small = rng.random(300), rng.random(300) < 0.4
    area = routing.normalised_area(
        jnp.asarray(sure), jnp.asarray(small), jnp.ones(300, bool)
    )
    np.testing.assert_allclose(area, 2 * roc_auc_score(small, sure) - 1, rtol=1e-4)


def test_one_class() -> None:
    """Always right, or the large model no better: not defined, and said so by NaN."""
    sure, right = jnp.array([0.2, 0.8, 0.5]), jnp.ones(3, bool)
    found = routing.curve(sure, right, right, RATES)
    np.testing.assert_allclose(found.accuracy, 1)
    assert jnp.isnan(found.area) and jnp.isnan(found.alignment)
    assert found.rate_to_match == 0
    wrong = routing.curve(sure, ~right, right, RATES)
    assert jnp.isnan(wrong.alignment)
    np.testing.assert_allclose(wrong.accuracy, RATES, atol=1e-6)


def test_rate_to_match() -> None:
    sure, small = jnp.array([0.1, 0.2, 0.3, 0.4]), jnp.array([False, True, False, True])
    large = jnp.ones(4, bool)
    match = routing.rate_to_match
    assert match(sure, small, large) == 0.75
    np.testing.assert_allclose(match(sure, small, large, accuracy=0.6), 0.1, atol=1e-6)
    assert match(sure, small, large, accuracy=0.5) == 0
    assert jnp.isnan(match(sure, small, ~large, accuracy=0.9))


def test_costs_of_each_query() -> None:
    sure, right = jnp.array([0.5, 0.1, 0.5]), jnp.array([True, False, True])
    found = routing.curve(
        sure,
        right,
        right,
        jnp.array([0.0, 1 / 3, 2 / 3, 1.0]),
        small_cost=1.0,
        large_cost=jnp.array([3.0, 6.0, 9.0]),
    )
    np.testing.assert_allclose(found.cost, [1, 3, 5, 7], rtol=1e-5)


def test_a_sweep_is_its_curves(key) -> None:
    """Settings of different length, padded with rubbish."""
    rng = np.random.default_rng(0)
    lengths = [5, 17, 30]
    shape = (3, 30)
    sure = rng.integers(0, 9, shape) / 8
    small, large = rng.random(shape) < 0.5, rng.random(shape) < 0.8
    where = np.arange(30) < np.array(lengths)[:, None]
    sure = np.where(where, sure, np.nan)
    found = routing.sweep(
        *map(jnp.asarray, (sure, small, large)), RATES, where=jnp.asarray(where)
    )
    for row, n in enumerate(lengths):
        one = routing.curve(
            *(jnp.asarray(x[row, :n]) for x in (sure, small, large)), RATES
        )
        for name in ("accuracy", "cost", "area", "rate_to_match", "alignment"):
            np.testing.assert_allclose(
                getattr(found, name)[row], getattr(one, name), rtol=1e-4, atol=1e-5
            )


def test_scores_instead_of_right_and_wrong() -> None:
    """Correctness may be a score: then the oracle sorts them."""
    small, large = jnp.array([0.2, 0.9, 0.5]), jnp.array([0.4, 0.1, 1.0])
    where = jnp.array([True, True, True, False])
    padded = [jnp.append(x, 7.0) for x in (-(large - small), small, large)]
    found = routing.normalised_area(-(large - small), small, large)
    again = jax.jit(routing.normalised_area)(*padded, where=where)
    np.testing.assert_allclose([found, again], 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"confidence": jnp.array([0.1, jnp.nan])},
            "confidence: expected finite numbers, got nan for query 1",
        ),
        (
            {"small_correct": jnp.array([0.5, 2.0])},
            r"small_correct: expected numbers in \[0, 1\], got 2.0",
        ),
        ({"large_correct": jnp.array([True])}, "large_correct: expected 2 values"),
        ({"rates": jnp.array([1.5])}, r"rates: expected numbers in \[0, 1\], got 1.5"),
        ({"confidence": jnp.zeros(0)}, "expected one number a query"),
        ({"where": jnp.array([False, False])}, "at least one query that counts"),
    ],
)
def test_bad_queries(change, message, unchecked) -> None:
    arguments = {
        "confidence": jnp.array([0.1, 0.2]),
        "small_correct": jnp.array([True, False]),
        "large_correct": jnp.array([True, True]),
        "rates": jnp.array([0.5]),
    }
    with pytest.raises(ValueError, match=message):
        routing.curve(**(arguments | change))


def test_nan_runs_through_jit() -> None:
    sure = jnp.array([0.1, jnp.nan])
    right = jnp.array([True, False])
    found = jax.jit(routing.curve)(sure, right, right, RATES)
    assert jnp.isnan(found.accuracy).all()
