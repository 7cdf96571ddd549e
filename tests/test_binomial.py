"""Test exact bounds: against the tail that defines them, by simulation, bad input."""

import numpy as np
import pytest
from scipy import stats

from jeff import binomial


@pytest.mark.parametrize("delta", [1e-9, 0.01, 0.1, 0.5])
@pytest.mark.parametrize(("events", "trials"), [(0, 1), (0, 44), (3, 10), (99, 100)])
def test_the_tail_at_the_bound_is_delta(events, trials, delta) -> None:
    bound = binomial.upper_bound(events, trials, delta=delta)
    assert stats.binom.cdf(events, trials, bound) == pytest.approx(delta, rel=1e-6)


def test_a_closed_form_without_events_and_where_nothing_is_proved() -> None:
    assert binomial.upper_bound(0, 7, delta=0.1) == pytest.approx(1 - 0.1 ** (1 / 7))
    assert binomial.upper_bound(5, 5, delta=0.1) == 1.0
    assert binomial.upper_bound(0, 0, delta=0.1) == 1.0


def test_one_minus_the_bound_of_the_others_is_scipys_lower_end() -> None:
    """Both ends of scipy's interval at 90% are one-sided bounds at 5%."""
    ends = stats.binomtest(4, 19).proportion_ci(0.9)
    assert binomial.upper_bound(4, 19, delta=0.05) == pytest.approx(ends.high)
    assert 1 - binomial.upper_bound(15, 19, delta=0.05) == pytest.approx(ends.low)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
@pytest.mark.parametrize(("events", "trials"), [(0, 4), (4, 4), (7, 31), (2, 10**6)])
def test_the_interval_is_scipys(events, trials, level) -> None:
    ends = stats.binomtest(events, trials).proportion_ci(level)
    found = binomial.interval(events, trials, level=level)
    assert found == pytest.approx((ends.low, ends.high), rel=1e-6)


def test_an_interval_without_draws_and_with_bad_numbers() -> None:
    assert binomial.interval(0, 0, level=0.95) == (0.0, 1.0)
    with pytest.raises(
        ValueError, match=r"level: expected a number in \(0, 1\), got 1"
    ):
        binomial.interval(1, 2, level=1.0)
    with pytest.raises(ValueError, match="events: expected 0 to 2, got 3"):
        binomial.interval(3, 2, level=0.9)


@pytest.mark.parametrize("trials", [1, 3, 20])
@pytest.mark.parametrize("probability", [0.02, 0.3, 0.95])
def test_it_fails_at_most_as_often_as_allowed(trials, probability) -> None:
    """Exactly, by summing the probabilities of the counts whose bound is too low."""
    counts = np.arange(trials + 1)
    bounds = [binomial.upper_bound(int(n), trials, delta=0.1) for n in counts]
    mass = stats.binom.pmf(counts, trials, probability)
    assert mass[np.array(bounds) < probability].sum() <= 0.1
    ends = [binomial.interval(int(n), trials, level=0.9) for n in counts]
    covers = [low <= probability <= high for low, high in ends]
    assert mass[covers].sum() >= 0.9
    assert np.all(np.diff(bounds) > 0)


@pytest.mark.parametrize(
    ("events", "trials", "delta", "message"),
    [
        (0, -1, 0.1, "trials: expected at least 0, got -1"),
        (-1, 5, 0.1, "events: expected 0 to 5, got -1"),
        (6, 5, 0.1, "events: expected 0 to 5, got 6"),
        (1, 5, 0.0, r"delta: expected a number in \(0, 1\), got 0.0"),
        (1, 5, float("nan"), "delta: expected"),
    ],
)
def test_bad_numbers(events, trials, delta, message) -> None:
    with pytest.raises(ValueError, match=message):
        binomial.upper_bound(events, trials, delta=delta)
