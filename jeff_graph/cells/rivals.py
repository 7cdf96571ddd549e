"""Other ways to choose cells: uniform, k-centre, geometric sketching.

References:
  Gonzalez, "Clustering to minimize the maximum intercluster distance", Theoretical
  Computer Science 1985 (k-centre).
  Hie et al., "Geometric Sketching Compactly Summarizes the Single-Cell Transcriptomic
  Landscape", Cell Systems 2019.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped
from scipy.sparse.linalg import LinearOperator, svds

from jeff_graph.cells.arrays import as_real, is_concrete
from jeff_graph.cells.rows import to_rows

__all__ = ["geosketch_cells", "k_centre", "principal_components", "uniform"]


def uniform(num_cells: int, number: int, *, key: PRNGKeyArray) -> Int[Array, " draws"]:
    """Distinct cells, each as likely as another.

    Args:
      num_cells: cells that there are.
      number: cells to draw.
      key: random key.

    Returns:
      Indices.

    Raises:
      ValueError: if more are asked than there are.
    """
    _check_number(number, num_cells)
    return jax.random.permutation(key, num_cells)[:number]


def k_centre(
    x: Shaped[Any, "cells dims"], number: int, *, key: PRNGKeyArray
) -> Int[Array, " draws"]:
    """Cells such that no cell is far from one: farthest-first traversal.

    From a random first cell, the cell that is farthest from all chosen ones comes next.
    The greatest distance of a cell to a chosen one is at most twice the least possible.

    Args:
      x: coordinates, such as principal components.
      number: cells to pick.
      key: random key of the first.

    Returns:
      Distinct indices, in the order picked.

    Raises:
      ValueError: if more are asked than there are, or a coordinate is not finite.
    """
    x = as_real(x, "x")
    _check_number(number, len(x))
    if is_concrete(x) and not jnp.isfinite(x).all():
        raise ValueError("x: expected finite coordinates, got NaN or infinity")
    return _farthest_first(x, number, jax.random.randint(key, (), 0, len(x)))


@functools.partial(jax.jit, static_argnames="number")
def _farthest_first(x: Array, number: int, first: Array) -> Array:
    def pick(distance: Array, _: None) -> tuple[Array, Array]:
        chosen = distance.argmax()
        nearer = jnp.minimum(distance, ((x - x[chosen][None]) ** 2).sum(1))
        # Below any distance, so that no cell is chosen twice.
        return nearer.at[chosen].set(-1.0), chosen

    nearest = ((x - x[first][None]) ** 2).sum(1).at[first].set(-1.0)
    _, rest = jax.lax.scan(pick, nearest, length=number - 1)
    return jnp.append(first, rest)


def geosketch_cells(
    x: Shaped[Any, "cells dims"], number: int, *, seed: int
) -> Int[np.ndarray, " draws"]:
    """Cells by geometric sketching: evenly from the boxes of a cover.

    Args:
      x: coordinates, such as principal components.
      number: cells to pick.
      seed: of the sketch.

    Returns:
      Distinct indices.

    Raises:
      ImportError: if geosketch is missing; names the command that installs it.
      ValueError: if more are asked than there are.
    """
    try:
        from geosketch import gs
    except ImportError as error:
        raise ImportError(
            "expected the package geosketch: pip install geosketch"
        ) from error
    _check_number(number, len(x))
    return np.asarray(gs(np.asarray(x), number, replace=False, seed=seed))


def principal_components(
    cells: Any, number: int, *, seed: int = 0
) -> Float[np.ndarray, "cells components"]:
    """Coordinates of cells along the directions of greatest variance.

    Args:
      cells: expression; a sparse one stays so, centred implicitly.
      number: of components, below the numbers of cells and genes.
      seed: of the iteration's start.

    Returns:
      Coordinates in float32, the widest component first; signs are fixed.

    Raises:
      ValueError: if ``number`` is out of range.
    """
    given: Any = to_rows(cells, "cells").astype(np.float64)
    if not 1 <= number < min(given.shape):
        raise ValueError(
            f"number: expected 1 to {min(given.shape) - 1} components, got {number}"
        )
    mean = np.asarray(given.mean(axis=0)).ravel()
    operator: Any = LinearOperator
    # Centring would fill the sparse matrix; the mean is taken off each product instead.
    centred = operator(
        given.shape,
        matvec=lambda v: given @ np.ravel(v) - mean @ np.ravel(v),
        rmatvec=lambda u: given.T @ np.ravel(u) - mean * np.sum(u),
        dtype=np.float64,
    )
    # ARPACK starts from a random vector; a given one makes the result reproducible.
    start = np.random.default_rng(seed).normal(size=min(given.shape))
    found: Any = svds(centred, number, v0=start)
    left, size, right = found
    order = np.argsort(-size)
    # Signs of singular vectors are arbitrary: the largest entry is made positive.
    sign = np.sign(right[np.arange(number), np.abs(right).argmax(1)])
    return ((left * size * sign)[:, order]).astype(np.float32)


def _check_number(number: int, available: int) -> None:
    if not 1 <= number <= available:
        raise ValueError(f"number: expected 1 to {available} cells, got {number}")
