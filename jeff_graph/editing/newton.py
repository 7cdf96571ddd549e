"""Minimal edits: damped Gauss-Newton steps, each cut to what the target needs.

A first step of Adam moves every weight by its learning rate, whatever the edit needs;
in a dense graph, where a node is averaged over hundreds of others, that flips the
predictions of many. Here a step comes from the curvature of the predictions themselves:
of all steps that raise the target's class as much, it takes the one that changes the
other nodes' predictions least, to second order, and a search along it stops at the
shortest that succeeds.

References:
  Martens, "Deep learning via Hessian-free optimization", ICML 2010: Gauss-Newton steps
  by conjugate gradients, damped as by Levenberg and Marquardt.
  Hinton et al., "Distilling the Knowledge in a Neural Network", 2015.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from jeff_graph.editing.methods import check_positive, from_logit_loss
from jeff_graph.editing.replay import distillation, distilled_loss
from jeff_graph.editing.rows import right_rows
from jeff_graph.editing.task import (
    Advance,
    ApplyFn,
    Edit,
    EditTask,
    Method,
    MethodState,
    counted,
)

__all__ = ["minimal_edit"]

# In place of an optimiser: its state is the number of steps of the present edit.
_COUNT = optax.GradientTransformation(
    lambda params: jnp.zeros((), jnp.int32),
    lambda updates, state, params=None: (updates, state),
)
_TINY = 1e-30  # below every sum of squares that matters, above the float32 underflow


def minimal_edit(
    apply_fn: ApplyFn,
    *,
    replay: float = 10.0,
    locality: float = 30.0,
    damping: float = 0.03,
    iterations: int = 10,
    halvings: int = 8,
    patience: int = 5,
) -> Method:
    """Edits that change the other predictions as little as they can.

    The loss is that of `jeff_graph.editing.replay.distilled_replay`,
    ``L = CE(target) + replay CE(earlier) + locality KL(trained || edited)``. A step d
    solves ``(J' W J + lambda I) d = -grad L`` by conjugate gradients, where J is the
    Jacobian of the logits and W their curvature, ``w_i (diag p_i - p_i p_i')`` at node
    i with its weight in L. If d corrects the targets, it is halved down to the shortest
    that does; else it is halved until L falls.

    Args:
      apply_fn: ``(params, inputs) -> logits [nodes, classes]``, differentiable forwards
        and backwards.
      replay: weight of the mean cross-entropy of the earlier targets.
      locality: weight of the divergence.
      damping: lambda over the curvature along the gradient, ``g' J'WJ g / g'g``. More
        is closer to a step of gradient descent.
      iterations: of conjugate gradients, each a product with J and one with J'.
      halvings: most halvings of a step, each a forward pass.
      patience: steps with the full locality; from then on it is halved at every step,
        so that an edit succeeds that cannot be made without touching others.

    Returns:
      The method.

    Raises:
      ValueError: if a number is out of range.
    """
    check_positive(damping=damping, iterations=iterations)
    for name, number in (("halvings", halvings), ("patience", patience)):
        if number < 0:
            raise ValueError(f"{name}: expected at least 0, got {number}")

    settings = _Settings(replay, locality, damping, iterations, halvings, patience)

    def look(
        params: PyTree, state: MethodState, task: EditTask, edit: Edit
    ) -> tuple[Array, Advance]:
        def logits_fn(params: PyTree) -> Array:
            return apply_fn(params, task.inputs)

        logits, forward = jax.linearize(logits_fn, params)

        def advance() -> tuple[PyTree, MethodState]:
            moved = _step(
                logits_fn, params, logits, forward, state, task, edit, settings
            )
            return moved, state._replace(optimizer=state.optimizer + 1)

        return logits, advance

    def step(
        params: PyTree, state: MethodState, task: EditTask, edit: Edit
    ) -> tuple[PyTree, MethodState]:
        return look(params, state, task, edit)[1]()

    def begin(params: PyTree, state: MethodState) -> MethodState:
        del params
        return state._replace(optimizer=jnp.zeros((), jnp.int32))

    base = from_logit_loss(
        apply_fn,
        distilled_loss(replay, locality),
        lambda _: _COUNT,
        remember=lambda params, task: apply_fn(params, task.inputs),
        keeps=True,
    )
    return base._replace(begin=begin, step=step, look=look)


class _Settings(NamedTuple):
    """Arguments of `minimal_edit`."""

    replay: float
    locality: float
    damping: float
    iterations: int
    halvings: int
    patience: int


def _step(
    logits_fn: Callable[[PyTree], Array],
    params: PyTree,
    logits: Float[Array, "nodes classes"],
    forward: Callable[[PyTree], Array],
    state: MethodState,
    task: EditTask,
    edit: Edit,
    settings: _Settings,
) -> PyTree:
    """Parameters after one step, from the logits and the product with J there."""
    backward = jax.linear_transpose(forward, params)
    late = jnp.maximum(state.optimizer - settings.patience, 0).astype(jnp.float32)
    locality = settings.locality * 0.5**late

    def loss_fn(logits: Array) -> Array:
        given = task, edit, state.memory, settings.replay, locality
        return distillation(logits, *given)

    value, slope = jax.value_and_grad(loss_fn)(logits)
    weights = _weights(task, edit, settings.replay, locality)
    curvature = _curvature(logits, forward, backward, weights)
    direction = _solve(
        curvature, backward(slope)[0], settings.damping, settings.iterations
    )
    wanted = (edit.target | edit.earlier) & (task.labels >= 0)

    def at(length: Array) -> PyTree:
        return _moved(params, direction, length)

    def succeeds(length: Array) -> Array:
        right = right_rows(logits_fn(at(length)), task.labels)
        return ~jnp.any(wanted & ~right)

    def falls(length: Array) -> Array:
        return loss_fn(logits_fn(at(length))) <= value

    return at(_search(succeeds, falls, settings.halvings))


def _weights(
    task: EditTask, edit: Edit, replay: float, locality: Float[Array, ""] | float
) -> Float[Array, " nodes"]:
    """Weight of each node's prediction in the loss."""
    known = task.labels >= 0
    parts = (
        (1.0, edit.target & known),
        (replay, edit.earlier & known),
        (locality, task.where & ~edit.target & ~edit.earlier),
    )
    return sum(
        (
            weight * nodes.astype(jnp.float32) / counted(nodes)
            for weight, nodes in parts
        ),
        start=jnp.zeros(task.labels.shape, jnp.float32),
    )


def _curvature(
    logits: Float[Array, "nodes classes"],
    forward: Callable[[PyTree], Array],
    backward: Callable[[Array], tuple[PyTree]],
    weights: Float[Array, " nodes"],
) -> Callable[[PyTree], PyTree]:
    """``v -> J' W J v``, from products with J and J'."""
    p = jax.nn.softmax(logits)

    def product(vector: PyTree) -> PyTree:
        moved = forward(vector)
        moved = p * (moved - jnp.sum(p * moved, axis=1, keepdims=True))
        return backward(weights[:, None] * moved)[0]

    return product


def _solve(
    curvature: Callable[[PyTree], PyTree],
    gradient: PyTree,
    damping: float,
    iterations: int,
) -> PyTree:
    """Conjugate gradients on ``(curvature + lambda) d = -gradient``, from zero."""
    square = _dot(gradient, gradient)
    # Relative to the curvature, so that no scale of weights or features matters.
    scale = _dot(gradient, curvature(gradient)) / jnp.maximum(square, _TINY)
    damped = damping * scale

    def one(
        _: Any, carry: tuple[PyTree, PyTree, PyTree, Array]
    ) -> tuple[PyTree, PyTree, PyTree, Array]:
        solved, left, way, square = carry
        product = _moved(curvature(way), way, damped)
        length = square / jnp.maximum(_dot(way, product), _TINY)
        solved = _moved(solved, way, length)
        left = _moved(left, product, -length)
        new = _dot(left, left)
        return solved, left, _moved(left, way, new / jnp.maximum(square, _TINY)), new

    left = jax.tree.map(jnp.negative, gradient)
    start = jax.tree.map(jnp.zeros_like, gradient), left, left, square
    return jax.lax.fori_loop(0, iterations, one, start)[0]


def _search(
    succeeds: Callable[[Array], Array],
    falls: Callable[[Array], Array],
    halvings: int,
) -> Float[Array, ""]:
    """The shortest length that succeeds, to 2^-halvings; else one at which L falls."""
    zero, one = jnp.zeros(()), jnp.ones(())

    def shortest() -> Array:
        def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = ends
            middle = (low + high) / 2
            good = succeeds(middle)
            return jnp.where(good, low, middle), jnp.where(good, middle, high)

        return jax.lax.fori_loop(0, halvings, halve, (zero, one))[1]

    def falling() -> Array:
        least = 0.5**halvings
        return jax.lax.while_loop(
            lambda t: (t > least) & ~falls(t), lambda t: t / 2, one
        )

    return jax.lax.cond(succeeds(one), shortest, falling)


def _dot(left: PyTree, right: PyTree) -> Float[Array, ""]:
    return sum(
        (
            jnp.vdot(a, b)
            for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
        ),
        start=jnp.zeros(()),
    )


def _moved(start: PyTree, way: PyTree, length: Array) -> PyTree:
    return jax.tree.map(lambda a, b: (a + length * b).astype(a.dtype), start, way)
