"""The decoder's speed against transformers on PyTorch, in one run.

``python -m benchmarks.decoder`` prints ratios and writes
``benchmarks/results/decoder-<device>.json``. Both sides run SmolLM2-135M-Instruct in
float32 from the same GGUF file: transformers' own ``generate``, and peft for LoRA. Both
sides alternate. The fastest repetitions are compared, since whatever else a machine
does only adds time; the medians stand beside them, and the floor: the weights read once
a step at the bandwidth of copying, the products at the rate of large ones.
"""

import dataclasses
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from benchmarks import records
from jeff import assets, training
from jeff_llm import generate
from jeff_llm.models import attention, decoder, lora, weights
from jeff_llm.models.view import View
from jeff_llm.tuning import finetune
from train_scripts.running import results


@dataclasses.dataclass(frozen=True)
class Config:
    """What is timed."""

    # Tokens of each prompt.
    prompt_tokens: int = 128
    # Tokens drawn in the decoding timings.
    new_tokens: int = 64
    # Prompts of prefill, of the larger decoding batch, and rows of the LoRA step.
    batch_size: int = 8
    # Inner size of LoRA's factors, on queries and values.
    rank: int = 8
    # Alternating repetitions of each timing.
    repeats: int = 5
    # Time fresh processes too: import, load, first token.
    cold: bool = True


def timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


class Jeff:
    """Our side."""

    def __init__(self, config: Config, prompts: np.ndarray):
        self.config, self.prompts = config, prompts
        self.model = weights.load("smollm2")
        factors = lora.init(
            self.model.params,
            key=jax.random.key(0),
            rank=config.rank,
            where=[r"attention/(query|value)/kernel"],
        )
        optimizer = optax.adamw(1e-4)
        self.state = training.init_state(factors, optimizer, key=jax.random.key(1))
        self.step = jax.jit(training.make_step(self.loss, optimizer))
        positions = np.broadcast_to(np.arange(prompts.shape[1]), prompts.shape)
        ones = np.ones(prompts.shape)
        self.batch = finetune.Packed(
            prompts, positions.astype(np.int32), ones.astype(np.int32), ones
        )

    def loss(self, factors, batch, key, base):
        params = lora.apply(base, factors)
        return finetune.loss(self.model.config, params, batch)

    def draw(self, rows: int, count: int) -> None:
        generate.generate(
            self.model, list(self.prompts[:rows]), max_new_tokens=count, stop_ids=[]
        )

    def lora(self) -> None:
        state, _ = self.step(self.state, self.batch, self.model.params)
        jax.block_until_ready(state)


class Torch:
    """The peer's side."""

    def __init__(self, config: Config, prompts: np.ndarray):
        import torch
        import transformers
        from peft import LoraConfig, get_peft_model

        transformers.utils.logging.disable_progress_bar()
        self.torch = torch
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.prompts = torch.tensor(prompts, dtype=torch.long, device=self.device)
        path = assets.find("smollm2")

        def load():
            model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                str(path.parent), gguf_file=path.name, dtype=torch.float32
            )
            return model.to(self.device)

        self.model = load().eval()
        adapters = LoraConfig(
            r=config.rank,
            lora_alpha=2 * config.rank,
            target_modules=["q_proj", "v_proj"],
            lora_dropout=0.0,
        )
        self.trained = get_peft_model(load(), adapters)
        trainable = [p for p in self.trained.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trainable, 1e-4)

    def draw(self, rows: int, count: int) -> None:
        prompts = self.prompts[:rows]
        with self.torch.inference_mode():
            self.model.generate(
                prompts,
                attention_mask=self.torch.ones_like(prompts),
                max_new_tokens=count,
                min_new_tokens=count,
                do_sample=False,
                pad_token_id=2,
            )
        self.wait()

    def lora(self) -> None:
        self.optimizer.zero_grad()
        loss = self.trained(input_ids=self.prompts, labels=self.prompts).loss
        loss.backward()
        self.optimizer.step()
        self.wait()

    def wait(self) -> None:
        if self.device == "cuda":
            self.torch.cuda.synchronize()


