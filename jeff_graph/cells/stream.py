"""Sketching and scoring of cells that do not fit into memory, in two passes.

A source gives chunks of cells (`jeff_graph.cells.expression.Source`); a chunk is hashed
and counted, or hashed and scored, and then dropped. Memory holds the sketch, at most
two chunks per worker, and in the second pass one number per cell. Chunks run on several
threads, devices or processes.

Counts are integers and add, so they are the same to the bit for any size of chunks and
any number of workers, devices and processes.
"""

import collections
import concurrent.futures
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float
from scipy.sparse import csr_array

from jeff_graph.cells.arrays import means_nan
from jeff_graph.cells.rows import Rows, make_rows
from jeff_graph.cells.wds import (
    HashParameters,
    Sketch,
    empty_sketch,
    hashes,
    merge,
    scores,
    update,
)

__all__ = [
    "merge_processes",
    "score_cells",
    "sketch_cells",
    "sketch_on_mesh",
]

T = TypeVar("T")


def sketch_cells(
    chunks: Iterable[csr_array | np.ndarray],
    params: HashParameters,
    *,
    workers: int | None = None,
) -> Sketch:
    """First pass: count the hashes of all cells.

    Args:
      chunks: expression, [cells, genes] each, sparse or dense; consumed once.
      params: the random numbers of the hashes.
      workers: threads; the processor's cores by default, and 1 on an accelerator.

    Returns:
      The `Sketch` of all cells.

    Raises:
      ValueError: if a chunk has another number of genes, or negative values or NaN.
    """
    counted = _map(lambda rows: _count(params, rows), chunks, params, workers)
    total = empty_sketch(params)
    for part, _ in counted:
        total = merge(total, part)
    return total


@means_nan
def score_cells(
    chunks: Iterable[csr_array | np.ndarray],
    params: HashParameters,
    sketch: Sketch,
    *,
    workers: int | None = None,
) -> Float[np.ndarray, " cells"]:
    """Second pass: the density of each cell.

    Args:
      chunks: expression of the same cells, or of new ones.
      params: the random numbers that the sketch was made with.
      sketch: result of `sketch_cells`, or a merge of several.
      workers: as in `sketch_cells`.

    Returns:
      Densities, as in `jeff_graph.cells.wds.scores`; NaN for cells without genes, which
      are few and equal, and would be drawn first.

    Raises:
      ValueError: as `sketch_cells`.
    """
    scored = _map(lambda rows: _score(params, sketch, rows), chunks, params, workers)
    parts = [np.asarray(density)[:count] for density, count in scored]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def sketch_on_mesh(
    chunks: Iterable[csr_array | np.ndarray], params: HashParameters, mesh: Mesh
) -> Sketch:
    """First pass with each chunk's cells spread over the ``data`` axis of a mesh.

    Args:
      chunks: as in `sketch_cells`; under `jax.distributed` those of this process, as
        many as every other process has.
      params: the random numbers of the hashes.
      mesh: from `jeff.sharding.make_mesh`.

    Returns:
      The `Sketch` of the cells of all devices, on every device.

    Raises:
      ValueError: as `sketch_cells`.
    """
    devices = mesh.local_mesh.shape["data"]
    place = NamedSharding(mesh, PartitionSpec("data"))
    total = empty_sketch(params)
    for chunk in chunks:
        _check_genes(chunk, params)
        stacked = _stack(chunk, devices)
        shared = jax.tree.map(
            lambda leaf: jax.make_array_from_process_local_data(place, leaf), stacked
        )
        total = merge(total, _count_on_mesh(params, shared, mesh))
    return total


def merge_processes(sketch: Sketch) -> Sketch:
    """The sum of the sketches of all processes under `jax.distributed`.

    Each process may have counted any number of chunks; this is the one exchange.

    Args:
      sketch: this process's.

    Returns:
      The sketch of the cells of all processes, the same on each.
    """
    if jax.process_count() == 1:
        return sketch
    from jax.experimental.multihost_utils import process_allgather

    gathered = process_allgather(sketch)
    return merge(*(Sketch(*part) for part in zip(*gathered, strict=True)))


@jax.jit
def _count(params: HashParameters, rows: Rows) -> Sketch:
    return update(empty_sketch(params), hashes(params, rows))


# Marked here as well, since workers are threads of their own.
@means_nan
@jax.jit
def _score(params: HashParameters, sketch: Sketch, rows: Rows) -> Array:
    density = scores(sketch, hashes(params, rows))
    return jnp.where(rows.counts > 0, density, jnp.nan)


@functools.partial(jax.jit, static_argnames="mesh")
def _count_on_mesh(params: HashParameters, stacked: Rows, mesh: Mesh) -> Sketch:
    def count(params: HashParameters, part: Rows) -> Sketch:
        # Integer counts: the sum over devices is exact in any order.
        own = _count(params, jax.tree.map(lambda leaf: leaf[0], part))
        return jax.lax.psum(own, "data")

    spread, whole = PartitionSpec("data"), PartitionSpec()
    return jax.shard_map(
        count, mesh=mesh, in_specs=(whole, spread), out_specs=whole, check_vma=False
    )(params, stacked)


def _stack(chunk: Any, devices: int) -> Rows:
    """A chunk cut into one part a device, all of one size."""
    sparse = csr_array(chunk)
    size = -(-(len(sparse.indptr) - 1) // devices)
    parts = [sparse[i * size : (i + 1) * size] for i in range(devices)]
    # Shards of one array have one shape: all take the size of the largest.
    most = len(make_rows(max(parts, key=lambda part: part.nnz)).genes)
    made = [make_rows(part, num_rows=size, num_nonzeros=most) for part in parts]
    return Rows(*(np.stack(leaves) for leaves in zip(*made, strict=True)))


def _map(
    function: Callable[[Rows], T],
    chunks: Iterable[Any],
    params: HashParameters,
    workers: int | None,
) -> Iterator[tuple[T, int]]:
    """Results in order, with at most two chunks a worker in memory."""
    # One chunk's program uses few cores of a CPU, and fills an accelerator.
    if workers is None:
        workers = (os.cpu_count() or 1) if jax.default_backend() == "cpu" else 1
    if workers < 1:
        raise ValueError(f"workers: expected at least 1, got {workers}")

    # JAX keeps this setting by thread.
    wide = jnp.result_type(float) == jnp.float64

    def run(chunk: Any) -> tuple[T, int]:
        _check_genes(chunk, params)
        rows = make_rows(chunk, num_rows=_round_rows(chunk.shape[0]))
        with jax.enable_x64(wide):
            result = function(rows)
        # Waiting in the thread: dispatch alone would queue every chunk in memory.
        return jax.block_until_ready(result), chunk.shape[0]

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        waiting: collections.deque = collections.deque()
        for chunk in chunks:
            waiting.append(pool.submit(run, chunk))
            # Two chunks a worker: one at work and one ready, and no more in memory.
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _round_rows(rows: int) -> int:
    """The next power of two: a last, smaller chunk then costs few compilations."""
    return 1 << max(rows - 1, 0).bit_length()


def _check_genes(chunk: Any, params: HashParameters) -> None:
    if chunk.ndim != 2 or chunk.shape[1] != params.num_genes:
        raise ValueError(
            f"chunks: expected {params.num_genes} genes, as the hashes have, got a "
            f"chunk of shape {chunk.shape}"
        )
