"""Test the guarantees by simulation: small and large sets, ties, anomalies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jeff.binomial import upper_bound
from jeff_llm.anomaly.conformal import threshold_rank
from jeff_llm.anomaly.conformal_simulation import simulate_guarantees

# Number of calibration texts, level, delta.
SETTINGS = [(9, 0.3, 0.1), (19, 0.2, 0.1), (99, 0.1, 0.1), (400, 0.05, 0.05)]


@pytest.mark.parametrize("step", [None, 0.5])
@pytest.mark.parametrize(("size", "level", "delta"), SETTINGS)
def test_guarantees_hold(size, level, delta, step, key):
    """The intervals are those of the binomial, and of the mean, at 3.3 deviations."""
    found = simulate_guarantees(
        size, level=level, delta=delta, key=key, num_texts=50, step=step
    )
    marginal = np.asarray(found.marginal_rate)
    error = marginal.std() / np.sqrt(1000)
    assert marginal.mean() <= level + 3.3 * error
    allowed = stats.binom.ppf(0.9995, 1000, delta) / 1000
    assert found.broken <= allowed
    above = np.mean(np.asarray(found.conditional_rate) > level)
    assert found.broken == pytest.approx(above)
    if step is None:
        # Not needlessly timid: the exact probabilities, not only their bounds.
        rank = threshold_rank(size, level)
        assert marginal.mean() == pytest.approx(rank / (size + 1), abs=3.3 * error)
        rank = threshold_rank(size, level, delta=delta)
        exact = stats.beta(rank, size + 1 - rank).sf(level)
        least = stats.binom.ppf(0.0005, 1000, exact) / 1000
        assert least <= found.broken
        # One rank further, and the guarantee would not hold.
        assert stats.beta(rank + 1, size - rank).sf(level) > delta


@pytest.mark.parametrize("step", [None, 0.5])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_the_share_of_false_alarms_is_controlled(share, step, key):
    found = simulate_guarantees(
        199, level=0.2, delta=0.1, key=key, num_texts=60, anomaly_share=share, step=step
    )
    false = np.asarray(found.false_share)
    mean, error = false.mean(), false.std() / np.sqrt(1000)
    assert mean <= 0.2 * (1 - share) + 3.3 * error
    if share:
        assert found.power.mean() > 0.5
        # Without ties the bound is met, up to the grid of the p-values.
        assert step is not None or mean > 0.15 * (1 - share)
    else:
        assert jnp.isnan(found.power).all()
        # Every flag is then a false alarm.
        assert set(np.unique(false)) <= {0.0, 1.0}


def test_a_wrong_threshold_would_be_seen(key):
    """The marginal threshold does not give the conditional guarantee."""
    found = simulate_guarantees(99, level=0.1, delta=0.1, key=key, num_texts=2)
    broken = int(np.sum(np.asarray(found.marginal_rate) > 0.1))
    assert 1 - upper_bound(1000 - broken, 1000, delta=0.001) > 0.3


def test_the_key_decides(key):
    def run(key):
        return simulate_guarantees(9, level=0.3, delta=0.1, key=key, num_sets=5)

    for one, other in zip(run(key), run(key), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(run(key)[0], run(jax.random.key(1))[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_sets": 0}, "num_sets: expected at least 1, got 0"),
        ({"num_texts": 0}, "num_texts: expected at least 1, got 0"),
        ({"anomaly_share": 1.5}, "anomaly_share: .*got 1.5"),
        ({"step": 0.0}, "step: expected a positive number, got 0.0"),
        ({"level": 0.01}, "at least 230 normal texts .*got 99"),
        ({"delta": 0.0}, "delta: .*got 0.0"),
    ],
)
def test_bad_input(options, message, key):
    with pytest.raises(ValueError, match=message):
        simulate_guarantees(99, **{"level": 0.1, "delta": 0.1, "key": key, **options})
