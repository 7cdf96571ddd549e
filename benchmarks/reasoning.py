"""A GRPO step, rollout and update, against PyTorch with transformers in one run.

``python -m benchmarks.reasoning`` prints the ratio and writes
``benchmarks/results/reasoning-<device>.json``. Both sides start from the same random
weights of a Llama, sample groups of completions at temperature 1 with a key-value
cache, each until its end token, and take one clipped policy-gradient step with Adam.
Both sides alternate. Medians are compared: each step draws its own lengths, on average
half of the longest, so a fast step may only be a short one.
Votes have a benchmark of their own, `benchmarks.reasoning_votes`.
"""

import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from benchmarks import records
from jeff import training
from jeff_llm.models import decoder, weights
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.reasoning import arithmetic, grpo, policy

# So small that the policies, and with them the lengths, stay what they are.
_RATE = 1e-7


@dataclasses.dataclass(frozen=True)
class Config:
    """What is timed."""

    # Questions per step.
    questions: int = 16
    # Completions per question.
    group_size: int = 8
    # Largest length of a completion; with random weights one token in fifty ends it.
    new_tokens: int = 96
    # Chunks of our update.
    num_chunks: int = 8
    # Width of the model.
    width: int = 128
    # Layers of the model.
    num_layers: int = 4
    # Alternating repetitions.
    repeats: int = 9


def timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def reward(tokens: Any) -> Any:
    """The same dense reward on both sides: the share of even tokens."""
    return (1 - tokens % 2 + 0.0).mean(-1)


class Jeff:
    """Our side."""

    def __init__(self, config: Config, model: LanguageModel, prompts: np.ndarray):
        acting = policy.decoder_policy(
            model.config, max_new_tokens=config.new_tokens, stop_ids=[arithmetic.END]
        )
        optimizer = optax.adam(_RATE)
        self.step = jax.jit(
            grpo.make_step(
                acting,
                lambda rollout, *_: (reward(rollout.tokens), {}),
                optimizer,
                group_size=config.group_size,
                num_chunks=config.num_chunks,
            )
        )
        self.state = training.init_state(model.params, optimizer, key=jax.random.key(0))
        self.batch = policy.Prompts(jnp.asarray(prompts), jnp.ones(prompts.shape, bool))

    def __call__(self) -> None:
        self.state, _ = jax.block_until_ready(self.step(self.state, self.batch))


class Peer:
    """PyTorch with transformers."""

    def __init__(self, config: Config, folder: Path, prompts: np.ndarray):
        import torch
        from transformers import AutoModelForCausalLM

        torch.manual_seed(0)
        self.torch, self.config = torch, config
        self.model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32
        )
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=_RATE)
        rows = torch.tensor(prompts, dtype=torch.long)
        self.prompts = rows.repeat_interleave(config.group_size, 0)

    def __call__(self) -> None:
        torch, width = self.torch, self.prompts.shape[1]
        with torch.no_grad():
            whole = self.model.generate(
                self.prompts,
                attention_mask=torch.ones_like(self.prompts),
                do_sample=True,
                top_k=0,
                max_new_tokens=self.config.new_tokens,
                pad_token_id=0,
                eos_token_id=arithmetic.END,
            )
        new = whole[:, width:]
        mask = (new == arithmetic.END).cumsum(1) - (new == arithmetic.END).long() == 0
        rewards = reward(new.float()).reshape(-1, self.config.group_size)
        centred = rewards - rewards.mean(1, keepdim=True)
        advantage = (
            centred / (rewards.std(1, keepdim=True, correction=0) + 1e-6)
        ).reshape(-1, 1)
        seen = torch.cat([torch.ones_like(self.prompts), mask.long()], 1)
        # As trainers do it: logits of the completion alone.
        logits = self.model(
            whole, attention_mask=seen, logits_to_keep=new.shape[1] + 1
        ).logits[:, :-1]
        log_probs = torch.log_softmax(logits, -1).gather(-1, new[..., None])[..., 0]
        ratio = torch.exp(log_probs - log_probs.detach())
        gain = torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
        loss = -((gain * mask).sum(1) / mask.sum(1)).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def main(config: Config) -> None:
    """Time both sides in turn and write the record."""
    sizes = arithmetic.model_config(config.width, config.num_layers)
    model = LanguageModel(sizes, decoder.init(sizes, key=jax.random.key(1)), None)
    rng = np.random.default_rng(0)
    prompts = rng.integers(1, sizes.vocab_size, (config.questions, 24)).astype(np.int32)
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(config, weights.save(model, folder), prompts)
    ours = Jeff(config, model, prompts)
    compiled = timed(ours)
    peer()
    seconds: dict[str, list[float]] = {"jeff": [], "peer": []}
    for _ in range(config.repeats):
        seconds["jeff"].append(timed(ours))
        seconds["peer"].append(timed(peer))
    record = {
        "peer": "transformers' generate, PyTorch's autograd and Adam",
        "seconds_with_compilation": compiled,
        "ratio": statistics.median(seconds["peer"])
        / statistics.median(seconds["jeff"]),
        "goal": 2.0,
        "seconds": seconds,
    }
    print(json.dumps(record, indent=1))
    records.write("reasoning", record, config)


if __name__ == "__main__":
    main(tyro.cli(Config))
