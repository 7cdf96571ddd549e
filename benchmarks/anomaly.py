"""Nearest-neighbour detectors against PyOD, and the memory of a long stream.

``python -m benchmarks.anomaly`` prints a record and writes it to
``benchmarks/results/anomaly-<device>.json``.

  knn     fit on normal texts, then score others: `jeff_llm.anomaly` and
          ``pyod.models.knn.KNN``, in rounds that alternate, on the same float32 rows.
          PyOD has two threads, as XLA has on two cores
  lof     the same with ``pyod.models.lof.LOF``
  stream  peak memory of a fresh process that scores a memory-mapped file by KNN; the
          file is written block by block

The first fit and score of ours, which compile, are timed apart; a fit and a score with
compilation are put against PyOD's median too. Rows are random directions around 64
centres.

Scores of KNN must agree to 1e-5. LOF jumps where the last neighbour and the next one
tie: of 20,000 texts a few tie to float32's rounding, and PyOD has float64. Those whose
factors differ by more than 1e-5 are counted; at most 1 in 1,000 may, by at most 1e-3.
"""

import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from benchmarks import records
from jeff_llm.anomaly.detectors import knn
from jeff_llm.anomaly.local_outlier import lof
from jeff_llm.anomaly.streaming import score_blocks
from train_scripts.running import results


@dataclasses.dataclass(frozen=True)
class Config:
    """What is timed."""

    # Texts to fit on, and to score; columns.
    train: int = 20_000
    queries: int = 20_000
    width: int = 384
    # Neighbours of KNN and LOF.
    neighbors: tuple[int, int] = (5, 20)
    # Alternating rounds, and threads of PyOD.
    rounds: int = 3
    threads: int = 2
    # Rows of the streamed file, and training texts of its detector; 0 leaves it out.
    streamed: int = 1_000_000
    streamed_train: int = 5_000
    # Score this file alone and print seconds and memory; for the process that the
    # benchmark starts.
    only: str = ""


def embeddings(rows: int, width: int, seed: int) -> np.ndarray:
    """Unit rows around 64 centres."""
    centres = np.random.default_rng(0).normal(size=(64, width)).astype(np.float32)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, width), np.float32)
    x += centres[rng.integers(0, 64, rows)]
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a call, and what it returns."""
    began = time.perf_counter()
    result = jax.block_until_ready(call())
    return time.perf_counter() - began, result


def compare(name: str, config: Config) -> dict[str, Any]:
    """Fit and score, ours and PyOD's, alternating."""
    from pyod.models import knn as peer_knn
    from pyod.models import lof as peer_lof

    train = embeddings(config.train, config.width, 1)
    queries = embeddings(config.queries, config.width, 2)
    count = config.neighbors[name == "lof"]
    make = {"knn": knn, "lof": lof}[name]
    options: dict[str, Any] = {"n_neighbors": count, "n_jobs": config.threads}
    compiling = [timed(lambda: make(train, neighbors=count))]
    compiling.append(timed(lambda: compiling[0][1].score(queries)))
    seconds = {"fit": [], "score": [], "peer_fit": [], "peer_score": []}
    for _ in range(config.rounds):
        took, detector = timed(lambda: make(train, neighbors=count))
        seconds["fit"].append(took)
        took, mine = timed(lambda detector=detector: detector.score(queries))
        seconds["score"].append(took)
        peer = peer_knn.KNN(**options) if name == "knn" else peer_lof.LOF(**options)
        seconds["peer_fit"].append(timed(lambda peer=peer: peer.fit(train))[0])
        took, theirs = timed(lambda peer=peer: peer.decision_function(queries))
        seconds["peer_score"].append(took)
    expected = np.concatenate([theirs, np.asarray(peer.decision_scores_)])
    off = np.abs(np.concatenate([mine, detector.reference]) / expected - 1)
    differ = int((off > 1e-5).sum())
    assert off.max() < (1e-5 if name == "knn" else 1e-3), off.max()
    assert differ <= len(off) / 1000, differ
    return summarise(seconds, sum(took for took, _ in compiling)) | {
        "neighbors": count,
        "largest_relative_difference": float(off.max()),
        "differ_by_over_1e-5": differ,
        "compared": len(off),
    }


def summarise(seconds: dict[str, list[float]], first: float) -> dict[str, Any]:
    """Medians, their spread, and the ratios of fit and score together."""
    ours = [sum(pair) for pair in zip(seconds["fit"], seconds["score"], strict=True)]
    peers = [
        sum(pair)
        for pair in zip(seconds["peer_fit"], seconds["peer_score"], strict=True)
    ]
    ratios = [peer / own for own, peer in zip(ours, peers, strict=True)]
    return {
        "seconds": {
            name: {
                "median": statistics.median(some),
                "min": min(some),
                "max": max(some),
            }
            for name, some in seconds.items()
        },
        "first_fit_and_score_s": first,
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "ratio_with_compilation": statistics.median(peers) / first,
    }


def score_file(config: Config) -> dict[str, float]:
    """Score a file in this process; seconds and peak memory."""
    detector = knn(embeddings(config.streamed_train, config.width, 1))
    mapped = np.load(config.only, mmap_mode="r")
    began = time.perf_counter()
    scores = score_blocks(detector, mapped)
    took = time.perf_counter() - began
    assert scores.shape == (len(mapped),)
    assert np.isfinite(scores).all()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"score_s": took, "peak_gib": peak}


def stream(config: Config) -> dict[str, float]:
    """Write a file block by block, and score it in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "embeddings.npy"
        shape = (config.streamed, config.width)
        mapped = np.lib.format.open_memmap(path, "w+", np.float32, shape)
        for first in range(0, config.streamed, 20_000):
            rows = min(20_000, config.streamed - first)
            mapped[first : first + rows] = embeddings(rows, config.width, first)
        mapped.flush()
        del mapped
        command = [sys.executable, "-m", "benchmarks.anomaly", "--only", str(path)]
        command += ["--streamed-train", str(config.streamed_train)]
        command += ["--width", str(config.width)]
        done = subprocess.run(
            command,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ.copy(),
        )
    found = json.loads(done.stdout.splitlines()[-1])
    return found | {"rows": config.streamed, "train": config.streamed_train}


def main(config: Config) -> None:
    """Measure, print, write."""
    if config.only:
        print(json.dumps(score_file(config)))
        return
    record = {
        "versions": results.versions() | _peer_versions(),
        "knn": compare("knn", config),
        "lof": compare("lof", config),
    }
    if config.streamed:
        record["stream"] = stream(config)
    print(json.dumps(record, indent=1))
    records.write("anomaly", record, config)


def _peer_versions() -> dict[str, str]:
    import pyod
    import sklearn

    return {"pyod": pyod.__version__, "scikit-learn": sklearn.__version__}


if __name__ == "__main__":
    main(tyro.cli(Config))
