"""Test measured false alarms and discoveries: counts by hand, leaks, bad input."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jeff_llm.anomaly.false_alarms import discoveries, false_alarms


@pytest.fixture
def sets():
    rng = np.random.default_rng(0)
    return rng.normal(size=500), rng.normal(size=400), rng.normal(size=60) + 3


def test_rates_are_counts_with_exact_intervals(sets):
    calibration, normal, anomalies = sets
    found = false_alarms(calibration, normal, anomalies, [0.01, 0.1], confidence=0.9)
    for level, one in zip([0.01, 0.1], found, strict=True):
        rank = int(501 * level)
        score = np.sort(calibration)[-rank]
        assert one.threshold.score == pytest.approx(score, rel=1e-6)
        for scores, rate, ends in (
            (normal, one.rate, one.rate_interval),
            (anomalies, one.power, one.power_interval),
        ):
            count = int((scores > score).sum())
            assert rate == pytest.approx(count / len(scores))
            peer = stats.binomtest(count, len(scores)).proportion_ci(0.9)
            assert ends == pytest.approx((peer.low, peer.high), abs=1e-9)
        assert one.rate_interval[0] <= level
    assert found[0].power < found[1].power


def test_delta_lowers_the_rate(sets):
    (plain,) = false_alarms(*sets, [0.1])
    (sure,) = false_alarms(*sets, [0.1], delta=0.05)
    assert sure.threshold.delta == 0.05
    assert sure.threshold.score > plain.threshold.score
    assert sure.rate < plain.rate


def test_texts_change_no_threshold(sets):
    """A leak would show: order, part and content of the test set play no part."""
    calibration, normal, anomalies = sets
    at = [one.threshold for one in false_alarms(*sets, [0.05, 0.2])]
    for some in (np.flip(normal), normal[:3], normal + 100):
        found = false_alarms(calibration, some, anomalies[::-1][:5], [0.05, 0.2])
        assert [one.threshold for one in found] == at


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_discoveries_are_controlled(sets, share, key):
    found = discoveries(
        *sets, 0.2, num_texts=80, anomaly_share=share, key=key, batches=300
    )
    assert found.false_share <= 0.2 * (1 - share) + 0.05
    assert 0 <= found.silent <= 1
    if share:
        assert found.power > 0.6 and found.silent < 0.05
        expected = found.power * share * 80
        assert expected <= found.flagged < 1.5 * expected
    else:
        assert np.isnan(found.power) and found.silent > 0.7
        assert found.silent == pytest.approx(1 - found.false_share)


def test_too_few_calibration_texts_are_silent(sets, key):
    """Nine of them: no p-value is below .1, and 4 texts of 40 would need .01."""
    calibration, normal, anomalies = sets
    found = discoveries(
        calibration[:9],
        normal,
        anomalies,
        0.1,
        num_texts=40,
        anomaly_share=0.1,
        key=key,
        batches=50,
    )
    assert found == (0.1, 0.0, 0.0, 0.0, 1.0)


def test_anomalies_may_be_none_without_a_share(sets, key):
    found = discoveries(
        *sets[:2], sets[2][:0], 0.2, num_texts=5, anomaly_share=0.0, key=key, batches=20
    )
    assert np.isnan(found.power)


NAN = jnp.array([jnp.nan])
MIX = {"num_texts": 10, "anomaly_share": 0.5}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, k: false_alarms(x, x[:0], x, [0.1]), "normal_scores: .*got 0"),
        (lambda x, k: false_alarms(x, x, x[:0], [0.1]), "anomaly_scores: .*got 0"),
        (lambda x, k: false_alarms(x[:0], x, x, [0.1]), "calibration_scores: .*got 0"),
        (lambda x, k: false_alarms(x, NAN, x, [0.1]), "normal_scores: .*nan"),
        (lambda x, k: false_alarms(x, x, x, [0.1, 0.01]), "at least 99 .*got 20"),
        (lambda x, k: false_alarms(x, x, x, [0.1], confidence=1), "confidence: "),
        (lambda x, k: discoveries(x, x, x, 1.0, key=k, **MIX), "level: "),
        (lambda x, k: discoveries(x, x, NAN, 0.1, key=k, **MIX), "anomaly_scores: .*n"),
        (
            lambda x, k: discoveries(x, x[:4], x, 0.1, key=k, **MIX),
            "normal_scores: expected at least 5 texts, got 4",
        ),
        (
            lambda x, k: discoveries(x, x, x[:4], 0.1, key=k, **MIX),
            "anomaly_scores: expected at least 5 texts, got 4",
        ),
        (
            lambda x, k: discoveries(x, x, x, 0.1, key=k, **{**MIX, "num_texts": 0}),
            "num_texts: ",
        ),
        (
            lambda x, k: discoveries(x, x, x, 0.1, key=k, batches=0, **MIX),
            "batches: expected at least 1, got 0",
        ),
        (
            lambda x, k: discoveries(x, x, x, 0.1, key=k, num_texts=9, anomaly_share=2),
            "anomaly_share: .*got 2",
        ),
    ],
)
def test_bad_input(unchecked, call, message, key):
    with pytest.raises(ValueError, match=message):
        call(jnp.linspace(0, 1, 20), key)
