"""Which stored tokens a query sees, kept as positions: a mask would be their square."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

__all__ = ["NEVER", "View", "from_rows", "of_rows", "seen", "to_rows"]

# Position of a slot that holds nothing: beyond every token.
NEVER = 2**31 - 1


class View(NamedTuple):
    """Which slots each token sees.

    Attributes:
      positions: position of each token in its sequence; -1 sees nothing.
      slots: position of what each slot holds, for each sequence or one row for all;
        `NEVER` for nothing.
      window: tokens seen at most, the token itself counted; None for all.
      segments: where several texts are packed in a row, the number of each token's and
        of each slot's text, in ascending order; a token sees its own text alone.
    """

    positions: Int[Array, "batch tokens"]
    slots: Int[Array, "rows slots"]
    window: Int[Array, ""] | int | None = None
    segments: tuple[Int[Array, "batch tokens"], Int[Array, "batch slots"]] | None = None


def seen(view: View) -> Bool[Array, "batch tokens slots"]:
    """The view as a mask.

    Args:
      view: what each token sees.

    Returns:
      True where ``0 <= position - slot < window``, within a text.
    """
    ahead = view.positions[:, :, None] - view.slots[:, None]
    found = ahead >= 0
    if view.window is not None:
        found &= ahead < view.window
    if view.segments is not None:
        of_tokens, of_slots = view.segments
        found &= of_tokens[:, :, None] == of_slots[:, None]
    return found


def to_rows(
    query: Float[Array, "batch tokens heads head_width"], kv_heads: int
) -> Float[Array, "batch kv_heads rows head_width"]:
    """Queries as rows of their key head, token by token, times ``H^-0.5``.

    Args:
      query: queries; head n belongs to key head ``n // (heads / kv_heads)``.
      kv_heads: key heads.

    Returns:
      The rows: all query heads of a token that share a key head lie together.
    """
    # Scaling the queries once is cheaper than scaling every logit.
    batch, tokens, _, width = query.shape
    grouped = (query * width**-0.5).reshape(batch, tokens, kv_heads, -1, width)
    return grouped.transpose(0, 2, 1, 3, 4).reshape(batch, kv_heads, -1, width)


def from_rows(
    rows: Float[Array, "batch kv_heads rows head_width"],
    query: Float[Array, "batch tokens heads head_width"],
) -> Float[Array, "batch tokens heads head_width"]:
    """The inverse of `to_rows`, without the factor.

    Args:
      rows: rows.
      query: gives shape and dtype.

    Returns:
      The rows where their queries were.
    """
    batch, tokens, _, width = query.shape
    grouped = rows.reshape(batch, rows.shape[1], tokens, -1, width)
    return grouped.transpose(0, 2, 1, 3, 4).reshape(query.shape).astype(query.dtype)


def of_rows(view: View, shared: int) -> View:
    """The view of each row of `to_rows`.

    Args:
      view: what each token sees.
      shared: query heads that share a key head.

    Returns:
      The view with a row for each of them.
    """
    positions = jnp.repeat(view.positions, shared, axis=1)
    if view.segments is None:
        return view._replace(positions=positions)
    of_tokens, of_slots = view.segments
    of_tokens = jnp.repeat(of_tokens, shared, axis=1)
    return view._replace(positions=positions, segments=(of_tokens, of_slots))
