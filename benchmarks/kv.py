"""Decoding from a packed cache against dequantising it, and against transformers.

``python -m benchmarks.kv`` prints ratios and writes
``benchmarks/results/kv-<device>.json``. One attention layer (32 query heads over 8 key
heads of width 128, as in Llama 3) holds a context and decodes: a step stores one token
and attends over all. The sides:

  packed       `jeff_llm.kv`, K4V2, attending from the packed words
  packed-k4v4  the same with both at 4 bits
  dequantised  the same cache, restored whole before plain attention
  plain        a cache in full precision
  quanto       transformers' QuantizedCache on optimum-quanto, 4 bits, PyTorch's
               scaled_dot_product_attention (on a CPU quanto unpacks in Python)

Each side runs in a process of its own, in turn, so that peak memory is its own: the
highest resident memory of the steps above what was resident before them. 128 steps are
timed, so a block is quantised on the way on every side; the mean step counts.
`benchmarks.kv_gpu` is for GPUs.
"""

import ctypes
import dataclasses
import functools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

SIDES = ("packed", "packed-k4v4", "dequantised", "plain", "quanto")
HEADS, KV_HEADS, WIDTH = 32, 8, 128


@dataclasses.dataclass(frozen=True)
class Config:
    """What is timed."""

    # Tokens that the cache holds.
    tokens: tuple[int, ...] = (1024, 4096, 16384)
    # Sequences side by side.
    batches: tuple[int, ...] = (1,)
    # Decoding steps timed in a process.
    steps: int = 128
    # Processes of each side, in turn.
    repeats: int = 3
    # Type of queries and of tokens in full precision.
    dtype: Literal["float32", "bfloat16"] = "float32"
    # Of attention over packed words; None for what runs anywhere.
    implementation: Literal["xla", "gpu", "tpu"] | None = None
    # Sides that are timed.
    sides: tuple[str, ...] = SIDES
    # Run this one side in this process, for one length and batch.
    only: str = ""


def random(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def packed_side(
    side: str, batch: int, tokens: int, config: Config
) -> Callable[[], Any]:
    """A step on a packed cache; everything is compiled before it is returned."""
    import jax

    from jeff_llm import kv

    values = 4 if side == "packed-k4v4" else 2
    settings = kv.CacheConfig(key_bits=4, value_bits=values)
    attend: Callable[..., jax.Array] = functools.partial(
        kv.attend, implementation=config.implementation
    )
    if side == "dequantised":
        attend = restored

    @functools.partial(jax.jit, donate_argnums=0)
    def step(held: Any, query: jax.Array, new: jax.Array) -> Any:
        held = kv.append(held, new, new)
        return held, attend(query, held)

    query, new, context = drawn(batch, tokens, config)
    empty = kv.init_cache(
        settings,
        batch,
        tokens + 2 * config.steps,
        kv_heads=KV_HEADS,
        head_width=WIDTH,
        dtype=config.dtype,
    )
    state = [jax.jit(kv.append, donate_argnums=0)(empty, context, context)]

    def call() -> None:
        state[0], out = step(state[0], query, new)
        jax.block_until_ready(out)

    return call


def restored(query: Any, stored: Any) -> Any:
    """Attention over the same cache, all of it restored first."""
    import jax
    import jax.numpy as jnp

    from jeff_llm import kv
    from jeff_llm.kv import ring, storage
    from jeff_llm.models import attention as plain
    from jeff_llm.models.view import View

    settings = stored.config
    blocks = [kv.dequantize(q, query.dtype) for q in (stored.keys, stored.values)]
    blocks = jax.lax.optimization_barrier(blocks)
    count = storage.stored_blocks(settings, stored.lengths)
    slots = stored.recent_keys.shape[2]
    recent = ring.recent_positions(settings, slots, stored.lengths, count)
    token = jnp.arange(blocks[0].shape[2])
    packed = jnp.where(token < 128 * count[:, None], token + settings.sinks, 2**30)
    keys = jnp.concatenate([blocks[0], stored.recent_keys], axis=2)
    held = jnp.concatenate([blocks[1], stored.recent_values], axis=2)
    at = jnp.concatenate([packed, recent], axis=1)
    return plain.attend(query, keys, held, View(stored.lengths[:, None] - 1, at))


def plain_side(batch: int, tokens: int, config: Config) -> Callable[[], Any]:
    """A step on a cache in full precision.

    Two programs: in one, XLA's CPU compiler copies the whole cache to store a token.
    """
    import jax
    import jax.numpy as jnp

    from jeff_llm.models import attention, pending
    from jeff_llm.models.view import View

    capacity = tokens + 2 * config.steps

    @functools.partial(jax.jit, donate_argnums=0)
    def put(held: Any, new: jax.Array) -> Any:
        keys, values, length = held
        at = jnp.full((batch, 1), length)
        return *(pending.store(x, 0, at, new) for x in (keys, values)), length + 1

    @jax.jit
    def look(held: Any, query: jax.Array) -> jax.Array:
        keys, values, length = held
        view = View(jnp.full((batch, 1), length - 1), jnp.arange(capacity)[None])
        # Of one layer: a stack is for a loop over layers, and would be copied here.
        return attention.attend(query, keys[0], values[0], view)

    query, new, context = drawn(batch, tokens, config)
    shape = (1, batch, KV_HEADS, capacity, WIDTH)
    whole = context.swapaxes(1, 2)[None]
    filled = (
        jnp.zeros(shape, config.dtype).at[..., :tokens, :].set(whole) for _ in range(2)
    )
    state: list[Any] = [(*filled, jnp.int32(tokens))]

    def call() -> None:
        state[0] = put(state[0], new)
        jax.block_until_ready(look(state[0], query))

    return call


def drawn(batch: int, tokens: int, config: Config) -> tuple[Any, Any, Any]:
    """Query, new key and value, and context."""
    import jax.numpy as jnp

    draw = functools.partial(jnp.asarray, dtype=config.dtype)
    return (
        draw(random((batch, 1, HEADS, WIDTH), 2)),
        draw(random((batch, 1, KV_HEADS, WIDTH), 1)),
        draw(random((batch, tokens, KV_HEADS, WIDTH), 0)),
    )


def quanto_side(batch: int, tokens: int, config: Config) -> Callable[[], Any]:
    """A step of transformers' cache."""
    import torch
    from transformers.cache_utils import QuantoQuantizedLayer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, config.dtype)

    def draw(shape: tuple[int, ...], seed: int) -> Any:
        return torch.tensor(random(shape, seed), device=device, dtype=dtype)

    layer = QuantoQuantizedLayer(nbits=4, q_group_size=64, residual_length=128)
    context = draw((batch, KV_HEADS, tokens, WIDTH), 0)
    layer.update(context, context)
    new = draw((batch, KV_HEADS, 1, WIDTH), 1)
    query = draw((batch, HEADS, 1, WIDTH), 2)

    def call() -> None:
        with torch.inference_mode():
            keys, values = layer.update(new, new)
            torch.nn.functional.scaled_dot_product_attention(
                query, keys, values, enable_gqa=True
            )
        if device == "cuda":
            torch.cuda.synchronize()

    return call


