"""LoRA on given examples: the training of Self-REF and of plain fine-tuning.

Learning rate and number of steps are arguments of the compiled step, and steps come in
whole chunks: trainings on other questions, longer or shorter, compile nothing. The head
is run on learned tokens alone, and frozen lower layers are read once.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray

from jeff import sharding, training
from jeff_llm.models import lora
from jeff_llm.models.config import DecoderConfig
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.tuning import finetune, trunk

__all__ = ["Recipe", "fit"]

# Packed rows, and the hidden states of frozen layers on them.
_Batch: TypeAlias = tuple[finetune.Packed, Any]

# Optimiser steps per chunk.
_CHUNK = 8


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings of `fit`.

    Attributes:
      rank: inner size of LoRA's factors; the paper has 2 to 8.
      num_epochs: passes over the examples.
      learning_rate: peak of AdamW's, reached after a tenth of the steps, then along a
        cosine to a tenth of it.
      batch_size: packed rows per step.
      row_tokens: tokens of a packed row.
      where: kernels that get factors in each layer: those of attention, as in the
        paper, or all.
      head: put factors on the output layer too, as the paper does. Where output and
        embedding are one table, they change the model's input as well. Where they are
        two, a frozen output layer cannot learn ``rows``, so factors are put there in
        any case.
      first_layer: layers below it are frozen, and read once instead of in every epoch;
        0 trains all, as the paper does. Needs ``head`` to be false where output and
        embedding are one.
      weight_decay: of the factors.
    """

    rank: int = 8
    num_epochs: int = 2
    learning_rate: float = 1e-3
    batch_size: int = 8
    row_tokens: int = 64
    where: Literal["attention", "linear"] = "attention"
    head: bool = True
    first_layer: int = 0
    weight_decay: float = 0.0

    def __post_init__(self):
        """Check ranges."""
        for name in ("rank", "num_epochs", "batch_size", "row_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name}: expected at least 1, got {getattr(self, name)}"
                )
        if not self.learning_rate > 0:
            raise ValueError(
                f"learning_rate: expected a positive number, got {self.learning_rate}"
            )


