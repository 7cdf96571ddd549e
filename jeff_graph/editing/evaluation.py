"""Three protocols that compare editing methods.

* `independent`: every edit starts from the same trained model;
* `sequential`: one edit after the other, on one model and with one optimiser;
* `batch`: all targets at once.

An edit takes at most ``max_steps`` steps and stops when its target is right, tested
after each step in evaluation mode. A target that is right already takes none. (The
official code tests before the step, and so always takes one more.)

Each protocol is one pure function of arrays: jit it with the method bound,
``jax.jit(functools.partial(independent, method))``.

References:
  Jiang et al., "Gradient Rewiring for Editable Graph Neural Network Training",
  NeurIPS 2024, section 5.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from jeff_graph.editing.checks import (
    check_classes,
    check_node_numbers,
    check_task_classes,
    nodes_at,
)
from jeff_graph.editing.nearby import Nearby
from jeff_graph.editing.report import (
    EditReport,
    at,
    final_report,
    hop_counts,
    hop_points,
    points,
    predictions_lost,
)
from jeff_graph.editing.rows import filled, real_rows
from jeff_graph.editing.stepping import edit_once
from jeff_graph.editing.task import (
    Edit,
    EditTask,
    Method,
    MethodState,
    divergence,
)

__all__ = ["batch", "independent", "sequential"]


def independent(
    method: Method,
    params: PyTree,
    task: EditTask,
    targets: Any,
    test: Any,
    *,
    key: PRNGKeyArray,
    hops: Int[Array, "edits nodes"] | None = None,
    max_steps: int = 10,
    bisections: int = 0,
    edits_at_once: int | None = None,
    near: Nearby | None = None,
) -> EditReport:
    """Edit the same trained model for each target by itself.

    Args:
      method: how to edit.
      params: the trained model.
      task: what it is edited on.
      targets: a node for each edit, integers [edits].
      test: nodes whose accuracy counts, bool [nodes].
      key: random key of the method.
      hops: distance of every node from each target; no drawdown by distance without.
      max_steps: most steps of an edit.
      bisections: after a success, halvings of the last step down to the smallest that
        still succeeds; 0 is the published protocol.
      edits_at_once: edits side by side, each with a copy of the model and its
        activations; all by default.
      near: a small task for each target, by `jeff_graph.editing.nearby.nearby_tasks`:
        steps are taken there, and the whole graph is read once per edit, at the end.
        For methods whose steps read the target alone: gradient descent, GRE and GRE+.

    Returns:
      The report.

    Raises:
      ValueError: if shapes do not fit or a number is out of range.
    """
    targets, test = _check(task, targets, test, hops, max_steps, bisections)
    if edits_at_once is not None and edits_at_once < 1:
        raise ValueError(f"edits_at_once: expected at least 1, got {edits_at_once}")
    first, later = jax.random.split(key)
    # Before `prepare`: what a method costs on top of training counts as drawdown.
    reference = method.logits(params, task)
    check_task_classes(task, reference.shape[1])
    for place in near.tasks if near else ():
        check_classes("near.labels", place.labels, reference.shape[1])
    params = method.prepare(params, task, first)
    start = method.init(params, task, later)

    def edited(request: tuple[Array, EditTask | None]) -> tuple[PyTree, Array, Array]:
        target, place = request
        place, slot = (task, target) if place is None else (place, 0)
        # On a neighbourhood the target is always in slot 0.
        asked = jnp.arange(place.labels.shape[0]) == slot
        # From the target and not from its place, so that a subset of targets gives the
        # same edits.
        begun = start._replace(key=jax.random.fold_in(start.key, target))
        edit = Edit(asked, jnp.zeros_like(asked))
        done = edit_once(method, params, begun, place, edit, max_steps, bisections)
        return done.params, at(done.right, slot), done.steps

    def measured(request: tuple[PyTree, Array, Array | None]) -> tuple[Array, ...]:
        params, target, distance = request
        logits = method.logits(params, task)
        lost = predictions_lost(reference, logits, task)
        rest = task.where & (jnp.arange(test.shape[0]) != target)
        return (
            points(lost, test),
            hop_counts(lost, test, distance),
            divergence(reference, logits, rest),
        )

    each = functools.partial(_each, edits_at_once=edits_at_once)
    if near is None:
        done = each(edited, (targets, None))
    else:
        done = _in_order(
            near.places,
            [
                each(edited, (targets[places], place))
                for places, place in zip(*near, strict=True)
            ],
        )
    # Measured apart: edits may have run on neighbourhoods, drawdown needs the whole
    # graph.
    models, success, steps = done
    drawdowns, counts, moved = each(measured, (models, targets, hops))
    return EditReport(
        success,
        success,
        steps,
        drawdowns.mean(),
        drawdowns,
        hop_points(counts.sum(0)),
        moved.mean(),
    )


def _each(
    function: Callable[[Any], Any], requests: Any, edits_at_once: int | None
) -> Any:
    if edits_at_once is None:
        return jax.vmap(function)(requests)
    # A batch of one would still be batched, which costs time.
    size = None if edits_at_once == 1 else edits_at_once
    return jax.lax.map(function, requests, batch_size=size)


def _in_order(places: tuple[Any, ...], groups: list[Any]) -> Any:
    """Join the results of groups, in the order of their places."""
    # Groups come by size; the report has the order of the targets.
    order = jnp.argsort(jnp.concatenate(places))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts)[order], *groups)


def sequential(
    method: Method,
    params: PyTree,
    task: EditTask,
    targets: Any,
    test: Any,
    *,
    key: PRNGKeyArray,
    hops: Int[Array, "edits nodes"] | None = None,
    max_steps: int = 10,
    bisections: int = 0,
) -> tuple[PyTree, EditReport]:
    """Edit one model for each target in turn.

    Args:
      method: how to edit.
      params: the trained model.
      task: what it is edited on.
      targets: a node for each edit, integers [edits], in the order of the edits.
      test: nodes whose accuracy counts, bool [nodes].
      key: random key of the method.
      hops: as in `independent`.
      max_steps: most steps of an edit.
      bisections: as in `independent`.

    Returns:
      What was edited (see `Method`), and the report.

    Raises:
      ValueError: if shapes do not fit or a number is out of range.
    """
    targets, test = _check(task, targets, test, hops, max_steps, bisections)
    first, later = jax.random.split(key)
    reference = method.logits(params, task)
    check_task_classes(task, reference.shape[1])
    params = method.prepare(params, task, first)
    state = method.init(params, task, later)
    nodes = jnp.arange(test.shape[0])
    memory = state.memory

    def one(
        carry: tuple[PyTree, MethodState, Array], target: Array
    ) -> tuple[tuple[PyTree, MethodState, Array], tuple[Array, ...]]:
        params, state, earlier = carry
        edit = Edit(nodes == target, earlier & (nodes != target))
        # Memory never changes; in the carry of a scan it would be copied each step.
        state = state._replace(memory=memory)
        done = edit_once(method, params, state, task, edit, max_steps, bisections)
        lost = predictions_lost(reference, done.logits, task)
        carry = done.params, done.state._replace(memory=None), earlier | edit.target
        return carry, (at(done.right, target), done.steps, points(lost, test))

    start = params, state._replace(memory=None), jnp.zeros_like(test)
    (params, _, edited), (success, steps, drawdowns) = jax.lax.scan(one, start, targets)
    logits = method.logits(params, task)
    return params, final_report(
        reference, logits, task, targets, test, hops, success, steps, drawdowns, edited
    )


def batch(
    method: Method,
    params: PyTree,
    task: EditTask,
    targets: Any,
    test: Any,
    *,
    key: PRNGKeyArray,
    hops: Int[Array, "edits nodes"] | None = None,
    max_steps: int = 20,
    bisections: int = 0,
) -> tuple[PyTree, EditReport]:
    """Edit one model for all targets at once; stop when all are right.

    Args:
      method: how to edit.
      params: the trained model.
      task: what it is edited on.
      targets: the nodes, integers [edits].
      test: nodes whose accuracy counts, bool [nodes].
      key: random key of the method.
      hops: as in `independent`.
      max_steps: most steps.
      bisections: as in `independent`.

    Returns:
      What was edited (see `Method`), and the report.

    Raises:
      ValueError: if shapes do not fit or a number is out of range.
    """
    targets, test = _check(task, targets, test, hops, max_steps, bisections)
    first, later = jax.random.split(key)
    reference = method.logits(params, task)
    check_task_classes(task, reference.shape[1])
    params = method.prepare(params, task, first)
    state = method.init(params, task, later)
    nothing = jnp.zeros_like(test)
    edit = Edit(nodes_at(targets, len(test)), nothing)
    # All targets in one mask: steps stop when every one of them is right.
    done = edit_once(method, params, state, task, edit, max_steps, bisections)
    logits = done.logits
    success = at(done.right, targets)
    steps = jnp.broadcast_to(done.steps, targets.shape)
    lost = points(predictions_lost(reference, logits, task), test)
    drawdowns = jnp.broadcast_to(lost, targets.shape)
    return done.params, final_report(
        reference,
        logits,
        task,
        targets,
        test,
        hops,
        success,
        steps,
        drawdowns,
        edit.target,
    )


def _check(
    task: EditTask,
    targets: Any,
    test: Any,
    hops: Array | None,
    max_steps: int,
    bisections: int,
) -> tuple[Array, Array]:
    """Check the request; return targets and test as JAX arrays."""
    targets, test = (
        each if isinstance(each, Array) else np.asarray(each)
        for each in (targets, test)
    )
    if targets.ndim != 1 or not targets.size:
        raise ValueError(
            f"targets: expected a vector of at least one node, got {targets.shape}"
        )
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        raise TypeError(f"targets: expected node numbers, got {targets.dtype}")
    check_node_numbers("targets", targets, task.labels.shape[0])
    # A mask of the real rows does for a graph with padding behind them.
    test = filled("test", test, real_rows(task.inputs, task.labels), False)
    if test.dtype != jnp.bool_:
        raise ValueError(f"test: expected a bool mask, got {test.dtype}")
    if not isinstance(test, Tracer) and not np.asarray(test).any():
        raise ValueError("test: expected at least one node, got none")
    if hops is not None and hops.shape != (*targets.shape, *test.shape):
        raise ValueError(
            f"hops: expected [edits, nodes] = {(*targets.shape, *test.shape)}, got "
            f"{hops.shape}"
        )
    for name, value, least in (
        ("max_steps", max_steps, 1),
        ("bisections", bisections, 0),
    ):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    return jnp.asarray(targets), jnp.asarray(test)
