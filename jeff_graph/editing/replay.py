"""jeff's own editing methods, which protect earlier edits and other nodes.

* `rehearsal` adds the training loss at every step;
* `memory_rewiring` is GRE with the earlier targets as one more anchor;
* `distilled_replay` also trains on the earlier targets, and holds all other nodes of
  the graph to the trained model's predictions. Prefer it for edits that add up.

References:
  Robins, "Catastrophic Forgetting, Rehearsal and Pseudorehearsal", 1995.
  Hinton et al., "Distilling the Knowledge in a Neural Network", 2015.
  Jiang et al., "Gradient Rewiring for Editable Graph Neural Network Training",
  NeurIPS 2024.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from jeff.promotion import promoting
from jeff_graph.editing.gre import rewire_gradient
from jeff_graph.editing.methods import (
    LogitLoss,
    check_positive,
    from_logit_loss,
    from_loss,
    remember_anchors,
    target_loss,
)
from jeff_graph.editing.task import (
    Advance,
    ApplyFn,
    Edit,
    EditTask,
    Method,
    MethodState,
    divergence,
    mean_error,
    training_error,
)

__all__ = [
    "distillation",
    "distilled_loss",
    "distilled_replay",
    "memory_rewiring",
    "rehearsal",
]


def rehearsal(
    apply_fn: ApplyFn, *, weight: float = 1.0, learning_rate: float = 0.01
) -> Method:
    """Edits with the training loss added at every step.

    GRE only removes from an edit what conflicts with training. This continues training:
    its gradient counts also where it agrees.

    Args:
      apply_fn: ``(params, inputs) -> logits [nodes, classes]``.
      weight: of the training loss.
      learning_rate: of Adam.

    Returns:
      The method.

    Raises:
      ValueError: if an argument is not positive.
    """
    check_positive(weight=weight, learning_rate=learning_rate)

    def loss(
        params: PyTree, task: EditTask, edit: Edit, memory: PyTree, key: PRNGKeyArray
    ) -> Array:
        del key
        error = target_loss(apply_fn(params, task.inputs), task, edit, memory)
        return error + weight * training_error(apply_fn, params, task)

    return from_loss(apply_fn, loss, lambda _: optax.adam(learning_rate))


def memory_rewiring(
    apply_fn: ApplyFn, *, num_anchors: int = 5, learning_rate: float = 0.01
) -> Method:
    """Rewiring with the earlier targets as one more anchor.

    The further anchor is the gradient of their mean cross-entropy at the present
    parameters: to first order, no edit undoes the earlier ones on the whole.

    Args:
      apply_fn: ``(params, inputs) -> logits [nodes, classes]``.
      num_anchors: K, from the training nodes as in `gre`.
      learning_rate: of Adam.

    Returns:
      The method.

    Raises:
      ValueError: if an argument is not positive.
    """
    check_positive(learning_rate=learning_rate, num_anchors=num_anchors)
    adam = promoting(optax.adam(learning_rate))
    base = from_logit_loss(
        apply_fn,
        target_loss,
        lambda _: adam,
        remember=remember_anchors(apply_fn, num_anchors),
    )

    def look(
        params: PyTree, state: MethodState, task: EditTask, edit: Edit
    ) -> tuple[Array, Advance]:
        # One forward pass serves both gradients: of the target and of earlier targets.
        logits, pull_back = jax.vjp(lambda p: apply_fn(p, task.inputs), params)

        def advance() -> tuple[PyTree, MethodState]:
            pulls = [
                pull_back(jax.grad(mean_error)(logits, task.labels, nodes))[0]
                for nodes in edit
            ]
            anchors = jax.tree.map(
                lambda stacked, extra: jnp.concatenate([stacked, extra[None]]),
                state.memory,
                pulls[1],
            )
            # Without earlier targets the further anchor is 0, and constrains nothing.
            gradient, _ = rewire_gradient(pulls[0], anchors)
            updates, moments = adam.update(gradient, state.optimizer)
            moved = optax.apply_updates(params, updates)
            return moved, state._replace(optimizer=moments)

        return logits, advance

    def step(
        params: PyTree, state: MethodState, task: EditTask, edit: Edit
    ) -> tuple[PyTree, MethodState]:
        return look(params, state, task, edit)[1]()

    return base._replace(step=step, look=look)


def distilled_replay(
    apply_fn: ApplyFn,
    *,
    replay: float = 10.0,
    locality: float = 10.0,
    learning_rate: float = 0.01,
) -> Method:
    """Edits that replay the earlier ones and preserve all other predictions.

    ``CE(target) + replay CE(earlier) + locality KL(trained || edited)``, the last over
    all nodes that are no target. It needs no label but the targets': the trained
    model's own predictions are the reference. Adam starts afresh at every edit, and an
    edit continues, within its steps, until the earlier targets are right as well.

    Args:
      apply_fn: ``(params, inputs) -> logits [nodes, classes]``.
      replay: weight of the mean cross-entropy of the earlier targets.
      locality: weight of the divergence.
      learning_rate: of Adam.

    Returns:
      The method.

    Raises:
      ValueError: if a weight is negative, or the learning rate not positive.
    """
    check_positive(learning_rate=learning_rate)
    return from_logit_loss(
        apply_fn,
        distilled_loss(replay, locality),
        lambda _: optax.adam(learning_rate),
        remember=lambda params, task: apply_fn(params, task.inputs),
        restart=True,
        keeps=True,
    )


def distilled_loss(replay: float, locality: float) -> LogitLoss:
    """`distillation` with given weights.

    Args:
      replay: as there.
      locality: as there.

    Returns:
      A loss for `jeff_graph.editing.methods.from_logit_loss`, whose memory are the
      trained model's logits.

    Raises:
      ValueError: if a weight is negative.
    """
    for name, weight in (("replay", replay), ("locality", locality)):
        if not weight >= 0:
            raise ValueError(f"{name}: expected a weight of at least 0, got {weight}")

    def loss(logits: Array, task: EditTask, edit: Edit, memory: PyTree) -> Array:
        return distillation(logits, task, edit, memory, replay, locality)

    return loss


def distillation(
    logits: Float[Array, "nodes classes"],
    task: EditTask,
    edit: Edit,
    trained: Float[Array, "nodes classes"],
    replay: float,
    locality: Float[Array, ""] | float,
) -> Float[Array, ""]:
    """``CE(target) + replay CE(earlier) + locality KL(trained || edited)``.

    Args:
      logits: of the edited model.
      task: has the right classes.
      edit: targets, and earlier ones.
      trained: logits of the trained model.
      replay: weight of the mean cross-entropy of the earlier targets.
      locality: weight of the mean divergence at the nodes that are no target.

    Returns:
      A scalar in nats.
    """
    # Nodes that were asked to change must not be held to what they were.
    rest = task.where & ~edit.target & ~edit.earlier
    return (
        mean_error(logits, task.labels, edit.target)
        + replay * mean_error(logits, task.labels, edit.earlier)
        + locality * divergence(trained, logits, rest)
    )
