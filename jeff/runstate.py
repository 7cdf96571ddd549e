"""Where a run is: its state, the best one so far, and what a checkpoint keeps."""

import dataclasses
import math
import warnings
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jeff.runlog import LastRow

__all__ = ["EarlyStop", "RunState"]


class EarlyStop(NamedTuple):
    """Stop when a validation metric has not improved for ``patience`` validations.

    NaN is worse than every number. As long as there is no number, the last state is the
    best one.
    """

    metric: str
    patience: int = 5
    mode: Literal["min", "max"] = "min"


@dataclasses.dataclass
class RunState:
    """Everything that a checkpoint must hold for a run to resume unchanged.

    Attributes:
      state: the state after ``step`` steps.
      rule: the rule by which the best state is kept, or None to keep none.
      step: finished steps.
      saved_at: step of the last checkpoint.
      best: the best state, if there is a rule.
      best_value: its metric, negated for mode max; None before the first number.
      waited: validations since the best one.
      stopped: whether the rule has stopped the run.
      last: what the checkpoint knows of the log.
    """

    state: PyTree
    rule: EarlyStop | None
    step: int = 0
    saved_at: int = 0
    best: PyTree = None
    best_value: float | None = None
    waited: int = 0
    stopped: bool = False
    last: LastRow | None = None

    def __post_init__(self):
        """The first state is the best so far."""
        self.best = self.state if self.rule else None

    def judge(self, row: dict[str, float]) -> None:
        """Compare the state with the best one.

        Args:
          row: the metrics of the state.

        Raises:
          ValueError: if the metric of the rule is not among them.
        """
        if self.rule is None:
            return
        if self.rule.metric not in row:
            raise ValueError(
                f"early_stop.metric: expected one of {sorted(row)}, got "
                f"{self.rule.metric!r}"
            )
        value = row[self.rule.metric] * (1 if self.rule.mode == "min" else -1)
        # Every comparison with NaN is false, so NaN is never better.
        better = value < (math.inf if self.best_value is None else self.best_value)
        if better or self.best_value is None:
            # A copy: the next chunk is given this state's buffers to overwrite.
            self.best = jax.tree.map(jnp.copy, self.state)
        if better or (self.best_value is None and not math.isnan(value)):
            self.best_value, self.waited = value, 0
        else:
            self.waited += 1
        self.stopped = self.waited >= self.rule.patience

    def final(self) -> PyTree:
        """The state that the run returns.

        Returns:
          With a rule the best state, else the last one.
        """
        if self.rule is None:
            return self.state
        if self.best_value is None:
            warnings.warn(
                f"early_stop: {self.rule.metric} was NaN in every validation, so the "
                "last state is returned and not the best one",
                stacklevel=3,
            )
        return self.best

    def save(self, saved: Any, rows: list[dict[str, int | float]]) -> None:
        """Write a checkpoint.

        Args:
          saved: the run's `jeff.checkpoint.Checkpoints`.
          rows: the log up to here.

        Raises:
          OSError: if it cannot be written.
        """
        tree = {"state": self.state} | ({"best": self.best} if self.rule else {})
        notes = {
            "best_value": self.best_value,
            "waited": self.waited,
            "stopped": self.stopped,
            "rule": self._rule(),
            # The log can lose its end; other processes than the first have none.
            "last": {"row": rows[-1], "count": len(rows)},
        }
        saved.save(self.step, tree, metadata=notes)
        self.saved_at = self.step

    def resume(self, saved: Any) -> None:
        """Go to the newest checkpoint, if there is one.

        Args:
          saved: the run's `jeff.checkpoint.Checkpoints`, or None.

        Raises:
          ValueError: if it is damaged or of another run.
        """
        step = saved.latest() if saved else None
        if step is None:
            return
        # Best value and patience too, or a resumed run would stop at another step.
        notes = saved.metadata(step)
        # Absent from the checkpoints of an earlier jeff, as is the log's last row.
        rule = notes.get("rule", self._rule())
        if rule and self.rule and rule != self._rule():
            raise ValueError(
                f"early_stop: expected metric and mode {rule} of the checkpoint in "
                f"{saved.directory}, got {self._rule()}; choose another folder"
            )
        like = {"state": self.state} | ({"best": self.best} if self.rule else {})
        tree = saved.restore(step, like)
        self.step = self.saved_at = step
        self.state, self.best = tree["state"], tree.get("best")
        self.last = LastRow(**notes["last"]) if "last" in notes else None
        self.best_value, self.waited = notes["best_value"], notes["waited"]
        # Anew: a rule with more patience goes on.
        self.stopped = self.rule is not None and self.waited >= self.rule.patience

    def _rule(self) -> list[str] | None:
        return [self.rule.metric, self.rule.mode] if self.rule else None
