"""Random keys of a seed, and mean and spread over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

__all__ = ["mean_and_std", "seed_key", "spread"]


def seed_key(seed: int, purpose: int) -> jax.Array:
    """Random key for one purpose within a seed.

    Args:
      seed: the seed.
      purpose: number of the purpose, so that no two draws of a seed share a key; each
        script numbers its own purposes.

    Returns:
      The key.
    """
    return jax.random.fold_in(jax.random.key(seed), purpose)


def mean_and_std(
    values: Mapping[str, Sequence[float] | np.ndarray],
) -> dict[str, float]:
    """Mean of every number, and its standard deviation over the seeds.

    Args:
      values: one value per seed, by name. Names without a value are left out.

    Returns:
      ``name``, and ``name_std`` if there are at least two values.
    """
    found: dict[str, float] = {}
    for name, each in values.items():
        if np.size(each):
            found[name] = float(np.mean(each))
        if np.size(each) > 1:
            found[f"{name}_std"] = float(np.std(each, ddof=1))
    return found


def spread(values: Any, digits: int = 2) -> str:
    """Format mean and standard deviation over seeds for display.

    Args:
      values: one value per seed.
      digits: number of decimals.

    Returns:
      The text; a dash if a value is not finite.

    >>> spread([1.0, 2.0], 1), spread([0.5]), spread([float("nan")])
    ('1.5 ± 0.7', '0.50', '-')
    """
    if not np.isfinite(values).all():
        return "-"
    mean = f"{np.mean(values):.{digits}f}"
    if np.size(values) < 2:
        return mean
    return f"{mean} ± {np.std(values, ddof=1):.{digits}f}"
