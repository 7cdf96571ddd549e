"""Published rivals of GRE: ENN, EGNN and SEED-style batches.

References:
  Sinitsin et al., "Editable Neural Networks", ICLR 2020.
  Liu et al., "Editable Graph Neural Network for Node Classifications", 2023.
  Zhong et al., "GNNs Also Deserve Editing, and They Need It More Than Once", ICML 2024.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from jeff.promotion import promoting
from jeff_graph.editing.checks import check_trainable
from jeff_graph.editing.methods import from_loss, gradient_descent
from jeff_graph.editing.task import (
    ApplyFn,
    Edit,
    EditTask,
    Method,
    divergence,
    mean_error,
)

__all__ = ["egnn", "enn", "seed"]


def enn(
    apply_fn: ApplyFn,
    *,
    learning_rate: float = 0.01,
    edit_weight: float = 1.0,
    locality: float = 1.0,
    inner_rate: float = 0.5,
    meta_rate: float = 1e-3,
    meta_steps: int = 100,
) -> Method:
    """Editable training: the model is first trained to be easy to edit (ENN).

    Each meta-step draws a training node and a class, takes the edit
    ``theta' = theta - inner_rate grad CE_drawn`` and descends ``CE_train(theta) +
    edit_weight CE_drawn(theta') + locality KL(theta || theta')`` through it. Edits are
    then those of `gradient_descent`.

    Args:
      apply_fn: ``(params, inputs) -> logits [nodes, classes]``.
      learning_rate: of Adam, in edits.
      edit_weight: weight of the error after the inner edit.
      locality: weight of the divergence on the training nodes.
      inner_rate: step size of the inner edit.
      meta_rate: of Adam, in the meta-training.
      meta_steps: steps of the meta-training.

    Returns:
      The method.

    Raises:
      ValueError: if ``meta_steps`` is negative.

    References:
      Sinitsin et al., "Editable Neural Networks", 2020, eq. 4.
    """
    if meta_steps < 0:
        raise ValueError(f"meta_steps: expected at least 0, got {meta_steps}")
    adam = promoting(optax.adam(meta_rate))

    def loss(params: PyTree, task: EditTask, key: PRNGKeyArray) -> Array:
        where, labels = task.training_where, task.training_labels
        pick, draw = jax.random.split(key)

        def forward(params: PyTree) -> Array:
            return apply_fn(params, task.training_inputs)

        logits = forward(params)
        share = where.astype(jnp.float32) / where.sum().astype(jnp.float32)
        chosen = jax.random.choice(pick, where.shape[0], p=share)
        drawn = labels.at[chosen].set(
            jax.random.randint(draw, (), 0, logits.shape[1]).astype(labels.dtype)
        )
        node = jnp.arange(where.shape[0]) == chosen
        slope = jax.grad(lambda p: mean_error(forward(p), drawn, node))(params)
        # Differentiated through the inner step, second order included.
        edited = forward(jax.tree.map(lambda p, g: p - inner_rate * g, params, slope))
        return (
            mean_error(logits, labels, where)
            + edit_weight * mean_error(edited, drawn, node)
            + locality * divergence(logits, edited, where & ~node)
        )

    def prepare(params: PyTree, task: EditTask, key: PRNGKeyArray) -> PyTree:
        check_trainable(params)
        return _descend(loss, params, task, adam, meta_steps, key)

    return gradient_descent(apply_fn, learning_rate=learning_rate)._replace(
        prepare=prepare
    )


def egnn(
    apply_fn: ApplyFn,
    *,
    hidden: int = 32,
    learning_rate: float = 0.01,
    locality: float = 1.0,
    warmup_rate: float = 0.01,
    warmup_steps: int = 100,
) -> Method:
    """An MLP beside the frozen network, and only the MLP is edited (EGNN).

    ``logits = network + MLP(features)``: no edit travels along edges. The MLP starts at
    zero and is first trained on the whole graph's training nodes, with ``locality``
    times the divergence from the network alone. Tasks need their ``features``.

    Args:
      apply_fn: ``(params, inputs) -> logits [nodes, classes]``.
      hidden: width of the MLP.
      learning_rate: of Adam, in edits.
      locality: weight of the divergence, in the first training.
      warmup_rate: of Adam, in the first training.
      warmup_steps: steps of the first training.

    Returns:
      The method; it edits ``{"net": params, "mlp": ...}``.

    Raises:
      ValueError: if a number is out of range; on use, if the task has no features.

    References:
      Liu et al., "Editable Graph Neural Network for Node Classifications", 2023.
    """
    if hidden < 1 or warmup_steps < 0:
        raise ValueError(
            "hidden, warmup_steps: expected at least 1 and 0, got "
            f"{hidden} and {warmup_steps}"
        )

    def logits(params: PyTree, task: EditTask) -> Array:
        # Both parts of a trained model, or the network alone before `prepare`.
        if not _is_joint(params):
            return apply_fn(params, task.inputs)
        # Adam leaves a parameter without gradient where it is.
        frozen = jax.lax.stop_gradient(params["net"])
        return apply_fn(frozen, task.inputs) + _mlp(params["mlp"], _features(task))

    def warmup(mlp: PyTree, given: tuple[EditTask, Array], key: PRNGKeyArray) -> Array:
        del key
        task, base = given
        joint = base + _mlp(mlp, _features(task))
        error = mean_error(joint, task.labels, task.train)
        return error + locality * divergence(base, joint, task.where)

    def prepare(params: PyTree, task: EditTask, key: PRNGKeyArray) -> PyTree:
        base = apply_fn(params, task.inputs)
        mlp = _init_mlp(_features(task).shape[1], hidden, base.shape[1], key)
        adam = promoting(optax.adam(warmup_rate))
        mlp = _descend(warmup, mlp, (task, base), adam, warmup_steps, key)
        return {"net": params, "mlp": mlp}

    def loss(
        params: PyTree, task: EditTask, edit: Edit, memory: PyTree, key: PRNGKeyArray
    ) -> Array:
        del key
        joint = memory + _mlp(params["mlp"], _features(task))
        return mean_error(joint, task.labels, edit.target)

    base = from_loss(
        apply_fn,
        loss,
        lambda _: optax.adam(learning_rate),
        # The frozen network's logits are taken once.
        remember=lambda params, task: apply_fn(params["net"], task.inputs),
    )
    return base._replace(prepare=prepare, logits=logits)


def seed(
    apply_fn: ApplyFn, *, num_random: int = 20, learning_rate: float = 0.01
) -> Method:
    """Every step on a batch: target, earlier targets, and training nodes (SEED).

    Mean cross-entropy over the target, all earlier targets, those training nodes that
    are the target's neighbours, and ``num_random`` others drawn afresh at each step.
    Tasks need their ``edges``.

    Args:
      apply_fn: ``(params, inputs) -> logits [nodes, classes]``.
      num_random: random training nodes in each step.
      learning_rate: of Adam.

    Returns:
      The method.

    Raises:
      ValueError: if ``num_random`` is negative; on use, if the task has no edges.

    References:
      Zhong et al., "GNNs Also Deserve Editing", 2024.
    """
    if num_random < 0:
        raise ValueError(f"num_random: expected at least 0, got {num_random}")

    def loss(
        params: PyTree, task: EditTask, edit: Edit, memory: PyTree, key: PRNGKeyArray
    ) -> Array:
        del memory
        # Training nodes alone have labels to learn from.
        near = _neighbours(task, edit.target) & task.train
        drawn = _draw(task.train, num_random, key)
        nodes = edit.target | edit.earlier | near | drawn
        return mean_error(apply_fn(params, task.inputs), task.labels, nodes)

    return from_loss(apply_fn, loss, lambda _: optax.adam(learning_rate), random=True)


def _descend(
    loss_fn: Callable[[PyTree, PyTree, PRNGKeyArray], Array],
    params: PyTree,
    given: PyTree,
    optimizer: optax.GradientTransformation,
    steps: int,
    key: PRNGKeyArray,
) -> PyTree:
    """Run ``steps`` steps of the optimiser, each with a separate key."""

    def step(
        carry: tuple[PyTree, PyTree], key: PRNGKeyArray
    ) -> tuple[tuple[PyTree, PyTree], None]:
        params, state = carry
        gradient = jax.grad(loss_fn)(params, given, key)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(key, steps)
    return jax.lax.scan(step, (params, optimizer.init(params)), keys)[0][0]


def _is_joint(params: PyTree) -> bool:
    return isinstance(params, dict) and set(params) == {"net", "mlp"}


def _init_mlp(width: int, hidden: int, classes: int, key: PRNGKeyArray) -> PyTree:
    first = jax.nn.initializers.he_normal()(key, (width, hidden))
    return {
        "first": {"kernel": first, "bias": jnp.zeros(hidden)},
        # Zero, so that the joint model starts as the network alone.
        "last": {"kernel": jnp.zeros((hidden, classes)), "bias": jnp.zeros(classes)},
    }


def _mlp(params: PyTree, x: Float[Array, "nodes width"]) -> Array:
    first, last = params["first"], params["last"]
    x = jax.nn.relu(x @ first["kernel"] + first["bias"][None])
    return x @ last["kernel"] + last["bias"][None]


def _features(task: EditTask) -> Float[Array, "nodes width"]:
    if task.features is None:
        raise ValueError("features: expected a task with dense features, got None")
    return task.features


def _neighbours(task: EditTask, nodes: Array) -> Bool[Array, " nodes"]:
    if task.edges is None:
        raise ValueError("edges: expected a task with edges, got None")
    senders, receivers, real = task.edges
    sent = (nodes[senders] & real).astype(jnp.int32)
    return jnp.zeros(nodes.shape, jnp.int32).at[receivers].max(sent) > 0


def _draw(where: Array, count: int, key: PRNGKeyArray) -> Bool[Array, " nodes"]:
    """``count`` random nodes, or all where there are fewer."""
    # The lowest of random ranks: a draw without replacement whose shapes are static.
    rank = jnp.where(where, jax.random.uniform(key, where.shape), 2.0).argsort()
    first = jnp.arange(where.shape[0]) < count
    return jnp.zeros_like(where).at[rank].set(first) & where
