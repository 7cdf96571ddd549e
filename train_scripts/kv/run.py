"""KV-AdaQuant on a real model: what each pair of widths costs, layer norms, allocation.

Run it with ``python -m train_scripts run kv [PRESET] [--field value]``.
"""

import dataclasses
import json
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs.kv import Config
from jeff import runlog
from jeff_llm import generate, kv
from jeff_llm.kv import evaluate
from jeff_llm.models import weights
from jeff_llm.models.cache import init_cache
from jeff_llm.models.language_model import LanguageModel
from train_scripts.kv import claims, summary
from train_scripts.kv.summary import Cell, Layers, Measured
from train_scripts.questions import cities
from train_scripts.running import results

__all__ = ["run"]


class _Data(NamedTuple):
    """Texts and questions of all seeds, and texts to calibrate with."""

    texts: np.ndarray
    calibration: np.ndarray
    prompts: list[str]
    answers: list[list[str]]


def run(
    config: Config, workdir: Path, *, preset: str = "custom", progress: bool = True
) -> results.Result:
    """Measure every pair of widths, the allocator and greedy decoding.

    Args:
      config: what to do.
      workdir: where everything goes; an interrupted run in it is taken up again.
      preset: name for the result.
      progress: show a progress bar.

    Returns:
      The result that was written.

    Raises:
      ValueError: if the text is too short, or a field is not as expected.
      FileNotFoundError: if model or data are missing; says how to get them.
    """
    began = time.perf_counter()
    model = weights.load(config.model)
    data = _load(config, model)
    layers = _layers(config, model, data)
    cells = _cells(config, layers)
    measured = _measure_all(config, model, data, cells, workdir, progress)
    agreement = _agreement(config, model, data)
    report = summary.Report(config, layers, measured, agreement)
    result = results.Result(
        system="kv",
        preset=preset,
        seed=config.seeds[0],
        device=results.device_name(),
        seconds=time.perf_counter() - began,
        versions=results.versions(),
        metrics=summary.numbers(report),
        claims=claims.claims(report),
    )
    summary.plot(report, workdir)
    tables = json.dumps(summary.tables(report), indent=1)
    results.write_text(workdir / "tables.json", tables + "\n")
    results.write(result, workdir)
    return result


def _load(config: Config, model: LanguageModel) -> _Data:
    ids = np.asarray(model.encode(_text(config)), np.int32)
    rows = len(ids) // config.tokens
    needed = config.texts * len(config.seeds) + 1
    if rows < needed:
        raise ValueError(
            f"path: expected a text of at least {needed * config.tokens} tokens, got "
            f"{len(ids)}; take fewer texts, seeds or tokens"
        )
    table = ids[: rows * config.tokens].reshape(rows, config.tokens)
    # The last row calibrates, and is never measured.
    texts = [
        table[np.random.default_rng([seed, rows]).permutation(rows - 1)[: config.texts]]
        for seed in config.seeds
    ]
    prompts, answers = _questions(config)
    return _Data(np.concatenate(texts), table[-1:], prompts, answers)


def _text(config: Config) -> str:
    if config.path:
        return Path(config.path).read_text(encoding="utf-8")
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
    # The end of the line belongs to the answer: Niger is not Nigeria.
    return prompts, [[f" {known[i].country}\n"] for i in rest]


def _layers(config: Config, model: LanguageModel, data: _Data) -> Layers:
    """Norms, and errors at each width, layer by layer on the calibration text."""
    keys, values = evaluate.activations(model, jnp.asarray(data.calibration))
    errors = {
        (axis, bits): np.stack(
            [
                evaluate.squared_errors(keys, bits, config.group_size, axis),
                evaluate.squared_errors(values, bits, config.group_size, "token"),
            ],
            axis=1,
        )
        for axis in config.key_axes
        for bits in (2, 4, 8)
    }
    scores = np.asarray(kv.scores_from_activations(keys, values))
    allocations = {}
    for axis in config.key_axes:
        # The paper's scores are norms; what a width really changes is known as well.
        for kind, each in (("norms", scores), ("errors", errors[axis, 2])):
            for budget in config.budgets:
                allocations[axis, kind, budget] = kv.allocate_bits(each, budget)
    return Layers(
        activations=np.sqrt(scores),
        frobenius=np.sqrt(kv.scores_from_weights(model.config, model.params)),
        spectral=np.sqrt(
            kv.scores_from_weights(model.config, model.params, "spectral")
        ),
        errors=errors,
        allocations=allocations,
        published=summary.published_norms(),
    )


