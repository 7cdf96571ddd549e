"""Exact nearest neighbours in blocks, by matrix products.

Squared distances from products, ``|q|^2 + |t|^2 - 2 q.t`` on centred data, are fast but
lose digits for texts that nearly agree. So they only choose candidates: some more than
are asked for, whose distances are computed again from differences. A bound on the
rounding shows for each query whether a row outside the candidates could be nearer;
queries where it could are compared with all rows by differences.

References:
  Higham, "Accuracy and Stability of Numerical Algorithms", 2nd edition, SIAM, 2002,
  section 3.1 (rounding of inner products).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

__all__ = ["Nearest", "check_embeddings", "nearest"]

# Candidates beyond those asked for. They widen the margin of the proof; each costs a
# row of differences.
_EXTRA = 8
# Training rows that are compared with a block of queries at once.
_TRAIN_BLOCK = 1 << 15


class Nearest(NamedTuple):
    """The nearest training rows of each query, the nearest first.

    Attributes:
      distance: Euclidean.
      index: rows of the training embeddings.
    """

    distance: Float[Array, "queries neighbors"]
    index: Int[Array, "queries neighbors"]


def check_embeddings(
    name: str,
    embeddings: Array | np.ndarray,
    *,
    width: int | None = None,
    at_least: int = 0,
) -> None:
    """Check that embeddings are a finite floating-point matrix.

    Values are checked only if they are concrete, so not under `jax.jit`.

    Args:
      name: the argument's name.
      embeddings: what was given.
      width: columns that are expected; any by default.
      at_least: rows that are needed.

    Raises:
      TypeError: if they are not floating point.
      ValueError: if they have another shape, too few rows, NaN or infinity.
    """
    if not jnp.issubdtype(embeddings.dtype, jnp.floating):
        raise TypeError(
            f"{name}: expected a floating-point array, got {embeddings.dtype}"
        )
    shape = jnp.shape(embeddings)
    if len(shape) != 2 or shape[1] == 0 or width not in {None, shape[1]}:
        columns = "width" if width is None else width
        raise ValueError(f"{name}: expected shape [texts, {columns}], got {shape}")
    if shape[0] < at_least:
        raise ValueError(
            f"{name}: expected at least {at_least} texts, got {shape[0]}; add texts or "
            "ask for fewer neighbors"
        )
    if isinstance(embeddings, Tracer):
        return
    library = jnp if isinstance(embeddings, jax.Array) else np
    finite = np.asarray(library.isfinite(embeddings).all(axis=1))
    if not finite.all():
        row = int(np.argmin(finite))
        raise ValueError(
            f"{name}: expected finite numbers, got NaN or infinity in "
            f"{int((~finite).sum())} of {shape[0]} rows, the first of which is {row}"
        )


def nearest(
    train: Float[Array | np.ndarray, "rows width"],
    queries: Float[Array | np.ndarray, "queries width"],
    *,
    neighbors: int,
    exclude_self: bool = False,
    block: int = 512,
) -> Nearest:
    """Exact Euclidean nearest neighbours, in float32.

    Memory beyond the arguments grows with ``block``, not with the queries. Use it
    inside jit or outside.

    Args:
      train: rows to search.
      queries: rows whose neighbours are wanted.
      neighbors: neighbours of each query, in [1, rows]; one fewer row where a query
        may not be its own.
      exclude_self: the queries are the training rows, and none is its own neighbour.
        Rows with equal values stay each other's neighbours.
      block: queries that are compared at once.

    Returns:
      Distances, ascending, and the rows they lead to.

    Raises:
      TypeError: if an argument is not floating point.
      ValueError: if shapes or counts do not fit, or a value is NaN or infinite.

    >>> train = jnp.array([[0.0], [1.0], [5.0]])
    >>> found = nearest(train, jnp.array([[4.0]]), neighbors=2)
    >>> found.distance, found.index
    (Array([[1., 3.]], dtype=float32), Array([[2, 1]], dtype=int32))
    """
    if neighbors < 1 or block < 1:
        raise ValueError(
            f"neighbors, block: expected at least 1 each, got {neighbors} and {block}"
        )
    check_embeddings("train", train, at_least=neighbors + exclude_self)
    check_embeddings("queries", queries, width=jnp.shape(train)[1])
    if exclude_self and jnp.shape(queries) != jnp.shape(train):
        raise ValueError(
            "queries: expected the training rows themselves with exclude_self, shape "
            f"{jnp.shape(train)}, got {jnp.shape(queries)}"
        )
    return _nearest(
        jnp.asarray(train, jnp.float32),
        jnp.asarray(queries, jnp.float32),
        neighbors,
        exclude_self,
        block,
    )


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _nearest(
    train: Float[Array, "rows width"],
    queries: Float[Array, "queries width"],
    neighbors: int,
    exclude_self: bool,
    block: int,
) -> Nearest:
    rows, count = len(train), len(queries)
    if count == 0:
        nothing = jnp.zeros((0, neighbors))
        return Nearest(nothing, nothing.astype(jnp.int32))
    block = min(block, count)
    # With exclude_self a query takes a place among its candidates.
    candidates = min(neighbors + exclude_self + _EXTRA, rows)
    centre = train.mean(axis=0)
    parts = _train_parts(train - centre, candidates)
    largest = jnp.sqrt(jnp.sum((train - centre) ** 2, axis=1).max())

    def one_block(chosen: tuple[Array, Array]) -> Nearest:
        query, number = chosen
        number = number if exclude_self else jnp.full_like(number, -1)
        place, score = _candidates(parts, query - centre, candidates)
        squares = jnp.sum((train[place] - query[:, None]) ** 2, axis=-1)
        squares = jnp.where(place == number[:, None], jnp.inf, squares)
        negative, order = lax.top_k(-squares, neighbors)
        found = Nearest(-negative, jnp.take_along_axis(place, order, axis=1))
        if candidates == rows:
            return found
        proved = _is_proved(query - centre, found.distance[:, -1], score, largest)
        # Two conditions: a block that is proved, the usual case, has no loop.
        return lax.cond(
            proved.all(),
            lambda: found,
            lambda: _compare_with_all(train, query, number, proved, found),
        )

    # The last query fills the last block: it is proved as easily as without it.
    numbers = jnp.arange(-(-count // block) * block, dtype=jnp.int32)
    numbers = jnp.minimum(numbers, count - 1).reshape(-1, block)
    squares, index = lax.map(lambda n: one_block((queries[n], n)), numbers)
    shape = (-1, neighbors)
    return Nearest(
        jnp.sqrt(squares).reshape(shape)[:count], index.reshape(shape)[:count]
    )


class _Parts(NamedTuple):
    """Centred training rows in parts, padded; half the square of each row's norm."""

    rows: Float[Array, "parts rows width"]
    half_squares: Float[Array, "parts rows"]
    group: int