COLD = {
    "jeff": """
import sys, time
import jax
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
from jeff_llm import generate
from jeff_llm.models import weights
model = weights.load("smollm2")
generate.generate(model, ["What is the capital of France?"], max_new_tokens=1)
""",
    "torch": """
import torch, transformers
from jeff import assets
path = assets.find("smollm2")
names = dict(pretrained_model_name_or_path=str(path.parent), gguf_file=path.name)
model = transformers.AutoModelForCausalLM.from_pretrained(**names, dtype=torch.float32)
tokenizer = transformers.AutoTokenizer.from_pretrained(**names)
ids = tokenizer("What is the capital of France?", return_tensors="pt")
with torch.inference_mode():
    model.generate(**ids, max_new_tokens=1, do_sample=False, pad_token_id=2)
""",
}


def cold(side: str, cache: str) -> float:
    """Seconds of a fresh process from its start to the first token."""
    command = [sys.executable, "-c", COLD[side], cache]
    return timed(lambda: subprocess.run(command, check=True, stdout=subprocess.PIPE))


def matrix_rate() -> float:
    """Operations a second of a layer's largest products (1024 x 576 x 1536)."""
    x, w = jnp.ones((1024, 576)) / 576, jnp.ones((576, 1536)) / 576

    def body(_, y):
        return (y @ w) @ w.T / 1536

    chain = jax.jit(lambda x: jax.lax.fori_loop(0, 50, body, x))
    jax.block_until_ready(chain(x))
    seconds = min(timed(lambda: jax.block_until_ready(chain(x))) for _ in range(5))
    return 50 * 2 * 2 * 1024 * 576 * 1536 / seconds


def bandwidth(torch: Any, device: str) -> float:
    """Bytes a second read and written by a copy of 256 MB."""
    source = torch.ones(64 * 2**20, device=device)
    target = torch.empty_like(source)

    def copy():
        target.copy_(source)
        if device == "cuda":
            torch.cuda.synchronize()

    copy()
    return 2 * source.nbytes / min(timed(copy) for _ in range(5))


def profile(config: Config, model: Any) -> dict[str, float]:
    """Seconds of the parts of prefill and of a LoRA step, each run by itself."""
    settings = model.config
    rows, tokens = config.batch_size, config.prompt_tokens
    key, layers = jax.random.key(0), settings.num_layers
    heads = (rows, tokens, settings.num_heads, settings.head_width)
    shared = (rows, settings.num_kv_heads, tokens, settings.head_width)
    query, keys = jax.random.normal(key, heads), jax.random.normal(key, shared)
    at = jnp.broadcast_to(jnp.arange(tokens), (rows, tokens))
    kernels = [
        leaf[0]
        for path, leaf in lora.paths(model.params["layers"]).items()
        if path.endswith("kernel")
    ]
    inputs = [jax.random.normal(key, (rows * tokens, len(w))) for w in kernels]
    outputs = [jax.random.normal(key, (rows * tokens, w.shape[1])) for w in kernels]
    x = jax.random.normal(key, (rows, tokens, settings.width))
    targets = jnp.zeros((rows, tokens), jnp.int32)

    def attend(query, keys):
        return attention.attend(query, keys, keys, View(at, at))

    def head(x, table):
        logits = decoder.unembed(table, x)
        chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - chosen)

    def squares(query, keys):
        return jnp.sum(attend(query, keys) ** 2)

    parts = {
        "products": (
            lambda inputs, kernels: [
                x @ w for x, w in zip(inputs, kernels, strict=True)
            ],
            (inputs, kernels),
        ),
        "gradients through products": (
            lambda outputs, kernels: [
                g @ w.T for g, w in zip(outputs, kernels, strict=True)
            ],
            (outputs, kernels),
        ),
        "attention": (attend, (query, keys)),
        "attention with its gradient": (
            jax.grad(squares, (0, 1)),
            (query, keys),
        ),
        "head, loss and gradient": (
            jax.grad(head),
            (x, model.params["embedding"]),
        ),
    }
    seconds = {}
    for name, (function, arguments) in parts.items():
        call = jax.jit(function)
        jax.block_until_ready(call(*arguments))
        best = min(
            timed(lambda: jax.block_until_ready(call(*arguments)))  # noqa: B023
            for _ in range(5)
        )
        seconds[name] = best * (1 if name.startswith("head") else layers)
    return seconds


