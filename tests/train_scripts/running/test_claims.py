"""Test that claims are true, false or undecided according to their interval."""

import numpy as np
import pytest
from scipy import stats

from train_scripts.running import claims
from train_scripts.running.claims import above, all_of, at_least, at_most, below


@pytest.mark.parametrize("number", [2, 3, 5, 40])
def test_student_s_interval(number):
    values = np.random.default_rng(number).normal(size=number)
    expected = stats.t.interval(
        0.95, number - 1, loc=values.mean(), scale=stats.sem(values)
    )
    np.testing.assert_allclose(claims.interval(values), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("values", "least", "most"),
    [
        ([1.0, 1.1, 0.9], True, None),  # 1.0 ± .25
        ([0.5, 0.6, 0.4], None, None),  # .5 ± .25
        ([0.1, 0.2, 0.0], False, True),  # .1 ± .25
        ([2.0], None, None),
        ([], None, None),
        ([1.0, np.nan, 1.0], None, None),
        ([1.0, 1.0], True, True),
    ],
)
def test_a_threshold_that_the_interval_covers_is_undecided(values, least, most):
    assert at_least(values, 0.5) is least
    assert at_most(values, 1.0) is (most if values != [0.5, 0.6, 0.4] else True)


def test_comparisons_are_of_pairs():
    """A difference that is the same in every seed decides, whatever the spread."""
    first, second = np.array([1.0, 5.0, 9.0]), np.array([0.9, 4.9, 8.9])
    assert above(first, second) is True
    assert below(first, second) is False
    assert above(first, second[::-1]) is None
    assert above(first, first) is False  # equal is not above
    assert above(first[:1], second[:1]) is None


def test_an_interval_that_is_given():
    assert at_least(0.3, 0.0, ends=(0.1, 0.5)) is True
    assert at_least(0.3, 0.0, ends=(-0.1, 0.5)) is None
    assert at_most(0.3, 0.0, ends=(0.1, 0.5)) is False
    assert at_most(0.3, 0.2, ends=(np.nan, np.nan)) is None


def test_several_things_together():
    assert all_of(True, True) is True
    assert all_of(True, None) is None
    assert all_of(None, False) is False
    assert [claims.mark(x) for x in (True, False, None)] == [
        "holds",
        "does not hold",
        "too small to tell",
    ]


def test_a_true_claim_is_seldom_called_false():
    """Of 1,000 runs of three seeds at the threshold 5% are decided, half of them so."""
    rng = np.random.default_rng(0)
    found = [at_least(rng.normal(size=3), 0.0) for _ in range(1000)]
    wrong = found.count(False) / 1000
    assert 0.01 < wrong < 0.04
    assert found.count(None) / 1000 > 0.92
