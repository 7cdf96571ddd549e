"""LoRA on prompts and answers: ``python -m train_scripts.finetune --data my.jsonl``.

A line has a prompt and an answer, or a conversation as ``messages``, the chat format of
TRL and axolotl. Examples are packed into rows. The base model is frozen; only the
factors are trained and checkpointed. The same command resumes a run that was killed.
The run writes the adapters in peft's format and the merged model in the format of
transformers.
"""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from configs.finetune import Config
from jeff import files, hub_rows, sharding, training
from jeff_llm.models import adapters, lora, weights
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.tuning import finetune
from train_scripts.cli import MENDABLE, quiet_libraries
from train_scripts.running import machines
from train_scripts.running.launch import use_compilation_cache
from train_scripts.running.options import take
from train_scripts.running.workdir import hold

__all__ = ["Summary", "main", "run"]

_COMMAND = "python -m train_scripts.finetune"
_MACHINE = (
    "Also: --mesh data=4,tensor=2 lays the model over devices, all of them along data "
    "by default; --distributed joins other processes."
)
_WHERE = {"attention": lora.ATTENTION, "linear": lora.LINEAR}


class Summary(NamedTuple):
    """The result of a fine-tuning run.

    Attributes:
      steps: number of optimiser steps.
      train_loss: mean loss of the last epoch, in nats per token.
      validation_loss: loss on the held-out rows before and after training, in nats per
        token; None without held-out rows.
      validation_accuracy: share of their answer tokens that the model ranks first,
        before and after training; None without held-out rows.
      padding: share of padding among the tokens of the packed rows.
    """

    steps: int
    train_loss: float
    validation_loss: tuple[float, float] | None
    validation_accuracy: tuple[float, float] | None
    padding: float


def main() -> int:
    """Run the command line.

    Returns:
      Exit status: 0 on success, 1 on failure, 130 if interrupted.
    """
    import tyro

    quiet_libraries()
    try:
        machine, words = take(sys.argv[1:])
        config = tyro.cli(Config, args=words, prog=_COMMAND, description=_MACHINE)
        machines.join(machine, together=True)
        use_compilation_cache()
        summary = run(config)
    except MENDABLE as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    if machines.first():
        print(json.dumps(summary._asdict(), indent=2))
        print(f"written to {config.workdir}")
    return 0


def run(config: Config, *, progress: bool = True) -> Summary:
    """Train, and write the adapters and the merged model.

    Args:
      config: settings of the run.
      progress: show a progress bar.

    Returns:
      The result, also written to ``summary.json``.

    Raises:
      FileNotFoundError: if the data are missing.
      OSError: if another process runs in the folder, or it cannot be written.
      ValueError: if a row is not as expected, or the folder holds a run with another
        configuration or on other data.
    """
    workdir = Path(config.workdir)
    with hold(workdir, config, _COMMAND) if machines.first() else nullcontext():
        machines.meet("the folder is held")
        return _train(config, workdir, progress)


