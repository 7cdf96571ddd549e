"""Checks of queries: lengths always, values where they are concrete."""

import jax.numpy as jnp
import numpy as np
from jax import core
from jaxtyping import Array

__all__ = ["check_confidence", "check_queries", "check_share"]


def check_queries(
    confidence: Array,
    small_correct: Array,
    large_correct: Array,
    rates: Array | None,
    where: Array | None,
) -> None:
    """Refuse queries whose shapes do not fit, and values out of range.

    Under jit and vmap only shapes are known; NaN then propagates.

    Args:
      confidence: of the small model's answers.
      small_correct: whether each is right, or how right.
      large_correct: likewise of the large model.
      rates: shares of the queries, or None.
      where: queries to count, or None.

    Raises:
      ValueError: naming the argument, the expected and the actual value.
      TypeError: if ``where`` is not bool.
    """
    shape = jnp.shape(confidence)
    if len(shape) != 1 or not shape[0]:
        raise ValueError(
            f"confidence: expected one number a query, [queries], got shape {shape}"
        )
    for name, value in {
        "small_correct": small_correct,
        "large_correct": large_correct,
        "where": where,
    }.items():
        if value is not None and jnp.shape(value) != shape:
            raise ValueError(
                f"{name}: expected {shape[0]} values as in confidence, got shape "
                f"{jnp.shape(value)}"
            )
    if where is not None and where.dtype != bool:
        raise TypeError(f"where: expected a bool array, got {where.dtype}")
    seen = [confidence, small_correct, large_correct, rates, where]
    # Values are unknown under a trace; there NaN propagates into the result.
    if any(isinstance(value, core.Tracer) for value in seen):
        return
    # Padding may hold anything, so only counted queries are checked.
    kept = np.ones(shape, bool) if where is None else np.asarray(where)
    if not kept.any():
        raise ValueError("where: expected at least one query that counts, got none")
    check_confidence(np.asarray(confidence)[kept], unit=False)
    for name, value in (
        ("small_correct", small_correct),
        ("large_correct", large_correct),
    ):
        check_share(name, np.asarray(value)[kept])
    if rates is not None:
        check_share("rates", np.asarray(rates))


def check_confidence(confidence: np.ndarray, *, unit: bool = True) -> None:
    """Refuse confidences that are not numbers.

    Args:
      confidence: one per query.
      unit: whether they must lie in [0, 1] as well.

    Raises:
      ValueError: naming the first query at fault.
    """
    values = np.asarray(confidence, float)
    if (bad := ~np.isfinite(values)).any():
        place = int(bad.argmax())
        raise ValueError(
            f"confidence: expected finite numbers, got {values[place]} for query "
            f"{place}; leave the query out, or give it the least confidence"
        )
    if unit:
        check_share("confidence", values)


def check_share(name: str, values: np.ndarray) -> None:
    """Refuse values outside [0, 1], NaN among them.

    Args:
      name: their name in the error.
      values: the values.

    Raises:
      ValueError: naming the first one at fault.
    """
    values = np.asarray(values, float)
    # Negated, so that NaN is found as well.
    if (bad := ~((values >= 0) & (values <= 1))).any():
        place = int(bad.reshape(-1).argmax())
        raise ValueError(
            f"{name}: expected numbers in [0, 1], got {values.reshape(-1)[place]} at "
            f"{place}"
        )