def resident(field: str) -> int:
    """Bytes of ``VmRSS`` (now) or ``VmHWM`` (highest so far) of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status: expected a line {field}, got none")


def measure(config: Config) -> dict[str, float]:
    """Time one side in this process."""
    batch, tokens = config.batches[0], config.tokens[0]
    if config.only == "quanto":
        call = quanto_side(batch, tokens, config)
    elif config.only == "plain":
        call = plain_side(batch, tokens, config)
    else:
        call = packed_side(config.only, batch, tokens, config)
    call()
    # What the first call freed is given back, or the steps would take it unseen.
    ctypes.CDLL(None).malloc_trim(0)
    before = resident("VmRSS")
    # Writing 5 sets the highest resident memory back to what is resident now.
    Path("/proc/self/clear_refs").write_text("5")
    seconds = []
    for _ in range(config.steps):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return {
        "mean": statistics.mean(seconds),
        "median": statistics.median(seconds),
        "peak_bytes": max(0, resident("VmHWM") - before),
    }


def spawn(config: Config, side: str, batch: int, tokens: int) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.kv", "--only", side]
    command += ["--batches", str(batch), "--tokens", str(tokens)]
    command += ["--steps", str(config.steps), "--dtype", config.dtype]
    command += ["--implementation", str(config.implementation)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{side}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def sizes() -> dict[str, float]:
    """Bytes of a layer's cache of 32,768 tokens over those of bfloat16."""
    import jax
    import jax.numpy as jnp

    from jeff_llm import kv

    found = {}
    for keys, values in ((8, 8), (4, 4), (4, 2), (2, 2)):
        cache = jax.eval_shape(
            lambda k=keys, v=values: kv.init_cache(
                kv.CacheConfig(key_bits=k, value_bits=v),
                1,
                32_768,
                kv_heads=KV_HEADS,
                head_width=WIDTH,
                dtype=jnp.bfloat16,
            )
        )
        whole = 2 * 2 * 32_768 * KV_HEADS * WIDTH
        found[f"K{keys}V{values}"] = kv.nbytes(cache) / whole
    return found


def main(config: Config) -> None:
    """Measure, print, write."""
    if config.only:
        print(json.dumps(measure(config)))
        return
    from benchmarks import records
    from train_scripts.running import results

    device = results.device_name()
    print(f"device: {device}; {config.repeats} processes a side, fastest counts")
    shares = sizes()
    for name, share in shares.items():
        print(f"{share:8.1%}  bytes of a {name} cache of 32,768 tokens over bfloat16's")
    rows = []
    for batch in config.batches:
        for tokens in config.tokens:
            found: dict[str, list[dict[str, float]]] = {s: [] for s in config.sides}
            for _ in range(config.repeats):
                for side in config.sides:
                    found[side].append(spawn(config, side, batch, tokens))
            rows.append(report(batch, tokens, found))
    records.write("kv", {"bytes over bfloat16": shares, "rows": rows}, config)


def report(
    batch: int, tokens: int, found: dict[str, list[dict[str, float]]]
) -> dict[str, Any]:
    """Print a length's figures, and give them as a row of the record."""
    fastest = {side: min(r["mean"] for r in runs) for side, runs in found.items()}
    peaks = {side: min(r["peak_bytes"] for r in runs) for side, runs in found.items()}
    print(f"batch {batch}, {tokens} tokens:")
    for side, seconds in fastest.items():
        slowest = max(run["mean"] for run in found[side])
        ratio = seconds / fastest["packed"]
        print(
            f"{1000 * seconds:10.2f} ms a step (slowest process {1000 * slowest:.2f}), "
            f"{ratio:6.2f} x packed, {peaks[side] / 1e6:7.1f} MB on top  {side}"
        )
    return {"batch": batch, "tokens": tokens, "processes": found, "fastest": fastest}


if __name__ == "__main__":
    main(tyro.cli(Config))