def _train(config: Config, workdir: Path, progress: bool) -> Summary:
    lines = list(hub_rows.json_rows(config.data))
    if not lines:
        raise ValueError(f"{config.data}: expected at least one line, got none")
    places, rows = zip(*lines, strict=True)
    mesh = machines.mesh()
    model = weights.load(config.model, dtype=jnp.dtype(config.dtype), mesh=mesh)
    examples = finetune.encode_examples(
        model, rows, max_tokens=config.max_tokens, places=places
    )
    train, held_out = _split(config, examples)
    packed = finetune.pack(train, config.max_tokens)
    order_key, factor_key, noise_key = jax.random.split(jax.random.key(config.seed), 3)
    size = min(config.batch_size, len(packed.tokens))
    batches = training.Shuffled(jax.tree.map(jnp.asarray, packed), size, order_key)
    num_steps = config.num_epochs * batches.steps_per_epoch
    optimizer = _optimizer(config, num_steps)
    factors = lora.init(
        model.params,
        key=factor_key,
        rank=config.rank,
        where=_WHERE[config.where],
        alpha=config.alpha or None,
    )
    evaluate = _Evaluation(config, model, held_out)
    before = evaluate(factors)
    state = training.init_state(factors, optimizer, key=noise_key)
    fit = training.fit(
        training.make_step(_loss(model, config), optimizer),
        machines.placed(state),
        batches,
        num_steps=num_steps,
        constants=(model.params,),
        workdir=workdir,
        checkpoint_every=max(1, config.num_epochs // 20),
        validate=lambda state: evaluate(state.params),
        batch_sharding=machines.batch_sharding(size),
        progress=progress,
        description="LoRA",
    )
    _write(config, model, fit.state.params, workdir)
    return _summarise(fit, before, packed, workdir)


def _write(config: Config, model: LanguageModel, factors: Any, workdir: Path) -> None:
    """Write the adapters and the merged model, in the first process."""
    factors = sharding.gather(factors)
    # Parameters are gathered by all, though one writes them.
    params = sharding.gather(model.params) if config.merged else None
    if not machines.first():
        return
    adapters.save(workdir / "adapters", factors, base=config.model)
    if params is not None:
        merged = model._replace(params=lora.merge(params, factors))
        weights.save(merged, workdir / "merged")


class _Evaluation:
    """Loss and accuracy on the held-out rows; an empty dictionary if there are none."""

    def __init__(
        self, config: Config, model: LanguageModel, examples: list[finetune.Example]
    ):
        self.params, self.batches = model.params, []
        self.loss_fn = jax.jit(_loss(model, config))
        if not examples:
            return
        packed = finetune.pack(examples, config.max_tokens)
        size = min(config.batch_size, len(packed.tokens))
        for begin in range(0, len(packed.tokens), size):
            rows = np.arange(begin, begin + size)
            # Fill the last batch with rows of weight 0, so that all batches have one
            # shape and the loss compiles once.
            short = rows >= len(packed.tokens)
            batch = jax.tree.map(lambda x: x[np.where(short, 0, rows)], packed)  # noqa: B023
            batch.weights[short] = 0
            self.batches.append(batch)

    def __call__(self, factors: lora.Lora) -> dict[str, float]:
        key = jax.random.key(0)
        found = [self.loss_fn(factors, b, key, self.params) for b in self.batches]
        # Batches have different numbers of answer tokens, so their means are weighted.
        weight = np.array([float(metrics["tokens"]) for _, metrics in found])
        if not weight.sum():
            return {}
        loss = np.array([float(loss) for loss, _ in found])
        right = np.array([float(metrics["accuracy"]) for _, metrics in found])
        return {
            "validation_loss": float((loss * weight).sum() / weight.sum()),
            "validation_accuracy": float((right * weight).sum() / weight.sum()),
        }


def _loss(model: LanguageModel, config: Config) -> training.LossFn:
    def loss_fn(factors: lora.Lora, batch: Any, key: jax.Array, base: Any) -> Any:
        del key  # the loss is deterministic
        params = lora.apply(base, factors)
        return finetune.loss(model.config, params, batch, remat=config.remat)

    return loss_fn


def _optimizer(config: Config, num_steps: int) -> optax.GradientTransformation:
    schedule = optax.warmup_cosine_decay_schedule(
        0.0,
        config.learning_rate,
        max(1, num_steps // 10),
        max(2, num_steps),
        0.1 * config.learning_rate,
    )
    return optax.chain(
        optax.clip_by_global_norm(config.max_norm),
        optax.adamw(schedule, weight_decay=config.weight_decay),
    )


def _split(
    config: Config, examples: list[finetune.Example]
) -> tuple[list[finetune.Example], list[finetune.Example]]:
    count = int(len(examples) * config.holdout)
    if count == len(examples):
        raise ValueError(f"data: expected more rows than {count} to train on")
    order = np.random.default_rng(config.seed).permutation(len(examples))
    chosen = [examples[place] for place in order]
    return chosen[count:], chosen[:count]


def _summarise(
    fit: training.FitResult,
    before: dict[str, float],
    packed: finetune.Packed,
    workdir: Path,
) -> Summary:
    last = fit.history[-1]

    def pair(name: str) -> tuple[float, float] | None:
        return (before[name], float(last[name])) if name in before else None

    summary = Summary(
        steps=fit.step,
        train_loss=float(last["loss"]),
        validation_loss=pair("validation_loss"),
        validation_accuracy=pair("validation_accuracy"),
        padding=float((packed.segments == 0).mean()),
    )
    if machines.first():
        files.write_json(workdir / "summary.json", summary._asdict())
    return summary
