"""Trade-off fronts: undominated models, and the hypervolume of a set of them.

A model is a point (error, gap), smaller being better in both. Shapes are static, so
that both functions jit and vmap, over seeds or bootstrap samples for example.

References:
  Zitzler and Thiele, "Multiobjective Optimization Using Evolutionary Algorithms", PPSN
  1998 (hypervolume).
"""

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from jeff.as_arrays import as_array
from jeff.checks import check_floating, check_same_length
from jeff.fairness.examples import Column

__all__ = ["hypervolume", "monotone_levels", "pareto_front"]


def pareto_front(
    errors: Float[Array, " points"] | Column, gaps: Float[Array, " points"] | Column
) -> Bool[Array, " points"]:
    """Mask of the points that no other point dominates.

    ``a`` dominates ``b`` when it is no worse in both coordinates and better in one. Of
    exact duplicates the first is kept. One sort and one running minimum, so it takes
    ``O(n log n)``.

    Args:
      errors: error of each model, shape [points]; smaller is better.
      gaps: fairness gap of each model, shape [points]; smaller is better.

    Returns:
      A mask, shape [points], in the order of the input. Points with a NaN or infinite
      coordinate are never on the front.

    Raises:
      ValueError: if an argument is not a vector, or lengths differ.
      TypeError: if an argument is not floating point.

    >>> pareto_front(jnp.array([0.15, 0.2, 0.2]), jnp.array([0.1, 0.05, 0.2]))
    Array([ True,  True, False], dtype=bool)
    """
    errors, gaps = _checked(errors, gaps)
    finite = jnp.isfinite(errors) & jnp.isfinite(gaps)
    errors, gaps = jnp.where(finite, errors, jnp.inf), jnp.where(finite, gaps, jnp.inf)
    # By error, then gap: the first of several points with one error is the best, and a
    # point is on the front if its gap is below all gaps before it.
    order = jnp.lexsort((gaps, errors))
    ordered = gaps[order]
    best_before = jnp.concatenate(
        [jnp.full(1, jnp.inf, gaps.dtype), jax.lax.cummin(ordered)]
    )[:-1]
    return jnp.zeros(gaps.shape, bool).at[order].set(ordered < best_before)


def hypervolume(
    errors: Float[Array, " points"] | Column,
    gaps: Float[Array, " points"] | Column,
    reference: tuple[float, float],
    *,
    normalize: bool = True,
) -> Float[Array, ""]:
    """Area of the box below a reference point that a set of models dominates.

    The box runs from (0, 0) to ``reference``; the dominated part is the union of the
    rectangles from each point to ``reference``. It is found by an exact sweep over the
    errors: between two consecutive errors the height is ``reference[1]`` minus the
    smallest gap so far.

    Args:
      errors: error of each model, shape [points]; smaller is better.
      gaps: fairness gap of each model, shape [points]; smaller is better.
      reference: (error, gap) of the worst model that counts, both positive. Points
        outside the box, or NaN, contribute nothing.
      normalize: divide by the area of the box.

    Returns:
      The area, a scalar; in [0, 1] when normalized, 1 for a perfect model.

    Raises:
      ValueError: if an argument is not a vector, lengths differ, or ``reference`` is
        not a pair of positive numbers.
      TypeError: if an argument is not floating point.

    >>> hypervolume(jnp.array([0.0, 0.25]), jnp.array([0.5, 0.0]), (0.5, 1.0))
    Array(0.75, dtype=float32)
    """
    errors, gaps = _checked(errors, gaps)
    if len(reference) != 2 or not all(0 < bound < float("inf") for bound in reference):
        raise ValueError(
            f"reference: expected two positive numbers (error, gap), got {reference}"
        )
    worst_error, worst_gap = (jnp.asarray(bound, errors.dtype) for bound in reference)
    inside = (errors >= 0) & (errors <= worst_error) & (gaps >= 0) & (gaps <= worst_gap)
    # Points outside move to the reference corner, where they add no area.
    errors = jnp.where(inside, errors, worst_error)
    gaps = jnp.where(inside, gaps, worst_gap)
    order = jnp.argsort(errors)
    width = jnp.diff(errors[order], append=worst_error)
    area = jnp.sum(width * (worst_gap - jax.lax.cummin(gaps[order])))
    return area / (worst_error * worst_gap) if normalize else area


def monotone_levels(gaps: Float[Array, " levels"] | Column) -> Int[Array, " levels"]:
    """For each level, the level to serve so that the gap never grows along the line.

    ``argmin_{j <= i} gap_j``, the first where several tie. The gap of a line may grow
    again past the level where its signed gap vanishes; a user who asks for more
    fairness is then served the level before it. Compute it on validation data.

    Args:
      gaps: gap at each level, in the order of the levels.

    Returns:
      Indices of levels, shape [levels]: non-decreasing, and each at most its own place.

    Raises:
      ValueError: if ``gaps`` is not a vector, or has NaN; under jit, where values are
        unknown, a level with NaN serves nobody.
      TypeError: if ``gaps`` is not floating point.

    >>> monotone_levels(jnp.array([0.2, 0.1, 0.0, 0.1]))
    Array([0, 1, 2, 2], dtype=int32)
    """
    _, gaps = _checked(gaps, gaps)
    if not isinstance(gaps, Tracer) and bool(jnp.isnan(gaps).any()):
        raise ValueError(
            "gaps: expected numbers, got NaN; a level of unknown gap cannot be chosen: "
            "leave it out"
        )
    gaps = jnp.where(jnp.isnan(gaps), jnp.inf, gaps)
    smallest = jax.lax.cummin(gaps)
    # Strictly smaller gaps alone: of equal ones the level nearer the accurate end
    # serves.
    before = jnp.concatenate([jnp.full(1, jnp.inf, gaps.dtype), smallest[:-1]])
    places = jnp.where(gaps < before, jnp.arange(gaps.shape[0]), 0)
    return jax.lax.cummax(places)


def _checked(errors: Column, gaps: Column) -> tuple[Array, Array]:
    errors, gaps = as_array(errors, "errors"), as_array(gaps, "gaps")
    check_same_length(errors=errors, gaps=gaps)
    check_floating(errors=errors, gaps=gaps)
    return errors, gaps
