"""Decode attention from a packed cache on a GPU, against bfloat16 and dequantising.

``python -m benchmarks.kv_gpu`` prints ratios and writes
``benchmarks/results/kv-<device>.json``. One attention layer (32 query heads over 8 key
heads of width 128, as in Llama 3, bfloat16) looks back over a full cache. The sides:

  kernel       the Pallas kernel alone, over the packed words of K4V2
  packed       `jeff_llm.kv.attend` with that kernel, window and sinks included
  xla          the same by XLA, which runs anywhere
  dequantised  the same cache, restored whole before plain attention
  plain        jeff's attention over a bfloat16 cache, by XLA
  cudnn        `jax.nn.dot_product_attention` by cuDNN, over a bfloat16 cache

A program attends to several caches in turn, since one that was just read lies in the
GPU's own cache; programs are queued, so a launch from Python is not what is timed. The
card's bandwidth is measured by a copy, reading and writing counted. A whole step,
``append`` and ``attend``, is timed beside it as a loop in Python takes it.

``--sweep`` times the kernel over its compiler's parameters at one length, and writes
nothing. ``python -m benchmarks.kv`` measures the same on a CPU.
"""

import dataclasses
import functools
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import tyro

from benchmarks import records
from benchmarks.kv import HEADS, KV_HEADS, WIDTH, restored, sizes
from jeff_llm import kv
from jeff_llm.kv import kernels_gpu
from jeff_llm.kv.quantize import BLOCK, QuantizedTensor
from jeff_llm.models import attention as plain
from jeff_llm.models.view import View, to_rows
from train_scripts.running import results

SIDES = ("kernel", "packed", "xla", "dequantised", "plain", "cudnn")
MOST_CACHES = 16


@dataclasses.dataclass(frozen=True)
class Config:
    """What is timed."""

    # Tokens that the cache holds.
    tokens: tuple[int, ...] = (4096, 16384, 32768, 131072)
    # Sequences side by side.
    batches: tuple[int, ...] = (1, 8, 32)
    # Sides that are timed.
    sides: tuple[str, ...] = SIDES
    # Times that each is taken; the median counts.
    repeats: int = 7
    # Bytes that a program reads, at least, where sixteen caches hold as many.
    bytes_read: int = 2**28
    # Steps of the decoding loop.
    steps: int = 256
    # Kernel for the sides "kernel" and "packed".
    implementation: str = "gpu"
    # Time the kernel over its parameters instead.
    sweep: bool = False


def packed_cache(batch: int, tokens: int, key: jax.Array) -> kv.QuantizedCache:
    """A full cache of random codes."""
    settings = kv.CacheConfig(key_bits=4, value_bits=2)
    empty = kv.init_cache(
        settings, batch, tokens, kv_heads=KV_HEADS, head_width=WIDTH
    )  # fmt: skip
    seeds = jax.random.split(key, 4)

    def drawn(q: QuantizedTensor, seed: jax.Array) -> QuantizedTensor:
        # Values of about a normal distribution's range.
        spread = 4.0 * jax.random.uniform(seed, q.scale.shape, minval=0.8)
        return dataclasses.replace(
            q,
            words=jax.random.bits(seed, q.words.shape, jnp.uint32),
            scale=(spread / (2**q.bits - 1)).astype(q.scale.dtype),
            zero=(-spread / 2).astype(q.zero.dtype),
        )

    return dataclasses.replace(
        empty,
        keys=drawn(empty.keys, seeds[0]),
        values=drawn(empty.values, seeds[1]),
        recent_keys=jax.random.normal(seeds[2], empty.recent_keys.shape, jnp.bfloat16),
        recent_values=jax.random.normal(
            seeds[3], empty.recent_values.shape, jnp.bfloat16
        ),
        lengths=jnp.full(batch, tokens, jnp.int32),
    )


def whole_cache(
    batch: int, tokens: int, key: jax.Array, heads_first: bool
) -> tuple[jax.Array, jax.Array]:
    """Keys and values in bfloat16."""
    shape = (batch, tokens, KV_HEADS, WIDTH)
    if heads_first:
        shape = (batch, KV_HEADS, tokens, WIDTH)
    one, other = jax.random.split(key)
    return (
        jax.random.normal(one, shape, jnp.bfloat16),
        jax.random.normal(other, shape, jnp.bfloat16),
    )


def kernel_alone(query: jax.Array, cache: kv.QuantizedCache, **options: Any) -> Any:
    """The kernel over all packed blocks."""
    rows = to_rows(query, KV_HEADS)
    shape = (query.shape[0], rows.shape[2])
    end = jnp.full(shape, BLOCK * cache.keys.words.shape[2])
    first = jnp.zeros(shape, jnp.int32)
    return kernels_gpu.packed_partial(
        rows, cache.keys, cache.values, first, end, **options
    )


