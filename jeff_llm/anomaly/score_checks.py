"""Checks of anomaly scores: shapes and dtypes always, values where they are concrete.

Under ``jax.jit`` an array has no values yet; what a function then does with NaN is in
its own docstring.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

__all__ = ["check_finite_scores", "check_level", "check_scores", "check_vector"]


def check_scores(**scores: Array | np.ndarray) -> None:
    """Refuse scores that are no vector of floating-point numbers, or hold NaN.

    Args:
      **scores: scores by argument name; an array of length 0 passes.

    Raises:
      ValueError: if an argument is not a vector, or has a bad value; names the first.
      TypeError: if an argument is not floating point.
    """
    for name, values in scores.items():
        _check_values(name, values, np.isnan, "numbers")


def check_finite_scores(**scores: Array | np.ndarray) -> None:
    """Refuse infinite scores as well, where sums are taken and not only comparisons.

    Args:
      **scores: scores by argument name; an array of length 0 passes.

    Raises:
      ValueError: if an argument is not a vector, or has a bad value; names the first.
      TypeError: if an argument is not floating point.
    """
    for name, values in scores.items():
        _check_values(name, values, lambda x: ~np.isfinite(x), "finite numbers")


def check_level(**levels: float) -> None:
    """Refuse a rate or probability outside (0, 1), NaN among them.

    Args:
      **levels: numbers by argument name.

    Raises:
      ValueError: if a number is outside (0, 1); names the first.
    """
    for name, level in levels.items():
        if not 0 < level < 1:
            raise ValueError(f"{name}: expected a number in (0, 1), got {level}")


def check_vector(name: str, values: Array | np.ndarray) -> None:
    """Refuse what is not one floating-point number for each text.

    Args:
      name: name of the argument.
      values: the array.

    Raises:
      ValueError: if it is not a vector.
      TypeError: if it is no array, or not floating point.
    """
    if not hasattr(values, "dtype"):
        raise TypeError(
            f"{name}: expected an array, got {type(values).__name__}; "
            "jax.numpy.asarray makes one"
        )
    if jnp.ndim(values) != 1:
        raise ValueError(
            f"{name}: expected one number a text, [texts], got shape "
            f"{jnp.shape(values)}; jax.vmap it"
        )
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise TypeError(f"{name}: expected a floating-point array, got {values.dtype}")


def _check_values(
    name: str,
    values: Array | np.ndarray,
    is_bad: Callable[[np.ndarray], np.ndarray],
    kind: str,
) -> None:
    check_vector(name, values)
    if isinstance(values, Tracer):
        return
    found = np.asarray(values)
    if (bad := is_bad(found)).any():
        place = int(bad.argmax())
        raise ValueError(
            f"{name}: expected {kind}, got {found[place]} for text {place}; score the "
            "text again or leave it out"
        )
