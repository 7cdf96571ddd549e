"""Gene pairs: train a network on labelled cells, and find pairs from few cells.

Run it with ``python -m train_scripts.wds [PRESET] [--field value]``. Use ``--data
my.h5ad --label disease`` for your own file.
"""

import functools
import time
from pathlib import Path

from configs.wds import Config
from train_scripts.running import results, stages
from train_scripts.running.rows import measure_rows
from train_scripts.wds import claims, summary, table
from train_scripts.wds.data import load
from train_scripts.wds.measure import measure

__all__ = ["run"]


def run(
    config: Config, workdir: Path, *, preset: str = "custom", progress: bool = True
) -> results.Result:
    """Train, map and compare for every seed; write the table of pairs and plots.

    Args:
      config: settings of the run.
      workdir: output folder; an interrupted run in it is resumed.
      preset: name of the preset in the result.
      progress: print each stage on standard error.

    Returns:
      The result that was written.

    Raises:
      ValueError: if the data or a field are not as expected.
      KeyError: if a column is missing; lists the existing columns.
      FileNotFoundError: if data are missing; says how to get them.
    """
    began = time.perf_counter()
    total = len(config.seeds)

    def measured(seed: int) -> dict[str, float]:
        step = config.seeds.index(seed) + 1
        say = functools.partial(stages.say, f"seed {step} of {total}", progress)
        with load(config, seed) as cells:
            row, first = measure(config, cells, seed, workdir, say)
            if step == 1:
                row |= table.write(config, first, workdir, say)
        return row

    rows = measure_rows(workdir, config.seeds, measured)
    report = summary.Report(config, rows, table.read(workdir))
    summary.plot(report, workdir)
    part = results.Part(summary.numbers(report), claims.claims(report))
    return results.finish("wds", preset, config.seeds[0], began, part, workdir)
