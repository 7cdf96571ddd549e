"""Optimisers under JAX's strict promotion of dtypes."""

from typing import Any

import jax
import optax
from jaxtyping import PyTree

__all__ = ["promoting"]


def promoting(
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """An optimiser that works under strict promotion of dtypes.

    optax's Adam raises a float to an integer, which ``jax_numpy_dtype_promotion``
    refuses where it is "strict".

    Args:
      optimizer: the optimiser.

    Returns:
      The same, with standard promotion while it updates.
    """
    inner = optax.with_extra_args_support(optimizer)

    def update(
        updates: PyTree, state: Any, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, Any]:
        with jax.numpy_dtype_promotion("standard"):
            return inner.update(updates, state, params, **extra)

    return optax.GradientTransformationExtraArgs(inner.init, update)
