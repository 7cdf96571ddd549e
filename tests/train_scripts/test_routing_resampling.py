"""Test the interval of a routing curve: counts of queries instead of resamples."""

import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm.confidence import routing
from train_scripts.routing import resampling


@pytest.mark.parametrize("levels", [5, 10**6])
def test_counts_give_the_curve_of_the_repeated_queries(levels) -> None:
    rng = np.random.default_rng(0)
    sure = np.sort(rng.integers(levels, size=300)) / levels
    small, large = rng.random(300) < sure, rng.random(300)
    counts, rates = rng.poisson(1.0, 300), np.linspace(0, 1, 11)
    starts = np.flatnonzero(np.r_[True, np.diff(sure) > 0])
    found = resampling.resampled_accuracy(
        counts, small.astype(float), large - small, starts, rates
    )
    repeated = (jnp.asarray(np.repeat(x, counts)) for x in (sure, small, large))
    wanted = routing.curve(*repeated, jnp.asarray(rates)).accuracy
    np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_the_interval_covers_and_has_the_width_of_the_binomial() -> None:
    rng = np.random.default_rng(1)
    sure = rng.random(2000)
    small, large = rng.random(2000) < 0.5, np.ones(2000, bool)
    low, high = resampling.accuracy_interval(
        sure, small, large, np.array([0.0, 1.0]), seed=0, num_samples=400
    )
    width = 2 * 1.96 * np.sqrt(small.mean() * (1 - small.mean()) / 2000)
    assert low[0] < small.mean() < high[0]
    np.testing.assert_allclose(high[0] - low[0], width, rtol=0.15)
    assert low[1] == high[1] == 1
