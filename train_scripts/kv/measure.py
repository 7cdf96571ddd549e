"""Measure layers, caches of every width, and greedy decoding in a KV-AdaQuant run."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs.kv import Config
from jeff_llm import generate, kv
from jeff_llm.kv import evaluation
from jeff_llm.models.cache import init_cache
from jeff_llm.models.language_model import LanguageModel
from train_scripts.kv import summary
from train_scripts.kv.summary import Cell, Layers, Measured

__all__ = ["Data", "agreement", "cells_of", "layers_of", "row_of"]


class Data(NamedTuple):
    """Texts and questions of all seeds, and the calibration text."""

    texts: np.ndarray
    calibration: np.ndarray
    prompts: list[str]
    answers: list[list[str]]


def layers_of(config: Config, model: LanguageModel, data: Data) -> Layers:
    """Norms and errors of each layer at each width, on the calibration text."""
    keys, values = evaluation.activations(model, jnp.asarray(data.calibration))
    errors = {
        (axis, bits): np.stack(
            [
                evaluation.squared_errors(keys, bits, config.group_size, axis),
                evaluation.squared_errors(values, bits, config.group_size, "token"),
            ],
            axis=1,
        )
        for axis in config.key_axes
        for bits in (2, 4, 8)
    }
    scores = np.asarray(kv.scores_from_activations(keys, values))
    allocations = {}
    for axis in config.key_axes:
        # The paper allocates by norms. Measured errors show the effect of a width
        # directly, so both are compared.
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


def cells_of(config: Config, layers: Layers) -> list[Cell]:
    """List the caches to measure, in order: pairs of widths, then allocations."""
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
                continue  # the layout affects only keys, and these are not quantised
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


def row_of(
    config: Config, model: LanguageModel, data: Data, cell: Cell
) -> dict[str, float]:
    """Measure one cache.

    Args:
      config: settings of the run.
      model: the model.
      data: texts and questions.
      cell: the cache.

    Returns:
      Numbers by name and seed, in the form read by `train_scripts.kv.summary.read_row`.
    """
    found = _measure(config, model, data, cell)
    return {
        f"{name}_{i}": float(x)
        for name, values in found._asdict().items()
        for i, x in enumerate(values)
    }


def _measure(config: Config, model: LanguageModel, data: Data, cell: Cell) -> Measured:
    """Perplexity and accuracy for each seed, and the relative size of a long cache."""
    seeds = len(config.seeds)
    each = evaluation.perplexity(
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
    # From shapes alone, so that a long cache is counted without being allocated.
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


def agreement(
    config: Config, model: LanguageModel, data: Data
) -> dict[int, np.ndarray]:
    """Share of greedy tokens equal to those in full precision, at 8 and 4 bits.

    The prompts are the first half of one text per seed.
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