def _train_parts(centred: Float[Array, "rows width"], candidates: int) -> _Parts:
    rows, width = centred.shape
    size = min(rows, max(_TRAIN_BLOCK, candidates))
    # Groups and the members of the chosen ones are then about equally many.
    group = max(1, 1 << round(np.log2(max(size / candidates, 1)) / 2))
    size = -(-size // group) * group
    padding = -rows % size
    half_squares = jnp.sum(centred**2, axis=1) / 2
    # Padding is infinitely far.
    padded = jnp.pad(half_squares, (0, padding), constant_values=jnp.inf)
    return _Parts(
        jnp.pad(centred, ((0, padding), (0, 0))).reshape(-1, size, width),
        padded.reshape(-1, size),
        group,
    )


def _candidates(
    parts: _Parts, query: Float[Array, "block width"], candidates: int
) -> tuple[Int[Array, "block candidates"], Float[Array, " block"]]:
    """Rows of the smallest ``|t|^2 / 2 - q.t``, and the largest of these scores."""
    size = parts.rows.shape[1]

    def of_part(part: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        rows, half_squares, first = part
        product = jnp.matmul(query, rows.T, precision=lax.Precision.HIGHEST)
        score, place = _smallest(half_squares - product, parts.group, candidates)
        return score, place + first

    def add(
        best: tuple[Array, Array], part: tuple[Array, Array, Array]
    ) -> tuple[tuple[Array, Array], None]:
        score, place = of_part(part)
        scores = jnp.concatenate([best[0], score], axis=1)
        places = jnp.concatenate([best[1], place], axis=1)
        negative, order = lax.top_k(-scores, candidates)
        return (-negative, jnp.take_along_axis(places, order, axis=1)), None

    firsts = jnp.arange(len(parts.rows), dtype=jnp.int32) * size
    each = (parts.rows, parts.half_squares, firsts)
    first = of_part(jax.tree.map(lambda x: x[0], each))
    (score, place), _ = lax.scan(add, first, jax.tree.map(lambda x: x[1:], each))
    return place, score[:, -1]


def _smallest(
    scores: Float[Array, "block rows"], group: int, count: int
) -> tuple[Float[Array, "block count"], Int[Array, "block count"]]:
    """The smallest scores of each row, found among the groups of smallest minima.

    The ``count`` smallest lie in the ``count`` groups whose minima are smallest, so a
    sort of the minima and one of the members replace a sort of the row.
    """
    block, rows = scores.shape
    groups = scores.reshape(block, -1, group)
    chosen = lax.top_k(-groups.min(axis=2), min(count, rows // group))[1]
    members = jnp.take_along_axis(groups, chosen[..., None], axis=1)
    negative, order = lax.top_k(
        -members.reshape(block, -1), min(count, chosen.shape[1] * group)
    )
    own = jnp.take_along_axis(chosen, order // group, axis=1)
    return -negative, (own * group + order % group).astype(jnp.int32)


def _is_proved(
    query: Float[Array, "block width"],
    squares: Float[Array, " block"],
    score: Float[Array, " block"],
    largest: Float[Array, ""],
) -> Bool[Array, " block"]:
    """Whether no row outside the candidates can be nearer than the farthest found.

    A row ``t`` that is nearer than ``D`` has ``|t| <= R = min(max |t|, |q| + D)``. The
    products' rounding changes its squared distance by at most
    ``2 gamma (|q| + R)^2``, and its score is no smaller than those of the candidates.
    """
    norm_squares = jnp.sum(query**2, axis=1)
    norm = jnp.sqrt(norm_squares)
    farthest = jnp.minimum(largest, norm + jnp.sqrt(squares))
    # eps is twice the unit roundoff; the rest is for centring and the sums of squares.
    gamma = (query.shape[1] + 16) * jnp.finfo(jnp.float32).eps
    rounding = 2 * gamma * (norm + farthest) ** 2
    return norm_squares + 2 * score - rounding >= squares


def _compare_with_all(
    train: Float[Array, "rows width"],
    query: Float[Array, "block width"],
    number: Int[Array, " block"],
    proved: Bool[Array, " block"],
    found: Nearest,
) -> Nearest:
    """Search all rows by differences, for the queries that are not proved."""
    rows = jnp.arange(len(train))

    def search(one: Array, own: Array) -> Nearest:
        squares = jnp.sum((train - one) ** 2, axis=1)
        squares = jnp.where(rows == own, jnp.inf, squares)
        negative, index = lax.top_k(-squares, found.index.shape[1])
        return Nearest(-negative, index)

    def one_query(row: tuple[Array, Array, Array, Nearest]) -> Nearest:
        one, own, is_proved, before = row
        return lax.cond(is_proved, lambda: before, lambda: search(one, own))

    return lax.map(one_query, (query, number, proved, found))
