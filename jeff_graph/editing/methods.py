"""Editing methods behind one signature: ``method(apply_fn, ...) -> Method``.

Published: `gradient_descent`, `gre` (GRE, and GRE+ with more anchors); in `rivals`:
`enn`, `egnn` and `seed`. All take Adam's steps on the cross-entropy of the targets,
over the whole graph and in evaluation mode. jeff's own methods are in `replay`.

References:
  Jiang et al., "Gradient Rewiring for Editable Graph Neural Network Training",
  NeurIPS 2024.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import jax
import optax
from jaxtyping import Array, PRNGKeyArray, PyTree

from jeff.checks import check_choice
from jeff.promotion import promoting
from jeff_graph.editing.checks import check_trainable
from jeff_graph.editing.gre import (
    anchor_gradients,
    rewire,
    rewire_update,
    rewired_adam,
)
from jeff_graph.editing.task import (
    Advance,
    ApplyFn,
    Edit,
    EditTask,
    Method,
    MethodState,
    mean_error,
    training_chunks,
    training_error,
)

__all__ = [
    "EditLoss",
    "LogitLoss",
    "check_positive",
    "from_logit_loss",
    "from_loss",
    "gradient_descent",
    "gre",
    "remember_anchors",
    "target_loss",
]

# (editable, task, edit, memory, key) -> scalar
EditLoss: TypeAlias = Callable[[PyTree, EditTask, Edit, PyTree, PRNGKeyArray], Array]
# (logits, task, edit, memory) -> scalar
LogitLoss: TypeAlias = Callable[[Array, EditTask, Edit, PyTree], Array]


def from_loss(
    apply_fn: ApplyFn,
    loss_fn: EditLoss,
    make_optimizer: Callable[[PyTree], optax.GradientTransformation],
    *,
    remember: Callable[[PyTree, EditTask], PyTree] | None = None,
    restart: bool = False,
    keeps: bool = False,
    random: bool = False,
) -> Method:
    """A method that descends a given loss of the parameters.

    Args:
      apply_fn: ``(params, inputs) -> logits [nodes, classes]``.
      loss_fn: ``(params, task, edit, memory, key) -> loss``.
      make_optimizer: ``memory -> optimiser``.
      remember: ``(params, task) -> memory``, called before the first edit; nothing is
        remembered by default.
      restart: forget the optimiser's state before every edit.
      keeps: as in `Method`.
      random: give the loss another key at every step; by default the same.

    Returns:
      The method. Before the first edit it raises a TypeError if parameters are not
      floating point, and a ValueError if they are running statistics.
    """

    def init(params: PyTree, task: EditTask, key: PRNGKeyArray) -> MethodState:
        check_trainable(params)
        memory = None if remember is None else remember(params, task)
        return MethodState(make_optimizer(memory).init(params), memory, key)

    def begin(params: PyTree, state: MethodState) -> MethodState:
        # Published sequences keep Adam's moments from edit to edit.
        if not restart:
            return state
        return state._replace(optimizer=make_optimizer(state.memory).init(params))

    def step(
        params: PyTree, state: MethodState, task: EditTask, edit: Edit
    ) -> tuple[PyTree, MethodState]:
        key, draw = jax.random.split(state.key) if random else (state.key, state.key)
        gradient = jax.grad(loss_fn)(params, task, edit, state.memory, draw)
        params, state = _descended(make_optimizer, params, state, gradient)
        return params, state._replace(key=key)

    def logits(params: PyTree, task: EditTask) -> Array:
        return apply_fn(params, task.inputs)

    return Method(_as_it_is, init, begin, step, logits, keeps)


def from_logit_loss(
    apply_fn: ApplyFn,
    loss_fn: LogitLoss,
    make_optimizer: Callable[[PyTree], optax.GradientTransformation],
    **options: Any,
) -> Method:
    """A method that descends a loss of the logits that it is tested on.

    One forward pass tells whether the targets are right and, if not, carries the
    gradient: an edit of k steps takes k + 1 passes instead of 2 k + 1.

    Args:
      apply_fn: ``(params, inputs) -> logits [nodes, classes]``.
      loss_fn: ``(logits, task, edit, memory) -> loss``.
      make_optimizer: ``memory -> optimiser``.
      **options: ``remember``, ``restart`` and ``keeps`` of `from_loss`.

    Returns:
      The method.
    """

    def look(
        params: PyTree, state: MethodState, task: EditTask, edit: Edit
    ) -> tuple[Array, Advance]:
        logits, pull_back = jax.vjp(lambda p: apply_fn(p, task.inputs), params)

        def advance() -> tuple[PyTree, MethodState]:
            slope = jax.grad(loss_fn)(logits, task, edit, state.memory)
            (gradient,) = pull_back(slope)
            return _descended(make_optimizer, params, state, gradient)

        return logits, advance

    def loss(
        params: PyTree, task: EditTask, edit: Edit, memory: PyTree, key: PRNGKeyArray
    ) -> Array:
        del key
        return loss_fn(apply_fn(params, task.inputs), task, edit, memory)

    base = from_loss(apply_fn, loss, make_optimizer, **options)
    return base._replace(look=look)


def _descended(
    make_optimizer: Callable[[PyTree], optax.GradientTransformation],
    params: PyTree,
    state: MethodState,
    gradient: PyTree,
) -> tuple[PyTree, MethodState]:
    # An optax transformation is only functions: made anew in each step, it takes
    # anchors as arguments of the program and not as its constants.
    optimizer = promoting(make_optimizer(state.memory))
    updates, moments = optimizer.update(gradient, state.optimizer, params)
    return optax.apply_updates(params, updates), state._replace(optimizer=moments)


def gradient_descent(apply_fn: ApplyFn, *, learning_rate: float = 0.01) -> Method:
    """Fine-tuning on the targets alone (GD).

    Args:
      apply_fn: ``(params, inputs) -> logits [nodes, classes]``.
      learning_rate: of Adam.

    Returns:
      The method.

    Raises:
      ValueError: if the learning rate is not positive.
    """
    check_positive(learning_rate=learning_rate)
    return from_logit_loss(apply_fn, target_loss, lambda _: optax.adam(learning_rate))


def gre(
    apply_fn: ApplyFn,
    *,
    num_anchors: int = 1,
    gamma: float = 1.0,
    project: Literal["gradient", "update", "adam"] = "gradient",
    learning_rate: float = 0.01,
) -> Method:
    """Gradient rewiring: GRE with one anchor, GRE+ with two, three or five.

    Anchors are taken once, before the first edit, from equal chunks of the training
    nodes on the training graph.

    Args:
      apply_fn: ``(params, inputs) -> logits [nodes, classes]``.
      num_anchors: K.
      gamma: weight of the squared norm; without effect under Adam.
      project: the "gradient" before Adam, as published; Adam's "update" in the
        Euclidean metric, or in the metric of "adam". Only the last two hold the
        constraint for the step that is taken.
      learning_rate: of Adam.

    Returns:
      The method.

    Raises:
      ValueError: if an argument is out of range.

    References:
      Jiang et al., "Gradient Rewiring", 2024.
    """
    check_positive(learning_rate=learning_rate, num_anchors=num_anchors)
    # Written so that NaN is refused as well.
    if not gamma >= 0:
        raise ValueError(f"gamma: expected a weight of at least 0, got {gamma}")
    check_choice("project", project, ("gradient", "update", "adam"))

    def make_optimizer(anchors: PyTree) -> optax.GradientTransformation:
        if project == "adam":
            return rewired_adam(learning_rate, anchors)
        adam = optax.adam(learning_rate)
        if project == "update":
            return optax.chain(adam, rewire_update(anchors))
        return optax.chain(rewire(anchors, gamma), adam)

    return from_logit_loss(
        apply_fn,
        target_loss,
        make_optimizer,
        remember=remember_anchors(apply_fn, num_anchors),
    )


def _as_it_is(params: PyTree, task: EditTask, key: PRNGKeyArray) -> PyTree:
    del task, key
    return params


def target_loss(logits: Array, task: EditTask, edit: Edit, memory: PyTree) -> Array:
    """The loss of plain fine-tuning: mean cross-entropy of the targets.

    Args:
      logits: of all nodes.
      task: has the right classes.
      edit: the targets.
      memory: without effect.

    Returns:
      A scalar in nats, for `from_logit_loss`.
    """
    del memory
    return mean_error(logits, task.labels, edit.target)


def remember_anchors(
    apply_fn: ApplyFn, count: int
) -> Callable[[PyTree, EditTask], PyTree]:
    """Anchors of the training loss, on equal chunks of the training nodes.

    Args:
      apply_fn: ``(params, inputs) -> logits [nodes, classes]``.
      count: K, the number of chunks.

    Returns:
      ``(params, task) -> anchors``, for `from_loss`.
    """

    def remember(params: PyTree, task: EditTask) -> PyTree:
        return anchor_gradients(
            lambda p, chunk: training_error(apply_fn, p, task, chunk),
            params,
            training_chunks(task.training_where, count),
        )

    return remember


def check_positive(**values: float | int) -> None:
    """Check that every argument is above 0.

    Args:
      **values: numbers by argument name.

    Raises:
      ValueError: naming the first that is not.
    """
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name}: expected a positive number, got {value}")