def _cells(config: Config, layers: Layers) -> list[Cell]:
    """Everything that is measured, in order: pairs of widths, then allocations."""
    found = []
    for axis in config.key_axes:
        base = kv.CacheConfig(
            group_size=config.group_size,
            window=config.window,
            sinks=config.sinks,
            key_axis=axis,
        )
        for key_bits, value_bits in _pairs(config):
            if key_bits == 16 and axis != config.key_axes[0]:
                continue  # the layout is that of keys alone
            pair = dataclasses.replace(base, key_bits=key_bits, value_bits=value_bits)
            name = f"k{key_bits}v{value_bits}"
            found.append(Cell(axis, name, kv.MakeCache(pair)))
        for (where, kind, budget), table in layers.allocations.items():
            if where == axis and budget in config.run_budgets:
                made = kv.MakeCache(base, table)
                found.append(Cell(axis, f"{kind}{budget}", made))
    return found


def _pairs(config: Config) -> list[tuple[int, int]]:
    pairs = [(key, value) for key in config.bits for value in config.bits]
    return pairs if (16, 16) in pairs else [(16, 16), *pairs]


def _measure_all(
    config: Config,
    model: LanguageModel,
    data: _Data,
    cells: list[Cell],
    workdir: Path,
    progress: bool,
) -> dict[tuple[str, str], Measured]:
    """Measure the cells that an interrupted run has not, a row of the log each."""
    total = len(cells)
    done = len(runlog.RunLog(workdir, total, total, show=False).rows)
    title = "widths of keys and values"
    with runlog.RunLog(workdir, total, done, show=progress, title=title) as log:
        for step, cell in enumerate(cells[done:], done + 1):
            found = _measure(config, model, data, cell)
            row = {"step": step, "loss": float(np.log(found.perplexity).mean())}
            for name, values in found._asdict().items():
                row |= {f"{name}_{i}": float(x) for i, x in enumerate(values)}
            log.write(row)
        rows = log.rows
    return {
        (cell.axis, cell.name): summary.read_row(row)
        for cell, row in zip(cells, rows, strict=True)
    }


def _measure(config: Config, model: LanguageModel, data: _Data, cell: Cell) -> Measured:
    """Perplexity and accuracy for each seed, and the bytes of a long cache."""
    seeds = len(config.seeds)
    each = evaluate.perplexity(
        model, jnp.asarray(data.texts), make_cache=cell.make_cache
    )
    perplexity = np.exp(np.log(np.asarray(each)).reshape(seeds, -1).mean(1))
    accuracy = np.zeros(0)
    if data.prompts:
        scores = generate.score(
            model, data.prompts, data.answers, make_cache=cell.make_cache
        )
        right = np.array([score.greedy for [score] in scores])
        accuracy = right.reshape(seeds, -1).mean(1)
    sizes = [
        kv.nbytes(
            jax.eval_shape(
                lambda make=make: make(
                    model.config, 1, config.counted_tokens, jnp.bfloat16
                )
            )
        )
        for make in (cell.make_cache, init_cache)
    ]
    return Measured(perplexity, accuracy, np.array([sizes[0] / sizes[1]]))


def _agreement(
    config: Config, model: LanguageModel, data: _Data
) -> dict[int, np.ndarray]:
    """Share of greedy tokens that are those of full precision, for 8 and 4 bits.

    Prompts are the first half of a text of each seed.
    """
    prompts = data.texts[:: config.texts, : config.tokens // 2]
    settings = {"max_new_tokens": config.new_tokens, "stop_ids": []}
    plain = generate.generate(model, list(prompts), **settings).tokens
    shares = {}
    for bits in (8, 4):
        cache = kv.CacheConfig(
            bits, bits, config.group_size, config.window, config.sinks
        )
        drawn = generate.generate(
            model, list(prompts), make_cache=kv.MakeCache(cache), **settings
        )
        shares[bits] = (drawn.tokens == plain).mean(1)
    return shares
