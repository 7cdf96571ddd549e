"""Correct a trained model node by node, within a budget and with a way back.

The protocols measure a method on many nodes; an `Editor` is for use. It remembers the
earlier edits, keeps every version of the model, and accepts no edit that fails or costs
more accuracy than its budget. It is an immutable value; every call returns another. An
edit is one compiled call, compiled once for all nodes.
"""

import dataclasses
import functools
import math
from operator import index
from typing import Any, NamedTuple, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray, PyTree

from jeff_graph.editing.checks import check_task_classes
from jeff_graph.editing.log import EditLog
from jeff_graph.editing.report import points, predictions_lost
from jeff_graph.editing.rows import filled, real_rows
from jeff_graph.editing.stepping import edit_once
from jeff_graph.editing.task import Edit, EditTask, Method, MethodState

__all__ = ["Editor", "Outcome"]


class Outcome(NamedTuple):
    """Result of an edit.

    Attributes:
      success: is the node right? If not, the model was left as it was.
      steps: steps taken; 0 where the node was right already.
      drawdown: accuracy lost on the test nodes since before the first edit, in points,
        if the edit is accepted.
      retained: share of the earlier edits that are right after this one, in [0, 1];
        1 where there is none.
    """

    success: bool
    steps: int
    drawdown: float
    retained: float


@dataclasses.dataclass(frozen=True)
class Editor:
    """A model and the edits it has seen; made by `start`.

    Attributes:
      method: how it is edited; every edit begins with a fresh optimiser.
      task: the graph, with the requested classes.
      test: nodes whose accuracy counts, bool [nodes].
      log: versions of the model, and a budget.
      state: of the method before the first edit.
      reference: logits before the first edit, [nodes, classes].
      max_steps: most steps of an edit.
      bisections: halvings of an edit's last step.
    """

    method: Method
    task: EditTask
    test: Bool[Array, " nodes"]
    log: EditLog
    state: MethodState
    reference: Array
    max_steps: int = 50
    bisections: int = 6

    @classmethod
    def start(
        cls,
        method: Method,
        params: PyTree,
        task: EditTask,
        test: Any,
        *,
        key: PRNGKeyArray,
        budget: float | int = math.inf,
        max_steps: int = 50,
        bisections: int = 6,
    ) -> "Editor":
        """Begin with a trained model.

        Args:
          method: how to edit, such as `jeff_graph.editing.newton.minimal_edit`.
          params: the trained model.
          task: the graph.
          test: nodes whose accuracy counts, bool [nodes]; at least one.
          key: random key of the method.
          budget: most points of accuracy that the edits may cost in all.
          max_steps: most steps of an edit.
          bisections: halvings of an edit's last step, down to the smallest that still
            succeeds: the less a model is moved, the less it forgets.

        Returns:
          The editor.

        Raises:
          ValueError: if the mask does not fit, or a number is out of range.
        """
        # A mask of the real nodes does for a graph with padding behind them.
        test = filled("test", test, real_rows(task.inputs, task.labels), False)
        if test.dtype != jnp.bool_ or not test.any():
            raise ValueError(
                "test: expected a bool mask of at least one node, got "
                f"{test.dtype} with {int(test.sum())} of {len(test)}"
            )
        if max_steps < 1:
            raise ValueError(f"max_steps: expected at least 1, got {max_steps}")
        if bisections < 0:
            raise ValueError(f"bisections: expected at least 0, got {bisections}")
        first, later = jax.random.split(key)
        # Before `prepare`: what a method costs beforehand counts against the budget.
        reference = method.logits(params, task)
        check_task_classes(task, reference.shape[1])
        editable = method.prepare(params, task, first)
        log = EditLog.start(editable, budget=budget)
        state = method.init(editable, task, later)
        sizes = max_steps, bisections
        return cls(method, task, test, log, state, reference, *sizes)

    @property
    def params(self) -> PyTree:
        """The present parameters (what the method edits; see `Method`)."""
        return self.log.params

    @property
    def targets(self) -> tuple[int, ...]:
        """The corrected nodes, in order."""
        return tuple(int(entry.target) for entry in self.log.entries)

    def logits(self) -> Array:
        """Logits of all nodes under the present model.

        Returns:
          The logits, [nodes, classes].
        """
        return self.method.logits(self.params, self.task)

    def edit(
        self, node: SupportsIndex, label: SupportsIndex | None = None
    ) -> tuple["Editor", Outcome]:
        """Correct one node.

        Args:
          node: its number, an integer of any kind.
          label: the class it should have; that of the task by default.

        Returns:
          ``(editor, outcome)``; the same editor where the edit did not succeed.

        Raises:
          ValueError: if the node or the class does not exist, or, as
            `jeff_graph.editing.log.BudgetExceededError`, if the edit would cost too
            much; the model is then unchanged.
        """
        node, label = index(node), None if label is None else index(label)
        labels = self._asked(node, label)
        task = dataclasses.replace(self.task, labels=labels)
        # From the number of edits, so that undoing and editing again repeats the draw.
        seed = jax.random.fold_in(self.state.key, len(self.log.entries))
        # Built by numpy: scattering into an array would compile once a length.
        earlier = np.zeros(labels.shape, bool)
        earlier[list(self.targets)] = True
        params, *found = _edit(
            self.method,
            (self.max_steps, self.bisections),
            self.params,
            self.state._replace(key=seed),
            task,
            self.test,
            self.reference,
            jnp.asarray(node),
            earlier,
        )
        success, steps, drawdown, retained = (each.item() for each in found)
        outcome = Outcome(success, steps, drawdown, retained)
        # A failed edit has moved the model for nothing.
        if not success:
            return self, outcome
        log = self.log.add(params, node, drawdown)
        return dataclasses.replace(self, task=task, log=log), outcome

    def undo(self, count: int = 1) -> "Editor":
        """Go back before the last edits, bit for bit.

        Args:
          count: number of edits to take back.

        Returns:
          An editor without them. The requested classes stay in its task.

        Raises:
          IndexError: if there are fewer.
        """
        return dataclasses.replace(self, log=self.log.undo(count))

    def _asked(self, node: int, label: int | None) -> Array:
        nodes, classes = self.reference.shape
        if not 0 <= node < nodes or not self.task.where[node]:
            raise ValueError(
                f"node: expected the number of a real node below {nodes}, got {node}"
            )
        wanted = int(self.task.labels[node]) if label is None else label
        if not 0 <= wanted < classes:
            raise ValueError(
                f"label: expected a class from 0 to {classes - 1}, got {wanted}"
            )
        return self.task.labels.at[node].set(wanted)


@functools.partial(jax.jit, static_argnames=("method", "limits"))
def _edit(
    method: Method,
    limits: tuple[int, int],
    params: PyTree,
    state: MethodState,
    task: EditTask,
    test: Array,
    reference: Array,
    node: Array,
    earlier: Array,
) -> tuple[PyTree, Array, Array, Array, Array]:
    # The node is a number of the program and not part of it: all nodes share one.
    target = jnp.arange(test.shape[0]) == node
    # A node that is edited again is no earlier target of itself.
    earlier = earlier & ~target
    edit = Edit(target, earlier)
    done = edit_once(method, params, state, task, edit, *limits)
    lost = predictions_lost(reference, done.logits, task)
    kept = jnp.sum(done.right & earlier) / jnp.maximum(earlier.sum(), 1)
    kept = jnp.where(earlier.any(), kept, 1.0)
    return done.params, done.right[node], done.steps, points(lost, test), kept
