"""Grouped-query attention over stored keys and values.

Few logits are computed at once, many tile by tile (`jeff_llm.models.tiles`): one
function for training, for scoring and for both caches.
"""

from typing import Any

import jax
from jaxtyping import Array, Float, Int

from jeff_llm.models import tiles
from jeff_llm.models.partial import Partial, join, partial_attention
from jeff_llm.models.view import View, from_rows, of_rows, seen, to_rows

__all__ = ["attend", "attend_part"]

# A layer of a longer cache is not copied out of its stack.
_SHORT = 1024


def attend(
    query: Float[Array, "batch tokens heads head_width"],
    keys: Float[Array, "*layers batch kv_heads slots head_width"],
    values: Float[Array, "*layers batch kv_heads slots head_width"],
    view: View,
    soft_cap: float | None = None,
    *,
    layer: Int[Array, ""] | int | None = None,
) -> Float[Array, "batch tokens heads head_width"]:
    """Grouped-query attention, ``softmax(q k' / sqrt(H)) v``, softmax in float32.

    Query head n belongs to key head ``n // (heads / kv_heads)``. A query that sees
    nothing gets zeros. Memory is linear in tokens and slots, for gradients as well.

    Args:
      query: queries.
      keys: keys, heads before slots; with ``layer`` those of all layers.
      values: values, likewise.
      view: which slots a token sees.
      soft_cap: ``c`` of ``c tanh(logit / c)``, or None.
      layer: the layer to read, where there is an axis of layers.

    Returns:
      A weighted mean of values for each query head, in the dtype of ``query``.
    """
    kv_heads = keys.shape[-3]
    rows = to_rows(query, kv_heads)
    view = of_rows(view, query.shape[2] // kv_heads)
    part = attend_part(rows, keys, values, view, soft_cap, layer=layer)
    return from_rows(join([part]), query)


def attend_part(
    rows: Float[Array, "batch kv_heads rows head_width"],
    keys: Float[Array, "*layers batch kv_heads slots head_width"],
    values: Float[Array, "*layers batch kv_heads slots head_width"],
    view: View,
    soft_cap: float | None = None,
    *,
    layer: Int[Array, ""] | int | None = None,
) -> Partial:
    """Attention of rows over a part of their tokens.

    Args:
      rows: queries, as `jeff_llm.models.view.to_rows` gives them.
      keys: keys, heads before slots; with ``layer`` those of all layers.
      values: values, likewise.
      view: which slots a row sees.
      soft_cap: ``c`` of ``c tanh(logit / c)``, or None.
      layer: the layer to read, where there is an axis of layers.

    Returns:
      The part, to be joined with others.
    """
    if not _is_small(rows, keys, layer):
        if layer is None:
            keys, values, layer = keys[None], values[None], 0
        part: Any = tiles.partial_tiled(rows, keys, values, layer, view, soft_cap)
        return part
    if layer is not None:
        keys, values = (
            jax.lax.dynamic_index_in_dim(x, layer, keepdims=False)
            for x in (keys, values)
        )
    return partial_attention(rows, keys, values, seen(view), soft_cap)


def _is_small(rows: Array, keys: Array, layer: Array | int | None) -> bool:
    """Fewer than two tiles, for which loops would cost more than they save."""
    batch, kv_heads, count, _ = rows.shape
    slots = keys.shape[-2]
    copied = layer is not None and slots > _SHORT
    return not copied and batch * kv_heads * count * slots <= 2 * tiles.budget()
