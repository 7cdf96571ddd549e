"""A log of edits: versions of the parameters, undo, and a budget of drawdown.

The log keeps the parameters after every edit, so undoing is exact to the bit.
Subtracting a difference in floating point would not be. It is an immutable value: every
call returns another log. Nothing is compiled; this is the host's bookkeeping.
"""

import dataclasses
import math
from pathlib import Path
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jeff import checkpoint
from jeff.line import check_same_structure

__all__ = ["BudgetExceededError", "EditLog", "Entry"]


Drawdown: TypeAlias = Float[Array, ""] | float | int


class BudgetExceededError(ValueError):
    """An edit would have cost more drawdown than the budget allows."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One edit that was accepted.

    Attributes:
      target: the node, or another name of what was edited.
      drawdown: loss of accuracy since before the first edit, in points.
    """

    target: int | str
    drawdown: float


@dataclasses.dataclass(frozen=True)
class EditLog:
    """The edits of one model, oldest first.

    Invariant: ``versions`` holds one pytree more than ``entries``: the model as it was,
    then as each edit left it. All have one structure, and none is written to.

    Attributes:
      versions: parameters before the first edit and after each.
      budget: most drawdown in points that an edit may leave behind.
      entries: the edits.
    """

    versions: tuple[PyTree, ...]
    budget: float = math.inf
    entries: tuple[Entry, ...] = ()

    @classmethod
    def start(cls, params: PyTree, *, budget: float | int = math.inf) -> "EditLog":
        """A log without edits.

        Args:
          params: the present model.
          budget: most drawdown that an edit may leave behind, in points; at least 0.

        Returns:
          The log.

        Raises:
          ValueError: if the budget is negative or no number.
        """
        if not budget >= 0:
            raise ValueError(f"budget: expected points of at least 0, got {budget}")
        return cls((params,), float(budget))

    @property
    def params(self) -> PyTree:
        """The model as the last edit left it."""
        return self.versions[-1]

    def accepts(self, drawdown: Drawdown) -> bool:
        """Tell whether the budget allows an edit.

        Args:
          drawdown: what it would leave behind, in points since before the first edit.

        Returns:
          False above the budget, and for NaN.
        """
        return bool(drawdown <= self.budget)

    def add(self, params: PyTree, target: int | str, drawdown: Drawdown) -> "EditLog":
        """Add an edit, or refuse it.

        Args:
          params: the model as the edit left it.
          target: what was edited.
          drawdown: points of accuracy lost since before the first edit.

        Returns:
          A log with one edit more.

        Raises:
          BudgetExceededError: if the drawdown exceeds the budget, or is NaN.
          ValueError: if the parameters differ in structure, shape or dtype.
          TypeError: if a leaf is not floating point.
        """
        drawdown = float(drawdown)
        # NaN fails the comparison too, so an undefined drawdown is refused.
        if not self.accepts(drawdown):
            raise BudgetExceededError(
                f"drawdown: expected at most the budget of {self.budget} points, the "
                f"edit of {target!r} would leave {drawdown}; it was not taken in"
            )
        check_same_structure(self.params, params)
        return dataclasses.replace(
            self,
            versions=(*self.versions, params),
            entries=(*self.entries, Entry(target, drawdown)),
        )

    def delta(self, index: int) -> PyTree:
        """Difference of the parameters that an edit made.

        Args:
          index: number of the edit; from the end where it is negative.

        Returns:
          A pytree like the parameters: after minus before.

        Raises:
          IndexError: if there is no such edit.
        """
        place = self._place(index)
        before, after = self.versions[place : place + 2]
        return jax.tree.map(jnp.subtract, after, before)

    def undo(self, count: int = 1) -> "EditLog":
        """Go back before the last edits, bit for bit.

        Args:
          count: number of edits to take back.

        Returns:
          A log without them.

        Raises:
          IndexError: if there are fewer edits, or ``count`` is negative.
        """
        if not 0 <= count <= len(self.entries):
            raise IndexError(
                f"count: expected 0 to {len(self.entries)} edits, got {count}"
            )
        left = len(self.entries) - count
        return dataclasses.replace(
            self, versions=self.versions[: left + 1], entries=self.entries[:left]
        )

    def save(self, path: str | Path) -> Path:
        """Write the log to a directory, whole or not at all.

        Args:
          path: directory to write; must not exist.

        Returns:
          Its absolute path.

        Raises:
          FileExistsError: if ``path`` exists already.
        """
        metadata = {
            # JSON has no infinity.
            "budget": None if math.isinf(self.budget) else self.budget,
            "entries": [dataclasses.asdict(entry) for entry in self.entries],
        }
        return checkpoint.save(path, list(self.versions), metadata=metadata)

    @classmethod
    def load(cls, path: str | Path, like: PyTree) -> "EditLog":
        """Read a log.

        Args:
          path: directory written by `save`.
          like: parameters of the model, or their shapes; gives structure and dtypes.

        Returns:
          The log.

        Raises:
          FileNotFoundError: if there is none at ``path``.
          ValueError: if it cannot be read, is not a log, or is of another model.
        """
        metadata = checkpoint.metadata(path)
        if not {"budget", "entries"} <= set(metadata):
            raise ValueError(
                f"{path}: expected a log of edits, got a checkpoint whose metadata are "
                f"{sorted(metadata)}"
            )
        entries = tuple(Entry(**entry) for entry in metadata["entries"])
        # Versions differ only in values, so one tree describes all of them.
        versions = checkpoint.restore(path, [like] * (len(entries) + 1))
        budget = metadata["budget"]
        return cls(tuple(versions), math.inf if budget is None else budget, entries)

    def _place(self, index: int) -> int:
        if not -len(self.entries) <= index < len(self.entries):
            raise IndexError(
                f"index: expected an edit of {len(self.entries)}, got {index}"
            )
        return index % len(self.entries)
