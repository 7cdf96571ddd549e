"""Scores of more texts than fit in memory.

Embeddings are scored in blocks of one shape, so one program is compiled. They may be a
memory-mapped file, of which one block at a time is read.
"""

import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from jeff import sharding
from jeff_llm.anomaly.detectors import Detector
from jeff_llm.anomaly.neighbors import check_embeddings

__all__ = ["score_blocks"]


def score_blocks(
    detector: Detector,
    embeddings: Float[Array | np.ndarray, "texts width"],
    *,
    block: int = 4096,
    mesh: Mesh | None = None,
) -> Float[np.ndarray, " texts"]:
    """Score embeddings block by block, in bounded memory.

    Args:
      detector: a detector of this package is compiled; any other is called by itself.
      embeddings: one row a text; may be memory-mapped, as
        ``np.load(file, mmap_mode="r")`` gives them.
      block: texts that are scored at once; with a mesh, rounded up to a multiple of
        its devices along ``data`` and ``fsdp``.
      mesh: a mesh of `jeff.sharding.make_mesh`, of devices of this process, over which
        each block is split. Scores are those of one device.

    Returns:
      Scores, float32, in the order of the embeddings.

    Raises:
      TypeError: if the embeddings are not floating point, or the detector is none that
        can be compiled and there is a mesh.
      ValueError: if a shape does not fit, a value is NaN or infinite, ``block`` is not
        positive, or the mesh has devices of another process.
    """
    if block < 1:
        raise ValueError(f"block: expected at least 1, got {block}")
    compiled = not jax.tree_util.all_leaves([detector])
    if mesh is not None:
        _check_mesh(mesh, detector, compiled)
        parts = mesh.shape["data"] * mesh.shape["fsdp"]
        block, detector = -(-block // parts) * parts, sharding.replicate(detector, mesh)
    count = len(embeddings)
    scores = np.empty(count, np.float32)
    for first in range(0, count, block):
        rows = np.asarray(embeddings[first : first + block])
        check_embeddings(f"embeddings[{first}:{first + len(rows)}]", rows)
        if not compiled:
            scores[first : first + block] = detector.score(rows)
            continue
        # The last row fills the last block, so that every block has one shape.
        filled = np.pad(rows.astype(np.float32), _behind(block - len(rows)), "edge")
        found = _score(detector, filled, mesh)
        scores[first : first + block] = np.asarray(found)[: len(rows)]
    return scores


def _behind(rows: int) -> tuple[tuple[int, int], tuple[int, int]]:
    return (0, rows), (0, 0)


def _check_mesh(mesh: Mesh, detector: Detector, compiled: bool) -> None:
    if not compiled:
        raise TypeError(
            f"detector: expected a pytree where there is a mesh, got a "
            f"{type(detector).__name__}; leave out the mesh"
        )
    sharding.check_own_devices(mesh)


def _score(detector: Any, rows: np.ndarray, mesh: Mesh | None) -> Array:
    if mesh is None:
        return _score_alone(detector, rows)
    return _score_split(detector, sharding.shard_batch(rows, mesh), mesh)


@jax.jit
def _score_alone(detector: Any, rows: Float[Array, "block width"]) -> Array:
    return detector.score(rows)


@functools.partial(jax.jit, static_argnames="mesh")
def _score_split(
    detector: Any, rows: Float[Array, "block width"], mesh: Mesh
) -> Float[Array, " block"]:
    # By hand, not by the compiler: it would gather the rows for a loop over them.
    batch = sharding.batch_sharding(mesh).spec
    return jax.shard_map(
        lambda whole, part: whole.score(part),
        mesh=mesh,
        in_specs=(PartitionSpec(), batch),
        out_specs=batch,
        check_vma=False,
    )(detector, rows)
