"""Test Benjamini-Hochberg and conditional p-values: scipy, by hand, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jeff_llm.anomaly.conformal import p_values
from jeff_llm.anomaly.false_discovery import (
    benjamini_hochberg,
    conditional_p_values,
    fewest_flagged,
)


@pytest.mark.parametrize("level", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("calibration", [19, 199, 5000])
def test_benjamini_hochberg_equals_scipy(level, calibration):
    """On grids of conformal p-values, with ties, shuffled; with few and many flags."""
    rng = np.random.default_rng(calibration)
    run = jax.jit(benjamini_hochberg, static_argnames="level")
    flagged = 0
    for anomalies in (0, 5, 60):
        values = rng.integers(1, calibration + 2, 100) / (calibration + 1)
        values[:anomalies] = rng.integers(1, 4, anomalies) / (calibration + 1)
        values = rng.permutation(values)
        want = stats.false_discovery_control(values) <= level + 1e-9
        np.testing.assert_array_equal(benjamini_hochberg(values, level), want)
        np.testing.assert_array_equal(run(jnp.asarray(values), level=level), want)
        flagged += want.sum()
    # With 19 calibration texts and level .1 it takes 50 flagged texts to flag any.
    assert flagged >= 50 or calibration == 19


def test_a_p_value_on_its_limit_is_flagged():
    values = np.full(10, 0.9)
    values[3] = 0.01
    assert benjamini_hochberg(values, 0.1)[3]
    values[3] = np.nextafter(0.0100001, 1)
    assert not benjamini_hochberg(values, 0.1).any()


def test_nan_and_empty_batches():
    run = jax.jit(benjamini_hochberg, static_argnames="level")
    assert not run(jnp.array([0.001, jnp.nan, 0.001]), level=0.1).any()
    assert benjamini_hochberg(np.zeros(0), 0.1).shape == (0,)
    assert benjamini_hochberg(np.zeros(3), 0.1).all()


@pytest.mark.parametrize("size", [19, 99, 150])
@pytest.mark.parametrize("texts", [1, 30, 200, 3000])
def test_fewest_flagged_is_where_flags_begin(size, texts):
    """So many texts beyond all calibration scores are flagged, one fewer is not."""
    needed = fewest_flagged(size, texts, 0.1)
    scores = np.zeros(texts)
    scores[: needed - 1] = 9.0
    calibration = np.linspace(1, 2, size)
    if needed <= texts:
        assert not benjamini_hochberg(p_values(calibration, scores), 0.1).any()
        scores[:needed] = 9.0
        flags = benjamini_hochberg(p_values(calibration, scores), 0.1)
        assert flags.sum() == needed
    else:
        full = p_values(calibration, np.full(texts, 9.0))
        assert size == 1 or not benjamini_hochberg(full, 0.1).any()


@pytest.mark.parametrize("size", [1, 2, 9, 100, 1001])
def test_conditional_p_values_are_the_formula(size):
    """Against the product written out, and above the marginal ones throughout."""
    calibration = np.arange(size, dtype=np.float32)
    scores = np.arange(size + 1, dtype=np.float32) - 0.5
    found = np.asarray(conditional_p_values(calibration, scores, delta=0.1))
    width = -(-size // 2)
    down = np.arange(width)
    for rank in range(1, size + 1):
        i = size + 1 - rank
        ratio = np.prod(np.maximum(i - down, 0) ** (1 / width)) / np.prod(
            (size - down) ** (1 / width)
        )
        assert found[size + 1 - rank] == pytest.approx(
            1 - 0.1 ** (1 / width) * ratio, rel=1e-4
        )
    assert found[0] == 1
    # From the most anomalous text on, they grow.
    assert np.all(np.diff(found) <= 0)


@pytest.mark.parametrize("size", [9, 100])
def test_conditional_p_values_hold_together(size):
    """P(U_(i) <= b_i for all i) >= 1 - delta, over 4,000 calibration sets."""
    rng = np.random.default_rng(0)
    # True p-values of the calibration texts, the most anomalous first.
    uniform = np.sort(rng.random((4000, size)), axis=1)
    calibration = np.arange(size, dtype=np.float32)
    above = np.arange(size, dtype=np.float32)[::-1] + 0.5
    bounds = np.asarray(conditional_p_values(calibration, above, delta=0.1))
    broken = (uniform > bounds).any(1).mean()
    assert 0.02 < broken <= 0.1 + 3 * np.sqrt(0.09 / 4000)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: benjamini_hochberg(p.at[2].set(jnp.nan), 0.1), ValueError, "text 2"),
        (lambda p: benjamini_hochberg(p.at[1].set(1.5), 0.1), ValueError, "got 1.5"),
        (lambda p: benjamini_hochberg(p.at[1].set(-0.5), 0.1), ValueError, "text 1"),
        (lambda p: benjamini_hochberg(p[None], 0.1), ValueError, r"\(1, 4\)"),
        (lambda p: benjamini_hochberg(p > 0.5, 0.1), TypeError, "got bool"),
        (lambda p: benjamini_hochberg(p, 1.0), ValueError, "level: .*got 1.0"),
        (lambda p: conditional_p_values(p, p, delta=0.0), ValueError, "delta: "),
        (lambda p: conditional_p_values(p[:0], p, delta=0.1), ValueError, "got none"),
        (lambda p: fewest_flagged(0, 5, 0.1), ValueError, "num_calibration: .*got 0"),
        (lambda p: fewest_flagged(5, 0, 0.1), ValueError, "num_texts: .*got 0"),
    ],
)
def test_bad_input(unchecked, call, error, message):
    with pytest.raises(error, match=message):
        call(jnp.array([0.1, 0.2, 0.3, 0.4]))
