"""Check that sketches over many devices or two processes equal those of one.

usage: wds_many_devices.py                 with eight forced CPU devices
       wds_many_devices.py PROCESS PORT    one of two processes, two devices each
"""

import sys

import jax
import numpy as np

from jeff import sharding
from jeff_graph.cells import simulate, stream, wds

CELLS = 700


def chunks(part: int, parts: int, size: int) -> list:
    """The cells of one of several processes; the last chunk is shorter."""
    cells = simulate.simulate_cells(CELLS, seed=3)
    own = np.array_split(np.arange(CELLS), parts)[part]
    return [cells.take(own[start : start + size]) for start in range(0, len(own), size)]


def same(one: wds.Sketch, other: wds.Sketch) -> None:
    """Fails unless all counts are equal."""
    np.testing.assert_array_equal(one.counts, other.counts)
    assert int(one.num_cells) == int(other.num_cells) == CELLS


def main() -> None:
    """Sketches over a mesh count what one device counts."""
    params = wds.hash_parameters(jax.random.key(1), 500, 20)
    alone = stream.sketch_cells(chunks(0, 1, 250), params, workers=1)
    mesh = sharding.make_mesh()
    assert mesh.shape["data"] == 8
    for size in (700, 333, 5):
        same(stream.sketch_on_mesh(chunks(0, 1, size), params, mesh), alone)


if __name__ == "__main__":
    process, port = int(sys.argv[1]), sys.argv[2]
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, process)
    params = wds.hash_parameters(jax.random.key(1), 500, 20)
    alone = stream.sketch_cells(chunks(0, 1, 250), params, workers=1)
    own = stream.sketch_cells(chunks(process, 2, 150), params)
    assert int(own.num_cells) == CELLS // 2
    same(stream.merge_processes(own), alone)
    mesh = sharding.make_mesh()
    assert mesh.shape["data"] == 4
    same(stream.sketch_on_mesh(chunks(process, 2, 90), params, mesh), alone)
