"""Long prompts against transformers: seconds and peak memory, in one run.

``python -m benchmarks.long_context`` prints a table and writes
``benchmarks/results/long_context-<device>.json``. Both sides run a Llama of SmolLM2's
size with random weights and its limit raised; transformers takes PyTorch's sdpa. Each
measurement is a process of its own, so that its peak is its own: the high-water mark of
its resident memory, less what it held before the first prompt was read, beside the
whole. jeff also runs with a packed cache of 4-bit keys and 2-bit values, whose prompt
is read in chunks here, and with packed weights.
"""

import dataclasses
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro

SIDES = ("jeff", "jeff packed weights", "jeff K4V2", "transformers")
MODEL = {
    "vocab_size": 49_152,
    "num_layers": 30,
    "width": 576,
    "mlp_width": 1536,
    "num_heads": 9,
    "num_kv_heads": 3,
    "head_width": 64,
    "rope_theta": 100_000.0,
    "tied": True,
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured."""

    # Tokens of the prompts.
    tokens: tuple[int, ...] = (2048, 8192, 32_768)
    # Tokens drawn after each.
    new_tokens: int = 16
    # Longest prompt of transformers, and of jeff's plain cache: a longer one takes
    # minutes on a CPU. It is read once, by the packed cache.
    longest_plain: int = 8192
    # Times each process reads the prompt again, after a pass that compiles.
    repeats: int = 2
    # What is measured; rows of the record that are not measured again stay in it.
    sides: tuple[str, ...] = SIDES
    # One measurement, printed as JSON; used by this program itself.
    side: str = ""


def peak() -> int:
    """The most resident bytes that this process has had."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def resident() -> int:
    """Resident bytes of this process."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def jeff_side(side: str, tokens: int, config: Config) -> dict[str, Any]:
    """Seconds of jeff."""
    import jax
    import jax.numpy as jnp

    from jeff_llm import generate, kv
    from jeff_llm.models import decoder, lora, quantized
    from jeff_llm.models.cache import init_cache
    from jeff_llm.models.config import DecoderConfig
    from jeff_llm.models.language_model import LanguageModel

    limit = tokens + 2 * config.new_tokens + 64
    settings = DecoderConfig(**MODEL, max_positions=limit)
    params = decoder.init(settings, key=jax.random.key(0))
    if side == "jeff packed weights":
        params = quantized.quantize_kernels(params, (*lora.LINEAR, "^embedding$"))
    params = jax.block_until_ready(params)
    model = LanguageModel(settings, params, None)
    packed = side == "jeff K4V2"
    make_cache = kv.MakeCache(kv.CacheConfig()) if packed else init_cache
    prompt = np.random.default_rng(0).integers(0, MODEL["vocab_size"], (1, tokens))

    def draw(count: int) -> float:
        began = time.perf_counter()
        generate.generate(
            model,
            list(prompt),
            max_new_tokens=count,
            stop_ids=[],
            make_cache=make_cache,
            prefill_chunk=512,
        )
        return time.perf_counter() - began

    room = tokens + config.new_tokens
    cache = kv.nbytes(
        jax.eval_shape(lambda: make_cache(settings, 1, room, jnp.float32))
    )
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    return measured(draw, weights, cache, config)


def torch_side(tokens: int, config: Config) -> dict[str, Any]:
    """Seconds of transformers."""
    import torch
    import transformers

    settings = transformers.LlamaConfig(
        vocab_size=MODEL["vocab_size"],
        num_hidden_layers=MODEL["num_layers"],
        hidden_size=MODEL["width"],
        intermediate_size=MODEL["mlp_width"],
        num_attention_heads=MODEL["num_heads"],
        num_key_value_heads=MODEL["num_kv_heads"],
        max_position_embeddings=tokens + 2 * config.new_tokens + 64,
        rope_theta=MODEL["rope_theta"],  # pyright: ignore[reportCallIssue]
        tie_word_embeddings=True,
        attn_implementation="sdpa",  # pyright: ignore[reportCallIssue]
    )
    torch.manual_seed(0)
    model: Any = transformers.LlamaForCausalLM(settings).eval()
    prompt = torch.tensor(
        np.random.default_rng(0).integers(0, MODEL["vocab_size"], (1, tokens))
    )

    def draw(count: int) -> float:
        began = time.perf_counter()
        with torch.inference_mode():
            model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=count,
                min_new_tokens=count,
                do_sample=False,
                pad_token_id=0,
            )
        return time.perf_counter() - began

    weights = sum(p.nbytes for p in model.parameters())
    layers, heads = MODEL["num_layers"], MODEL["num_kv_heads"]
    room = tokens + config.new_tokens
    cache = 2 * 4 * layers * heads * MODEL["head_width"] * room
    return measured(draw, weights, cache, config)


def measured(draw: Any, weights: int, cache: int, config: Config) -> dict[str, Any]:
    """Read and decode; what the process held before is counted apart."""
    before, first = resident(), []
    if config.repeats:
        draw(1)
        first = [draw(1) for _ in range(config.repeats)]
    peak_of_prefill = peak()
    whole = [draw(1 + config.new_tokens)]
    if config.repeats:
        whole = [draw(1 + config.new_tokens) for _ in range(config.repeats)]
    return {
        "prefill_seconds": first,
        "whole_seconds": whole,
        "weights_bytes": weights,
        "cache_bytes": cache,
        "bytes_before": before,
        "peak_bytes_of_prefill": peak_of_prefill,
        "peak_bytes": peak(),
    }


def run_one(side: str, config: Config) -> dict[str, Any]:
    """One measurement, in this process."""
    (tokens,) = config.tokens
    if side == "transformers":
        return torch_side(tokens, config)
    return jeff_side(side, tokens, config)


def start(side: str, tokens: int, config: Config) -> dict[str, Any]:
    """One measurement, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.long_context", "--side", side]
    command += ["--tokens", str(tokens), "--new-tokens", str(config.new_tokens)]
    # With its compilation, which is a small part of minutes.
    repeats = config.repeats if tokens <= config.longest_plain else 0
    command += ["--repeats", str(repeats)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def spread(seconds: list[float]) -> str:
    """The fastest and the slowest pass."""
    if not seconds:
        return "not timed"
    few, most = (f"{end(seconds):.1f}" for end in (min, max))
    return few if few == most else f"{few} to {most}"


def line(side: str, tokens: int, found: dict[str, Any], config: Config) -> str:
    """A row of the table."""
    held = found["weights_bytes"] + found["cache_bytes"]
    # A process holds libraries beside weights, which no prompt changes.
    base = found["bytes_before"] - found["weights_bytes"]
    first, whole = (spread(found[f"{name}_seconds"]) for name in ("prefill", "whole"))
    return (
        f"| {side} | {tokens} | {first} | {whole} | "
        f"{found['peak_bytes'] / 1e9:.2f} | {held / 1e9:.2f} | "
        f"{(found['peak_bytes'] - base) / held:.2f} |"
    )


def joined(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """New rows, and those of the record that they do not replace."""
    from benchmarks import records
    from train_scripts.running import results

    device = results.device_name()
    earlier = [
        row
        for name, record in records.load()
        if name == "long_context" and record["device"] == device
        for row in record["rows"]
    ]
    known = {(row["tokens"], row["side"]): row for row in [*earlier, *rows]}
    return [known[place] for place in sorted(known)]


def main(config: Config) -> None:
    """Measure, print, write."""
    if config.side:
        print(json.dumps(run_one(config.side, config)))
        return
    from benchmarks import records

    print(
        f"| side | tokens | prefill, s | with {config.new_tokens} drawn, s | peak, GB "
        "| weights and cache, GB | peak less libraries, over those |\n"
        + 7 * "|---"
        + "|"
    )
    rows = []
    for tokens in config.tokens:
        for side in config.sides:
            if tokens > config.longest_plain and side != "jeff K4V2":
                continue
            found = start(side, tokens, config)
            day = time.strftime("%Y-%m-%d %H:%M")
            rows.append({"side": side, "tokens": tokens, "measured": day, **found})
            print(line(side, tokens, found, config), flush=True)
    records.write("long_context", {"model": MODEL, "rows": joined(rows)}, config)


if __name__ == "__main__":
    main(tyro.cli(Config))
