"""Weights by which diverse cells are drawn: ``K^-power`` for the density K of a cell.

K is that of `jeff_graph.cells.wds.scores`; the paper's power is 1.

Reference: arXiv 2410.15616, section 4.
"""

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jeff.checks import check_choice, check_same_length
from jeff_graph.cells.arrays import as_mask, as_real, means_nan

__all__ = ["Weights", "diversity_weights", "effective_size"]


class Weights(NamedTuple):
    """Weights by which cells are drawn.

    Attributes:
      log_weight: natural logarithm; -inf for a cell that is never drawn.
      power: the exponent of 1 / K that was used: as asked, or less where the floor on
        the effective size asked for it.
      effective: effective size of a sample as a share of its cells, as of
        `effective_size`.
    """

    log_weight: Float[Array, " cells"]
    power: Float[Array, ""]
    effective: Float[Array, ""]


@means_nan
def effective_size(
    log_weight: Shaped[Any, " cells"],
) -> Float[Array, ""]:
    """Effective share of a weighted sample, for means over all cells.

    Drawn with probability p, weighted by 1 / p, k cells are worth ``k (E 1/p)^2 /
    E (1/p)^2 = k / (mean(w) mean(1 / w))`` uniform ones, by Kish's formula, for
    w proportional to p.

    Args:
      log_weight: natural logarithm of the weights; cells at -inf are left out.

    Returns:
      The share, in (0, 1]; NaN where no cell has a weight.

    >>> float(effective_size(jnp.log(jnp.array([1.0, 1.0, 1.0]))))
    1.0
    """
    # In logarithms: weights of a high power span more than float32's range.
    log_weight = as_real(log_weight, "log_weight")
    real = log_weight > -jnp.inf
    number = jnp.log(real.sum(dtype=log_weight.dtype))
    up = jax.nn.logsumexp(log_weight, where=real) - number
    down = jax.nn.logsumexp(-log_weight, where=real) - number
    return jnp.exp(-(up + down))


@means_nan
def diversity_weights(
    density: Shaped[Any, " cells"],
    *,
    where: Shaped[Any, " cells"] | None = None,
    power: float | int | Float[Array, ""] = 1.0,
    least_effective: float | int | Float[Array, ""] = 0.0,
    kind: Literal["inverse", "softmax"] = "inverse",
) -> Weights:
    """Weights ``K^-power``, with the power lowered until enough of a sample counts.

    The effective size falls steadily with the power, so the largest power that keeps
    the floor is found by bisection.

    Args:
      density: K of each cell, positive; NaN for a cell that is not to be drawn.
      where: cells that may be drawn; all with a density by default. Give the cells
        that have genes: cells without any are few and equal, so they look diverse.
      power: exponent; 1 as published, 0 draws uniformly.
      least_effective: floor on `effective_size`, in [0, 1].
      kind: "inverse", or "softmax": the weights ``exp(power / (n K))`` that the paper's
        text names, for comparison; they collapse on the rarest cell; static.

    Returns:
      `Weights`.

    Raises:
      ValueError: if ``kind`` is unknown or the lengths differ.

    >>> weights = diversity_weights(jnp.array([0.5, 0.5, 0.25]))
    >>> jnp.exp(weights.log_weight).round(2).tolist()
    [2.0, 2.0, 4.0]
    """
    check_choice("kind", kind, ("inverse", "softmax"))
    density = as_real(density, "density")
    where = None if where is None else as_mask(where, "where")
    check_same_length(density=density, where=where)
    return _diversity_weights(density, where, power, least_effective, kind)


@functools.partial(jax.jit, static_argnames="kind")
def _diversity_weights(
    density: Array,
    where: Array | None,
    power: float | Array,
    least_effective: float | Array,
    kind: str,
) -> Weights:
    real = density > 0
    if where is not None:
        real &= where
    # Replaced before the logarithm, whose NaN would pass through a later where.
    safe = jnp.where(real, density, 1.0)
    score = (
        -jnp.log(safe) if kind == "inverse" else 1 / (safe * real.sum(dtype=safe.dtype))
    )

    def at(power: Array) -> Array:
        return jnp.where(real, power * score, -jnp.inf)

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = (ends[0] + ends[1]) / 2
        enough = effective_size(at(middle)) >= least_effective
        low = jnp.where(enough, middle, ends[0])
        return low, jnp.where(enough, ends[1], middle)

    # Of the densities' dtype, as the halves between them are.
    asked = jnp.asarray(power).astype(density.dtype)
    low, _ = jax.lax.fori_loop(0, 24, halve, (jnp.zeros_like(asked), asked))
    # As asked where that suffices: bisection only approaches its upper end.
    used = jnp.where(effective_size(at(asked)) >= least_effective, asked, low)
    return Weights(at(used), used, effective_size(at(used)))
