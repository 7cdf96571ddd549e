"""The decoding loop as pure functions: prompts in, one token after another out.

`start` reads the prompts and draws the first token; `advance` is a `jax.lax.while_loop`
that runs until there are enough tokens or all rows have ended. Jit them together, as
`jeff_llm.generate.generate` does, or apart, to read the tokens in between.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from jeff_llm.generate import prefill
from jeff_llm.generate.sampling import Progress, RowSampling, sample
from jeff_llm.models import decoder
from jeff_llm.models.cache import Cache, init_cache
from jeff_llm.models.config import DecoderConfig

__all__ = ["MakeCache", "Plan", "State", "advance", "start"]

# (config, batch size, capacity, dtype) -> an empty cache.
MakeCache = Callable[[DecoderConfig, int, int, Any], Cache]


class State(NamedTuple):
    """A generation under way.

    Invariant: ``tokens[:, :step]`` have been drawn, and the model has not yet read the
    last of them.

    Attributes:
      step: tokens drawn.
      tokens: ids drawn; 0 behind an end.
      log_probs: their log-probabilities.
      hidden: hidden states from which they were drawn.
      lengths: tokens drawn for each row up to its end.
      finished: whether a row has ended.
      prompt_lengths: tokens of each prompt.
      cache: keys and values of prompt and tokens read.
    """

    step: Int[Array, ""]
    tokens: Int[Array, "batch new_tokens"]
    log_probs: Float[Array, "batch new_tokens"]
    hidden: Float[Array, "chosen batch new_tokens width"]
    lengths: Int[Array, " batch"]
    finished: Bool[Array, " batch"]
    prompt_lengths: Int[Array, " batch"]
    cache: Any


class Plan(NamedTuple):
    """How tokens are drawn; any of it may change without a new compilation.

    Attributes:
      keys: a random key for each row; token t is drawn with ``fold_in(key, t)``.
      sampling: temperature and cuts; None for greedy.
      stop_ids: tokens that end a row.
      processors: applied to the logits one after the other.
    """

    keys: Key[Array, " batch"]
    sampling: RowSampling | None
    stop_ids: Int[Array, " stops"]
    processors: tuple[Partial, ...]


def start(
    config: DecoderConfig,
    params: PyTree,
    tokens: Int[Array, "batch tokens"],
    mask: Bool[Array, "batch tokens"],
    plan: Plan,
    *,
    buffer: int,
    hidden_layers: tuple[int, ...] = (),
    make_cache: MakeCache = init_cache,
    cache: Cache | None = None,
    chunk: int | None = None,
) -> State:
    """Read the prompts and draw the first token of each.

    Args:
      config: the decoder's configuration; static under jit.
      params: its parameters.
      tokens: prompts.
      mask: their real tokens, at least one per row.
      plan: how tokens are drawn.
      buffer: tokens that may be drawn in all; static.
      hidden_layers: hidden states to keep; static.
      make_cache: makes the empty cache; static.
      cache: holds the beginning of each prompt, with room for the rest, where it has
        been read before; ``tokens`` are that rest.
      chunk: tokens of each row read at a time, or None for all; static.

    Returns:
      The state, at step 1.
    """
    batch, width = tokens.shape
    dtype = params["embedding"].dtype
    if cache is None:
        cache = make_cache(config, batch, width + buffer, dtype)
    before = cache.lengths
    logits, hidden, cache = prefill.read(
        config, params, tokens, mask, cache, chunk=chunk, hidden_layers=hidden_layers
    )
    state = State(
        step=jnp.zeros((), jnp.int32),
        tokens=jnp.zeros((batch, buffer), jnp.int32),
        log_probs=jnp.zeros((batch, buffer), jnp.float32),
        hidden=jnp.zeros((len(hidden_layers), batch, buffer, config.width), dtype),
        lengths=jnp.zeros(batch, jnp.int32),
        finished=jnp.zeros(batch, bool),
        prompt_lengths=before + mask.sum(axis=1, dtype=jnp.int32),
        cache=cache,
    )
    return _draw(state, logits, hidden, plan)


def advance(
    config: DecoderConfig,
    params: PyTree,
    state: State,
    plan: Plan,
    until: Int[Array, ""] | int,
    *,
    hidden_layers: tuple[int, ...] = (),
) -> State:
    """Draw tokens until there are enough, or all rows have ended.

    Args:
      config: the decoder's configuration; static under jit.
      params: its parameters.
      state: where the generation is.
      plan: how tokens are drawn.
      until: tokens drawn in all, at most the state's buffer.
      hidden_layers: as in `start`.

    Returns:
      The state, ``until`` steps from the beginning or where all have ended.
    """

    def step(state: State) -> State:
        last = jax.lax.dynamic_index_in_dim(state.tokens, state.step - 1, axis=1)
        out = decoder.apply(
            config,
            params,
            last,
            # A row that has ended stores nothing more.
            mask=~state.finished[:, None],
            cache=state.cache,
            hidden_layers=hidden_layers,
        )
        state = state._replace(cache=out.cache)
        return _draw(state, out.logits[:, 0], out.hidden[:, :, 0], plan)

    # A while loop, not a scan: it stops when all rows have ended. It has no gradient.
    return jax.lax.while_loop(
        lambda state: (state.step < until) & ~jnp.all(state.finished), step, state
    )


def _draw(
    state: State,
    logits: Float[Array, "batch vocabulary"],
    hidden: Float[Array, "chosen batch width"],
    plan: Plan,
) -> State:
    """Draw the next token of each row that has not ended, and write it down."""
    progress = Progress(state.step, state.tokens, state.prompt_lengths)
    processed = logits
    for processor in plan.processors:
        processed = processor(processed, progress)
    # From the row's key and the step alone: the batch must not change a draw.
    keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(plan.keys, state.step)
    token = sample(processed, plan.sampling, keys=keys)
    # Of the model's own logits, so that cuts and temperature do not enter.
    chosen = jnp.take_along_axis(logits, token[:, None], axis=1)[:, 0]
    log_prob = chosen - jax.nn.logsumexp(logits, axis=-1)
    active = ~state.finished
    ended = jnp.any(token[:, None] == plan.stop_ids, axis=1)
    return state._replace(
        step=state.step + 1,
        tokens=_write(state.tokens, jnp.where(active, token, 0), state.step),
        log_probs=_write(state.log_probs, jnp.where(active, log_prob, 0), state.step),
        hidden=jax.lax.dynamic_update_index_in_dim(
            state.hidden, hidden.astype(state.hidden.dtype), state.step, axis=2
        ),
        lengths=state.lengths + active,
        finished=state.finished | ended,
    )


def _write(buffer: Array, column: Array, step: Array) -> Array:
    return jax.lax.dynamic_update_index_in_dim(
        buffer, column.astype(buffer.dtype), step, axis=1
    )
