"""Part "plane": every branch on a small model trained here, on accuracy and tokens."""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from configs.reasoning import Config
from jeff import files
from train_scripts.reasoning import branches, budget, claims, summary
from train_scripts.running import stages
from train_scripts.running.results import Part
from train_scripts.running.rows import measure_rows

__all__ = ["compare"]


def compare(config: Config, workdir: Path, *, progress: bool = False) -> Part:
    """Measure all branches for all seeds; an interrupted run is resumed.

    Args:
      config: settings of the run.
      workdir: the run's folder.
      progress: print each stage on standard error.

    Returns:
      Numbers, claims and table.

    Raises:
      ValueError: if there are fewer than 3 votes.
    """
    if config.votes < 3:  # the base's samples are compared by thirds
        raise ValueError(
            f'votes: expected at least 3 for the part "plane", got {config.votes}'
        )
    items = [
        (seed, branch)
        for seed in config.seeds
        for branch in branches.branch_names(config)
    ]

    @functools.lru_cache(maxsize=1)  # one seed's model and samples at a time
    def bench(seed: int) -> branches.Bench:
        stages.say(f"seed {seed}", progress, "train the base and sample")
        folder = workdir / f"seed{seed}"
        return branches.make_bench(config, seed, folder, progress=progress)

    def measured(item: tuple[int, str]) -> dict[str, float]:
        seed, branch = item
        shared = bench(seed)
        stages.say(f"seed {seed}", progress, branch)
        return {
            f"{name}|{field}": value
            for name, point in branches.measure(shared, branch).items()
            for field, value in point._asdict().items()
        }

    rows = measure_rows(workdir, items, measured, together=lambda item: item[0])
    report = summary.Report(config, _points(items, rows))
    summary.plot(report, workdir)
    slider = budget.explorer(report)
    if slider:
        files.write_json(workdir / "explorer.json", slider, indent=None)
    return Part(summary.numbers(report), claims.claims(report), summary.table(report))


def _points(
    items: list[tuple[int, str]], rows: list[dict[str, Any]]
) -> dict[str, summary.Line]:
    """Measurements by point: the branch, and one value per seed of each field."""
    found: dict[str, dict[str, list[float]]] = {}
    branch_of: dict[str, str] = {}
    for (_, branch), row in zip(items, rows, strict=True):
        for key, value in row.items():
            name, _, field = key.rpartition("|")
            if name:
                found.setdefault(name, {}).setdefault(field, []).append(value)
                branch_of[name] = branch
    return {
        name: summary.Line(
            branch_of[name],
            *(np.array(fields[each]) for each in ("accuracy", "tokens", "samples")),
        )
        for name, fields in found.items()
    }
