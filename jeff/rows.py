"""One row of a run's log: means over a chunk of steps, and what validation found."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from jeff.steps import Metrics

__all__ = ["NonFiniteLossError", "any_nan", "chunk_row", "valid_row"]

# Columns that `jeff.training.fit` fills.
_OWN = ("step", "seconds", "skipped")


class NonFiniteLossError(FloatingPointError):
    """The loss became NaN or infinite; ``step`` is the first such step, from 0.

    If parameters became NaN after the last loss was computed, the next step is
    reported.
    """

    def __init__(self, step: int, saved: Any):
        """Describe where the loss broke and what is kept.

        Args:
          step: first step whose loss is not finite, from 0.
          saved: the run's `jeff.checkpoint.Checkpoints`, or None.
        """
        last = saved.latest() if saved else None
        kept = (
            "no checkpoint was written"
            if last is None
            else f"the last good checkpoint is {saved.directory / str(last)}"
        )
        super().__init__(
            f"expected a finite loss, got NaN or infinity at step {step}; {kept}; "
            "lower the learning rate, clip gradients, or look at that batch"
        )
        self.step = step


def chunk_row(
    metrics: Metrics, state: PyTree, first_step: int, saved: Any
) -> dict[str, Any]:
    """Mean of each metric over a chunk.

    Steps whose loss is not finite are left out and counted as ``"skipped"``, if
    `optax.apply_if_finite` is part of the optimiser and has kept the state finite.

    Args:
      metrics: arrays with a leading axis ``steps``, ``"loss"`` among them.
      state: the state after the chunk.
      first_step: number of the chunk's first step.
      saved: the run's `jeff.checkpoint.Checkpoints`, or None.

    Returns:
      Numbers by name; NaN where every step was skipped.

    Raises:
      NonFiniteLossError: at the first loss that is not finite.
      ValueError: if there is no loss, or a metric has the name of a column of `fit`.
    """
    if "loss" not in metrics:
        raise ValueError(
            f'step_fn: expected metrics with a "loss", got {sorted(metrics)}'
        )
    if taken := sorted(set(metrics) & set(_OWN)):
        raise ValueError(
            f"step_fn: expected metrics of other names than {_OWN}, which the log has, "
            f"got {taken}"
        )
    metrics = jax.tree.map(np.asarray, metrics)
    finite = np.isfinite(metrics["loss"])
    finite = finite.reshape(len(finite), -1).all(axis=1)
    skips = _skips_steps(state)
    if not finite.all() and not (skips and not any_nan(state)):
        raise NonFiniteLossError(first_step + int(np.argmin(finite)), saved)
    row: dict[str, Any] = {
        name: float(np.mean(value[finite])) if finite.any() else float("nan")
        for name, value in metrics.items()
    }
    return row | ({"skipped": int(np.sum(~finite))} if skips else {})


def valid_row(found: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, float]:
    """Check the metrics of a validation.

    Args:
      found: numbers by name, as ``validate`` returned them.
      row: what the row holds already.

    Returns:
      The same as floats.

    Raises:
      ValueError: if a name is taken or a value is not a single number.
    """
    if taken := sorted(set(found) & {*row, *_OWN}):
        raise ValueError(
            f"validate: expected other names than those of the log, got {taken}; call "
            f"it 'valid_{taken[0]}', for example"
        )
    for name, value in found.items():
        if np.shape(value) != ():
            raise ValueError(
                f"validate: {name}: expected a number, got shape {np.shape(value)}; "
                "return its mean, or one number a name"
            )
    return {name: float(value) for name, value in found.items()}


@jax.jit
def any_nan(state: PyTree) -> jax.Array:
    """Whether a state holds NaN.

    Args:
      state: arrays.

    Returns:
      A scalar bool.
    """
    # The loss is that before the update, so the last update can break parameters
    # unseen.
    floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.any(
        jnp.stack([jnp.isnan(x).any() for x in floats] or [jnp.array(False)])
    )


def _skips_steps(state: PyTree) -> bool:
    """Whether `optax.apply_if_finite` is part of the optimiser."""

    def skips(node: Any) -> bool:
        return isinstance(node, optax.ApplyIfFiniteState)

    return any(map(skips, jax.tree.leaves(state, is_leaf=skips)))
