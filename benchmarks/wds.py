"""Speed and memory of the two passes, against geosketch and a plain numpy version.

``python -m benchmarks.wds`` prints ratios and writes
``benchmarks/results/wds-<device>.json``. Cells have 2,000 genes, 5% of them nonzero.

  jeff       both passes over a file (h5ad, CSR), depth and logarithm included: sketch,
             then densities; for 10^4 to 10^6 cells, each in a fresh process whose peak
             memory is read at the end. The first call, which compiles, is timed too,
             and so are the checks of the file's sparse rows
  memory     both passes over chunks that are in memory already
  numpy      the paper's algorithm as its code has it: dense rows, one hash after the
             other, both passes; on fewer cells, since its time is linear
  geosketch  20 principal components of all cells, then 1% of them picked

Sides that are compared hold the same cells and alternate; medians are compared.
"""

import contextlib
import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import jax
import numpy as np
import tyro
from scipy.sparse import csr_array, vstack

from benchmarks import records
from jeff import sharding
from jeff_graph.cells import h5ad, parts, preprocess, rivals, stream, wds
from train_scripts.running import results

GENES, NONZEROS, CHUNK = 2000, 100, 4096


@dataclasses.dataclass(frozen=True)
class Config:
    """What is timed."""

    # Cells of the streamed files.
    sizes: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    # Hashes.
    hashes: int = 100
    # Cells on which the sides are compared, and those of numpy's.
    cells: int = 20_000
    numpy_cells: int = 2_000
    # Alternating repetitions.
    repeats: int = 5
    # Stream this file alone and print seconds and memory; for the processes that the
    # benchmark starts.
    only: str = ""


def chunk(seed: int, cells: int) -> csr_array:
    """Counts of some cells: distinct genes, geometric counts."""
    rng = np.random.default_rng(seed)
    step = GENES // NONZEROS
    genes = np.arange(NONZEROS) * step + rng.integers(0, step, (cells, NONZEROS))
    values = rng.geometric(0.5, cells * NONZEROS).astype(np.float32)
    ends = np.arange(0, cells * NONZEROS + 1, NONZEROS)
    return csr_array((values, genes.ravel().astype(np.int32), ends), (cells, GENES))


def chunks(cells: int) -> Iterator[csr_array]:
    """All cells, by chunks."""
    for start in range(0, cells, CHUNK):
        yield chunk(start, min(CHUNK, cells - start))


def write(path: Path, cells: int) -> None:
    """A file as anndata lays it out, written chunk by chunk."""
    text = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for name, prefix, number in (("obs", "c", cells), ("var", "g", GENES)):
            frame = file.create_group(name)
            frame.attrs["encoding-type"] = "dataframe"
            frame.attrs["encoding-version"] = "0.2.0"
            frame.attrs["_index"] = "_index"
            frame.attrs["column-order"] = np.array([], dtype="S1").astype(text)
            names = np.array([f"{prefix}{i}" for i in range(number)], dtype=object)
            index = frame.create_dataset("_index", data=names, dtype=text)
            index.attrs["encoding-type"] = "string-array"
            index.attrs["encoding-version"] = "0.2.0"
        x = file.create_group("X")
        x.attrs["encoding-type"], x.attrs["encoding-version"] = "csr_matrix", "0.1.0"
        x.attrs["shape"] = np.array([cells, GENES])
        total = cells * NONZEROS
        data = x.create_dataset("data", (total,), "f4", chunks=(min(1 << 18, total),))
        genes = x.create_dataset(
            "indices", (total,), "i4", chunks=(min(1 << 18, total),)
        )
        x["indptr"] = np.arange(0, total + 1, NONZEROS)
        place = 0
        for part in chunks(cells):
            data[place : place + part.nnz] = part.data
            genes[place : place + part.nnz] = part.indices
            place += part.nnz


def both_passes(
    make: Callable[[], Iterator[csr_array]], params: wds.HashParameters
) -> tuple[np.ndarray, float, float]:
    """Densities, and the seconds of each pass."""
    began = time.perf_counter()
    sketch = jax.block_until_ready(stream.sketch_cells(make(), params))
    middle = time.perf_counter()
    density = stream.score_cells(make(), params, sketch)
    return density, middle - began, time.perf_counter() - middle


CHECKS = (
    (h5ad, "check_indices"),
    (parts, "check_pointers"),
    (parts, "check_stated"),
    (parts, "refuse_links"),
)


