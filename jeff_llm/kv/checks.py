"""Checks for the quantised cache; errors name the expected and the actual value."""

import jax.numpy as jnp
from jax.core import Tracer
from jax.experimental import checkify
from jaxtyping import Array, Int

__all__ = ["check_new", "check_query", "check_room", "check_sizes"]


def check_sizes(**sizes: int) -> None:
    """Refuse sizes below 1.

    Args:
      **sizes: sizes by name.

    Raises:
      ValueError: naming the size.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}: expected at least 1, got {size}")


def check_room(lengths: Int[Array, " batch"], capacity: int) -> None:
    """Refuse sequences longer than a cache, as far as lengths are known.

    Args:
      lengths: tokens of each sequence.
      capacity: tokens of a sequence at most.

    Raises:
      ValueError: if a length is known and exceeds the capacity.
    """
    longest = jnp.max(lengths)
    text = f"cache: expected at most {capacity} tokens a sequence, its capacity, got "
    if not isinstance(longest, Tracer) and int(longest) > capacity:
        raise ValueError(f"{text}{int(longest)}; make it larger with init_cache")
    # Under jit the length is a tracer: only checkify can report it, at run time.
    checkify.debug_check(longest <= capacity, text + "{longest}", longest=longest)


# Arrays are annotated loosely here: their shapes are what is checked.
def check_query(stored: Array, query: Array, tokens: int | None = None) -> None:
    """Refuse queries that do not fit a cache.

    Args:
      stored: its tokens in full precision, [batch, kv_heads, slots, head_width].
      query: queries.
      tokens: their number of tokens, where that is known.

    Raises:
      ValueError: if the shape is another than [batch, tokens, heads, head_width].
    """
    batch, kv_heads, _, width = stored.shape
    shape = query.shape
    if (
        query.ndim != 4
        or (shape[0], shape[3]) != (batch, width)
        or shape[2] % kv_heads
        or shape[1] != (tokens or max(shape[1], 1))
    ):
        raise ValueError(
            f"query: expected [{batch}, {tokens or 'tokens'}, a multiple of {kv_heads} "
            f"heads, {width}], got {shape}"
        )


def check_new(
    stored: Array, capacity: int, key: Array, value: Array, mask: Array | None
) -> Array:
    """Refuse new tokens that do not fit a cache.

    Args:
      stored: its tokens in full precision, [batch, kv_heads, slots, head_width].
      capacity: tokens of a sequence at most.
      key: new keys.
      value: their values.
      mask: the tokens that are real, or None for all.

    Returns:
      The mask.

    Raises:
      ValueError: if the shape of keys or values is another than [batch, tokens,
        kv_heads, head_width], or there are more tokens than the cache holds.
      TypeError: if the mask is not one of bools.
    """
    batch, kv_heads, _, width = stored.shape
    tokens: int | str = "tokens"
    for name, new in (("key", key), ("value", value)):
        shape = new.shape
        if (
            new.ndim != 4
            or (shape[0], *shape[2:]) != (batch, kv_heads, width)
            or shape[1] == 0
            or tokens not in ("tokens", shape[1])
        ):
            raise ValueError(
                f"{name}: expected [{batch}, {tokens}, {kv_heads}, {width}] as in the "
                f"cache, got {shape}"
            )
        tokens = shape[1]
    if key.shape[1] > capacity:
        raise ValueError(
            f"key: expected at most {capacity} tokens, the cache's capacity, got "
            f"{key.shape[1]}"
        )
    if mask is None:
        return jnp.ones(key.shape[:2], bool)
    if mask.dtype != bool:
        raise TypeError(f"mask: expected a bool array, got {mask.dtype}")
    if mask.shape != key.shape[:2]:
        raise ValueError(
            f"mask: expected {key.shape[:2]}, as the keys, got {mask.shape}"
        )
    return mask
