"""One edit: steps until the target is right, inside jit."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from jeff.line import interpolate
from jeff_graph.editing.rows import right_rows
from jeff_graph.editing.task import Advance, Edit, EditTask, Method, MethodState

__all__ = ["Progress", "edit_once"]


class Progress(NamedTuple):
    """An edit between two steps.

    Attributes:
      params: what is edited.
      before: the same, a step ago; None without bisections.
      state: the method's.
      logits: of all nodes.
      right: nodes whose class is right.
      steps: steps taken.
    """

    params: PyTree
    before: PyTree
    state: MethodState
    logits: Float[Array, "nodes classes"]
    right: Bool[Array, " nodes"]
    steps: Int[Array, ""]


def edit_once(
    method: Method,
    params: PyTree,
    state: MethodState,
    task: EditTask,
    edit: Edit,
    max_steps: int,
    bisections: int,
) -> Progress:
    """Step until the target is right, or steps run out.

    A target without a label (-1) takes no step, and is never right.

    Args:
      method: how to edit.
      params: what is edited.
      state: the method's.
      task: what it is edited on.
      edit: the targets.
      max_steps: most steps.
      bisections: halvings of the last step, down to the smallest that still succeeds.

    Returns:
      The end, with ``before`` left out.
    """
    # Memory stays out of the carry: under vmap each edit would have a copy of it.
    memory = state.memory
    wanted = edit.target | edit.earlier if method.keeps else edit.target

    def lacks(right: Array, nodes: Array) -> Array:
        return jnp.any(nodes & ~right & (task.labels >= 0))

    def goes_on(right: Array, steps: Array) -> Array:
        # Earlier targets keep an edit going, but do not start one.
        nodes = jnp.where(steps > 0, wanted, edit.target)
        return lacks(right, nodes) & (steps < max_steps)

    def tested(params: PyTree) -> tuple[Array, Array]:
        logits = method.logits(params, task)
        return logits, right_rows(logits, task.labels)

    def with_memory(state: MethodState) -> MethodState:
        return state._replace(memory=memory)

    look = method.look or _look(method)

    # The test comes first in each round, so that the step shares its forward pass; the
    # last round only tests.
    def one(now: tuple[Progress, Array]) -> tuple[Progress, Array]:
        done, _ = now
        logits, advance = look(done.params, with_memory(done.state), task, edit)
        right = right_rows(logits, task.labels)
        more = goes_on(right, done.steps)

        def moved() -> tuple[PyTree, MethodState, PyTree]:
            params, state = advance()
            return params, state._replace(memory=None), done.params

        def still() -> tuple[PyTree, MethodState, PyTree]:
            return done.params, done.state, done.before if bisections else done.params

        params, state, before = jax.lax.cond(more, moved, still)
        before = before if bisections else None
        steps = done.steps + more.astype(jnp.int32)
        return Progress(params, before, state, logits, right, steps), more

    begun = method.begin(params, state)._replace(memory=None)
    before = params if bisections else None
    shape = jax.eval_shape(method.logits, params, task)
    start = Progress(
        params,
        before,
        begun,
        jnp.zeros(shape.shape, shape.dtype),
        jnp.zeros(task.labels.shape, bool),
        jnp.zeros((), jnp.int32),
    )
    done, _ = jax.lax.while_loop(lambda now: now[1], one, (start, jnp.ones((), bool)))

    if bisections:
        done = _shortened(done, tested, lambda right: lacks(right, wanted), bisections)
    return done._replace(before=None, state=with_memory(done.state))


def _shortened(
    done: Progress,
    tested: Callable[[PyTree], tuple[Array, Array]],
    fails: Callable[[Array], Array],
    bisections: int,
) -> Progress:
    """The last step, down to the smallest part of it that still succeeds."""

    # On the segment of the last step: 0 fails and 1 succeeds, so each half keeps a
    # success at its upper end.
    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        _, held = tested(interpolate(done.before, done.params, middle))
        failed = fails(held)
        return jnp.where(failed, middle, low), jnp.where(failed, high, middle)

    _, t = jax.lax.fori_loop(0, bisections, halve, (jnp.zeros(()), jnp.ones(())))
    # A failed edit, or one without a step, has no segment to search.
    t = jnp.where(fails(done.right) | (done.steps == 0), 1.0, t)
    params = interpolate(done.before, done.params, t)
    logits, right = tested(params)
    return done._replace(params=params, logits=logits, right=right)


def _look(method: Method) -> Any:
    """The test and the step of a method that cannot share a forward pass."""

    def look(
        params: PyTree, state: MethodState, task: EditTask, edit: Edit
    ) -> tuple[Array, Advance]:
        logits = method.logits(params, task)
        return logits, lambda: method.step(params, state, task, edit)

    return look
