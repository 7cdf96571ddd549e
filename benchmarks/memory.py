"""Time and peak memory where both once grew without need.

``python -m benchmarks.memory`` prints them; each part runs in a process of its own,
whose peak is read at its end:

  log      ``python -m train_scripts.routing --data`` on a log of many lines
  prompts  SmolLM2 answers short prompts and a long one together, and the long one alone
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from train_scripts.running import results

ROOT = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured."""

    # Lines of the log.
    lines: int = 1_000_000
    # Short prompts, and tokens of the long one.
    short: int = 7
    tokens: int = 3900
    # Answer these prompts and print nothing; for the processes that are measured.
    only: Literal["", "together", "alone"] = ""


def write_log(path: Path, lines: int) -> None:
    """A log of two models, as a user would have it."""
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        for sure, small, large, cost in rng.random((lines, 4)).tolist():
            row = {
                "confidence": round(sure, 6),
                "small_correct": small < sure,
                "large_correct": large < 0.9,
                "cost": round(cost / 100, 6),
                "dataset": "abcd"[int(4 * cost)],
            }
            file.write(json.dumps(row) + "\n")


def answer(config: Config) -> None:
    """Eight greedy tokens for each prompt."""
    from jeff_llm import generate
    from jeff_llm.models import weights

    model = weights.load("smollm2")
    rng = np.random.default_rng(0)
    long = rng.integers(100, 40_000, config.tokens).tolist()
    short = [[300 + place, 301, 302] for place in range(config.short)]
    prompts = [long] if config.only == "alone" else [*short, long]
    generate.generate(model, prompts, max_new_tokens=8)


def measured(*words: str) -> tuple[float, float]:
    """Seconds and peak GiB of ``python WORDS``."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    # Waited for here, since the peak of all children so far would be that of another.
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(words)}: ended with status {status}")
    return time.perf_counter() - began, usage.ru_maxrss / 2**20


def main(config: Config) -> None:
    """Measure, print."""
    if config.only:
        answer(config)
        return
    print(f"device: {results.device_name()}")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.jsonl"
        write_log(log, config.lines)
        words = ("-m", "train_scripts.routing", "--data", str(log), "--runs", folder)
        seconds, peak = measured(*words)
        print(f"log of {config.lines} lines: {seconds:.1f} s, {peak:.2f} GiB")
    for part in ("together", "alone"):
        words = ("-m", "benchmarks.memory", "--only", part)
        seconds, peak = measured(*words)
        print(f"prompts {part}: {seconds:.1f} s, {peak:.2f} GiB")


if __name__ == "__main__":
    main(tyro.cli(Config))
