"""Association of genes without a network: Pearson, Spearman, CS-CORE.

None of them reads the label. They find genes that occur together; an interaction score
must do better.

References:
  Su et al., "Cell-type-specific co-expression inference from single cell RNA-sequencing
  data", Nature Communications 2023 (CS-CORE).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jeff.checks import check_same_length
from jeff_graph.cells.arrays import as_real, is_concrete

__all__ = ["Coexpression", "cs_core", "pearson", "spearman"]


class Coexpression(NamedTuple):
    """CS-CORE's estimates of the expression behind the counts.

    Attributes:
      correlation: of the underlying expression, in [-1, 1]; 0 where a gene's variance
        is estimated as none.
      statistic: standard normal for independent genes.
      mean: underlying expression per unit of depth.
      variance: of the underlying expression, at least 0.
    """

    correlation: Float[Array, "genes genes"]
    statistic: Float[Array, "genes genes"]
    mean: Float[Array, " genes"]
    variance: Float[Array, " genes"]


def pearson(
    x: Shaped[Any, "cells genes"], *, weights: Shaped[Any, " cells"] | None = None
) -> Float[Array, "genes genes"]:
    """Correlation of every pair of genes over cells.

    ``cov(i, j) / sqrt(var(i) var(j))``.

    Args:
      x: expression.
      weights: of the cells, at least 0; even by default.

    Returns:
      A symmetric map in [-1, 1]; 0 for a gene without variance.

    Raises:
      ValueError: if the lengths differ.

    >>> pearson(jnp.array([[0.0, 1.0], [1.0, 3.0], [2.0, 5.0]]))[0].round(3).tolist()
    [1.0, 1.0]
    """
    x = _matrix(x, "x")
    if weights is None:
        share = jnp.full(len(x), 1 / len(x), x.dtype)
    else:
        weights = as_real(weights, "weights")
        share = weights.astype(x.dtype) / weights.sum().astype(x.dtype)
    check_same_length(x=x[:, 0], weights=share)
    mean = share @ x
    # Centred before the product: E[xy] - E[x]E[y] would cancel in float32.
    centred = (x - mean[None]) * jnp.sqrt(share)[:, None]
    covariance = centred.T @ centred
    # A constant gene keeps a little variance from rounding, which does not count.
    real = jnp.diag(covariance) > 1e-11 * mean**2
    return _correlation(jnp.where(real[:, None] & real[None], covariance, 0.0))


def spearman(
    x: Shaped[Any, "cells genes"], *, weights: Shaped[Any, " cells"] | None = None
) -> Float[Array, "genes genes"]:
    """Correlation of ranks; cells that tie share their mean rank.

    Args:
      x: expression.
      weights: of the cells, for the correlation; the ranks are those of the cells.

    Returns:
      A symmetric map in [-1, 1]; 0 for a gene without variance.

    Raises:
      ValueError: if the lengths differ.
    """
    return pearson(jax.vmap(mean_ranks, 1, 1)(_matrix(x, "x")), weights=weights)


def mean_ranks(values: Float[Array, " items"]) -> Float[Array, " items"]:
    """Ranks from 0, the mean of their ranks for items that tie.

    Args:
      values: to rank; NaN ranks last.

    Returns:
      The ranks.

    >>> mean_ranks(jnp.array([5.0, 1.0, 5.0])).tolist()
    [1.5, 0.0, 1.5]
    """
    ordered = jnp.sort(values)
    first = jnp.searchsorted(ordered, values, side="left")
    last = jnp.searchsorted(ordered, values, side="right") - 1
    return (first + last).astype(values.dtype) / 2


def cs_core(
    counts: Shaped[Any, "cells genes"],
    depth: Shaped[Any, " cells"],
    *,
    num_iterations: int = 50,
) -> Coexpression:
    """Co-expression behind counts, by moments and iteratively reweighted squares.

    Counts are ``x_ij ~ Poisson(s_i z_ij)`` for depths s; z has mean mu and covariance
    sigma. With ``v_ij = s_i mu_j + s_i^2 sigma_jj`` and ``r_ij = x_ij - s_i mu_j``,
    ``mu_j = sum s x / v / sum s^2 / v``,
    ``sigma_jj = sum s^2 (r^2 - s mu) / v^2 / sum s^4 / v^2`` are repeated, then
    ``sigma_jk = sum (s r_j / v_j) (s r_k / v_k) / sum (s^2 / v_j) (s^2 / v_k)``.

    Args:
      counts: raw counts.
      depth: counts of each cell over all genes, positive.
      num_iterations: repetitions of the first two.

    Returns:
      `Coexpression`.

    Raises:
      ValueError: if the lengths differ, or a depth is not positive.

    References:
      Su et al., 2023, Methods.
    """
    counts, depth = _matrix(counts, "counts"), as_real(depth, "depth")
    check_same_length(counts=counts[:, 0], depth=depth)
    if is_concrete(depth) and not (depth > 0).all():
        raise ValueError(
            "depth: expected positive numbers, got "
            f"{float(depth.min())}; leave out cells without counts"
        )
    return _cs_core(counts, depth, num_iterations)


@jax.jit
def _cs_core(counts: Array, depth: Array, num_iterations: int | Array) -> Coexpression:
    s = (depth / depth.mean())[:, None]

    def moments(v: Array) -> tuple[Array, Array]:
        mean = (s * counts / v).sum(0) / (s**2 / v).sum(0)
        expected = s * mean[None]
        excess = (counts - expected) ** 2 - expected
        variance = (s**2 * excess / v**2).sum(0) / (s**4 / v**2).sum(0)
        return mean, jnp.maximum(variance, 0.0)

    def step(_: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
        mean, variance = found
        return moments(jnp.maximum(s * mean[None] + s**2 * variance[None], 1e-8))

    mean, variance = jax.lax.fori_loop(
        0, num_iterations, step, moments(jnp.ones_like(counts))
    )
    # A gene without counts has no variance to divide by.
    v = jnp.maximum(s * mean[None] + s**2 * variance[None], 1e-8)
    residual, scale = s * (counts - s * mean[None]) / v, s**2 / v
    above, below = residual.T @ residual, scale.T @ scale
    covariance = (above / below).at[jnp.diag_indices(len(mean))].set(variance)
    return Coexpression(
        _correlation(covariance), above / jnp.sqrt(below), mean, variance
    )


def _matrix(values: Any, name: str) -> Array:
    matrix = as_real(values, name)
    if matrix.ndim != 2 or not matrix.shape[0]:
        raise ValueError(
            f"{name}: expected [cells, genes] of at least one cell, got {matrix.shape}"
        )
    return matrix


def _correlation(covariance: Array) -> Array:
    variance = jnp.diag(covariance)
    # A gene without variance gets scale 0 and correlation 0, not NaN.
    scale = jnp.where(variance > 0, variance, jnp.inf) ** -0.5
    return jnp.clip(covariance * scale[:, None] * scale[None], -1.0, 1.0)
