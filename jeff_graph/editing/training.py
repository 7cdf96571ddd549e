"""Training a network on the nodes of the training part, for editing afterwards.

Gradients see the whole graph and the labels of its training nodes, as usual for one
graph; or, inductively as in the paper on GRE, the subgraph of the training nodes alone.
In a dense graph that costs accuracy: a node keeps few of its neighbours there, and has
all of them at validation and test. Of all epochs, the parameters with the best
validation accuracy are kept.

References:
  Kipf and Welling, "Semi-Supervised Classification with Graph Convolutional Networks",
  ICLR 2017.
  Jiang et al., "Gradient Rewiring for Editable Graph Neural Network Training", NeurIPS
  2024, experimental setting.
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from jeff import training
from jeff.calls import call
from jeff.steps import Metrics, Step, init_state, make_step
from jeff.training import EarlyStop
from jeff_graph.editing.checks import as_labels, check_classes, check_parts
from jeff_graph.editing.graphs import AnyGraph
from jeff_graph.editing.hops import subgraph
from jeff_graph.editing.network import ApplyFn
from jeff_graph.editing.rows import filled, labelled_rows, right_rows
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
    right = right_rows(logits, labels) & where
    return right.sum() / jnp.maximum(where.sum(), 1)


def fit(
    apply_fn: ApplyFn,
    params: PyTree,
    graph: AnyGraph,
    labels: Any,
    split: Split,
    *,
    key: PRNGKeyArray,
    num_epochs: int = 200,
    inductive: bool = False,
    optimizer: optax.GradientTransformation | None = None,
    workdir: str | Path | None = None,
    progress: bool = False,
) -> Trained:
    """Train on the training nodes, one step an epoch.

    Args:
      apply_fn: ``(params, graph) -> logits [nodes, classes]``, with an argument ``key``
        where it has dropout; pass the same object to train again without compiling
        again.
      params: initial parameters.
      graph: the whole graph, or a batch of graphs.
      labels: class of each node, or of each graph; -1 for none.
      split: parts of the nodes, or graphs.
      key: random key of dropout.
      num_epochs: number of steps.
      inductive: take the subgraph of the training nodes.
      optimizer: any optax transformation; Adam at .01 by default.
      workdir: as in `jeff.training.fit`, which also resumes there.
      progress: show a progress bar on standard error.

    Returns:
      `Trained`.

    Raises:
      FloatingPointError: at the first loss that is not finite.
      ValueError: if ``num_epochs`` is below 1, a mask does not fit the graph, a label
        has no logit, there is no training or no validation node, or graphs are to be
        classified inductively.
    """
    labels, split, nodes = checked_rows(graph, labels, split)
    if inductive and not nodes:
        raise ValueError(
            "inductive: expected False for labels of graphs, which share no edges"
        )
    logits = jax.eval_shape(apply_fn, params, graph)
    check_classes("labels", labels, logits.shape[1])
    seen = subgraph(graph, split.train) if inductive else graph
    optimizer = _adam() if optimizer is None else optimizer

    def score(params: PyTree) -> Split:
        return accuracies(apply_fn, params, graph, labels, split)

    result = training.fit(
        _step(apply_fn, optimizer),
        init_state(params, optimizer, key=key),
        np.int32,  # the batch is the graph; of a step it needs no more than its number
        num_steps=num_epochs,
        constants=(seen, labels, split.train),
        chunk_steps=1,
        checkpoint_every=num_epochs,
        workdir=workdir,
        validate=lambda state: {"valid": float(score(state.params).valid)},
        early_stop=EarlyStop("valid", patience=num_epochs, mode="max"),
        progress=progress,
    )
    best = result.state.params
    return Trained(best, *map(float, score(best)))


def checked_rows(
    graph: AnyGraph, labels: Any, split: Split
) -> tuple[Array, Split, bool]:
    """Labels and parts for every row of the logits, padding included.

    Args:
      graph: the graph.
      labels: class of each node or graph, of any kind of array.
      split: their parts.

    Returns:
      Labels and parts as JAX arrays, and whether the rows are nodes.

    Raises:
      TypeError: if labels are not integers.
      ValueError: if lengths differ, or there is no training or no validation node.
    """
    labels = as_labels("labels", labels)
    real, nodes = labelled_rows(graph, labels)
    parts = Split(
        *(
            filled(f"split.{name}", part, real, False)
            for name, part in split._asdict().items()
        )
    )
    check_parts(train=parts.train, valid=parts.valid)
    return filled("labels", labels, real, -1), parts, nodes


_adam = functools.cache(functools.partial(optax.adam, 0.01))


# `fit` compiles once per step object, so one is kept for each network.
@functools.lru_cache(maxsize=16)
def _step(apply_fn: ApplyFn, optimizer: optax.GradientTransformation) -> Step:
    """The step of `fit`, one object for one network and optimiser."""

    def loss(
        params: PyTree,
        _: Array,
        key: PRNGKeyArray,
        graph: AnyGraph,
        labels: Array,
        where: Array,
    ) -> tuple[Array, Metrics]:
        return mean_error(call(apply_fn, params, graph, key), labels, where), {}

    return make_step(loss, optimizer)


@functools.partial(jax.jit, static_argnames="apply_fn")
def accuracies(
    apply_fn: ApplyFn, params: PyTree, graph: AnyGraph, labels: Array, split: Split
) -> Split:
    """Accuracy on each part.

    Args:
      apply_fn: the network.
      params: its parameters.
      graph: the whole graph.
      labels: class of each row of the logits.
      split: parts of the rows.

    Returns:
      The accuracies, in [0, 1].
    """
    logits = apply_fn(params, graph)
    return Split(*(accuracy(logits, labels, part) for part in split))
