"""Efficient reasoning: every branch of the survey compared on accuracy and tokens.

Run it with ``python -m train_scripts.reasoning [PRESET] [--field value]``. The plane
trains a small reasoning model and applies every branch to it. Other parts run decoding
and prompting on a real model, and vote over its samples. With ``--data traces.jsonl``
the script analyses your own traces: how long they are, what each stopping rule would
have saved, and the cheapest rule that keeps the answers, with a guarantee.
"""

import functools
import time
from collections.abc import Callable
from pathlib import Path

from configs.reasoning import Config
from train_scripts.reasoning import cities, model, plane, traces
from train_scripts.running import machines, results
from train_scripts.running.results import Part

__all__ = ["run"]


def run(
    config: Config, workdir: Path, *, preset: str = "custom", progress: bool = True
) -> results.Result:
    """Analyse traces or run the parts, and write tables and plots.

    Args:
      config: settings of the run.
      workdir: output folder; an interrupted run in it is resumed.
      preset: name of the preset in the result.
      progress: print stages and tables.

    Returns:
      The result that was written.

    Raises:
      ValueError: if a field or a row of the traces is not as expected.
      FileNotFoundError: if traces, the model or data are missing; says how to get them.
    """
    began = time.perf_counter()
    if "plane" in config.parts and config.rewards and not config.data:
        machines.batch_sharding(config.batch_size)  # refused now, not after an hour
    if config.data or "plane" not in config.parts:
        machines.first_alone()
    if config.data:
        found = [traces.analyse(config, workdir)]
    elif not machines.first():
        found = [_run_part(config, workdir, "plane", progress)]
    else:
        found = [_run_part(config, workdir, name, progress) for name in config.parts]
    part = results.join(found)
    if progress:
        print(part.table)
    return results.finish("reasoning", preset, config.seeds[0], began, part, workdir)


def _run_part(config: Config, workdir: Path, name: str, progress: bool) -> Part:
    parts: dict[str, Callable[[Config, Path], Part]] = {
        "plane": functools.partial(plane.compare, progress=progress),
        "model": model.measure,
        "cities": cities.analyse,
        "simulated": traces.simulated,
    }
    return parts[name](config, workdir)
