"""The data of an edit, and the interface of a method.

A network is ``apply_fn(params, inputs) -> logits [nodes, classes]``, in evaluation
mode; its inputs are any pytree, so it may be a graph network or any other. Where it
classifies graphs, its rows are graphs, and for "node" read "graph". All sets of nodes
are masks: shapes never depend on how many nodes they hold.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from jeff_graph.editing.checks import as_labels
from jeff_graph.editing.graphs import AnyGraph, Graph, GraphsTuple
from jeff_graph.editing.hops import topology
from jeff_graph.editing.rows import filled, labelled_rows

__all__ = [
    "Advance",
    "ApplyFn",
    "Edit",
    "EditTask",
    "Method",
    "MethodState",
    "counted",
    "divergence",
    "make_task",
    "mean_error",
    "training_chunks",
    "training_error",
]

ApplyFn: TypeAlias = Callable[..., Float[Array, "nodes classes"]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EditTask:
    """The graph that is edited, and the examples that the network was trained on.

    Invariants: ``train`` lies within ``where``; ``training_labels`` and
    ``training_where`` have one length, that of the logits of ``training_inputs``.

    Attributes:
      inputs: what the network reads: the whole graph.
      labels: the right class of each node, int [nodes]; edits aim at it.
      where: real nodes, bool [nodes].
      train: training nodes, bool [nodes].
      training_inputs: the training graph.
      training_labels: the class of each of its nodes, int [training_nodes].
      training_where: those that count in the training loss, bool [training_nodes].
      edges: senders, receivers and mask of the real edges, each [edges]; None where no
        method asks for neighbours.
      features: dense features of the nodes, [nodes, width]; None where no method asks.
    """

    # Leaves may be shapes as well, as `jax.eval_shape` gives them.
    inputs: Any
    labels: Any
    where: Any
    train: Any
    training_inputs: Any
    training_labels: Any
    training_where: Any
    edges: Any = None
    features: Any = None


class Edit(NamedTuple):
    """One edit.

    Attributes:
      target: nodes to correct, bool [nodes].
      earlier: targets of earlier edits, bool [nodes].
    """

    target: Bool[Array, " nodes"]
    earlier: Bool[Array, " nodes"]


class MethodState(NamedTuple):
    """State of a method between steps.

    Attributes:
      optimizer: state of its optimiser.
      memory: taken from the model before the first edit, such as anchors.
      key: random key of its next step.
    """

    optimizer: PyTree
    memory: PyTree
    key: PRNGKeyArray


Advance: TypeAlias = Callable[[], tuple[PyTree, MethodState]]


class Method(NamedTuple):
    """An editing method: pure functions and a stopping rule.

    Attributes:
      prepare: ``(params, task, key) -> editable``: what is edited. Most methods edit
        the parameters unchanged; some train or extend them first.
      init: ``(editable, task, key) -> state``, before the first edit.
      begin: ``(editable, state) -> state``, before every edit.
      step: ``(editable, state, task, edit) -> (editable, state)``.
      logits: ``(editable, task) -> [nodes, classes]``, in evaluation mode.
      keeps: an edit that took a step continues until its earlier targets are right.
      look: ``(editable, state, task, edit) -> (logits, advance)``, where ``advance()``
        is what ``step`` gives. Testing and differentiating then share a forward pass.
        None for methods whose loss is no function of those logits.
    """

    prepare: Callable[[PyTree, EditTask, PRNGKeyArray], PyTree]
    init: Callable[[PyTree, EditTask, PRNGKeyArray], MethodState]
    begin: Callable[[PyTree, MethodState], MethodState]
    step: Callable[[PyTree, MethodState, EditTask, Edit], tuple[PyTree, MethodState]]
    logits: Callable[[PyTree, EditTask], Array]
    keeps: bool = False
    look: (
        Callable[[PyTree, MethodState, EditTask, Edit], tuple[Array, Advance]] | None
    ) = None


def make_task(
    inputs: PyTree,
    labels: Any,
    train: Any,
    *,
    where: Any = None,
    training_inputs: PyTree = None,
    training_labels: Any = None,
    training_where: Any = None,
    edges: tuple[Any, Any, Any] | None = None,
    features: Any = None,
) -> EditTask:
    """Build an `EditTask`, and check it.

    Arrays may be of any kind. Where ``inputs`` is a graph, its padding is known, and
    labels and masks may be as long as what is real: of its nodes, or, to classify
    graphs, of its graphs.

    Args:
      inputs: the whole graph, `jraph.GraphsTuple` or `Graph`, or any other pytree.
      labels: the right class of each node (graph), integers; -1 for none.
      train: training nodes, bool.
      where: real nodes; by default those of the graph, or all.
      training_inputs: the training graph; ``inputs`` by default.
      training_labels: classes in the training graph; ``labels`` by default.
      training_where: nodes of the training loss; ``train`` by default.
      edges: senders, receivers and mask of real edges, each [edges]; those of the
        graph by default.
      features: dense features of the nodes; those of the graph by default.

    Returns:
      The task.

    Raises:
      TypeError: if labels are not integers or a mask is not bool.
      ValueError: if lengths differ, or a label is below -1 or does not fit in int32.
    """
    labels, train = as_labels("labels", labels), jnp.asarray(train)
    graph = inputs if isinstance(inputs, Graph | GraphsTuple) else None
    if graph is not None:
        real, nodes = labelled_rows(graph, labels)
        labels = filled("labels", labels, real, -1)
        train = filled("train", train, real, False)
        where = real if where is None else filled("where", where, real, False)
        if nodes:
            edges = _edges(graph) if edges is None else edges
            features = _features(graph) if features is None else features
    count = labels.shape
    where = jnp.ones(count, bool) if where is None else jnp.asarray(where)
    own = training_labels is not None
    training_labels = as_labels("training_labels", training_labels) if own else labels
    if training_where is None:
        training_where = jnp.ones(training_labels.shape, bool) if own else train
    training_where = jnp.asarray(training_where)
    _check_masks(count, train=train, where=where)
    _check_masks(training_labels.shape, training_where=training_where)
    if edges is not None and len({leaf.shape for leaf in edges}) != 1:
        raise ValueError(
            "edges: expected senders, receivers and mask of one length, got "
            f"{[leaf.shape for leaf in edges]}"
        )
    if features is not None and (features.ndim != 2 or features.shape[:1] != count):
        raise ValueError(
            f"features: expected [{count[0]}, width], got {features.shape}"
        )
    return EditTask(
        inputs,
        labels,
        where,
        train,
        inputs if training_inputs is None else training_inputs,
        training_labels,
        training_where,
        edges,
        features,
    )


def _edges(graph: AnyGraph) -> tuple[Array, Array, Array]:
    bare = topology(graph)
    return bare.senders, bare.receivers, bare.edge_mask


def _features(graph: AnyGraph) -> Array | None:
    """The features of nodes, where they are a dense matrix."""
    whole = graph.features if isinstance(graph, Graph) else graph.nodes
    dense = isinstance(whole, Array | np.ndarray) and whole.ndim == 2
    return jnp.asarray(whole) if dense else None


def _check_masks(shape: tuple[int, ...], **masks: Array) -> None:
    for name, mask in masks.items():
        if mask.dtype != jnp.bool_:
            raise TypeError(f"{name}: expected a bool mask, got {mask.dtype}")
        if mask.shape != shape or len(shape) != 1:
            raise ValueError(f"{name}: expected shape {shape}, got {mask.shape}")


def mean_error(
    logits: Float[Array, "nodes classes"],
    labels: Int[Array, " nodes"],
    where: Bool[Array, " nodes"],
) -> Float[Array, ""]:
    """Mean cross-entropy over some nodes; 0 where there are none.

    Args:
      logits: of all nodes.
      labels: right classes; nodes with -1 do not count.
      where: the nodes that count.

    Returns:
      A scalar in nats, differentiable everywhere; NaN where a node that counts has a
      label without a logit.
    """
    where &= labels >= 0
    # A label of -1 is not an index; the mask drops whatever index 0 gives.
    scores = jax.nn.log_softmax(logits.astype(jnp.float32))
    index = jnp.maximum(labels, 0)[:, None]
    each = -jnp.take_along_axis(scores, index, axis=1, mode="fill", fill_value=jnp.nan)[
        :, 0
    ]
    return jnp.sum(jnp.where(where, each, 0)) / counted(where)


def counted(where: Bool[Array, " nodes"]) -> Float[Array, ""]:
    """Number of nodes to divide by; 1 where there is none.

    Args:
      where: the nodes.

    Returns:
      The number, float32.
    """
    return jnp.maximum(where.sum(), 1).astype(jnp.float32)


def divergence(
    reference: Float[Array, "nodes classes"],
    logits: Float[Array, "nodes classes"],
    where: Bool[Array, " nodes"],
) -> Float[Array, ""]:
    """Mean of ``KL(softmax reference || softmax logits)`` over some nodes.

    Args:
      reference: logits of the model before.
      logits: logits of the model now.
      where: the nodes that count.

    Returns:
      A scalar in nats; 0 where no node counts.
    """
    # From logits, so that a probability of 0 gives no NaN.
    before = jax.nn.log_softmax(reference.astype(jnp.float32))
    now = jax.nn.log_softmax(logits.astype(jnp.float32))
    each = jnp.sum(jnp.exp(before) * (before - now), axis=1)
    return jnp.sum(jnp.where(where, each, 0)) / counted(where)


def training_error(
    apply_fn: ApplyFn,
    params: PyTree,
    task: EditTask,
    where: Bool[Array, " training_nodes"] | None = None,
) -> Float[Array, ""]:
    """Mean cross-entropy of the training graph.

    Args:
      apply_fn: the network.
      params: its parameters.
      task: what was trained on.
      where: the nodes that count; all training nodes by default.

    Returns:
      A scalar in nats.
    """
    counted = task.training_where if where is None else where
    logits = apply_fn(params, task.training_inputs)
    return mean_error(logits, task.training_labels, counted)


def training_chunks(
    where: Bool[Array, " training_nodes"], count: int
) -> Bool[Array, "K training_nodes"]:
    """Divide the training nodes into equal chunks, in their order.

    Args:
      where: the training nodes.
      count: K, the number of chunks, at least 1.

    Returns:
      K disjoint masks that together are ``where``; sizes differ by at most one.

    Raises:
      ValueError: if ``count`` is below 1.

    >>> training_chunks(jnp.array([True, False, True, True]), 2)
    Array([[ True, False,  True, False],
           [False, False, False,  True]], dtype=bool)
    """
    if count < 1:
        raise ValueError(f"count: expected at least 1 chunk, got {count}")
    # Masks of static shape, whatever the number of training nodes.
    rank = jnp.cumsum(where) - 1
    chunk = rank * count // jnp.maximum(where.sum(), 1)
    return where[None] & (chunk[None] == jnp.arange(count)[:, None])