def over_plain(query: jax.Array, cache: tuple[jax.Array, jax.Array]) -> jax.Array:
    tokens = cache[0].shape[2]
    last = jnp.full((query.shape[0], 1), tokens - 1)
    return plain.attend(query, *cache, View(last, jnp.arange(tokens)[None]))


def over_cudnn(query: jax.Array, cache: tuple[jax.Array, jax.Array]) -> jax.Array:
    return jax.nn.dot_product_attention(query, *cache, implementation="cudnn")


def side_of(
    side: str, batch: int, tokens: int, implementation: Any
) -> tuple[Callable[..., Any], Callable[[jax.Array], Any]]:
    """What attends, and what makes a cache for it."""
    packed = functools.partial(packed_cache, batch, tokens)
    if side in ("plain", "cudnn"):
        first = side == "plain"
        make = functools.partial(whole_cache, batch, tokens, heads_first=first)
        return (over_plain if first else over_cudnn), make
    attends: dict[str, Callable[..., Any]] = {
        "kernel": kernel_alone,
        "packed": functools.partial(kv.attend, implementation=implementation),
        "xla": functools.partial(kv.attend, implementation="xla"),
        "dequantised": restored,
    }
    return attends[side], packed


def caches(make: Callable[[jax.Array], Any], config: Config) -> list[Any]:
    """As many as are to be read."""
    made = jax.jit(make)
    one = made(jax.random.key(0))
    count = min(MOST_CACHES, -(-config.bytes_read // kv.nbytes(one)))
    return [one, *(made(jax.random.key(n)) for n in range(1, count))]


def timed(
    attend: Callable[..., Any], held: list[Any], batch: int, repeats: int
) -> dict[str, float]:
    """Seconds of attending to one cache, and bytes in use on top of the caches."""
    queries = jax.random.normal(
        jax.random.key(9), (len(held), batch, 1, HEADS, WIDTH), jnp.bfloat16
    )
    queries = list(queries)

    def all_of(queries: list[jax.Array], held: list[Any]) -> list[Any]:
        return [attend(*pair) for pair in zip(queries, held, strict=True)]

    program = jax.jit(all_of).lower(queries, held).compile()
    jax.block_until_ready([program(queries, held) for _ in range(2)])
    began = time.perf_counter()
    jax.block_until_ready(program(queries, held))
    queued = max(2, min(20, int(0.02 / (time.perf_counter() - began))))
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(queued):
            out = program(queries, held)
        jax.block_until_ready(out)
        seconds.append((time.perf_counter() - began) / queued / len(held))
    memory = program.memory_analysis()
    return {
        "seconds": statistics.median(seconds),
        "slowest": max(seconds),
        "temporary_bytes": memory.temp_size_in_bytes if memory else 0,
    }


def copy_bandwidth(repeats: int) -> float:
    """Bytes a second that a copy of 1 GiB reads and writes."""
    x = jnp.ones(2**28, jnp.float32)
    add = jax.jit(lambda x: x + 1)
    jax.block_until_ready(add(x))
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(4):
            out = add(x)
        jax.block_until_ready(out)
        seconds.append((time.perf_counter() - began) / 4)
    return 2 * x.nbytes / min(seconds)


def decoding(
    batch: int, tokens: int, steps: int, implementation: Any
) -> dict[str, float]:
    """Seconds of a step of ``append`` and ``attend``, and programs compiled for it."""
    cache = jax.jit(packed_cache, static_argnums=(0, 1))(
        batch, tokens + steps + 1, jax.random.key(0)
    )
    cache = dataclasses.replace(cache, lengths=cache.lengths - steps - 1)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(held: Any, query: jax.Array, new: jax.Array) -> Any:
        held = kv.append(held, new, new)
        return held, kv.attend(query, held, implementation=implementation)

    query = jnp.ones((batch, 1, HEADS, WIDTH), jnp.bfloat16)
    new = jnp.ones((batch, 1, KV_HEADS, WIDTH), jnp.bfloat16)
    cache, out = step(cache, query, new)
    jax.block_until_ready(out)
    began = time.perf_counter()
    for _ in range(steps):
        cache, out = step(cache, query, new)
    jax.block_until_ready(out)
    seconds = (time.perf_counter() - began) / steps
    programs = step._cache_size()  # pyright: ignore[reportAttributeAccessIssue]
    return {"seconds": seconds, "programs": programs}


def apart(batch: int, tokens: int, implementation: Any) -> float:
    """How far the kernel's output is from the restored cache's, relatively."""
    cache = jax.jit(packed_cache, static_argnums=(0, 1))(
        batch, tokens, jax.random.key(3)
    )
    query = jax.random.normal(jax.random.key(4), (batch, 1, HEADS, WIDTH), jnp.bfloat16)
    found = jax.jit(functools.partial(kv.attend, implementation=implementation))(
        4 * query, cache
    ).astype(jnp.float32)
    expected = jax.jit(restored)(4 * query, cache).astype(jnp.float32)
    return float(jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected))


def row_of(batch: int, tokens: int, config: Config, copied: float) -> dict[str, Any]:
    """Measure one length and batch, and print it."""
    found: dict[str, Any] = {}
    packed = jax.eval_shape(lambda: packed_cache(batch, tokens, jax.random.key(0)))
    words = kv.nbytes((packed.keys, packed.values))
    print(f"batch {batch}, {tokens} tokens, {words / 1e6:.1f} MB packed:", flush=True)
    for side in config.sides:
        attend, make = side_of(side, batch, tokens, config.implementation)
        try:
            held = caches(make, config)
            found[side] = timed(attend, held, batch, config.repeats)
        # A side that has no room or is not supported leaves the others be.
        except Exception as error:
            print(f"  {side}: {type(error).__name__}: {str(error)[:200]}", flush=True)
            continue
        seconds = found[side]["seconds"]
        text = f"  {1e6 * seconds:10.1f} us"
        if "packed" in found:
            text += f", {seconds / found['packed']['seconds']:6.2f} x packed"
        if side in ("kernel", "packed"):
            rate = words / seconds
            text += f", {rate / 1e9:6.0f} GB/s, {rate / copied:.0%} of a copy's"
        on_top = found[side]["temporary_bytes"] / len(held) / 1e6
        print(f"{text}, {on_top:.1f} MB on top  {side}", flush=True)
        del held
    return {"batch": batch, "tokens": tokens, "packed_bytes": words, "sides": found}


def sweep(config: Config, copied: float) -> None:
    """The kernel over its parameters, fastest first."""
    for batch, tokens in itertools.product(config.batches, config.tokens):
        held = caches(functools.partial(packed_cache, batch, tokens), config)
        words = kv.nbytes((held[0].keys, held[0].values))
        share = max(1, 528 // (batch * KV_HEADS))
        plan = list(itertools.product((True,), (4, 8), (2, 3, 4), (share,)))
        plan += [(True, 4, 2, max(1, share // 2)), (True, 4, 2, 2 * share)]
        plan += [(True, 4, 1, share), (False, 4, 2, share), (False, 8, 2, share)]
        print(f"batch {batch}, {tokens} tokens: inline, warps, stages, splits")
        for inline, warps, stages, splits in plan:
            attend = functools.partial(
                kernel_alone,
                inline=inline,
                num_warps=warps,
                num_stages=stages,
                splits=splits,
            )
            try:
                seconds = timed(attend, held[:4], batch, 5)["seconds"]
            except Exception as error:
                print(f"  {inline} {warps} {stages} {splits}: {str(error)[:150]}")
                continue
            share_of = words / seconds / copied
            print(
                f"  {1e6 * seconds:9.1f} us {share_of:4.0%} of a copy's  "
                f"{inline} {warps} {stages} {splits}",
                flush=True,
            )


def main(config: Config) -> None:
    """Measure, print, write."""
    device = results.device_name()
    copied = copy_bandwidth(config.repeats)
    print(f"device: {device}; a copy moves {copied / 1e9:.0f} GB/s", flush=True)
    if config.sweep:
        sweep(config, copied)
        return
    error = apart(2, 4096, config.implementation)
    print(f"{error:.2%} from attention over the restored cache", flush=True)
    steps = {}
    for batch in config.batches[:2]:
        steps[str(batch)] = decoding(
            batch, config.tokens[0], config.steps, config.implementation
        )
        print(
            f"batch {batch}, {config.tokens[0]} tokens: "
            f"{1e6 * steps[str(batch)]['seconds']:.0f} us a step of append and attend, "
            f"{steps[str(batch)]['programs']} program compiled",
            flush=True,
        )
    record: dict[str, Any] = {
        "bytes over bfloat16": sizes(),
        "copy_bytes_per_second": copied,
        "relative_error": error,
        "steps": steps,
        "rows": [],
    }
    for tokens, batch in itertools.product(config.tokens, config.batches):
        record["rows"].append(row_of(batch, tokens, config, copied))
        # What is measured stays, whatever comes of a larger one.
        records.write("kv_gpu", record, config)


if __name__ == "__main__":
    main(tyro.cli(Config))
