"""Test allocation of bits and groups: by hand, by brute force, ties, units."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jeff_llm.kv.allocate import (
    allocate_bits,
    allocate_groups,
)

LADDER = (2, 4, 8)


def random_scores(seed: int, layers: int) -> np.ndarray:
    """Squares of norms over three orders of magnitude."""
    return np.exp(np.random.default_rng(seed).normal(0, 2, (layers, 2)))


def best(errors: np.ndarray, costs: np.ndarray, budget: float) -> float:
    """The least ``sum errors[tensor, rung]`` within the budget, by trying all."""
    choices = itertools.product(range(len(costs)), repeat=len(errors))
    rungs = np.array(list(choices))
    fits = costs[rungs].sum(1) <= budget + 1e-9
    return errors[np.arange(len(errors)), rungs[fits]].sum(1).min()


def step_gain(errors: np.ndarray, rungs: np.ndarray) -> float:
    """The most that one more step would gain."""
    padded = np.append(errors, errors[:, -1:], axis=1)
    tensors = np.arange(len(errors))
    return (padded[tensors, rungs] - padded[tensors, rungs + 1]).max()


def test_keys_first() -> None:
    """Every key norm 2.6 times its value norm: at 3 bits, 4 for keys and 2 for values.

    The norms of the layers differ by less than that, as in a model of 16 layers.
    """
    norms = np.linspace(10, 20, 16)
    scores = np.stack([(2.6 * norms) ** 2, norms**2], axis=1)
    np.testing.assert_array_equal(allocate_bits(scores, 3), [[4, 2]] * 16)
    equal = np.tile([[2.6**2, 1.0]], (16, 1))
    np.testing.assert_array_equal(allocate_bits(equal, 3.0), [[4, 2]] * 16)
    np.testing.assert_array_equal(allocate_bits(jnp.asarray(equal), 3), [[4, 2]] * 16)


@pytest.mark.parametrize(
    ("scores", "budget", "expected"),
    [
        # Gains per bit: 15/512 c from 2 to 4, 255/262144 c (1/30.1 of it) from 4 to 8.
        ([[40, 1]], 2, [[2, 2]]),
        ([[40, 1]], 2.9, [[2, 2]]),
        ([[40, 1]], 3, [[4, 2]]),
        ([[40, 1]], 4, [[4, 4]]),  # the key's next step, though first, does not fit
        ([[40, 1]], 5, [[8, 2]]),
        ([[30, 1]], 5, [[4, 4]]),
        ([[30, 1]], 6, [[8, 4]]),
        ([[40, 1]], 7.9, [[8, 4]]),
        ([[40, 1]], 99, [[8, 8]]),
        # A tensor of zeros leaves what it could have.
        ([[1, 0]], 8, [[8, 2]]),
    ],
)
def test_bits_by_hand(scores, budget, expected) -> None:
    """One step at a time, the greatest gain per bit that fits."""
    found = allocate_bits(np.array(scores, float), budget)
    np.testing.assert_array_equal(found, expected)
    assert np.issubdtype(found.dtype, np.integer)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_ties_go_to_the_lower_layer_and_to_keys(scale) -> None:
    """Also a tie between steps of unequal sizes, which rounding would break."""
    scores = scale * np.ones((3, 2), np.float32)
    np.testing.assert_array_equal(allocate_bits(scores, 3), [[4, 4], [4, 2], [2, 2]])
    np.testing.assert_array_equal(
        allocate_groups(scores, 80, (64, 128)), [[64, 64], [64, 128], [128, 128]]
    )
    # 512/17 times the score: 4 to 8 bits gains what 2 to 4 bits of the other does.
    for first, second, expected in (
        (512 / 17, 1, [[8, 2]]),
        (1, 512 / 17, [[4, 4]]),
    ):
        tied = np.array([[first, second]]).astype(np.float32) * np.float32(scale)
        np.testing.assert_array_equal(allocate_bits(tied, 5), expected)


@given(
    seed=st.integers(0, 10**6),
    layers=st.integers(1, 5),
    budget=st.floats(2, 9),
    scale=st.sampled_from((1e-12, 1e12)),
    dtype=st.sampled_from((np.float32, np.float64)),
)
@settings(deadline=None)
def test_the_unit_of_the_scores_is_of_no_account(
    seed, layers, budget, scale, dtype
) -> None:
    """Very small and very large scores, of either width."""
    scores = random_scores(seed, layers).astype(dtype)
    scaled = scores * dtype(scale)
    np.testing.assert_array_equal(
        allocate_bits(scores, budget), allocate_bits(scaled, budget)
    )
    size = int(32 + 96 * (budget - 2) / 7)
    np.testing.assert_array_equal(
        allocate_groups(scores, size), allocate_groups(scaled, size)
    )


def total_error(scores, bits) -> float:
    """What `allocate_bits` makes small, ``sum_i c_i 4^(-b_i)``."""
    return float(np.sum(np.asarray(scores, np.float64) * 4.0**-bits))


def ideal_bits(scores, budget) -> np.ndarray:
    """The widths if any real number were one: all ``c_i 4^(-b_i)`` are equal."""
    logs = np.log2(scores)
    return budget + (logs - logs.mean()) / 2


@given(seed=st.integers(0, 10**6), budget=st.floats(2, 8.5))
@settings(deadline=None)
def test_bits_against_brute_force(seed, budget) -> None:
    """Four tensors: optimal with equal steps, else within the gain of one step."""
    scores = random_scores(seed, 2)
    for ladder in (LADDER, (2, 4, 6, 8)):
        rungs = np.array(ladder)
        errors = scores.reshape(-1, 1) * 4.0**-rungs
        bits = allocate_bits(scores, budget, ladder)
        optimum = best(errors, rungs, 4 * budget)
        excess = total_error(scores, bits) - optimum
        chosen = np.searchsorted(rungs, bits.ravel())
        room = 0 if ladder != LADDER else step_gain(errors, chosen)
        assert -1e-9 * optimum <= excess <= room + 1e-5 * optimum


def test_a_refused_step_by_hand() -> None:
    """Ladder 2, 3, 8: once both have 3 bits, the five for the key do not fit.

    Greedy ends at 11/64; 8 and 2 bits would have 10/65536 + 1/16, which is less by less
    than the refused step would have gained.
    """
    scores = np.array([[10.0, 1.0]])
    bits = allocate_bits(scores, 5, (2, 3, 8))
    np.testing.assert_array_equal(bits, [[3, 3]])
    assert total_error(scores, bits) == 11 / 64
    optimum = total_error(scores, np.array([[8, 2]]))
    assert optimum == 10 / 65536 + 1 / 16
    assert 0 < total_error(scores, bits) - optimum < 10 / 64 - 10 / 65536


@given(seed=st.integers(0, 10**6), size=st.integers(32, 128))
@settings(deadline=None)
def test_groups_against_brute_force(seed, size) -> None:
    """Four tensors: within the gain of a step, and never more scales than allowed."""
    scores = random_scores(seed, 2)
    sizes = np.array([128, 64, 32])
    errors = scores.reshape(-1, 1) * sizes
    groups = allocate_groups(scores, size)
    assert (1 / groups).sum() <= 4 / size + 1e-12
    optimum = best(errors, 1 / sizes, 4 / size)
    chosen = np.array([sizes.tolist().index(g) for g in groups.ravel()])
    excess = (scores * groups).sum() - optimum
    assert -1e-9 * optimum <= excess <= step_gain(errors, chosen) + 1e-5 * optimum


@given(
    seed=st.integers(0, 10**6),
    layers=st.integers(1, 20),
    budgets=st.tuples(st.floats(2, 9), st.floats(2, 9)),
    ladder=st.sampled_from((LADDER, (1, 2, 3, 4, 6, 8), (2, 3, 8))),
)
@settings(deadline=None)
def test_budgets(seed, layers, budgets, ladder) -> None:
    """Never exceeded; used up but for less than a step; more of it is never worse."""
    scores = random_scores(seed, layers)
    less, more = sorted(budgets)
    bits = allocate_bits(scores, less, ladder)
    assert bits.mean() <= less * (1 + 1e-9)
    assert set(bits.ravel().tolist()) <= set(ladder)
    steps = np.diff(ladder, append=10**6)
    left = less * bits.size - bits.sum()
    assert left < steps[np.searchsorted(ladder, bits)].min()
    error = total_error(scores, bits)
    assert total_error(scores, allocate_bits(scores, more, ladder)) <= error * (
        1 + 1e-5
    )


@given(
    seed=st.integers(0, 10**6),
    layers=st.integers(1, 20),
    ladder=st.sampled_from((LADDER, (1, 2, 4, 8), (2, 3, 4, 8))),
)
@settings(deadline=None)
def test_no_worse_than_uniform(seed, layers, ladder) -> None:
    """At the budget of each rung, of bits and of groups."""
    scores = random_scores(seed, layers)
    for rung in ladder:
        bits = allocate_bits(scores, rung, ladder)
        uniform = total_error(scores, np.full_like(bits, rung))
        assert total_error(scores, bits) <= uniform * (1 + 1e-5)
    for size in (32, 64, 128):
        groups = allocate_groups(scores, size)
        assert (scores * groups).sum() <= scores.sum() * size * (1 + 1e-5)


@given(seed=st.integers(0, 10**6), layers=st.integers(1, 10), budget=st.integers(4, 13))
@settings(deadline=None)
def test_a_fine_ladder_comes_near_the_ideal(seed, layers, budget) -> None:
    """Within one bit, where the ideal lies on the ladder."""
    scores = np.exp(np.random.default_rng(seed).uniform(-2, 2, (layers, 2)))
    ideal = ideal_bits(scores, budget)
    assert ideal.min() >= 1 and ideal.max() <= 16
    bits = allocate_bits(scores, budget, range(1, 17))
    assert np.abs(bits - ideal).max() <= 1 + 1e-6
    assert total_error(scores, ideal) <= total_error(scores, bits) * (1 + 1e-9)


@given(seed=st.integers(0, 10**6))
@settings(deadline=None)
def test_fine_groups_come_near_the_ideal(seed) -> None:
    """``g ~ 1 / sqrt(c)``: on a ladder of tenths of an octave, within a few steps."""
    scores = np.exp(np.random.default_rng(seed).uniform(-2, 2, (6, 2)))
    ladder = np.unique(np.round(16 * 2 ** np.arange(0, 6, 0.1)).astype(int)).tolist()
    ideal = 64 * np.mean(scores**0.5) / scores**0.5
    octaves = np.log2(allocate_groups(scores, 64, ladder) / ideal)
    assert np.abs(octaves).max() < 0.3


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        # Gains per scale c g g': 8192 c from 128 to 64, 2048 c from 64 to 32.
        (128, [[128, 128], [128, 128]]),
        (96, [[64, 128], [128, 128]]),  # 5 1/3 scales in 128 values, 4 are given out
        (64, [[32, 128], [64, 128]]),
        (33, [[32, 32], [32, 64]]),
        (32, [[32, 32], [32, 32]]),
    ],
)
def test_groups_by_hand(size, expected) -> None:
    """So 9 x 2048 comes before 1.5 x 8192; 4 x 2048 ties with 1 x 8192."""
    scores = np.array([[9.0, 1.5], [4.0, 1.0]])
    np.testing.assert_array_equal(allocate_groups(scores, size), expected)


def test_a_budget_is_not_lost_to_rounding() -> None:
    """In floating point 4.35 x 100 is below 435, and 32 x 2.1 = 67.2 has 67 bits."""
    assert 4.35 * 100 < 435
    assert allocate_bits(np.ones((50, 2)), 4.35, range(1, 9)).sum() == 435
    assert allocate_bits(np.ones((16, 2)), 2.1, (2, 3)).sum() == 67


ONES = np.ones((2, 2))
FUNCTIONS = (
    lambda scores: allocate_bits(scores, 4),
    lambda scores: allocate_groups(scores, 64),
)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.ones(4), r"expected \[layers, 2\], .* got shape \(4,\)"),
        (np.ones((2, 3)), r"got shape \(2, 3\)"),
        (np.ones((0, 2)), r"got shape \(0, 2\)"),
        (np.array([[1.0, -1.0]]), r"not negative .* got \[\[1.0, -1.0\]\]"),
        (np.array([[1.0, np.nan]]), "expected finite .* nan"),
        (np.array([[1.0, np.inf]]), "expected finite .* inf"),
        (np.zeros((2, 2)), "not all zero, got"),
    ],
)
def test_scores_that_are_refused(unchecked, function, scores, message) -> None:
    """By every function that takes them."""
    with pytest.raises(ValueError, match=f"scores: .*{message}"):
        function(scores)


@pytest.mark.parametrize("budget", [1.9, -1, float("nan"), float("inf")])
def test_budgets_that_are_refused(budget) -> None:
    """Below the lowest rung, or no number."""
    message = f"budget: expected a finite mean width of at least 2 .* got {budget}"
    with pytest.raises(ValueError, match=message):
        allocate_bits(ONES, budget)


@pytest.mark.parametrize("ladder", [(), (4, 2), (2, 2), (0, 2), (-1, 2), (2, 2.5)])
def test_ladders_that_are_refused(unchecked, ladder: Sequence[Any]) -> None:
    """Increasing positive whole numbers, at least one."""
    for allocate in (allocate_bits, allocate_groups):
        with pytest.raises(ValueError, match="ladder: expected increasing positive"):
            allocate(ONES, 64, ladder)


def test_other_arguments_that_are_refused(unchecked) -> None:
    """By name, with what came."""
    for size in (31, 129):
        with pytest.raises(ValueError, match=f"group_size: expected 32 to 128.*{size}"):
            allocate_groups(ONES, size)
