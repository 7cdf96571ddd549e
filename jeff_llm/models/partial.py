"""Attention over parts of a sequence, joined by log-sum-exp."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

__all__ = ["LOWEST", "Partial", "add", "join", "nothing", "partial_attention", "wide"]

# The highest logit where nothing is seen. Finite, since the difference of two minus
# infinities is NaN.
LOWEST = -1e30


class Partial(NamedTuple):
    """Attention over a part of the tokens.

    Attributes:
      out: ``sum_t exp(logit_t - highest) v_t``.
      highest: the highest logit, or -1e30 where nothing is seen.
      total: ``sum_t exp(logit_t - highest)``.
    """

    out: Float[Array, "batch kv_heads rows head_width"]
    highest: Float[Array, "batch kv_heads rows"]
    total: Float[Array, "batch kv_heads rows"]


def partial_attention(
    rows: Float[Array, "batch kv_heads rows head_width"],
    keys: Float[Array, "batch kv_heads tokens head_width"],
    values: Float[Array, "batch kv_heads tokens head_width"],
    seen: Bool[Array, "batch rows tokens"],
    soft_cap: float | None = None,
) -> Partial:
    """Attention of rows of queries over tokens in full precision.

    Args:
      rows: queries, divided by the root of the head's width.
      keys: keys.
      values: values.
      seen: which tokens each row sees.
      soft_cap: ``c`` of ``c tanh(logit / c)``, or None.

    Returns:
      Output, highest logit and sum of weights, in float32 (float64 for float64).
    """
    # Factors may be bfloat16; sums over channels and tokens are float32, or long
    # contexts would lose the small weights.
    logits = jnp.einsum(
        "bkrh,bksh->bkrs", rows, keys, preferred_element_type=wide(rows.dtype)
    )
    if soft_cap is not None:
        logits = soft_cap * jnp.tanh(logits / soft_cap)
    logits = jnp.where(seen[:, None], logits, LOWEST)
    # What is joined does not depend on it, so no gradient passes.
    highest = jax.lax.stop_gradient(jnp.max(logits, axis=-1, initial=LOWEST))
    # Less a number well above what masks: a row that sees nothing then has weights 0,
    # and no second pass over the logits masks them again.
    weights = jnp.exp(logits - jnp.maximum(highest, LOWEST / 2)[..., None])
    out = jnp.einsum(
        "bkrs,bksh->bkrh",
        weights.astype(values.dtype),
        values,
        preferred_element_type=wide(rows.dtype),
    )
    return Partial(out, highest, weights.sum(-1))


def nothing(rows: Float[Array, "batch kv_heads rows head_width"]) -> Partial:
    """Attention over no token.

    Args:
      rows: queries.

    Returns:
      Zeros, and the lowest logit.
    """
    dtype = wide(rows.dtype)
    return Partial(
        jnp.zeros(rows.shape, dtype),
        jnp.full(rows.shape[:3], LOWEST, dtype),
        jnp.zeros(rows.shape[:3], dtype),
    )


def wide(dtype: Any) -> Any:
    """The dtype in which logits and weights are summed: float32 or wider.

    Args:
      dtype: of the queries.

    Returns:
      The dtype.
    """
    return jnp.promote_types(dtype, jnp.float32)


def add(one: Partial, other: Partial) -> Partial:
    """Attention over the union of two parts that share no token, unnormalised.

    Args:
      one: a part.
      other: the other.

    Returns:
      Both.
    """
    highest = jnp.maximum(one.highest, other.highest)
    here, there = jnp.exp(one.highest - highest), jnp.exp(other.highest - highest)
    return Partial(
        one.out * here[..., None] + other.out * there[..., None],
        highest,
        one.total * here + other.total * there,
    )


def join(parts: Sequence[Partial]) -> Float[Array, "batch kv_heads rows head_width"]:
    """Attention over the union of parts.

    Args:
      parts: attention over parts that share no token.

    Returns:
      ``sum out exp(highest - max) / sum total exp(highest - max)``; zeros for a row
      that sees nothing.
    """
    whole = functools.reduce(add, parts)
    # No division by 0 for a row that sees nothing: its output is 0 already.
    return whole.out / jnp.where(whole.total == 0, 1, whole.total)[..., None]