@contextlib.contextmanager
def timed_checks() -> Iterator[list[float]]:
    """Seconds of each call of the checks of a file's sparse rows."""
    spent: list[float] = []

    def timed(check: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            began = time.perf_counter()
            check(*arguments)
            spent.append(time.perf_counter() - began)

        return call

    with contextlib.ExitStack() as patches:
        for module, name in CHECKS:
            check = timed(getattr(module, name))
            patches.enter_context(mock.patch.object(module, name, check))
        yield spent


def stream_file(path: str, hashes: int) -> dict[str, float]:
    """Both passes over a file, and the peak memory of this process."""
    params = wds.hash_parameters(jax.random.key(0), GENES, hashes)
    with timed_checks() as checks, h5ad.open_cells(path) as source:
        prepared = preprocess.prepare(source, preprocess.Recipe(target=200.0, log=True))
        jax.block_until_ready(params)
        first = time.perf_counter()
        few = next(prepared.chunks(CHUNK))
        both_passes(lambda: iter([few]), params)
        compiled = time.perf_counter() - first
        density, sketching, scoring = both_passes(prepared.chunks, params)
    assert density.shape == (source.num_cells,)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "sketch_s": sketching,
        "score_s": scoring,
        "checks_s": sum(checks),
        "first_call_s": compiled,
        "peak_gib": peak,
    }


def streamed(cells: int, config: Config) -> dict[str, float]:
    """Stream a file of so many cells in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.h5ad"
        write(path, cells)
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "benchmarks.wds",
                "--only",
                str(path),
                "--hashes",
                str(config.hashes),
            ],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "")},
        )
    return json.loads(done.stdout.splitlines()[-1])


def numpy_passes(x: np.ndarray, hashes: int) -> np.ndarray:
    """The paper's algorithm on dense rows, hash by hash; densities."""
    rng = np.random.default_rng(0)
    cells, genes = x.shape
    with np.errstate(divide="ignore"):
        log_x = np.log(x)

    def hashed(seed: int) -> np.ndarray:
        draw = np.random.default_rng(seed)
        r, c = draw.gamma(2.0, 1.0, (2, genes))
        b = draw.random(genes)
        t = np.floor(log_x / r + b)
        log_a = np.log(c) - r * (t - b) - r
        return np.where(x > 0, log_a, np.inf).argmin(1)

    seeds = rng.integers(0, 2**31, hashes)
    counts = np.stack([np.bincount(hashed(s), minlength=genes) for s in seeds])
    found = np.stack([counts[j, hashed(s)] for j, s in enumerate(seeds)])
    return found.mean(0) / cells


def compare(config: Config) -> dict[str, list[float]]:
    """Cells per second of each side."""
    params = wds.hash_parameters(jax.random.key(0), GENES, config.hashes)
    log = preprocess.Recipe(log=True)
    held = [preprocess.apply_recipe(log, part) for part in chunks(config.cells)]
    whole = csr_array(vstack(held, format="csr"))
    few = whole[: config.numpy_cells].toarray()

    def geosketch() -> None:
        rows = rivals.principal_components(whole, 20)
        rivals.geosketch_cells(rows, max(config.cells // 100, 1), seed=0)

    sides: dict[str, tuple[Callable[[], object], int]] = {
        "memory": (lambda: both_passes(lambda: iter(held), params), config.cells),
        "numpy": (lambda: numpy_passes(few, config.hashes), config.numpy_cells),
        "geosketch": (geosketch, config.cells),
    }
    both_passes(lambda: iter(held), params)
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(config.repeats):
        for name, (run, cells) in sides.items():
            began = time.perf_counter()
            run()
            rates[name].append(cells / (time.perf_counter() - began))
    return rates


def spread_over_devices() -> bool:
    """Whether a mesh of all devices here counts the same as one."""
    params = wds.hash_parameters(jax.random.key(0), GENES, 20)
    one = stream.sketch_cells(chunks(5000), params)
    mesh = sharding.make_mesh()
    many = stream.sketch_on_mesh(chunks(5000), params, mesh)
    return bool((one.counts == many.counts).all())


def main(config: Config) -> None:
    """Measure, print, write."""
    if config.only:
        print(json.dumps(stream_file(config.only, config.hashes)))
        return
    print(f"device: {results.device_name()}; {GENES} genes, {config.hashes} hashes")
    cells_on_disk = {str(cells): streamed(cells, config) for cells in config.sizes}
    for cells, found in cells_on_disk.items():
        seconds = found["sketch_s"] + found["score_s"]
        print(
            f"{int(cells):9d} cells streamed: {seconds:7.2f} s, "
            f"{int(cells) / seconds:8.0f} cells/s, peak {found['peak_gib']:.2f} GiB, "
            f"first call {found['first_call_s']:.2f} s, checks of the file "
            f"{found['checks_s'] / seconds:.2%}"
        )
    rates = compare(config)
    medians = {name: statistics.median(each) for name, each in rates.items()}
    for name, median in medians.items():
        ratio = medians["memory"] / median
        print(f"{median:9.0f} cells/s, jeff / it {ratio:7.2f}  {name}")
    same = spread_over_devices()
    print(f"counts over {jax.device_count()} devices equal to one's: {same}")
    record = {
        "streamed": cells_on_disk,
        "cells_per_second": rates,
        "devices_agree": same,
    }
    records.write("wds", record, config)


if __name__ == "__main__":
    main(tyro.cli(Config))
