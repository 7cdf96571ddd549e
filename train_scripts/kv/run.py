"""KV-AdaQuant on a real model: loss by pair of widths, layer norms and allocation.

Run it with ``python -m train_scripts run kv [PRESET] [--field value]``.
"""

import time
from pathlib import Path

import numpy as np

from configs.kv import Config
from jeff import files, hub_rows
from jeff_llm.anomaly.texts import read_texts
from jeff_llm.models import weights
from jeff_llm.models.language_model import LanguageModel
from train_scripts.kv import claims, measure, summary
from train_scripts.kv.measure import Data
from train_scripts.questions import cities
from train_scripts.running import machines, results
from train_scripts.running.rows import measure_rows

__all__ = ["run"]


def run(
    config: Config, workdir: Path, *, preset: str = "custom", progress: bool = True
) -> results.Result:
    """Measure every pair of widths, the allocator and greedy decoding.

    Args:
      config: settings of the run.
      workdir: output folder; an interrupted run in it is resumed.
      preset: name of the preset in the result.
      progress: show a progress bar.

    Returns:
      The result that was written.

    Raises:
      ValueError: if the text is too short, or a field is not as expected.
      FileNotFoundError: if the model or data are missing; says how to get them.
    """
    began = time.perf_counter()
    model = weights.load(config.model, mesh=machines.mesh())
    data = _load(config, model)
    layers = measure.layers_of(config, model, data)
    cells = measure.cells_of(config, layers)
    rows = measure_rows(
        workdir,
        cells,
        lambda cell: measure.row_of(config, model, data, cell),
        progress=progress,
        title="widths of keys and values",
        shown="perplexity_0",
    )
    measured = {
        (cell.axis, cell.name): summary.read_row(row)
        for cell, row in zip(cells, rows, strict=True)
    }
    agreement = measure.agreement(config, model, data)
    report = summary.Report(config, layers, measured, agreement)
    summary.plot(report, workdir)
    files.write_json(workdir / "tables.json", summary.tables(report), indent=1)
    part = results.Part(summary.numbers(report), claims.claims(report))
    return results.finish("kv", preset, config.seeds[0], began, part, workdir)


def _load(config: Config, model: LanguageModel) -> Data:
    ids = np.asarray(model.encode(_text(config)), np.int32)
    rows = len(ids) // config.tokens
    needed = config.texts * len(config.seeds) + 1
    if rows < needed:
        raise ValueError(
            f"data: expected a text of at least {needed * config.tokens} tokens, got "
            f"{len(ids)}; take fewer texts, seeds or tokens"
        )
    table = ids[: rows * config.tokens].reshape(rows, config.tokens)
    # The last row is for calibration only, so that no measured text is calibrated on.
    texts = [
        table[np.random.default_rng([seed, rows]).permutation(rows - 1)[: config.texts]]
        for seed in config.seeds
    ]
    prompts, answers = _questions(config)
    return Data(np.concatenate(texts), table[-1:], prompts, answers)


def _text(config: Config) -> str:
    if config.data and hub_rows.is_saved(config.data):
        return "\n".join(each.text for each in read_texts(config.data))
    if config.data:
        return files.read_text(config.data)
    from pydoc_data.topics import topics

    return "\n".join(topics.values())


def _questions(config: Config) -> tuple[list[str], list[list[str]]]:
    if not config.questions:
        return [], []
    known = cities.load()[: config.largest]
    order = np.random.default_rng(config.seeds[0]).permutation(len(known))
    examples = cities.shots([known[i] for i in order[: config.shots]])
    rest = order[config.shots :][: config.questions * len(config.seeds)]
    prompts = [examples + cities.question(known[i]) for i in rest]
    # The line break is part of the answer: without it, Niger would match Nigeria.
    return prompts, [[f" {known[i].country}\n"] for i in rest]
