"""Reading prompts into a cache, whole or in chunks of a few tokens.

Chunks bound the memory of a long prompt: its activations are those of one chunk, and
only the cache grows with it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from jeff_llm.models import decoder
from jeff_llm.models.cache import Cache, init_cache
from jeff_llm.models.config import DecoderConfig

__all__ = ["CHUNK", "Read", "chosen_chunk", "read"]

# Tokens of a row read at a time by default: products of this size run at full speed.
CHUNK = 512


class Read(NamedTuple):
    """Prompts that have been read.

    Attributes:
      logits: of the token after each prompt, float32.
      hidden: hidden states of the chosen layers at its last token.
      cache: keys and values of the prompts.
    """

    logits: Float[Array, "batch vocabulary"]
    hidden: Float[Array, "chosen batch width"]
    cache: Cache


def chosen_chunk(chunk: int | None, make_cache: Callable) -> int | None:
    """Tokens of a row that are read at a time.

    Args:
      chunk: as the user gives it; None for the default.
      make_cache: makes the cache.

    Returns:
      `CHUNK` by default for the plain cache, and None, which reads all at once, for any
      other: an inexact one shows earlier chunks as it stores them.

    Raises:
      ValueError: if it is not positive.
    """
    if chunk is None:
        return CHUNK if make_cache is init_cache else None
    if chunk < 1:
        raise ValueError(f"prefill_chunk: expected at least 1 or None, got {chunk}")
    return chunk


def read(
    config: DecoderConfig,
    params: PyTree,
    tokens: Int[Array, "batch tokens"],
    mask: Bool[Array, "batch tokens"],
    cache: Cache,
    *,
    chunk: int | None = None,
    hidden_layers: tuple[int, ...] = (),
) -> Read:
    """Read prompts.

    Args:
      config: the decoder's configuration; static under jit.
      params: its parameters.
      tokens: prompts.
      mask: their real tokens, at least one per row.
      cache: what was read before, a row for each prompt.
      chunk: tokens of each row at a time, or None for all; static. With chunks an
        inexact cache shows earlier chunks as it stores them. Several chunks have no
        gradient.
      hidden_layers: hidden states to keep; static.

    Returns:
      Logits, hidden states and cache.
    """
    width = tokens.shape[1]
    # The head is run on each row's last real token alone: a whole prompt's logits would
    # be tokens by vocabulary.
    last = jnp.max(jnp.where(mask, jnp.arange(width), 0), axis=1)
    if chunk is None or width <= chunk:
        return _read_once(config, params, tokens, mask, cache, last, hidden_layers)
    count = -(-width // chunk)
    size = -(-width // count)
    fill = ((0, 0), (0, count * size - width))
    tokens, mask = jnp.pad(tokens, fill), jnp.pad(mask, fill)

    def body(number: Array, before: Read) -> Read:
        start = number * size
        new, real = (
            jax.lax.dynamic_slice_in_dim(x, start, size, 1) for x in (tokens, mask)
        )
        place = jnp.clip(last - start, 0, size - 1)
        after = _read_once(
            config, params, new, real, before.cache, place, hidden_layers
        )
        ends = (last // size == number)[:, None]
        logits, hidden = (
            jnp.where(ends, new, old)
            for new, old in zip(after[:2], before[:2], strict=True)
        )
        return Read(logits, hidden, after.cache)

    # Nothing is counted in, but the cache is no longer a fresh one: every chunk is read
    # by the same program.
    cache = cache.advance(jnp.zeros_like(cache.lengths))
    batch, dtype = len(tokens), params["embedding"].dtype
    empty = Read(
        jnp.zeros((batch, config.vocab_size), jnp.float32),
        jnp.zeros((len(hidden_layers), batch, config.width), dtype),
        cache,
    )
    # Chunks that hold padding alone, at the end of a bucket, are not read.
    return jax.lax.fori_loop(0, jnp.max(last) // size + 1, body, empty)


def _read_once(
    config: DecoderConfig,
    params: PyTree,
    tokens: Array,
    mask: Array,
    cache: Cache,
    last: Int[Array, " batch"],
    hidden_layers: tuple[int, ...],
) -> Read:
    out = decoder.apply(
        config,
        params,
        tokens,
        mask=mask,
        cache=cache,
        select=last[:, None],
        hidden_layers=hidden_layers,
    )
    hidden = jnp.take_along_axis(out.hidden, last[None, :, None, None], axis=2)
    return Read(out.logits[:, 0], hidden[:, :, 0], out.cache)
