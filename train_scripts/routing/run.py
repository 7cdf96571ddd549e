"""Uncertainty routing: decide which queries a small model passes to a large one.

Run it with ``python -m train_scripts.routing [PRESET] [--field value]``. With ``--data
logs.jsonl`` it analyses your own logs and writes a table, plots and ``router.json``.
"""

import time
from pathlib import Path

from configs.routing import Config
from train_scripts.routing import logs
from train_scripts.routing.cities import continents
from train_scripts.routing.mirage import mirage
from train_scripts.routing.simulated import simulated
from train_scripts.running import machines, results

__all__ = ["run"]

_PARTS = {"mirage": mirage, "cities": continents, "simulated": simulated}


def run(
    config: Config, workdir: Path, *, preset: str = "custom", progress: bool = True
) -> results.Result:
    """Analyse logs or run the parts, and write tables and plots.

    Args:
      config: settings of the run.
      workdir: output folder.
      preset: name of the preset in the result.
      progress: print the tables.

    Returns:
      The result that was written.

    Raises:
      ValueError: if a field, or a row of the logs, is not as expected.
      FileNotFoundError: if logs, the model or data are missing; says how to get them.
    """
    machines.first_alone()
    began = time.perf_counter()
    if config.data:
        found = [logs.analyse(config, workdir)]
    else:
        found = [_PARTS[name](config, workdir) for name in config.parts]
    part = results.join(found)
    if progress:
        print(part.table)
    return results.finish("routing", preset, config.seed, began, part, workdir)
