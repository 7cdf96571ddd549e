"""Grouped-query attention over stored keys and values, and its mask."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

__all__ = ["attend", "visible"]


def visible(
    positions: Int[Array, "batch tokens"],
    slots: Int[Array, "rows slots"],
    window: Int[Array, ""] | int | None,
) -> Bool[Array, "batch tokens slots"]:
    """Which slots a token may see: those not after it, and inside the window.

    Args:
      positions: position of each token.
      slots: position of what each slot holds, for each sequence or one for all.
      window: tokens seen, the token itself counted, or None for all.

    Returns:
      True where ``0 <= position - slot < window``.
    """
    ahead = positions[:, :, None] - slots[:, None]
    return ahead >= 0 if window is None else (ahead >= 0) & (ahead < window)


def attend(
    query: Float[Array, "batch tokens heads head_width"],
    keys: Float[Array, "batch kv_heads slots head_width"],
    values: Float[Array, "batch kv_heads slots head_width"],
    seen: Bool[Array, "batch tokens slots"],
    soft_cap: float | None = None,
) -> Float[Array, "batch tokens heads head_width"]:
    """Grouped-query attention, ``softmax(q k' / sqrt(H)) v``, softmax in float32.

    Query head n belongs to key head ``n // (heads / kv_heads)``. A query that sees
    nothing gets the mean of all values, not NaN.

    Args:
      query: queries.
      keys: keys, heads before slots.
      values: values, likewise.
      seen: which slots a token sees.
      soft_cap: ``c`` of ``c tanh(logit / c)``, or None.

    Returns:
      A weighted mean of values for each query head, in the dtype of ``query``.
    """
    batch, tokens, heads, head_width = query.shape
    kv_heads, shared = keys.shape[1], heads // keys.shape[1]
    # One matrix for each key head, with all its queries as rows: B K (G T) H.
    grouped = (query * head_width**-0.5).reshape(
        batch, tokens, kv_heads, shared, head_width
    )
    rows = grouped.transpose(0, 2, 3, 1, 4).reshape(batch, kv_heads, -1, head_width)
    logits = jnp.einsum(
        "bkrh,bksh->bkrs", rows, keys, preferred_element_type=jnp.float32
    ).reshape(batch, kv_heads, shared, tokens, -1)
    if soft_cap is not None:
        logits = soft_cap * jnp.tanh(logits / soft_cap)
    # The lowest finite number instead of minus infinity: a row that sees nothing gives
    # equal weights, where all minus infinities would give NaN.
    lowest = jnp.finfo(jnp.float32).min
    weights = jax.nn.softmax(jnp.where(seen[:, None, None], logits, lowest), axis=-1)
    weights = weights.reshape(batch, kv_heads, shared * tokens, -1)
    out = jnp.einsum("bkrs,bksh->bkrh", weights.astype(values.dtype), values)
    out = out.reshape(batch, kv_heads, shared, tokens, head_width)
    return out.transpose(0, 3, 1, 2, 4).reshape(query.shape).astype(query.dtype)
