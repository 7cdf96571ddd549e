"""Gene pairs: a network learns a label of cells, and few cells tell its pairs.

Run it with ``python -m train_scripts.wds [PRESET] [--field value]``; with ``--data
my.h5ad --label disease`` for a file of yours.
"""

import contextlib
import functools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from configs.wds import Config
from jeff_graph.cells import expression, h5ad, preprocess, simulate
from train_scripts.running import results, stages
from train_scripts.running.rows import measure_rows
from train_scripts.wds import claims, summary, table
from train_scripts.wds.cells import IN_MEMORY, Cells, known_pairs
from train_scripts.wds.measure import measure

__all__ = ["load", "run"]


def run(
    config: Config, workdir: Path, *, preset: str = "custom", progress: bool = True
) -> results.Result:
    """Train, map and compare for every seed; write the table of pairs and plots.

    Args:
      config: what to do.
      workdir: where everything goes; an interrupted run in it is taken up again.
      preset: name for the result.
      progress: say on standard error what is being done.

    Returns:
      The result that was written.

    Raises:
      ValueError: if the data or a field are not as expected.
      KeyError: if a column is missing; lists those there are.
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


@contextlib.contextmanager
def load(config: Config, seed: int) -> Iterator[Cells]:
    """Open the cells of a run, and choose their genes.

    Args:
      config: the run.
      seed: of the simulation.

    Yields:
      The cells, until the file is closed.

    Raises:
      ValueError: if the data or a column are not as expected.
      FileNotFoundError: if data are missing; says how to get them.
    """
    with contextlib.ExitStack() as stack:
        truth = None
        if config.data == "simulated":
            source: Any = simulate.simulate_cells(config.cells, seed=seed)
            truth = source.truth
        elif config.data == "pbmc":
            source = h5ad.load_pbmc()
        else:
            layer = config.layer or "X"
            source = stack.enter_context(h5ad.open_cells(config.data, layer))
        codes, classes = expression.label_codes(
            source.column(config.label), name=f"label {config.label!r}"
        )
        recipe = preprocess.make_recipe(
            source, num_genes=config.genes, keep=config.keep
        )
        prepared: Any = preprocess.prepare(source, recipe)
        if source.num_cells <= IN_MEMORY:
            prepared = expression.collect(prepared)
        types = source.column(config.type) if config.type else None
        kept = np.arange(len(source.genes)) if recipe.genes is None else recipe.genes
        known = known_pairs(config, source.genes, kept, truth)
        yield Cells(source, prepared, recipe, codes, classes, types, *known)
