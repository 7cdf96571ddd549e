"""One of two processes that share the scripts' work, on two CPU devices each.

Run as ``two_scripts.py PROCESS PORT FOLDER MODEL``; prints what it saw as JSON.
"""

import dataclasses
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from configs.finetune import Config
from configs.genes import Config as GenesConfig
from jeff_llm.anomaly import streaming
from jeff_llm.anomaly.detectors import knn
from jeff_llm.genes.ranking import Phenotypes
from train_scripts import cli
from train_scripts.finetune import run as finetune
from train_scripts.genes import data, scored
from train_scripts.running import machines
from train_scripts.running.options import Done, Options, OtherProcessError
from train_scripts.running.rows import measure_rows
from train_scripts.running.workdir import open_workdir

TEXTS = 50
YODO = [
    *("run", "yodo", "smoke", "--dataset", "csv", "--outcome", "y", "--sensitive", "s"),
    *("--seeds", "0", "1", "--num-epochs", "2", "--batch-size", "64"),
    *("--num-levels", "5", "--hidden", "8", "8", "8", "--data"),
]


@dataclasses.dataclass
class Toy:
    """A configuration without fields."""


def texts() -> np.ndarray:
    """Embeddings of all texts, behind those of normal ones."""
    return np.random.default_rng(1).normal(size=(2 * TEXTS, 8)).astype(np.float32)


def patients(folder: Path) -> dict[str, list[list[float]]] | None:
    """Scores of five patients by two measures, of some diseases; None without HPO."""
    try:
        world = data.make_world(GenesConfig())
    except FileNotFoundError:
        return None
    terms = ("HP:0001250", "HP:0001263", "HP:0000256", "HP:0001166", "HP:0002616")
    # The first process alone goes on; the other has stored its blocks.
    found = scored.score(
        world,
        [Phenotypes((term, terms[0])) for term in terms],
        ("resnik_both_ways", "combined"),
        folder / "scored",
        block=2,
    )
    return {name: each.diseases[:, ::500].tolist() for name, each in found.items()}


def fine_tuning(folder: Path, model: str) -> Config:
    """A short training that all devices share."""
    return Config(
        data=str(folder / "data.jsonl"),
        workdir=str(folder / "tuned"),
        model=model,
        num_epochs=6,
        batch_size=4,
        max_tokens=64,
        learning_rate=5e-3,
        holdout=0.2,
    )


def shared(folder: Path, work: Callable[[Path], Any]) -> Any:
    """Work in a run's folder that both processes share, or how it ended."""
    opened = open_workdir(folder, "toy", "smoke", Toy(), "toy")
    try:
        with machines.open_together(opened) as (workdir, _):
            found = work(workdir)
            (workdir / "result.json").touch()
            return found
    except (Done, OtherProcessError, ValueError) as end:
        return f"{type(end).__name__}: {end}"


def rows(workdir: Path, fails: int) -> list[dict[str, Any]]:
    """Five rows of two groups, and who measured each; the row `fails` cannot be."""

    def measure(item: int) -> dict[str, float]:
        if item == fails:
            raise ValueError(f"row {item} is bad")
        return {"square": item**2, "by": jax.process_index(), "nan": float("nan")}

    return measure_rows(workdir, range(5), measure, together=lambda item: item // 3)


def main(process: int, port: str, folder: Path, model: str) -> None:
    """Do every kind of work, and print what came out."""
    cluster = ["--distributed", f"127.0.0.1:{port},2,{process}", "--mesh", "data=2"]
    words = [*YODO, str(folder / "people.csv"), "--runs", str(folder / "runs")]
    seen: dict[str, Any] = {"status": cli.main([*words, *cluster])}
    # The last goes on with what the one before it has measured.
    for name, fails in (("first", 1), ("second", 4), ("second", -1)):
        work = functools.partial(rows, fails=fails)
        seen[f"rows {fails}"] = shared(folder / name, work)

    normal, new = np.split(texts(), 2)
    mine = streaming.score_blocks(knn(normal), new[process::2], mesh=machines.mesh())
    parts = multihost_utils.process_allgather(mine)
    seen["texts"] = np.asarray(parts).T.reshape(-1).tolist()
    seen["patients"] = shared(folder / "patients", patients)

    machines.join(Options(mesh="data=2,fsdp=2"), together=True)
    summary = finetune.run(fine_tuning(folder, model), progress=False)
    seen["tuned"] = summary._asdict()
    print(json.dumps(seen))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4])
