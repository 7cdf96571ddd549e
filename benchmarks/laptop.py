"""One prompt at a time on a laptop: packed weights, plain ones, and llama.cpp.

``python -m benchmarks.laptop`` prints tokens a second of reading and of writing, and
writes ``benchmarks/results/laptop-<device>.json``. All sides run SmolLM2-135M-Instruct
from the same GGUF file, on the same threads: jeff in float32 and with packed weights,
and llama.cpp where ``llama-cpp-python`` is installed. It also compares what the packed
model says with the plain one, token by token over a text: divergence, equal likeliest
tokens, perplexity. The fastest of the repetitions counts; medians stand beside them.
"""

import dataclasses
import functools
import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array

from benchmarks import records
from jeff import assets
from jeff_llm import generate
from jeff_llm.models import decoder, lora, weights
from jeff_llm.models.language_model import LanguageModel


@dataclasses.dataclass(frozen=True)
class Config:
    """What is timed."""

    # Tokens of the prompt.
    prompt_tokens: int = 512
    # Tokens written.
    new_tokens: int = 64
    # Alternating repetitions.
    repeats: int = 7
    # Tokens of the text on which the two models are compared.
    text_tokens: int = 1024


def jeff_side(model: LanguageModel, prompt: np.ndarray) -> Callable[[int], None]:
    """Draws some tokens after the prompt."""

    def draw(count: int) -> None:
        generate.generate(model, [prompt.tolist()], max_new_tokens=count, stop_ids=[])

    return draw


def llama_side(prompt: np.ndarray, room: int) -> Callable[[int], None]:
    """The same by llama.cpp."""
    import llama_cpp  # pyright: ignore[reportMissingImports]

    threads = len(os.sched_getaffinity(0))
    model = llama_cpp.Llama(
        str(assets.find("smollm2")),
        n_ctx=len(prompt) + room + 8,
        n_batch=len(prompt),
        n_threads=threads,
        n_threads_batch=threads,
        verbose=False,
    )
    ids = prompt.tolist()

    def draw(count: int) -> None:
        model.reset()
        model.eval(ids)
        for _ in range(count - 1):
            model.eval([model.sample(temp=0.0)])

    return draw


def products(model: Any, repeats: int = 20) -> float:
    """Seconds of all products of one token and nothing else, layer after layer."""
    kernels = {
        name: leaf
        for name, leaf in lora.paths(model.params["layers"]).items()
        if name.endswith("kernel")
    }

    @jax.jit
    def run(kernels: Any, table: Any) -> Array:
        def layer(total: Array, kernels: Any) -> tuple[Array, None]:
            rows = {
                name: jnp.full((1, k.shape[0]), total) for name, k in kernels.items()
            }
            found = [jnp.sum(rows[name] @ k) for name, k in kernels.items()]
            return 1e-6 * sum(found, total), None

        total, _ = jax.lax.scan(layer, jnp.ones(()), kernels)
        return jnp.sum(jnp.full((1, table.shape[1]), total) @ table.T)

    call = functools.partial(run, kernels, model.params["embedding"])
    jax.block_until_ready(call())
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def compared(plain: Any, packed: Any, config: Config) -> dict[str, float]:
    """How far the packed model's predictions are from the plain one's."""
    root = Path(__file__).parents[1]
    text = (root / "docs/contributing.md").read_text() + (root / "LICENSE").read_text()
    ids = jnp.asarray(plain.encode(text)[: config.text_tokens])[None]
    run = jax.jit(functools.partial(decoder.apply, plain.config))
    one, other = (
        jax.nn.log_softmax(run(model.params, ids).logits[0])[:-1]
        for model in (plain, packed)
    )
    following = ids[0, 1:, None]
    perplexity = [
        float(jnp.exp(-jnp.mean(jnp.take_along_axis(each, following, axis=-1))))
        for each in (one, other)
    ]
    return {
        "tokens": int(one.shape[0]),
        "mean divergence in nats": float(
            jnp.mean(jnp.sum(jnp.exp(one) * (one - other), axis=-1))
        ),
        "equal likeliest tokens": float(
            jnp.mean(one.argmax(axis=-1) == other.argmax(axis=-1))
        ),
        "perplexity, plain": perplexity[0],
        "perplexity, packed": perplexity[1],
    }


def measure(
    sides: dict[str, Callable[[int], None]], config: Config
) -> dict[str, dict[str, list[float]]]:
    """Seconds of the first token, and of all; sides alternate."""
    counts = {"first": 1, "all": 1 + config.new_tokens}
    found: dict[str, dict[str, list[float]]] = {
        side: {name: [] for name in counts} for side in sides
    }
    for repeat in range(config.repeats + 1):
        for side, draw in sides.items():
            for name, count in counts.items():
                began = time.perf_counter()
                draw(count)
                if repeat:  # the first one compiles
                    found[side][name].append(time.perf_counter() - began)
    return found


def rates(
    seconds: dict[str, list[float]], config: Config, pick: Callable[[Any], float]
) -> dict[str, float]:
    """Tokens a second."""
    first, whole = pick(seconds["first"]), pick(seconds["all"])
    return {
        "read": config.prompt_tokens / first,
        "written": config.new_tokens / (whole - first),
    }


def main(config: Config) -> None:
    """Measure, print, write."""
    plain, packed = (weights.load("smollm2", packed=flag) for flag in (False, True))
    prompt = np.random.default_rng(0).integers(100, 49_000, config.prompt_tokens)
    sides = {
        "jeff": jeff_side(plain, prompt),
        "jeff packed": jeff_side(packed, prompt),
    }
    if importlib.util.find_spec("llama_cpp"):
        sides["llama.cpp"] = llama_side(prompt, config.new_tokens)
    else:
        print("llama.cpp: not measured; pip install llama-cpp-python builds it")
    seconds = measure(sides, config)
    best = {side: rates(each, config, min) for side, each in seconds.items()}
    typical = {
        side: rates(each, config, statistics.median) for side, each in seconds.items()
    }
    held = {
        "jeff": sum(leaf.nbytes for leaf in jax.tree.leaves(plain.params)),
        "jeff packed": sum(leaf.nbytes for leaf in jax.tree.leaves(packed.params)),
        "llama.cpp": assets.find("smollm2").stat().st_size,
    }
    for side, found in best.items():
        print(
            f"{side:12} reads {found['read']:6.0f} tokens/s, writes "
            f"{found['written']:6.1f} (medians {typical[side]['read']:.0f} and "
            f"{typical[side]['written']:.1f}), weights {held[side] / 1e6:.0f} MB"
        )
    alone = {"jeff": products(plain), "jeff packed": products(packed)}
    for side, value in alone.items():
        print(f"{side}: the products of one token alone take {1000 * value:.1f} ms")
    quality = compared(plain, packed, config)
    for name, value in quality.items():
        print(f"{name}: {value:.4f}")
    record = {
        "seconds": seconds,
        "fastest, tokens a second": best,
        "medians, tokens a second": typical,
        "bytes of weights": held,
        "seconds of one token's products alone": alone,
        "packed against plain": quality,
    }
    records.write("laptop", record, config)


if __name__ == "__main__":
    main(tyro.cli(Config))
