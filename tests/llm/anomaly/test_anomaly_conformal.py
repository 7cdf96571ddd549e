"""Test conformal p-values and thresholds: by hand, ties, bounds, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jeff_llm.anomaly.conformal import (
    Threshold,
    fewest_calibration,
    flag,
    p_values,
    threshold,
    threshold_rank,
)


def rounded(seed: int, size: int) -> np.ndarray:
    """Scores with many ties."""
    return np.round(np.random.default_rng(seed).normal(size=size), 1)


def test_p_values_are_the_counts_of_their_definition():
    calibration, scores = rounded(0, 60), rounded(1, 200)
    want = (1 + (calibration >= scores[:, None]).sum(1)) / 61
    found = p_values(calibration, scores)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, want, rtol=1e-6)
    np.testing.assert_array_equal(
        jax.jit(p_values)(jnp.asarray(calibration), jnp.asarray(scores)), found
    )


def test_a_p_value_depends_on_no_other_text():
    calibration, scores = rounded(0, 60), rounded(1, 50)
    every = np.asarray(p_values(calibration, scores))
    order = np.random.default_rng(2).permutation(50)[:20]
    np.testing.assert_array_equal(p_values(calibration, scores[order]), every[order])
    np.testing.assert_array_equal(p_values(calibration, scores[:1]), every[:1])
    np.testing.assert_array_equal(p_values(np.flip(calibration), scores), every)
    assert p_values(calibration, scores[:0]).shape == (0,)


def test_doubles_and_floats_tie_with_each_other():
    """A text scored in another precision than its calibration copy is no anomaly."""
    doubles = np.random.default_rng(3).normal(size=100)
    floats = jnp.asarray(doubles)
    same = p_values(doubles, doubles)
    for mixed in (p_values(doubles, floats), p_values(floats, doubles)):
        np.testing.assert_array_equal(mixed, same)
    found = threshold(doubles, 0.05)
    assert found == threshold(floats, 0.05)
    assert flag(doubles, found).sum() == flag(floats, found).sum() == 4


def test_nan_under_jit_only_raises_p_values():
    calibration = jnp.array([1.0, 2.0, jnp.nan])
    found = jax.jit(p_values)(calibration, jnp.array([jnp.nan, 9.0, jnp.inf]))
    np.testing.assert_allclose(found, [1, 0.5, 0.5])
    at = Threshold(0.0, 0.1, None, 1, 9, 0.1)
    found = jax.jit(lambda scores: flag(scores, at))(jnp.array([jnp.nan, 9.0]))
    np.testing.assert_array_equal(found, [False, True])


@pytest.mark.parametrize(
    ("level", "delta", "needed"),
    [
        (0.1, None, 9),
        (0.05, None, 19),
        (0.01, None, 99),
        (1 / 49, None, 48),
        (0.3, None, 3),
        (0.9, None, 1),
        (0.5, 0.25, 2),
        (0.05, 0.1, 45),
        (0.01, 0.05, 299),
    ],
)
def test_fewest_calibration_is_where_the_guarantee_begins(level, delta, needed):
    assert fewest_calibration(level, delta) == needed
    assert threshold_rank(needed, level, delta=delta) == 1
    if delta is not None:
        assert (1 - level) ** needed <= delta < (1 - level) ** (needed - 1)
    with pytest.raises(ValueError, match=f"at least {needed} normal texts.*got "):
        threshold_rank(needed - 1, level, delta=delta)


@pytest.mark.parametrize("level", [0.01, 0.05, 0.1, 0.07, 0.5])
@pytest.mark.parametrize("size", [99, 100, 499, 2000])
def test_the_marginal_threshold_is_the_level_of_the_p_values(level, size):
    """With ties: the flags are those of p <= level, and the rank is the largest."""
    calibration, scores = rounded(4, size), rounded(5, 500) + 0.5
    found = threshold(calibration, level)
    p_of_rank = (found.rank, found.rank + 1)
    assert p_of_rank[0] <= level * (size + 1) + 1e-9 < p_of_rank[1]
    want = np.asarray(p_values(calibration, scores)) <= np.float32(level + 1e-9)
    np.testing.assert_array_equal(flag(scores, found), want)
    assert found.expected_rate == pytest.approx(found.rank / (size + 1))
    assert found.expected_rate <= level + 1e-12


@pytest.mark.parametrize("level", [0.01, 0.1, 0.4])
@pytest.mark.parametrize("delta", [0.01, 0.1, 0.6])
@pytest.mark.parametrize("size", [500, 1001])
def test_the_conditional_rank_is_the_largest_allowed(level, delta, size):
    rank = threshold_rank(size, level, delta=delta)
    broken = [stats.beta(k, size + 1 - k).sf(level) for k in (rank, rank + 1)]
    assert broken[0] <= delta < broken[1]


def test_a_threshold_flags_nothing_that_ties_with_it():
    calibration = np.repeat(np.float32(1.0), 99)
    found = threshold(calibration, 0.1, delta=0.1)
    assert found[:2] == (1.0, 0.1) and found.calibration == 99
    np.testing.assert_array_equal(
        flag(np.array([1.0, 1.5, -np.inf]), found), [False, True, False]
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: p_values(x[:0], x), ValueError, "calibration_scores: expected at"),
        (lambda x: p_values(x, x.at[3].set(jnp.nan)), ValueError, "scores: .*text 3"),
        (lambda x: p_values(x.at[3].set(jnp.nan), x), ValueError, "calib.*text 3"),
        (lambda x: p_values(x[None], x), ValueError, r"calib.*\(1, 99\)"),
        (lambda x: p_values(x, x.astype(int)), TypeError, "scores: .*int32"),
        (lambda x: threshold(x.at[0].set(jnp.nan), 0.1), ValueError, "got nan"),
        (lambda x: threshold(x[:0], 0.1), ValueError, "at least 9 .* got 0"),
        (lambda x: threshold(x, 0.001), ValueError, "at least 999 .* got 99"),
        (lambda x: threshold(x, 0.02, delta=0.1), ValueError, "at least 114 .*got 99"),
        (lambda x: threshold(x, 0.0), ValueError, "level: .*got 0.0"),
        (lambda x: threshold(x, 0.1, delta=1.0), ValueError, "delta: .*got 1.0"),
        (lambda x: threshold(x, float("nan")), ValueError, "level: .*got nan"),
        (
            lambda x: flag(x, Threshold(float("nan"), 0.1, None, 1, 9, 0.1)),
            ValueError,
            "threshold: .*got nan",
        ),
    ],
)
def test_bad_input(unchecked, call, error, message):
    with pytest.raises(error, match=message):
        call(jnp.arange(99.0))
