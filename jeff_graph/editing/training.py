"""Training a network on the nodes of the training part, for editing afterwards.

Inductive: gradients see the subgraph of the training nodes alone; validation and test
see the whole graph, on which edits are made. Steps take the full graph. Of all epochs,
the parameters with the best validation accuracy are kept.

Reference: "Gradient Rewiring for Editable Graph Neural Network Training", NeurIPS 2024,
experimental setting.
"""

import functools
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from jeff import training
from jeff.steps import Metrics, Step, init_state, make_step
from jeff.training import EarlyStop
from jeff_graph.editing.checks import check_parts
from jeff_graph.editing.graphs import Graph, subgraph
from jeff_graph.editing.network import ApplyFn
from jeff_graph.editing.splits import Split
from jeff_graph.editing.task import mean_error

__all__ = ["Trained", "accuracies", "accuracy", "fit"]


class Trained(NamedTuple):
    """Parameters with the best validation accuracy, and their accuracies.

    Attributes:
      params: the parameters.
      train: accuracy on the training nodes, in [0, 1], on the whole graph, as the rest.
      valid: accuracy on the validation nodes.
      test: accuracy on the test nodes.
    """

    params: PyTree
    train: float
    valid: float
    test: float


def accuracy(
    logits: Float[Array, "nodes classes"],
    labels: Int[Array, " nodes"],
    where: Bool[Array, " nodes"],
) -> Float[Array, ""]:
    """Share of some nodes whose greatest logit is that of their class.

    Args:
      logits: of each node.
      labels: class of each node.
      where: nodes to count.

    Returns:
      The share, in [0, 1]; 0 where no node counts.
    """
    right = (logits.argmax(-1) == labels) & where
    return right.sum() / jnp.maximum(where.sum(), 1)


def fit(
    apply_fn: ApplyFn,
    params: PyTree,
    graph: Graph,
    split: Split,
    *,
    key: PRNGKeyArray,
    num_epochs: int = 200,
    optimizer: optax.GradientTransformation | None = None,
    workdir: str | Path | None = None,
    progress: bool = False,
) -> Trained:
    """Train on the subgraph of the training nodes, one step an epoch.

    Args:
      apply_fn: ``apply_fn(params, graph, key=None) -> logits [nodes, classes]``; pass
        the same object to train again without compiling again.
      params: initial parameters.
      graph: the whole graph.
      split: its parts.
      key: random key of dropout.
      num_epochs: number of steps.
      optimizer: any optax transformation; Adam at .01 by default.
      workdir: as in `jeff.training.fit`, which also resumes there.
      progress: show a progress bar on standard error.

    Returns:
      `Trained`.

    Raises:
      FloatingPointError: at the first loss that is not finite.
      ValueError: if ``num_epochs`` is below 1, a mask does not fit the graph, or there
        is no training or no validation node.
    """
    check_parts(train=split.train, valid=split.valid)
    optimizer = _adam() if optimizer is None else optimizer
    result = training.fit(
        _step(apply_fn, optimizer),
        init_state(params, optimizer, key=key),
        np.int32,  # the batch is the graph; of a step it needs no more than its number
        num_steps=num_epochs,
        constants=(subgraph(graph, split.train), split.train),
        chunk_steps=1,
        checkpoint_every=num_epochs,
        workdir=workdir,
        validate=lambda state: {
            "valid": float(accuracies(apply_fn, state.params, graph, split).valid)
        },
        early_stop=EarlyStop("valid", patience=num_epochs, mode="max"),
        progress=progress,
    )
    best = result.state.params
    return Trained(best, *map(float, accuracies(apply_fn, best, graph, split)))


_adam = functools.cache(functools.partial(optax.adam, 0.01))


# `fit` compiles once per step object, so one is kept for each network.
@functools.lru_cache(maxsize=16)
def _step(apply_fn: ApplyFn, optimizer: optax.GradientTransformation) -> Step:
    """The step of `fit`, one object for one network and optimiser."""

    def loss(
        params: PyTree, _: Array, key: PRNGKeyArray, graph: Graph, where: Array
    ) -> tuple[Array, Metrics]:
        logits = apply_fn(params, graph, key=key)
        return mean_error(logits, graph.labels, where), {}

    return make_step(loss, optimizer)


@functools.partial(jax.jit, static_argnames="apply_fn")
def accuracies(apply_fn: ApplyFn, params: PyTree, graph: Graph, split: Split) -> Split:
    """Accuracy on each part.

    Args:
      apply_fn: the network.
      params: its parameters.
      graph: the whole graph.
      split: its parts.

    Returns:
      The accuracies, in [0, 1].
    """
    logits = apply_fn(params, graph)
    return Split(*(accuracy(logits, graph.labels, part) for part in split))
