"""Test bounds on gaps: known values, identities, and coverage at small counts."""

import functools

import numpy as np
import pytest
from scipy import stats

from jeff.binomial import interval
from jeff.fairness import bounds

bound = functools.cache(functools.partial(bounds.gap_bound, delta=0.05))


def share_below(truth, trials, rates, draws=1500):
    """Share of drawn events whose bound is below the true gap."""
    rng = np.random.default_rng(0)
    events = rng.binomial(trials, rates, (draws, 2)).tolist()
    return np.mean([bound(tuple(each), trials) < truth for each in events]), draws


@pytest.mark.parametrize("members", [1, 2, 3, 10, 100])
@pytest.mark.parametrize("rates", [(0.6, 0.3), (0.05, 0.35), (0.02, 0.0), (0.5, 0.5)])
def test_the_gap_is_above_its_bound_in_five_of_a_hundred_draws_at_most(members, rates):
    truth = abs(rates[0] - rates[1])
    failed, draws = share_below(truth, (40, members), rates)
    # The share itself is a count of draws; three of its deviations are allowed.
    assert failed <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)


def test_the_exact_probability_is_summed():
    """Against all pairs of counts, at one pair of rates."""
    n, m, p, q = 7, 12, 0.55, 0.3
    x, y = np.meshgrid(np.arange(n + 1), np.arange(m + 1), indexing="ij")
    mass = stats.binom.pmf(x, n, p) * stats.binom.pmf(y, m, q)
    for difference in (-5, 0, 12, 30):
        expected = mass[x * m - y * n <= difference].sum()
        found = bounds._probability(difference, n, m, np.array([p]), np.array([q]))
        assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("trials", [(1, 40), (30, 30), (400, 90), (5000, 7000)])
def test_one_test_agrees_with_the_search(trials):
    """Limits are proved from the bound on, but for the width where a search ends."""
    rng = np.random.default_rng(0)
    for rates in ((0.5, 0.5), (0.1, 0.2), (0.9, 0.3)):
        events = tuple(rng.binomial(trials, rates).tolist())
        found = bounds.gap_bound(events, trials, delta=0.05)
        assert found == 1 or bounds.gap_is_within(events, trials, found, delta=0.05)
        width = np.sqrt(-np.log(0.05 * 0.95) / 2 * (1 / trials[0] + 1 / trials[1]))
        lower = float(found - 1.01 * max(1e-4, 0.01 * width))
        assert not bounds.gap_is_within(events, trials, lower, delta=0.05)


@pytest.mark.parametrize("trials", [(20, 20), (30, 200), (900, 1500)])
def test_few_parts_say_what_all_say(trials):
    """A limit is proved where the largest of 64 parts proves it, and nowhere else."""
    rng = np.random.default_rng(1)
    (n, m), proved = trials, []
    for _ in range(60):
        x, y = rng.binomial(trials, rng.uniform(0.2, 0.8, 2)).tolist()
        limit = min(0.99, max(0.01, x / n - y / m + rng.uniform(0, 2) * n**-0.5))
        ends = interval(y, m, level=1 - bounds._SHARE * 0.05)
        edges = np.linspace(ends[0], min(ends[1], 1 - limit), 65)
        parts = bounds._probability(x * m - y * n, n, m, edges[:-1] + limit, edges[1:])
        expected = bool(parts.max() <= 0.05 * (1 - bounds._SHARE))
        found = bounds._difference_is_below(limit, (x, n), (y, m), delta=0.05)
        assert found == (expected or edges[0] > edges[-1])
        proved.append(found)
    assert 5 < sum(proved) < 55


def test_it_is_near_the_normal_bound_at_large_counts():
    (x, y), (n, m) = (4500, 6000), (10_000, 15_000)
    p, q = x / n, y / m
    error = np.sqrt(p * (1 - p) / n + q * (1 - q) / m)
    found = bounds.gap_bound((x, y), (n, m), delta=0.05)
    assert abs(p - q) + 1.645 * error < found < abs(p - q) + 1.95 * error


def test_groups_and_outcomes_change_places():
    expected = bounds.gap_bound((3, 20), (10, 90), delta=0.05)
    for events, trials in [((20, 3), (90, 10)), ((7, 70), (10, 90))]:
        found = bounds.gap_bound(events, trials, delta=0.05)
        # The search for the bound ends within a hundredth of its width.
        assert found == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("trials", [(0, 0), (0, 500), (500, 0)])
def test_a_group_without_members_has_the_bound_one(trials):
    assert bounds.gap_bound((0, 0), trials, delta=0.05) == 1
    member = np.arange(sum(trials)) < trials[1]
    nobody = np.zeros(sum(trials))
    found = bounds.weighted_gap_bound(
        nobody, member, nobody + 1, largest=1.0, delta=0.05
    )
    assert found == 1


def test_more_people_and_less_confidence_give_a_smaller_bound():
    sizes = [
        bounds.gap_bound((n // 2, n // 2), (n, n), delta=0.05) for n in (2, 20, 200)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert bounds.gap_bound((10, 10), (20, 20), delta=0.2) < sizes[1]


@pytest.mark.parametrize("people", [1, 2, 3, 10, 100])
@pytest.mark.parametrize("soft", [False, True])
def test_a_weighted_rate_is_above_its_bound_in_at_most_delta(people, soft):
    """Weights follow the decisions; the rate is ``E[w d] / E[w]``."""
    rng, draws, rate = np.random.default_rng(people), 500, 0.6
    failed = 0
    for _ in range(draws):
        decided = rng.random(people) < rate
        weight = np.where(rng.random(people) < np.where(decided, 0.5, 0.2), 3.0, 1.0)
        values = decided * 0.5 + 0.25 if soft else decided
        found = bounds.rate_bound(values, weight, largest=3.0, delta=0.1)
        heavy = (rate * 2.0, (1 - rate) * 1.4)  # mean weights times shares
        truth = heavy[0] / sum(heavy)
        failed += found < (truth * 0.5 + 0.25 if soft else truth)
    assert failed / draws <= 0.1 + 3 * np.sqrt(0.09 / draws)


def test_weights_that_vary_count_as_fewer_people():
    rng = np.random.default_rng(0)
    decided = rng.random(1000) < 0.5
    even, varied = (
        bounds.rate_bound(decided, weight, largest=weight.max(), delta=0.05)
        for weight in (np.ones(1000), rng.exponential(1, 1000))
    )
    assert 0.5 < even < varied < 0.75
