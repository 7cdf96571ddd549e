"""A conversation whose cache is kept: a turn reads only what it adds.

`stream` continues one prompt and yields its text as it is generated. `Session` does the
same turn after turn: of a prompt that begins with what was read before, only the rest
is read.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jeff_llm.generate import batching, prefill
from jeff_llm.generate.decoding import MakeCache, Plan, State, advance, start
from jeff_llm.generate.generation import prepare
from jeff_llm.generate.sampling import GREEDY, Processor, Sampling
from jeff_llm.models.cache import Cache, PlainCache, init_cache
from jeff_llm.models.language_model import LanguageModel

__all__ = ["Session", "stream"]


def stream(
    model: LanguageModel,
    prompt: batching.Prompt,
    *,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    key: Key[Array, ""] | None = None,
    stop_ids: Sequence[int] | None = None,
    processors: Sequence[Processor] = (),
    make_cache: MakeCache = init_cache,
    prefill_chunk: int | None = None,
) -> Iterator[str]:
    """Continue one prompt, and yield its text as it is generated.

    The text equals that of `generate` with the same arguments. A character whose bytes
    are spread over several tokens is yielded whole.

    Args:
      model: the model, with a tokenizer.
      prompt: text, or token ids.
      max_new_tokens: tokens drawn at most.
      sampling: temperature and cuts; greedy by default.
      key: random key; needed unless greedy.
      stop_ids: tokens that end the text; the model's own by default.
      processors: as in `generate`.
      make_cache: as in `generate`.
      prefill_chunk: as in `generate`.

    Yields:
      Pieces of text, none of them empty.

    Raises:
      ValueError: as in `generate`, or if the model has no tokenizer.
    """
    session = Session(model, make_cache=make_cache, prefill_chunk=prefill_chunk)
    yield from session.stream(
        prompt,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        key=key,
        stop_ids=stop_ids,
        processors=processors,
    )


class Session:
    """Continues prompts that mostly begin as the one before, such as a conversation.

    Attributes:
      model: the model.
      tokens: ids whose keys and values the cache holds.
      tokens_read: tokens of prompts read so far, over all calls: what was kept is not
        among them.
    """

    model: LanguageModel
    tokens: list[int]
    tokens_read: int

    def __init__(
        self,
        model: LanguageModel,
        *,
        capacity: int = 0,
        make_cache: MakeCache = init_cache,
        prefill_chunk: int | None = None,
    ):
        """Begin with an empty cache.

        Args:
          model: the model, with a tokenizer.
          capacity: tokens to make room for. A longer conversation is read again into a
            cache of twice the room.
          make_cache: as in `generate`.
          prefill_chunk: as in `generate`.

        Raises:
          ValueError: if the model has no tokenizer, or the chunk is not positive.
        """
        if model.tokenizer is None:
            raise ValueError("model: expected one with a tokenizer, got none")
        self.model, self.tokens, self.tokens_read = model, [], 0
        self._make_cache = make_cache
        self._chunk = prefill.chosen_chunk(prefill_chunk, make_cache)
        self._cache: Cache | None = None
        self._capacity = capacity

    def stream(
        self,
        prompt: batching.Prompt,
        *,
        max_new_tokens: int,
        sampling: Sampling = GREEDY,
        key: Key[Array, ""] | None = None,
        stop_ids: Sequence[int] | None = None,
        processors: Sequence[Processor] = (),
    ) -> Iterator[str]:
        """Continue a prompt, and yield its text; see `stream`.

        Args:
          prompt: text, or token ids; the whole of it, with what was read before.
          max_new_tokens: tokens drawn at most.
          sampling: temperature and cuts; greedy by default.
          key: random key; needed unless greedy.
          stop_ids: tokens that end the text; the model's own by default.
          processors: as in `generate`.

        Yields:
          Pieces of text, none of them empty.
        """
        tokenizer = self.model.tokenizer
        assert tokenizer is not None
        rows, plan = prepare(
            self.model, [prompt], max_new_tokens, sampling, key, stop_ids, processors
        )
        state = self._read(rows[0], plan, batching.bucket(max_new_tokens))
        decoded = tokenizer.stream()
        # One call per token: its text is yielded at once, and the program is the same.
        for step in range(max_new_tokens):
            if step:
                state = self._step(state, plan, step + 1)
            token, ended = int(state.tokens[0, step]), bool(state.finished[0])
            piece = "" if ended else decoded.push(token)
            if piece:
                yield piece
            if ended:
                break
        if rest := decoded.finish():
            yield rest

    def _read(self, ids: list[int], plan: Plan, buffer: int) -> State:
        """Read what the cache does not hold, and draw the first token."""
        config, params = self.model.config, self.model.params
        kept, cache = self._kept(ids)
        tokens, mask = batching.pad([ids[kept:]], 1, batching.bucket(len(ids) - kept))
        if cache is None or kept + tokens.shape[1] + buffer > cache.capacity:
            kept = 0
            tokens, mask = batching.pad([ids], 1, batching.bucket(len(ids)))
            cache = self._empty(tokens.shape[1] + buffer)
        self._forget()
        arrays = batching.place(self.model, tokens, mask)
        state = _start(
            config, params, *arrays, plan, buffer=buffer, cache=cache, chunk=self._chunk
        )
        self.tokens_read += len(ids) - kept
        self._remember(ids, state.cache)
        return state

    def _step(self, state: State, plan: Plan, until: int) -> State:
        """Draw one more token; the model reads the one before."""
        read = [*self.tokens, int(state.tokens[0, until - 2])]
        self._forget()
        state = _advance(self.model.config, self.model.params, state, plan, until)
        self._remember(read, state.cache)
        return state

    def _kept(self, ids: list[int]) -> tuple[int, Cache | None]:
        """How many tokens of a prompt the cache holds, and the cache cut to them."""
        pairs = zip(ids[:-1], self.tokens, strict=False)
        count = next(
            (place for place, (one, other) in enumerate(pairs) if one != other),
            min(len(ids) - 1, len(self.tokens)),
        )
        cache = self._cache
        if cache is None or count == len(self.tokens):
            return count, cache
        # Slots behind a plain cache's length are never read. What a packed cache has
        # merged into blocks cannot be taken out again.
        if isinstance(cache, PlainCache):
            return count, dataclasses.replace(
                cache, lengths=jnp.full_like(cache.lengths, count)
            )
        return 0, None

    def _empty(self, needed: int) -> Cache:
        """A cache with room for what is needed, and twice the room of the last one."""
        config = self.model.config
        most = batching.bucket(config.max_positions)
        self._capacity = max(needed, min(self._capacity, most))
        cache = self._make_cache(
            config, 1, self._capacity, self.model.params["embedding"].dtype
        )
        self._capacity *= 2
        return cache

    def _forget(self) -> None:
        """Drop the cache, which the next call takes over."""
        self.tokens, self._cache = [], None

    def _remember(self, tokens: list[int], cache: Cache) -> None:
        self.tokens, self._cache = tokens, cache


# The cache is donated: it is updated in place instead of copied for each token.
_start = jax.jit(
    start, static_argnames=("config", "buffer", "chunk"), donate_argnames="cache"
)
_advance = jax.jit(advance, static_argnames="config", donate_argnames="state")
