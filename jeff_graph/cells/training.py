"""Training a network on the labels of cells.

Adam with weight decay, gradients clipped to unit norm, and a learning rate that warms
up over a tenth of the steps and falls along a cosine: post-norm layers need the first,
and the paper's constant 1e-5 takes far more than its 4 epochs on small data.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import optax
from jax.sharding import Mesh
from jaxtyping import Array, PRNGKeyArray, PyTree, Shaped

from jeff import sharding, training
from jeff.batches import Shuffled
from jeff.frozen import Frozen
from jeff.promotion import promoting
from jeff.steps import Metrics, Step, init_state, make_step
from jeff_graph.cells.arrays import as_codes, as_real
from jeff_graph.cells.tokens import Tokens

# apply_fn(params, tokens, key=None) -> logits [cells, classes].
ApplyFn: TypeAlias = Callable[..., Array]

__all__ = ["Trained", "accuracy", "fit"]


class Trained(NamedTuple):
    """Parameters at the end of a training.

    Attributes:
      params: the parameters.
      loss: mean cross-entropy of the last epoch, in nats.
    """

    params: PyTree
    loss: float


def fit(
    apply_fn: ApplyFn,
    params: PyTree,
    tokens: Tokens,
    labels: Shaped[Any, " cells"],
    *,
    key: PRNGKeyArray,
    frozen: Frozen | None = None,
    num_epochs: int = 4,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-2,
    workdir: str | Path | None = None,
    mesh: Mesh | None = None,
    progress: bool = False,
) -> Trained:
    """Train by cross-entropy.

    Args:
      apply_fn: ``apply_fn(params, tokens, key=None) -> logits [cells, classes]``; pass
        the same object to train again without compiling again.
      params: initial parameters.
      tokens: the cells.
      labels: class of each, from 0, below the number of logits.
      key: random key of batches and dropout.
      frozen: parameters that are not trained, such as running statistics, as in
        `jeff.frozen.is_frozen`.
      num_epochs: passes over the cells.
      batch_size: cells per step; all of them where there are fewer.
      learning_rate: the highest.
      weight_decay: of Adam, decoupled.
      workdir: as in `jeff.training.fit`, which also resumes there.
      mesh: a mesh of `jeff.sharding.make_mesh`, over whose data axes each batch is
        split; the parameters are copied to all its devices.
      progress: show a progress bar on standard error.

    Returns:
      `Trained`.

    Raises:
      FloatingPointError: at the first loss that is not finite.
      ValueError: if the lengths differ, a label is no class, a number is below 1, or
        running statistics would be trained.
    """
    tokens, labels = _examples(apply_fn, params, tokens, labels)
    order, dropout = jax.random.split(key)
    batches = Shuffled((tokens, labels), min(batch_size, len(labels)), order)
    steps = num_epochs * batches.steps_per_epoch
    optimizer = _optimizer(steps, learning_rate, weight_decay)
    state = init_state(params, optimizer, key=dropout)
    result = training.fit(
        _step(apply_fn, optimizer, _hashable(frozen)),
        state if mesh is None else sharding.replicate(state, mesh),
        batches,
        num_steps=steps,
        batch_sharding=sharding.batches_of(batches.batch_size, mesh),
        workdir=workdir,
        progress=progress,
    )
    last = result.history[-1]["loss"] if result.history else float("nan")
    return Trained(result.state.params, float(last))


def accuracy(
    apply_fn: ApplyFn,
    params: PyTree,
    tokens: Tokens,
    labels: Shaped[Any, " cells"],
    *,
    batch_size: int = 256,
) -> float:
    """Share of cells whose greatest logit is that of their class.

    Args:
      apply_fn: the network.
      params: its parameters.
      tokens: the cells.
      labels: class of each.
      batch_size: cells at a time.

    Returns:
      The share, in [0, 1].

    Raises:
      ValueError: if the lengths differ, there is no cell, or a label is no class.
    """
    tokens, labels = _examples(apply_fn, params, tokens, labels)
    predicted = _predict(apply_fn, min(batch_size, len(labels)), params, tokens)
    return float((predicted == labels).mean())


def _examples(
    apply_fn: ApplyFn, params: PyTree, tokens: Tokens, labels: Any
) -> tuple[Tokens, Array]:
    """Cells and their classes, checked against each other and the logits."""
    tokens = Tokens(
        as_codes(tokens.genes, "tokens.genes"), as_real(tokens.values, "tokens.values")
    )
    one = jax.tree.map(lambda leaf: leaf[:1], tokens)
    logits = jax.eval_shape(apply_fn, params, one)
    labels = as_codes(labels, "labels", logits.shape[-1])
    if labels.shape != tokens.genes.shape[:1] or not labels.size:
        raise ValueError(
            f"labels: expected {tokens.genes.shape[0]} classes, one a cell, and at "
            f"least one, got shape {labels.shape}; leave cells without a label out"
        )
    return tokens, labels


def _hashable(frozen: Frozen | None) -> Any:
    if frozen is None or isinstance(frozen, str) or callable(frozen):
        return frozen
    return tuple(frozen)


# One object for the same numbers, or `fit` would compile its step again.
@functools.lru_cache(maxsize=16)
def _optimizer(
    steps: int, learning_rate: float, weight_decay: float
) -> optax.GradientTransformation:
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, max(steps // 10, 1), max(steps, 2)
    )
    adam = optax.adamw(schedule, weight_decay=weight_decay)
    return promoting(optax.chain(optax.clip_by_global_norm(1.0), adam))


# One object for one network and optimiser, or `fit` would compile again.
@functools.lru_cache(maxsize=16)
def _step(
    apply_fn: ApplyFn, optimizer: optax.GradientTransformation, frozen: Any
) -> Step:
    """The step of `fit`, one object for one network and optimiser."""

    def loss(
        params: PyTree, batch: tuple[Tokens, Array], key: PRNGKeyArray
    ) -> tuple[Array, Metrics]:
        tokens, labels = batch
        logits = apply_fn(params, tokens, key=key)
        error = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return error.mean(), {}

    return make_step(loss, optimizer, frozen=frozen)


@functools.partial(jax.jit, static_argnames=("apply_fn", "size"))
def _predict(apply_fn: ApplyFn, size: int, params: PyTree, tokens: Tokens) -> Array:
    return jax.lax.map(
        lambda cell: apply_fn(params, jax.tree.map(lambda leaf: leaf[None], cell))[0],
        tokens,
        batch_size=size,
    ).argmax(-1)
