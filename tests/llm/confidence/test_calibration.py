"""Test calibration data: bins, weights, transfer of thresholds, and drift."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm.confidence import calibration


def queries(seed, count, power=1.0):
    rng = np.random.default_rng(seed)
    sure = rng.random(count) ** power
    return [
        jnp.asarray(x)
        for x in (sure, rng.random(count) < sure, rng.random(count) < 0.9)
    ]


def test_a_share_of_every_bin(key) -> None:
    """A tenth of each of thirty bins, at least one; the weights give the pool back."""
    sure = np.concatenate([np.full(200, 0.01), np.full(3, 0.5), np.full(50, 1.0)])
    places, weights = calibration.sample_bins(jnp.asarray(sure), key=key)
    kept = sure[places]
    assert [(kept == value).sum() for value in (0.01, 0.5, 1.0)] == [20, 1, 5]
    assert weights.sum() == pytest.approx(1)
    assert weights[kept == 0.5].sum() == pytest.approx(3 / 253)
    assert (np.diff(places) > 0).all()


def test_the_draw_is_the_key_s(key) -> None:
    sure = queries(0, 500)[0]
    draw = calibration.sample_bins
    first, again = (draw(sure, key=key)[0] for _ in range(2))
    other = draw(sure, key=jax.random.key(7))[0]
    assert (first == again).all() and (
        first.shape != other.shape or (first != other).any()
    )


def test_thresholds_carry_over_to_queries_of_the_same_kind(key) -> None:
    kept = calibration.calibrate(*queries(0, 4000), key=key)
    rates = jnp.linspace(0, 1, 11)
    found = calibration.transfer(kept, *queries(1, 4000), rates)
    assert found.rate_error < 0.02 and found.accuracy_error < 0.03
    assert found.drift < 0.02
    assert found.actual_rates[0] < 0.01 and found.actual_rates[-1] == pytest.approx(1)
    np.testing.assert_allclose(found.thresholds[1:-1], rates[1:-1], atol=0.03)


def test_other_queries_are_told_by_drift_and_errors(key) -> None:
    kept = calibration.calibrate(*queries(0, 4000), key=key)
    found = calibration.transfer(
        kept, *queries(1, 4000, power=3.0), jnp.linspace(0, 1, 11)
    )
    assert found.rate_error > 0.1
    assert found.drift == pytest.approx(0.25, abs=0.02)  # |1/2 - 1/4|


def test_everything_kept_gives_the_pool_s_own_quantiles(key) -> None:
    sure, small, large = (x[:10] for x in queries(3, 10))
    kept = calibration.calibrate(sure, small, large, key=key, share=1.0)
    found = calibration.transfer(kept, sure, small, large, jnp.linspace(0, 1, 11))
    np.testing.assert_allclose(found.actual_rates, found.rates, atol=1e-6)
    np.testing.assert_allclose(found.predicted_accuracy, found.actual_accuracy)
    assert found.drift == pytest.approx(0, abs=1e-7)


def test_wasserstein_by_hand() -> None:
    one, other = np.array([0.0, 1.0]), np.array([0.0, 0.0, 1.0, 1.0])
    assert calibration.wasserstein(one, other) == 0
    weights = np.array([3.0, 1.0])
    assert calibration.wasserstein(one, other, weights=weights) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0.0}, r"share: expected a number in \(0, 1\], got 0.0"),
        ({"num_bins": 0}, "num_bins: expected at least 1, got 0"),
        ({"confidence": jnp.array([1.2])}, r"confidence: expected numbers in \[0, 1\]"),
        ({"confidence": jnp.array([jnp.nan])}, "expected finite numbers, got nan"),
        ({"confidence": jnp.zeros(0)}, "expected one number a query"),
    ],
)
def test_bad_bins(options, message, key, unchecked) -> None:
    sure = options.pop("confidence", jnp.array([0.5]))
    with pytest.raises(ValueError, match=message):
        calibration.sample_bins(sure, key=key, **options)
