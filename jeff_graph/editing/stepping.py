"""One edit: steps until the target is right, inside jit."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from jeff.line import interpolate
from jeff_graph.editing.rows import right_rows
from jeff_graph.editing.task import Edit, EditTask, Method, MethodState

__all__ = ["Progress", "edit_once"]


class Progress(NamedTuple):
    """An edit between two steps.

    Attributes:
      params: what is edited.
      before: the same, a step ago; None without bisections.
      state: the method's.
      right: nodes whose class is right.
      steps: steps taken.
    """

    params: PyTree
    before: PyTree
    state: MethodState
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

    def right(params: PyTree) -> Array:
        return right_rows(method.logits(params, task), task.labels)

    def lacks(right: Array, nodes: Array) -> Array:
        return jnp.any(nodes & ~right & (task.labels >= 0))

    def goes_on(now: Progress) -> Array:
        # Earlier targets keep an edit going, but do not start one.
        nodes = jnp.where(now.steps > 0, wanted, edit.target)
        return lacks(now.right, nodes) & (now.steps < max_steps)

    def step(now: Progress) -> Progress:
        held = now.state._replace(memory=memory)
        params, state = method.step(now.params, held, task, edit)
        before = now.params if bisections else None
        state = state._replace(memory=None)
        return Progress(params, before, state, right(params), now.steps + 1)

    begun = method.begin(params, state)._replace(memory=None)
    before = params if bisections else None
    start = Progress(params, before, begun, right(params), jnp.zeros((), jnp.int32))
    done = jax.lax.while_loop(goes_on, step, start)

    # On the segment of the last step: 0 fails and 1 succeeds, so each half keeps a
    # success at its upper end.
    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        held = right(interpolate(done.before, done.params, middle))
        fails = lacks(held, wanted)
        return jnp.where(fails, middle, low), jnp.where(fails, high, middle)

    if bisections:
        _, t = jax.lax.fori_loop(0, bisections, halve, (jnp.zeros(()), jnp.ones(())))
        # A failed edit, or one without a step, has no segment to search.
        t = jnp.where(lacks(done.right, wanted) | (done.steps == 0), 1.0, t)
        params = interpolate(done.before, done.params, t)
        done = done._replace(params=params, right=right(params))
    return done._replace(before=None, state=done.state._replace(memory=memory))
