"""Self-REF on a real model: a confidence token compared with every baseline.

Run it with ``python -m train_scripts.selfref [PRESET] [--field value]``. The small
model names the country of a city. The stronger expert is a gazetteer, which is always
right and costs one look-up. With ``--data questions.jsonl`` the script trains the token
on your own questions and writes adapters, a table, plots and ``router.json``.
"""

import functools
import time
from pathlib import Path

import jax.numpy as jnp

from configs.selfref import Config
from jeff_llm.models import weights
from train_scripts.running import machines, results, stages
from train_scripts.running.results import Part
from train_scripts.running.rows import measure_rows
from train_scripts.selfref import claims, measure, own, summary

__all__ = ["run"]


def run(
    config: Config, workdir: Path, *, preset: str = "custom", progress: bool = True
) -> results.Result:
    """Answer, train and measure, on cities or on your questions; write the result.

    Args:
      config: settings of the run.
      workdir: output folder; an interrupted run in it is resumed.
      preset: name of the preset in the result.
      progress: print each stage on standard error.

    Returns:
      The result that was written.

    Raises:
      ValueError: if a field or a row of your questions is not as expected, or the
        model's answers are all right or all wrong.
      FileNotFoundError: if the model or data are missing; says how to get them.
    """
    began = time.perf_counter()
    machines.batch_sharding(config.batch_size)  # refused now, not after an hour
    if config.data:
        machines.first_alone()
        say = functools.partial(stages.say, config.data, progress)
        part = own.teach(config, workdir, say)
        if progress:
            print(part.table)
    else:
        part = _cities(config, workdir, progress)
    return results.finish("selfref", preset, config.seeds[0], began, part, workdir)


def _cities(config: Config, workdir: Path, progress: bool) -> Part:
    """Measure every seed, or read its measurements if they exist."""
    model = weights.load(
        config.model, dtype=jnp.dtype(config.dtype), mesh=machines.mesh()
    )
    total = len(config.seeds)

    def measured(seed: int) -> dict[str, float]:
        step = config.seeds.index(seed) + 1
        say = functools.partial(stages.say, f"seed {step} of {total}", progress)
        folder = workdir / f"seed{seed}"
        found = measure.measure(config, model, seed, folder, say)
        summary.write_seed(folder / "measured.npz", found)
        return summary.row(found, config.target)

    rows = measure_rows(workdir, config.seeds, measured)
    found = [
        summary.read_seed(workdir / f"seed{seed}" / "measured.npz")
        for seed in config.seeds
    ]
    report = summary.Report(config, rows, found)
    summary.plot(report, workdir)
    return Part(
        summary.numbers(report),
        claims.claims(report),
        summary.table(report),
    )