def fit(
    model: LanguageModel,
    examples: Sequence[finetune.Example],
    *,
    key: PRNGKeyArray,
    recipe: Recipe | None = None,
    rows: Sequence[int] = (),
    start: lora.Lora | None = None,
    workdir: str | Path | None = None,
    progress: bool = False,
) -> tuple[LanguageModel, lora.Lora]:
    """Train LoRA's factors, and rows of the embedding.

    Args:
      model: the base; it is not changed.
      examples: what is learned, from
        `jeff_llm.confidence.selfref.make_examples`; any others do for plain
        fine-tuning.
      key: random key.
      recipe: how; the paper's by default.
      rows: tokens whose rows are trained whole: the two confidence tokens.
      start: initial factors; fresh ones by default.
      workdir: where log and checkpoints go; an interrupted training there is resumed.
      progress: show a progress bar.

    Returns:
      ``(model, factors)``: the model with the factors beside its kernels, and the
      factors alone, which `jeff_llm.models.adapters.save` writes.

    Raises:
      ValueError: if there is no example, or one is longer than a row.
    """
    recipe = recipe or Recipe()
    longest = max((len(e.tokens) for e in examples), default=0)
    packed = finetune.pack(examples, max(recipe.row_tokens, longest))
    order_key, factor_key, noise_key = jax.random.split(key, 3)
    # A few questions make fewer rows than a batch.
    batch = min(recipe.batch_size, len(packed.tokens))
    base, embedded = model, None
    if recipe.first_layer:
        if recipe.head and model.config.tied:
            raise ValueError(
                "first_layer: expected 0 beside head=True, since output and embedding "
                f"of this model are one, got {recipe.first_layer}"
            )
        embedded = trunk.read(model, packed, recipe.first_layer)
        base = trunk.upper(model, recipe.first_layer)
    batches = _batches((packed, embedded), batch, order_key)
    # Whole chunks alone, so that trainings of other lengths compile nothing.
    chunks = -(-recipe.num_epochs * (len(packed.tokens) // batch) // _CHUNK)
    # A tied head is the embedding, so factors on it change the input as well.
    output = "^embedding$" if model.config.tied else "^head/kernel$"
    inner = lora.ATTENTION if recipe.where == "attention" else lora.LINEAR
    head = recipe.head or (bool(rows) and not model.config.tied)
    fresh = lora.init(
        base.params,
        key=factor_key,
        rank=recipe.rank,
        where=(*inner, output) if head else inner,
        rows=rows,
    )
    start = fresh if start is None else trunk.cut(start, recipe.first_layer)
    targets = finetune.most_targets(packed)
    step, optimizer = _make_step(base.config, recipe.weight_decay, targets)
    mesh = sharding.mesh_of(model.params)
    state = training.init_state(start, optimizer, key=noise_key)
    fit = training.fit(
        step,
        state if mesh is None else sharding.replicate(state, mesh),
        batches,
        batch_sharding=sharding.batches_of(
            batch, mesh, whole=batch < recipe.batch_size
        ),
        num_steps=chunks * _CHUNK,
        constants=(
            base.params,
            jnp.asarray(recipe.learning_rate, jnp.float32),
            jnp.asarray(chunks * _CHUNK, jnp.float32),
        ),
        chunk_steps=_CHUNK,
        workdir=workdir,
        checkpoint_every=10,
        progress=progress,
        description="LoRA",
    )
    factors = fit.state.params
    if recipe.first_layer:
        factors = trunk.restore(factors, model.config, recipe.first_layer)
    adapted = lora.apply(model.params, factors)
    return model._replace(params=adapted), factors


@functools.lru_cache(maxsize=8)
def _make_step(
    config: DecoderConfig, weight_decay: float, num_targets: int
) -> tuple[training.Step, optax.GradientTransformation]:
    """A step whose learning rate and length are arguments: one program for all."""
    # Without a learning rate: it is an argument, applied below, so that another one
    # compiles nothing.
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.scale_by_adam(),
        optax.add_decayed_weights(weight_decay),
    )

    def loss_fn(factors: lora.Lora, batch: _Batch, base: Any) -> Any:
        packed, embedded = batch
        params = lora.apply(base, factors)
        return finetune.loss(
            config, params, packed, embedded=embedded, num_targets=num_targets
        )

    def step(
        state: training.TrainState,
        batch: _Batch,
        base: Any,
        peak: Array,
        total: Array,
    ) -> tuple[training.TrainState, dict[str, Array]]:
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, metrics), grads = grad_fn(state.params, batch, base)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        rate = -peak * _schedule(state.step / total)
        params = jax.tree.map(lambda p, u: p + rate * u, state.params, updates)
        state = training.TrainState(params, opt_state, state.key, state.step + 1)
        return state, {"loss": loss, **metrics}

    return step, optimizer


def _schedule(done: Array) -> Array:
    """Share of the peak: up over the first tenth, then a cosine down to a tenth."""
    fall = jnp.clip((done - 0.1) / 0.9, 0, 1)
    return jnp.where(done < 0.1, done / 0.1, 0.55 + 0.45 * jnp.cos(jnp.pi * fall))


def _batches(data: _Batch, size: int, key: PRNGKeyArray) -> Callable[[int], _Batch]:
    """Batch of each step, in a new order every epoch."""
    order = training.Shuffled(data[0].tokens, size, key)
    known: dict[int, np.ndarray] = {}

    def batch(step: int) -> _Batch:
        epoch, place = divmod(step, order.steps_per_epoch)
        if epoch not in known:  # one epoch's order at a time
            known.clear()
            known[epoch] = np.asarray(order.order(epoch))
        return jax.tree.map(lambda x: x[known[epoch][place]], data)

    return batch
