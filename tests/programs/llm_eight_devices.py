"""Check the language-model runtime on eight devices; failures are assertions.

usage: llm_eight_devices.py MODEL MESH CHECK...   with
``XLA_FLAGS=--xla_force_host_platform_device_count=8``; MODEL is what
`jeff_llm.models.weights.load` reads, MESH the sizes ``data,fsdp,tensor``.
"""

from itertools import chain
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jeff import sharding, training
from jeff_llm.generate import Sampling, batching, decoding, generate, score
from jeff_llm.models import decoder, lora, weights
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.tuning import finetune

PROMPTS = [[5, 9, 2, 60, 7], [3], [44, 0, 9], [1] * 9, [7, 7], [8], [9, 3], [4, 5, 6]]


def logits(alone: LanguageModel, spread: LanguageModel, mesh: Mesh) -> None:
    """Parameters lie in parts, and the logits are those of one device."""
    kernel = spread.params["layers"]["gate"]["kernel"]
    part = kernel.addressable_data(0).shape
    assert part[1] * mesh.shape["fsdp"] == kernel.shape[1]
    assert part[2] * mesh.shape["tensor"] == kernel.shape[2]
    apply = jax.jit(decoder.apply, static_argnames="config")
    arrays = batching.pad(PROMPTS, 8, 16)
    outs = [
        apply(model.config, model.params, tokens, mask=mask).logits
        for model in (alone, spread)
        for tokens, mask in [batching.place(model, *arrays)]
    ]
    assert len(outs[1].devices()) == 8
    np.testing.assert_allclose(*outs[::-1], atol=1.2e-5)


def generation(alone: LanguageModel, spread: LanguageModel, mesh: Mesh) -> None:
    """Drawn and greedy tokens; also of a batch that the mesh cannot split."""
    hot = {"sampling": Sampling(temperature=1.5), "keys": jax.random.key(0)}
    for prompts, options in ((PROMPTS, hot), (PROMPTS[:3], {})):
        one, other = (
            generate(model, prompts, max_new_tokens=12, **options)
            for model in (alone, spread)
        )
        np.testing.assert_array_equal(other.tokens, one.tokens)
        np.testing.assert_allclose(other.log_probs, one.log_probs, atol=1.2e-5)


def scores(alone: LanguageModel, spread: LanguageModel, mesh: Mesh) -> None:
    """Log-probabilities of continuations."""
    tails = [[[1, 2], [3]]] * 8
    one, other = (score(model, PROMPTS, tails) for model in (alone, spread))
    for mine, theirs in zip(chain(*one), chain(*other), strict=True):
        np.testing.assert_allclose(theirs.log_probs, mine.log_probs, atol=1.2e-5)


def cache(alone: LanguageModel, spread: LanguageModel, mesh: Mesh) -> None:
    """Rows of the cache lie with their part of the batch, heads along ``tensor``."""
    start = jax.jit(decoding.start, static_argnames=("config", "buffer"))
    plan = decoding.Plan(
        jax.random.split(jax.random.key(0), 8), None, jnp.array([-1]), ()
    )
    states = [
        start(
            model.config,
            model.params,
            *batching.place(model, *batching.pad(PROMPTS, 8, 16)),
            plan,
            buffer=16,
        )
        for model in (alone, spread)
    ]
    keys = states[1].cache.keys
    layers, rows, heads, slots, width = keys.shape
    rows //= mesh.shape["data"] * mesh.shape["fsdp"]
    heads //= mesh.shape["tensor"]
    assert keys.addressable_data(0).shape == (layers, rows, heads, slots, width)
    assert states[1].cache.values.sharding == keys.sharding
    chex.assert_trees_all_close(states[1].cache, states[0].cache, atol=1.2e-5)


def lora_step(alone: LanguageModel, spread: LanguageModel, mesh: Mesh) -> None:
    """Steps of LoRA over the mesh are those of one device."""
    examples = [
        finetune.Example([*prompt, 8, 9, 10], [0.0] * len(prompt) + [1.0] * 3)
        for prompt in PROMPTS
    ]
    rows = finetune.pack(examples, 12)
    batch = jax.tree.map(lambda x: np.resize(x, (8, 12)), rows)
    optimizer = optax.adam(0.01)

    def loss(factors: Any, batch: Any, key: Any, base: Any) -> Any:
        del key
        return finetune.loss(alone.config, lora.apply(base, factors), batch)

    step = jax.jit(training.make_step(loss, optimizer))
    results = []
    for model, placed in ((alone, batch), (spread, sharding.shard_batch(batch, mesh))):
        factors = lora.init(
            alone.params, key=jax.random.key(0), rank=2, where=lora.LINEAR, rows=(9,)
        )
        state = training.init_state(factors, optimizer, key=jax.random.key(1))
        if model is spread:
            state = sharding.replicate(state, mesh)
        for _ in range(3):
            state, metrics = step(state, placed, model.params)
        results.append((state.params, metrics))
    chex.assert_trees_all_close(results[1], results[0], rtol=1e-4, atol=1.2e-5)


def texts(alone: LanguageModel, spread: LanguageModel, mesh: Mesh) -> None:
    """A real model says the same, though three key heads cannot be split in two."""
    prompts = ["The capital of France is", "def f(x):", "Once upon a time", "1, 2, 3,"]
    one, other = (
        generate(model, prompts, max_new_tokens=8) for model in (alone, spread)
    )
    np.testing.assert_array_equal(other.tokens, one.tokens)
    np.testing.assert_allclose(other.log_probs, one.log_probs, atol=3e-5)
    assert "Paris" in other.texts[0]


def main(model: str, sizes: str, *checks: str) -> None:
    """Load the model on one device and on the mesh, and check."""
    assert jax.device_count() == 8
    mesh = sharding.make_mesh(*map(int, sizes.split(",")))
    alone, spread = weights.load(model), weights.load(model, mesh=mesh)
    known = {
        each.__name__: each
        for each in (logits, generation, scores, cache, lora_step, texts)
    }
    for check in checks:
        known[check](alone, spread, mesh)