def measure(config: Config) -> tuple[dict[str, list[float]], Jeff, Torch]:
    """Seconds of every part, a value a repetition."""
    shape = (config.batch_size, config.prompt_tokens)
    prompts = np.random.default_rng(0).integers(100, 49_000, shape).astype(np.int32)
    sides = {"jeff": Jeff(config, prompts), "torch": Torch(config, prompts)}
    plan: list[tuple[str, Callable[[], None]]] = []
    for name, side in sides.items():
        for rows in (1, config.batch_size):
            for count in (1, config.new_tokens + 1):
                plan.append(
                    (
                        f"{name}_batch{rows}_tokens{count}",
                        lambda s=side, r=rows, c=count: s.draw(r, c),
                    )
                )
        plan.append((f"{name}_lora", side.lora))
    for _, call in plan:
        call()
    seconds: dict[str, list[float]] = {name: [] for name, _ in plan}
    for _ in range(config.repeats):
        for name, call in plan:
            seconds[name].append(timed(call))
    return seconds, sides["jeff"], sides["torch"]


def figures(
    seconds: dict[str, list[float]],
    config: Config,
    pick: Callable[[list[float]], float],
) -> dict[str, float]:
    """Seconds of prefill, a decoding step and a LoRA step for both sides."""
    picked = {name: pick(values) for name, values in seconds.items()}
    found = {}
    for side in ("jeff", "torch"):
        found[f"{side} prefill"] = picked[f"{side}_batch{config.batch_size}_tokens1"]
        for rows in (1, config.batch_size):
            first = picked[f"{side}_batch{rows}_tokens1"]
            last = picked[f"{side}_batch{rows}_tokens{config.new_tokens + 1}"]
            found[f"{side} decode, batch {rows}"] = (last - first) / config.new_tokens
        found[f"{side} LoRA step"] = picked[f"{side}_lora"]
    return found


def floors(config: Config, model: Any, rate: float, copied: float) -> dict[str, float]:
    """Least seconds of each figure on this machine."""
    sizes = {path: leaf.size for path, leaf in lora.paths(model.params).items()}
    embedding = sizes.pop("embedding")
    body, tokens = sum(sizes.values()), config.batch_size * config.prompt_tokens
    read = 4 * (body + embedding) / copied
    found = {
        "prefill": (2 * tokens * body + 2 * config.batch_size * embedding) / rate,
        # Forward, and gradients of activations: the base itself has none.
        "LoRA step": 2 * 2 * tokens * (body + embedding) / rate,
    }
    for rows in (1, config.batch_size):
        found[f"decode, batch {rows}"] = max(read, 2 * rows * (body + embedding) / rate)
    return found


def main(config: Config) -> None:
    """Measure, print, write."""
    seconds, ours, theirs = measure(config)
    found = figures(seconds, config, min)
    typical = figures(seconds, config, statistics.median)
    rate, copied = matrix_rate(), bandwidth(theirs.torch, theirs.device)
    least = floors(config, ours.model, rate, copied)
    if config.cold:
        with tempfile.TemporaryDirectory() as cache:
            found["jeff start-up, nothing compiled"] = cold("jeff", cache)
            found["jeff start-up"] = cold("jeff", cache)
        found["torch start-up"] = cold("torch", "")
    device = results.device_name()
    print(f"device: {device}; jax {jax.__version__}; {config.repeats} repetitions")
    print(f"matrix rate {rate / 1e9:.0f} GFLOP/s; copying {copied / 1e9:.1f} GB/s")
    ratios, median_ratios = {}, {}
    for name in [n.removeprefix("jeff ") for n in found if n.startswith("jeff ")]:
        peer = found["torch start-up" if "start-up" in name else f"torch {name}"]
        mine = found[f"jeff {name}"]
        ratios[name], line = peer / mine, f"jeff {mine:.4f} s, torch {peer:.4f} s"
        if name in least:
            median_ratios[name] = typical[f"torch {name}"] / typical[f"jeff {name}"]
            line += f"; medians {median_ratios[name]:.2f}; floor {least[name]:.4f} s"
        print(f"{ratios[name]:6.2f}  {name}: {line}")
    parts = profile(config, ours.model)
    print("parts of prefill and of a LoRA step, each by itself, all layers:")
    for name, value in parts.items():
        print(f"{value:8.3f} s  {name}")
    record = {
        "seconds": seconds,
        "fastest": found,
        "medians": typical,
        "floors": least,
        "parts": parts,
        "matrix_rate_flops": rate,
        "copy_bytes_a_second": copied,
        "ratios torch / jeff": ratios,
        "ratios of medians": median_ratios,
    }
    records.write("decoder", record, config)


if __name__ == "__main__":
    main(tyro.cli(Config))
