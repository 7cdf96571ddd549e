"""Generation: prefill and decoding in one compiled program, in batches.

`generate` is the entry point: ragged prompts in, tokens with their log-probabilities
and hidden states out. It pads to a few shapes (`jeff_llm.generate.batching.bucket`), so
a second call in the same bucket compiles nothing, whatever the temperatures or the end
tokens. Prompts of very different lengths are read one group after the other
(`jeff_llm.generate.batching.like_lengths`), so one long prompt pads no short one. The
pure functions that it calls are in `jeff_llm.generate.decoding`.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from jeff_llm.generate import batching, prefill, prefix
from jeff_llm.generate.decoding import MakeCache, Plan, State, advance, start
from jeff_llm.generate.grouping import in_order, rows_of
from jeff_llm.generate.sampling import GREEDY, Processor, Sampling, allow_tokens
from jeff_llm.models.cache import Cache, init_cache
from jeff_llm.models.config import DecoderConfig
from jeff_llm.models.language_model import LanguageModel

__all__ = ["Generation", "generate", "prepare"]


class Generation(NamedTuple):
    """Result of `generate`.

    Attributes:
      tokens: ids drawn, each row padded with zeros after its end.
      lengths: tokens drawn for each row, the end token counted in.
      finished: whether a row met an end token; the others were cut.
      log_probs: natural log-probability of each token under the model itself, before
        temperature, cuts and processors; 0 after the end.
      hidden: hidden states of the chosen layers from which each token was drawn;
        arbitrary after the end.
      texts: the rows as text, without end tokens and special ones; empty without a
        tokenizer.
    """

    tokens: Int[np.ndarray, "batch new_tokens"]
    lengths: Int[np.ndarray, " batch"]
    finished: Bool[np.ndarray, " batch"]
    log_probs: Float[np.ndarray, "batch new_tokens"]
    hidden: Float[np.ndarray, "chosen batch new_tokens width"]
    texts: list[str]


def generate(
    model: LanguageModel,
    prompts: Sequence[batching.Prompt],
    *,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    keys: Key[Array, "..."] | None = None,
    stop_ids: Sequence[int] | None = None,
    processors: Sequence[Processor] = (),
    hidden_layers: Sequence[int] = (),
    make_cache: MakeCache = init_cache,
    share_prefix: bool = False,
    prefill_chunk: int | None = None,
) -> Generation:
    """Continue prompts.

    Args:
      model: the model.
      prompts: texts, to which the tokenizer adds its special tokens, or token ids.
      max_new_tokens: tokens drawn at most for each.
      sampling: temperature and cuts; greedy by default.
      keys: one random key, or one per row; needed unless greedy. A row's tokens
        depend only on its key and prompt, not on the rest of the batch.
      stop_ids: tokens that end a row; the model's own by default.
      processors: change the logits before a token is drawn; see
        `jeff_llm.generate.sampling`.
      hidden_layers: hidden states to return, numbered as in
        `jeff_llm.models.decoder.Output`.
      make_cache: ``(config, batch size, capacity, dtype) -> cache``; the plain cache by
        default. Pass the same function again to compile once.
      share_prefix: read the common beginning of all prompts once, such as the examples
        of a few-shot prompt. An inexact cache then affects the first token as well.
      prefill_chunk: tokens of each prompt read at a time: memory for activations does
        not grow with the prompt. By default 512 for the plain cache; another one reads
        prompts whole, since it would show earlier chunks as it stores them.

    Returns:
      Tokens, log-probabilities, hidden states and texts.

    Raises:
      TypeError: if ``keys`` are not typed ones, or ``prompts`` is one text.
      ValueError: if a prompt is empty or too long for the model's context, or keys are
        missing or too few.
    """
    chunk = prefill.chosen_chunk(prefill_chunk, make_cache)
    rows, plan = prepare(
        model, prompts, max_new_tokens, sampling, keys, stop_ids, processors
    )
    buffer, shared, cache = batching.bucket(max_new_tokens), 0, None
    if share_prefix:
        shared, cache = prefix.share(model, rows, buffer, make_cache, chunk)
    groups = batching.like_lengths([len(row) - shared for row in rows])
    states = []
    for group in groups:
        tokens, mask = batching.pad(
            [rows[place][shared:] for place in group],
            batching.bucket(len(group), smallest=1),
            batching.bucket(max(len(rows[place]) for place in group) - shared),
        )
        state = _generate(
            model.config,
            model.params,
            *batching.place(model, tokens, mask, np.arange(len(tokens)) < len(group)),
            plan if len(groups) == 1 else rows_of(plan, group, len(tokens)),
            max_new_tokens,
            cache,
            buffer=buffer,
            hidden_layers=tuple(hidden_layers),
            make_cache=make_cache,
            chunk=chunk,
        )
        # Without the cache, which is larger than all the rest; fetched before the next
        # group begins, so that the memory of two is never in use.
        states.append(jax.device_get(state._replace(cache=None)))
    return _collect(model, in_order(states, groups), rows, max_new_tokens)


@functools.partial(
    jax.jit,
    static_argnames=("config", "buffer", "hidden_layers", "make_cache", "chunk"),
)
def _generate(
    config: DecoderConfig,
    params: PyTree,
    tokens: Array,
    mask: Array,
    real: Bool[Array, " batch"],
    plan: Plan,
    until: Int[Array, ""] | int,
    prefix: Cache | None,
    *,
    buffer: int,
    hidden_layers: tuple[int, ...],
    make_cache: MakeCache,
    chunk: int | None,
) -> State:
    cache = None
    if prefix is not None:
        cache = prefix.repeat_rows(jnp.zeros(len(tokens), jnp.int32))
    state = start(
        config,
        params,
        tokens,
        mask,
        plan,
        buffer=buffer,
        hidden_layers=hidden_layers,
        make_cache=make_cache,
        cache=cache,
        chunk=chunk,
    )
    # Rows that only fill the bucket count as ended, or the loop would wait for them.
    state = state._replace(finished=state.finished | ~real)
    return advance(config, params, state, plan, until, hidden_layers=hidden_layers)


def prepare(
    model: LanguageModel,
    prompts: Sequence[batching.Prompt],
    max_new_tokens: int,
    sampling: Sampling,
    keys: Key[Array, "..."] | None,
    stop_ids: Sequence[int] | None,
    processors: Sequence[Processor],
) -> tuple[list[list[int]], Plan]:
    """Token ids of prompts, and how tokens are drawn after them.

    Args:
      model: the model.
      prompts: texts, or token ids.
      max_new_tokens: tokens drawn at most for each.
      sampling: temperature and cuts.
      keys: one random key, or one per row; needed unless greedy.
      stop_ids: tokens that end a row; the model's own by default.
      processors: change the logits before a token is drawn.

    Returns:
      ``(token ids, plan)``; the plan has a bucket of rows.

    Raises:
      TypeError: as in `generate`.
      ValueError: as in `generate`.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens: expected at least 1, got {max_new_tokens}")
    rows = batching.encode(model, prompts, room=max_new_tokens)
    stops = model.stop_ids if stop_ids is None else stop_ids
    batching.check_ids(model, stops, "stop_ids")
    padded = batching.bucket(len(rows), smallest=1)
    # One value per row, as arrays: other temperatures then compile nothing.
    settings = sampling.rows(len(rows), padded)
    if keys is None and settings is not None:
        raise ValueError(
            "keys: expected a random key, since the sampling is not greedy, got none; "
            "pass jax.random.key(0)"
        )
    chain = [
        each if isinstance(each, Partial) else Partial(each) for each in processors
    ]
    tokenizer, outputs = model.tokenizer, model.config.vocab_size
    if tokenizer is not None and tokenizer.vocab_size < outputs:
        # Embeddings are often padded; a token without text must not be drawn.
        chain.append(allow_tokens(range(tokenizer.vocab_size), outputs))
    plan = Plan(
        keys=_row_keys(keys, len(rows), padded),
        sampling=settings,
        stop_ids=_padded(stops),
        processors=tuple(chain),
    )
    return rows, plan


