"""Test Pareto front and hypervolume: hand values, brute force, permutations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jeff.fairness.front import hypervolume, monotone_levels, pareto_front

# Multiples of 1/64 keep every area below exact in float32.
coordinate = st.integers(0, 64).map(lambda steps: steps / 64)
POINTS = 8
points = st.lists(st.tuples(coordinate, coordinate), min_size=POINTS, max_size=POINTS)


def columns(rows: list[tuple[float, float]]) -> tuple[jax.Array, jax.Array]:
    """Errors and gaps of a list of points."""
    table = np.asarray(rows, np.float32)
    return jnp.asarray(table[:, 0]), jnp.asarray(table[:, 1])


def dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
    """Whether a is no worse than b and differs from it."""
    return a[0] <= b[0] and a[1] <= b[1] and a != b


def test_front_by_hand() -> None:
    """A staircase, a dominated point, one beaten in gap only, one in error only."""
    errors = jnp.array([0.3, 0.1, 0.2, 0.2, 0.1, 0.4])
    gaps = jnp.array([0.1, 0.5, 0.3, 0.4, 0.6, 0.1])
    expected = [True, True, True, False, False, False]
    np.testing.assert_array_equal(pareto_front(errors, gaps), expected)


def test_first_duplicate_is_kept() -> None:
    """Of equal points the first is on the front."""
    errors, gaps = jnp.array([0.5, 0.2, 0.2, 0.2]), jnp.array([0.1, 0.3, 0.3, 0.3])
    np.testing.assert_array_equal(
        pareto_front(errors, gaps), [True, True, False, False]
    )


def test_front_leaves_out_points_that_are_not_finite() -> None:
    """NaN and infinity are never on the front and hide nobody else."""
    errors = jnp.array([0.0, jnp.nan, 0.2, 0.3, jnp.inf])
    gaps = jnp.array([jnp.nan, 0.0, 0.3, 0.2, 0.0])
    expected = [False, False, True, True, False]
    np.testing.assert_array_equal(pareto_front(errors, gaps), expected)


@settings(max_examples=80, deadline=None)
@given(points)
def test_front_against_definition(rows: list[tuple[float, float]]) -> None:
    """The mask equals the definition, tried on all pairs."""
    expected = [
        not any(dominates(other, row) for other in rows) and row not in rows[:index]
        for index, row in enumerate(rows)
    ]
    np.testing.assert_array_equal(pareto_front(*columns(rows)), expected)


def test_hypervolume_by_hand() -> None:
    """One point, a staircase of two, and the share of the box."""
    one = hypervolume(jnp.array([0.25]), jnp.array([0.5]), (1.0, 1.0))
    assert one == 0.75 * 0.5
    errors, gaps = jnp.array([0.5, 0.125]), jnp.array([0.25, 0.75])
    # From .125 to .5 of height 1 - .75, then from .5 to 1 of height 1 - .25.
    assert hypervolume(errors, gaps, (1.0, 1.0)) == 0.375 * 0.25 + 0.5 * 0.75
    area = hypervolume(errors, gaps, (1.0, 2.0), normalize=False)
    assert area == 0.375 * 1.25 + 0.5 * 1.75
    assert hypervolume(errors, gaps, (1.0, 2.0)) == area / 2


def test_hypervolume_extremes() -> None:
    """A perfect model dominates the whole box; points at or beyond its edge nothing."""
    zero = jnp.zeros(1)
    assert hypervolume(zero, zero, (0.25, 0.25)) == 1
    outside = [
        (0.25, 0.0),
        (0.0, 0.25),
        (0.3, 0.0),
        (0.0, 0.9),
        (0.3, 0.3),
        (-0.1, 0.0),
    ]
    assert hypervolume(*columns(outside), (0.25, 0.25)) == 0
    nans = jnp.full(2, jnp.nan)
    assert hypervolume(nans, nans, (0.25, 0.25)) == 0
    assert hypervolume(zero[:0], zero[:0], (0.25, 0.25)) == 0


@settings(max_examples=80, deadline=None)
@given(points, st.permutations(range(POINTS)))
def test_order_does_not_matter(
    rows: list[tuple[float, float]], order: list[int]
) -> None:
    """Permuted points have the same area, and the front alone has it too."""
    errors, gaps = columns(rows)
    index = jnp.asarray(order)
    area = hypervolume(errors, gaps, (1.0, 0.5))
    assert hypervolume(errors[index], gaps[index], (1.0, 0.5)) == area
    front = pareto_front(errors, gaps)
    alone = hypervolume(jnp.where(front, errors, 2), gaps, (1.0, 0.5))
    assert alone == area


@settings(max_examples=80, deadline=None)
@given(points)
def test_area_by_counting_cells(rows: list[tuple[float, float]]) -> None:
    """The area equals the share of dominated cells of a 64 by 64 raster."""
    errors, gaps = (np.asarray(column) for column in columns(rows))
    corner = np.arange(64) / 64
    covered = (errors[:, None, None] <= corner[:, None]) & (
        gaps[:, None, None] <= corner
    )
    area = hypervolume(*columns(rows), (1.0, 1.0))
    assert area == covered.any(axis=0).mean()


@settings(max_examples=80, deadline=None)
@given(points)
def test_a_point_more_never_shrinks_it(rows: list[tuple[float, float]]) -> None:
    """The area grows with the set, strictly when the new point is on the front."""
    errors, gaps = columns(rows)
    before = hypervolume(errors.at[-1].set(2), gaps, (1.0, 1.0))
    after = hypervolume(errors, gaps, (1.0, 1.0))
    front_inside = pareto_front(errors, gaps)[-1] & (errors[-1] < 1) & (gaps[-1] < 1)
    assert after > before if front_inside else after == before


def test_jit_and_vmap() -> None:
    """Jit changes nothing and vmap is a loop."""
    rng = np.random.default_rng(0)
    errors, gaps = (jnp.asarray(rng.random((5, 20)), jnp.float32) for _ in range(2))

    def both(e: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        return pareto_front(e, g), hypervolume(e, g, (0.9, 0.8))

    fronts, areas = jax.jit(jax.vmap(both))(errors, gaps)
    for index in range(5):
        front, area = both(errors[index], gaps[index])
        np.testing.assert_array_equal(fronts[index], front)
        np.testing.assert_allclose(areas[index], area, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: pareto_front(jnp.zeros(3), jnp.zeros(2)), "gaps"),
        (lambda: pareto_front(jnp.zeros((3, 1)), jnp.zeros(3)), "errors"),
        (lambda: pareto_front(jnp.zeros(3, int), jnp.zeros(3)), "errors"),
        (lambda: hypervolume(jnp.zeros(3), jnp.zeros(3), (0.0, 1.0)), "reference"),
        (lambda: hypervolume(jnp.zeros(3), jnp.zeros(3), (1.0,)), "reference"),
    ],
)
def test_bad_input(call, name: str) -> None:
    """Wrong shapes, dtypes and references are refused by name."""
    with pytest.raises((ValueError, TypeError), match=name):
        call()


def test_a_level_of_unknown_gap_serves_nobody():
    unknown = jnp.array([0.3, jnp.nan, 0.2, 0.25])
    with pytest.raises(ValueError, match="gaps: expected numbers, got NaN"):
        monotone_levels(unknown)
    assert jax.jit(monotone_levels)(unknown).tolist() == [0, 0, 2, 2]
