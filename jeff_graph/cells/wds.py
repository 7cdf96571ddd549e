"""Weighted diversified sampling: the density of each cell, in two passes.

0-bit consistent weighted sampling hashes a cell to one of its genes, such that two
cells collide with (nearly) the probability of their min-max similarity. Counting the
hashes of all cells, and reading the counts at the hashes of one cell, gives that cell's
mean similarity to the data: the kernel density K. Cells of low density are the diverse
ones; `jeff_graph.cells.sampling` draws by ``1 / K``.

A `Sketch` is a table of counts, so it merges by addition over chunks, devices and
machines.

Different from the official code: c is drawn as in the paper (there, b is used instead),
hashes are computed in logarithms (there, exponentials overflow), and a cell without
genes has a separate bucket instead of gene 0.

References:
  "Weighted Diversified Sampling for Efficient Data-Driven Single-Cell Gene-Gene
  Interaction Discovery", arXiv 2410.15616, section 4.
  Ioffe, "Improved Consistent Sampling, Weighted Minhash and L1 Sketching", ICDM 2010.
  Li, "0-Bit Consistent Weighted Sampling", KDD 2015.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from jeff.checks import check_same_length
from jeff_graph.cells.arrays import as_real, means_nan
from jeff_graph.cells.rows import Rows

__all__ = [
    "HashParameters",
    "Sketch",
    "empty_sketch",
    "hash_parameters",
    "hashes",
    "merge",
    "min_max_similarity",
    "scores",
    "update",
]

# Cells hashed together on a CPU: their best values and genes stay in its cache.
_BLOCK = 256


class HashParameters(NamedTuple):
    """Random numbers of the hashes, shared by all cells.

    Attributes:
      slope: 1 / r, where r ~ Gamma(2, 1).
      offset: b ~ U(0, 1).
      base: ln c + r b - r, where c ~ Gamma(2, 1).
      rate: r.
    """

    slope: Float[Array, "genes hashes"]
    offset: Float[Array, "genes hashes"]
    base: Float[Array, "genes hashes"]
    rate: Float[Array, "genes hashes"]

    @property
    def num_genes(self) -> int:
        """Number of genes."""
        return self.slope.shape[0]

    @property
    def num_hashes(self) -> int:
        """Number of hashes."""
        return self.slope.shape[1]


class Sketch(NamedTuple):
    """How many cells each hash sent to each gene.

    Invariants: each row of ``counts`` sums to ``num_cells``; the last column counts the
    cells without genes.

    Attributes:
      counts: cells by hash and gene.
      num_cells: cells that were counted, below 2^31.
    """

    counts: Int[Array, "hashes buckets"]
    num_cells: Int[Array, ""]


def hash_parameters(
    key: PRNGKeyArray, num_genes: int, num_hashes: int = 100
) -> HashParameters:
    """Draw the random numbers of 0-bit consistent weighted sampling.

    Args:
      key: random key; sketches made with one key can be merged.
      num_genes: number of genes.
      num_hashes: number of hashes; a density K has a relative error near
        ``sqrt((1 / K - 1) / num_hashes)`` at most.

    Returns:
      `HashParameters`, ``16 * num_genes * num_hashes`` bytes.

    Raises:
      ValueError: if a number is below 1.
    """
    if num_genes < 1 or num_hashes < 1:
        raise ValueError(
            "num_genes, num_hashes: expected at least 1 each, got "
            f"{num_genes} and {num_hashes}"
        )
    keys = jax.random.split(key, 3)
    shape = (num_genes, num_hashes)
    rate = jax.random.gamma(keys[0], 2.0, shape)
    log_c = jnp.log(jax.random.gamma(keys[1], 2.0, shape))
    offset = jax.random.uniform(keys[2], shape)
    return HashParameters(1 / rate, offset, log_c + rate * offset - rate, rate)


def hashes(
    params: HashParameters,
    cells: Rows | Shaped[Any, "cells genes"],
    *,
    block: int | None = None,
) -> Int[Array, "cells hashes"]:
    """The gene to which each hash sends each cell.

    ``h(x) = argmin_{i: x_i > 0} ln a_i`` with ``t_i = floor(ln x_i / r_i + b_i)`` and
    ``ln a_i = ln c_i - r_i (t_i - b_i) - r_i``. Two cells x and y collide with
    probability close to ``sum_i min(x_i, y_i) / sum_i max(x_i, y_i)``.

    Args:
      params: the random numbers.
      cells: expression of at least 0, dense, or `Rows`; time goes with the nonzeros of
        `Rows`, and with all entries of a dense array.
      block: cells hashed together; static. By default 256 on a CPU, where its cache
        counts, and all elsewhere.

    Returns:
      Gene ids; ``num_genes`` for a cell without genes, and -1 for a padding row.

    Raises:
      ValueError: if the numbers of genes differ or ``block`` is below 1.

    References:
      Li, "0-Bit Consistent Weighted Sampling", KDD 2015, algorithm 1.

    >>> params = hash_parameters(jax.random.key(0), num_genes=3, num_hashes=2)
    >>> hashes(params, jnp.array([[0.0, 0.0, 5.0], [0.0, 0.0, 0.0]])).tolist()
    [[2, 2], [3, 3]]
    """
    if block is not None and block < 1:
        raise ValueError(f"block: expected at least 1, got {block}")
    if not isinstance(cells, Rows):
        cells = as_real(cells, "cells")
        if cells.shape[-1:] != (params.num_genes,) or cells.ndim != 2:
            raise ValueError(
                f"cells: expected shape [cells, {params.num_genes}], got {cells.shape}"
            )
        return _dense_hashes(params, cells)
    rows = cells.counts.shape[0]
    on_cpu = jax.default_backend() == "cpu"
    size = block or (_BLOCK if on_cpu else max(rows, 1))
    # Cells of similar size side by side: a block takes as long as its largest.
    order = jnp.argsort(cells.counts)
    padded = -rows % size
    starts, counts = (
        jnp.pad(part[order], (0, padded), constant_values=-1).reshape(-1, size)
        for part in (cells.starts, cells.counts)
    )
    genes, log_values = jnp.asarray(cells.genes), jnp.log(cells.values)
    found = jax.lax.map(
        lambda part: _hash_block(params, genes, log_values, *part),
        (starts, counts),
    ).reshape(rows + padded, -1)[:rows]
    return jnp.zeros_like(found).at[order].set(found, unique_indices=True)


def _hash_block(
    params: HashParameters,
    genes: Array,
    log_values: Array,
    starts: Array,
    counts: Array,
) -> Int[Array, "block hashes"]:
    """Genes of one block of cells, a nonzero of each at a time."""

    def visit(slot: Array, best: tuple[Array, Array]) -> tuple[Array, Array]:
        # Slots behind a cell's genes read whatever is there, and compete with -inf.
        place = starts + slot
        gene = genes.at[place].get(mode="clip")
        log_value = jnp.where(
            slot < counts, log_values.at[place].get(mode="clip"), -jnp.inf
        )
        return _keep_least(params, gene, log_value, best)

    shape = (len(counts), params.num_hashes)
    outside = jnp.where(counts < 0, -1, params.num_genes)[:, None]
    start = (jnp.full(shape, jnp.inf), jnp.broadcast_to(outside, shape))
    return jax.lax.fori_loop(0, counts.max(), visit, start)[1]


def _dense_hashes(params: HashParameters, cells: Array) -> Int[Array, "cells hashes"]:
    # Zeros become -inf, which never competes.
    log_values = jnp.log(jnp.where(cells > 0, cells, 0.0)).astype(jnp.float32)

    def visit(gene: Array, best: tuple[Array, Array]) -> tuple[Array, Array]:
        same = jnp.full(len(cells), gene, jnp.int32)
        return _keep_least(params, same, log_values[:, gene], best)

    shape = (len(cells), params.num_hashes)
    start = (jnp.full(shape, jnp.inf), jnp.full(shape, params.num_genes, jnp.int32))
    return jax.lax.fori_loop(0, params.num_genes, visit, start)[1]


def _keep_least(
    params: HashParameters, gene: Array, log_value: Array, best: tuple[Array, Array]
) -> tuple[Array, Array]:
    """Let one gene of each cell compete; a ``log_value`` of -inf never wins."""
    slope, offset, base, rate = (part[gene] for part in params)
    log_a = base - rate * jnp.floor(log_value[:, None] * slope + offset)
    least, winner = best
    # Strictly less, so that the first of a tie wins whatever the block's size.
    wins = log_a < least
    return jnp.where(wins, log_a, least), jnp.where(wins, gene[:, None], winner)


def empty_sketch(params: HashParameters) -> Sketch:
    """A sketch of no cells.

    Args:
      params: the random numbers.

    Returns:
      A `Sketch` of zeros, ``4 * num_hashes * (num_genes + 1)`` bytes.
    """
    shape = (params.num_hashes, params.num_genes + 1)
    return Sketch(jnp.zeros(shape, jnp.int32), jnp.zeros((), jnp.int32))


def update(sketch: Sketch, hashed: Int[Array, "cells hashes"]) -> Sketch:
    """Count cells: ``counts[j, h_j(x)] += 1``.

    Args:
      sketch: what was counted before.
      hashed: result of `hashes`; padding rows are not counted.

    Returns:
      The sketch with these cells.

    Raises:
      ValueError: if the numbers of hashes differ.

    >>> params = hash_parameters(jax.random.key(0), num_genes=3, num_hashes=2)
    >>> cells = jnp.array([[0.0, 0.0, 5.0], [0.0, 0.0, 0.0]])
    >>> update(empty_sketch(params), hashes(params, cells)).counts.tolist()
    [[0, 0, 1, 1], [0, 0, 1, 1]]
    """
    _check_hashes(sketch, hashed)
    real = hashed[:, 0] >= 0
    # Padding rows go past the end, where the scatter drops them.
    place = jnp.where(real[:, None], hashed, sketch.counts.shape[1])
    counts = sketch.counts.at[jnp.arange(hashed.shape[1]), place].add(1, mode="drop")
    return Sketch(counts, sketch.num_cells + real.sum(dtype=jnp.int32))


def merge(*sketches: Sketch) -> Sketch:
    """The sketch of all cells of several sketches: the sum.

    Under `jax.shard_map`, ``jax.lax.psum(sketch, axis)`` is the same over devices.

    Args:
      *sketches: at least one, made with the same parameters.

    Returns:
      Their sum.

    Raises:
      ValueError: if there is none, shapes differ, or there are 2^31 cells or more.
    """
    shapes = {sketch.counts.shape for sketch in sketches}
    if len(shapes) != 1:
        raise ValueError(
            "sketches: expected at least one, with one number of hashes and genes, got "
            f"shapes {sorted(shapes)}"
        )
    # int32 counts would overflow in silence; under a trace they cannot be checked.
    if not any(isinstance(s.num_cells, Tracer) for s in sketches):
        total = sum(int(sketch.num_cells) for sketch in sketches)
        if total >= 2**31:
            raise ValueError(f"sketches: expected below 2^31 cells, got {total}")
    return jax.tree.map(lambda *parts: functools.reduce(jnp.add, parts), *sketches)


@means_nan
def scores(
    sketch: Sketch, hashed: Int[Array, "cells hashes"]
) -> Float[Array, " cells"]:
    """Kernel density of cells: their mean min-max similarity to those counted.

    ``K(x) = mean_j counts[j, h_j(x)] / num_cells``. The cells may be others than those
    that were counted.

    Args:
      sketch: counts of at least one cell.
      hashed: result of `hashes`.

    Returns:
      Densities in [0, 1]; at least ``1 / num_cells`` for a cell that was counted, NaN
      for padding rows, and where no cell was counted.

    Raises:
      ValueError: if the numbers of hashes differ.

    References:
      arXiv 2410.15616, algorithm 2.
    """
    _check_hashes(sketch, hashed)
    found = sketch.counts[jnp.arange(hashed.shape[1]), hashed]
    number = sketch.num_cells.astype(jnp.float32)
    density = found.astype(jnp.float32).mean(-1) / number
    return jnp.where(hashed[:, 0] < 0, jnp.nan, density)


def min_max_similarity(
    x: Shaped[Any, " genes"], y: Shaped[Any, " genes"]
) -> Float[Array, ""]:
    """Min-max similarity, ``sum_i min(x_i, y_i) / sum_i max(x_i, y_i)``.

    Args:
      x: expression of a cell, at least 0.
      y: expression of another.

    Returns:
      A number in [0, 1]; 1 for two cells without genes.

    Raises:
      ValueError: if the numbers of genes differ.

    >>> float(min_max_similarity(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0])))
    0.5
    """
    x, y = as_real(x, "x"), as_real(y, "y")
    check_same_length(x=x, y=y)
    largest = jnp.maximum(x, y).sum()
    ratio = jnp.minimum(x, y).sum() / jnp.where(largest > 0, largest, 1)
    return jnp.where(largest > 0, ratio, 1.0)


def _check_hashes(sketch: Sketch, hashed: Array) -> None:
    if hashed.ndim != 2 or hashed.shape[1] != sketch.counts.shape[0]:
        raise ValueError(
            f"hashed: expected shape [cells, {sketch.counts.shape[0]}] as the sketch's "
            f"hashes, got {np.shape(hashed)}"
        )
