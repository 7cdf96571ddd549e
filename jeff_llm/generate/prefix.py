"""Common beginnings of prompts, read once for all of them."""

import functools
from collections.abc import Sequence

import jax
from jaxtyping import Array, PyTree

from jeff_llm.generate import batching, prefill
from jeff_llm.generate.decoding import MakeCache
from jeff_llm.models.cache import Cache
from jeff_llm.models.config import DecoderConfig
from jeff_llm.models.language_model import LanguageModel

__all__ = ["share"]

# A shorter common beginning is not worth compiling a separate program.
_LEAST_SHARED = 16


def share(
    model: LanguageModel,
    rows: Sequence[list[int]],
    room: int,
    make_cache: MakeCache,
    chunk: int | None = None,
) -> tuple[int, Cache | None]:
    """Read the common beginning of all rows.

    Args:
      model: the model.
      rows: token ids.
      room: tokens that will follow each row.
      make_cache: ``(config, batch size, capacity, dtype) -> cache``.
      chunk: tokens read at a time, as in `jeff_llm.generate.generate`.

    Returns:
      The length of the beginning, and a cache of one row that holds it, with room for
      the rest of the longest row and what follows; 0 and None where little is shared.
    """
    shared = batching.common_prefix(rows) if len(rows) > 1 else 0
    if shared < _LEAST_SHARED:
        return 0, None
    tokens, mask = batching.pad([rows[0][:shared]], 1, batching.bucket(shared))
    room += tokens.shape[1] + batching.bucket(max(map(len, rows)) - shared)
    cache = _read(
        model.config,
        model.params,
        tokens,
        mask,
        room=room,
        make_cache=make_cache,
        chunk=prefill.chosen_chunk(chunk, make_cache),
    )
    return shared, cache


@functools.partial(jax.jit, static_argnames=("config", "room", "make_cache", "chunk"))
def _read(
    config: DecoderConfig,
    params: PyTree,
    tokens: Array,
    mask: Array,
    *,
    room: int,
    make_cache: MakeCache,
    chunk: int | None,
) -> Cache:
    cache = make_cache(config, len(tokens), room, params["embedding"].dtype)
    return prefill.read(config, params, tokens, mask, cache, chunk=chunk).cache