def _padded(stops: Sequence[int]) -> Int[Array, " padded"]:
    """Stops padded with -1, never drawn: another number of them compiles nothing."""
    room = batching.bucket(len(stops), smallest=4) - len(stops)
    return jnp.asarray([*stops, *[-1] * room], jnp.int32)


def _row_keys(
    keys: Key[Array, "..."] | None, rows: int, padded: int
) -> Key[Array, " padded"]:
    if keys is None:  # greedy: never used, but the program has one signature
        keys = jax.random.key(0)
    # An old-style key is two integers, and would pass for a key for each of two rows.
    if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        raise TypeError(
            f"keys: expected typed keys, as jax.random.key makes them, got {keys.dtype}"
        )
    if keys.ndim == 0:
        return jax.random.split(keys, padded)
    if keys.shape != (rows,):
        raise ValueError(f"keys: expected one, or {rows}, got shape {keys.shape}")
    return keys[np.minimum(np.arange(padded), rows - 1)]


def _collect(
    model: LanguageModel, state: State, rows: Sequence[Sequence[int]], count: int
) -> Generation:
    texts = []
    if model.tokenizer is not None:
        # A row that ended has its end token counted in, which is not text.
        ends = (state.lengths - state.finished)[: len(rows)]
        texts = [
            model.tokenizer.decode(state.tokens[row, :end].tolist())
            for row, end in enumerate(ends)
        ]
    return Generation(
        tokens=np.asarray(state.tokens[: len(rows), :count]),
        lengths=np.asarray(state.lengths[: len(rows)]),
        finished=np.asarray(state.finished[: len(rows)]),
        log_probs=np.asarray(state.log_probs[: len(rows), :count]),
        hidden=np.asarray(state.hidden[:, : len(rows), :count]),
        texts=texts,
    )
