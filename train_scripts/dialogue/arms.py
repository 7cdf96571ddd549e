"""The arms: one model, tuned on four forms of the same items for as many tokens."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from configs.dialogue import Config
from jeff import training
from jeff_llm.clinic.dialogue import to_dialogue, to_monologue, to_multiple_choice
from jeff_llm.clinic.items import Item
from jeff_llm.models import lora, weights
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.tuning import finetune
from train_scripts.running import machines
from train_scripts.running.seeds import seed_key

__all__ = ["FORMS", "Tuned", "base", "examples", "tune"]

_FACTORS, _ORDER, _NOISE = 11, 12, 13
FORMS = {
    "multiple_choice": to_multiple_choice,
    "monologue": to_monologue,
    "dialogue": to_dialogue,
}


class Tuned(NamedTuple):
    """What an arm was trained on.

    Attributes:
      tokens: read in training, without padding.
      learned: of them, those in the loss.
      items: whose forms all fit into a row.
      loss: mean over the last tenth of the steps, in nats per learned token.
    """

    tokens: int
    learned: int
    items: int
    loss: float


@functools.cache
def base(name: str) -> LanguageModel:
    """Load the untuned model, once.

    Args:
      name: as the runtime takes it.

    Returns:
      The model.
    """
    return weights.load(name, mesh=machines.mesh())


def examples(config: Config, items: list[Item]) -> dict[str, list[finetune.Example]]:
    """Every form of the items that are trained on.

    An item is left out of all forms if one of them does not fit into a row, or it has
    no options: so that all arms see the same items.

    Args:
      config: settings of the run.
      items: the items.

    Returns:
      Examples by arm.

    Raises:
      ValueError: if no item remains.
    """
    model, found = base(config.model), {arm: [] for arm in FORMS}
    for item in items:
        if not item.options:
            continue
        rows = [{"messages": form(item).messages} for form in FORMS.values()]
        made = finetune.encode_examples(model, rows, max_tokens=1 << 30)
        if max(len(each.tokens) for each in made) <= config.max_tokens:
            for arm, each in zip(FORMS, made, strict=True):
                found[arm].append(each)
    if not next(iter(found.values())):
        raise ValueError(
            "max_tokens: expected room for at least one item with options, got "
            f"{config.max_tokens}"
        )
    return found


def tune(
    config: Config,
    arm: str,
    examples: list[finetune.Example],
    seed: int,
    workdir: Path,
    *,
    progress: bool,
) -> tuple[LanguageModel, Tuned]:
    """Tune the base on one form of the items.

    Every arm takes ``num_steps`` steps of ``batch_size`` packed rows; the loss counts
    the assistant's tokens alone.

    Args:
      config: settings of the run.
      arm: a name in `FORMS`.
      examples: to train on.
      seed: of factors and order.
      workdir: where checkpoints go; an interrupted training is resumed.
      progress: show a progress bar.

    Returns:
      The tuned model, its factors merged, and what it was trained on.
    """
    model = base(config.model)
    packed = finetune.pack(examples, config.max_tokens)
    factors = lora.init(
        model.params,
        key=seed_key(seed, _FACTORS),
        rank=config.rank,
        where=lora.ATTENTION,
        alpha=config.alpha,
    )
    optimizer = _optimizer(config.learning_rate, config.num_steps)
    rows = len(packed.tokens)
    size = min(config.batch_size, rows)
    fit = training.fit(
        _step(config, model.config),
        machines.placed(
            training.init_state(factors, optimizer, key=seed_key(seed, _NOISE))
        ),
        training.Shuffled(
            jax.tree.map(jnp.asarray, packed), size, seed_key(seed, _ORDER)
        ),
        batch_sharding=machines.batch_sharding(size, whole=size < config.batch_size),
        num_steps=config.num_steps,
        constants=(model.params,),
        chunk_steps=max(1, config.num_steps // 4),
        workdir=machines.kept(workdir),
        progress=progress,
        description=f"LoRA, {arm}",
    )
    seen = config.num_steps * size / rows
    tuned = Tuned(
        round(seen * int((packed.segments > 0).sum())),
        round(seen * int((packed.weights > 0).sum())),
        len(examples),
        float(fit.history[-1]["loss"]),
    )
    params = lora.merge(model.params, fit.state.params)
    return model._replace(params=params), tuned


@functools.cache
def _step(config: Config, decoder: Any) -> training.Step:
    """One step for all arms and seeds, so that it is compiled once."""

    def loss_fn(factors: lora.Lora, batch: Any, key: jax.Array, params: PyTree) -> Any:
        del key  # the loss is deterministic
        return finetune.loss(decoder, lora.apply(params, factors), batch)

    optimizer = _optimizer(config.learning_rate, config.num_steps)
    return training.make_step(loss_fn, optimizer)


def _optimizer(learning_rate: float, num_steps: int) -> optax.GradientTransformation:
    schedule = optax.warmup_cosine_decay_schedule(
        0.0,
        learning_rate,
        max(1, num_steps // 10),
        max(2, num_steps),
        0.1 * learning_rate,
    )
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule))
