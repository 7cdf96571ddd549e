"""Rows that are decoded together, a few tokens at a time.

The programs are those of `jeff_llm.generate.decoding`. Their shapes come from a few
buckets: rows 1, 2, 4 ... to the largest batch, prompts and answers in steps of two an
octave. A request whose bucket was seen before compiles nothing.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from jeff_llm.generate import batching, prefill
from jeff_llm.generate.decoding import MakeCache, Plan, State, advance, start
from jeff_llm.generate.sampling import Sampling, allow_tokens
from jeff_llm.models import decoder
from jeff_llm.models.cache import init_cache
from jeff_llm.models.config import DecoderConfig
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.serving.rows import Row

__all__ = ["MOST_LIKELIEST", "Batch", "Engine"]

# As many as OpenAI's interface reports; computed for all rows once one asks.
MOST_LIKELIEST = 20
# Answers below it share one program; their slots cost little.
_SMALLEST = 64


class Engine(NamedTuple):
    """What all batches of a server share.

    Attributes:
      model: the model, with a tokenizer.
      num_tokens: ids below it have a text; the embedding may be padded with more.
      stop_ids: tokens that end an answer.
      make_cache: as in `jeff_llm.generate.generate`.
      piece: tokens that a batch decodes before others have their turn.
    """

    model: LanguageModel
    num_tokens: int
    stop_ids: tuple[int, ...]
    make_cache: MakeCache = init_cache
    piece: int = 4


class Batch:
    """Rows that began together.

    Attributes:
      rows: the rows; those that are done are masked until all of them are.
    """

    rows: list[Row]

    def __init__(self, engine: Engine, rows: Sequence[Row]):
        """Read the prompts and draw the first token of each.

        Args:
          engine: what all batches share.
          rows: at least one; their prompts and answers fit into the model's context.
        """
        self.rows = list(rows)
        self._engine = engine
        model = engine.model
        size = _power(len(rows))
        jobs = [row.job for row in rows]
        prompts = [job.prompt for job in jobs]
        width = batching.bucket(max(map(len, prompts)), _SMALLEST)
        self._buffer = batching.bucket(max(job.max_tokens for job in jobs), _SMALLEST)
        self._plan = _plan(engine, rows, size)
        # Hidden states are kept only where someone asked for the likeliest tokens.
        self._layers = (-1,) if any(job.num_likeliest for job in jobs) else ()
        self._step = 0
        tokens, mask = batching.pad(prompts, size, width)
        self._state = _begin(
            model.config,
            model.params,
            *batching.place(model, tokens, mask, np.arange(size) < len(rows)),
            self._plan,
            buffer=self._buffer,
            hidden_layers=self._layers,
            make_cache=engine.make_cache,
        )
        self._read()

    @property
    def done(self) -> bool:
        """Whether no row wants more tokens."""
        return all(row.done for row in self.rows)

    def advance(self) -> None:
        """Decode a piece, and hand its text over row by row."""
        engine = self._engine
        # The padding has ended from the beginning.
        ended = np.ones(len(self._state.finished), bool)
        ended[: len(self.rows)] = [row.done for row in self.rows]
        until = min(self._step + engine.piece, self._buffer)
        self._state = _go_on(
            engine.model.config,
            engine.model.params,
            self._state,
            self._plan,
            *batching.place(engine.model, ended),
            until,
            hidden_layers=self._layers,
        )
        self._read()

    def _read(self) -> None:
        """Hand the new tokens over to their rows."""
        state, first = self._state, self._step
        # Whole arrays: a slice would be another program for each step.
        tokens, log_probs, self._step = jax.device_get(
            (state.tokens, state.log_probs, state.step)
        )
        self._step = int(self._step)
        found = self._likeliest(first) if self._layers else None
        for place, row in enumerate(self.rows):
            self._feed(
                row,
                tokens[place, first : self._step].tolist(),
                log_probs[place, first : self._step].tolist(),
                None if found is None else [each[place] for each in found],
            )

    def _feed(
        self,
        row: Row,
        tokens: list[int],
        log_probs: list[float],
        found: list[np.ndarray] | None,
    ) -> None:
        if row.done:
            return
        finish = None
        for step, (token, log_prob) in enumerate(zip(tokens, log_probs, strict=True)):
            likeliest = ()
            if found is not None:
                ids, values = (each[step].tolist() for each in found)
                likeliest = self._with_text(ids, values)[: row.job.num_likeliest]
            ends = token in self._engine.stop_ids
            finish = row.push(token, log_prob, likeliest, ends=ends)
            if finish is not None:
                break
        row.hand_over(finish)

    def _with_text(
        self, ids: list[int], values: list[float]
    ) -> tuple[tuple[int, float], ...]:
        """Leave out what only pads the embedding."""
        known, pairs = self._engine.num_tokens, zip(ids, values, strict=True)
        return tuple((number, value) for number, value in pairs if number < known)

    def _likeliest(self, first: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids and log-probabilities of the likeliest tokens at each new step."""
        model, count = self._engine.model, min(self._engine.piece, self._buffer)
        # A slice that would leave the buffer begins earlier.
        begin = min(first, self._buffer - count)
        found = _top(
            model.params,
            self._state.hidden,
            begin,
            count=count,
            most=min(MOST_LIKELIEST, model.config.vocab_size),
        )
        values, ids = jax.device_get(found)
        return ids[:, first - begin :], values[:, first - begin :]


def _power(rows: int) -> int:
    """The least power of two that is not below a number of rows."""
    return 1 << (rows - 1).bit_length()


def _plan(engine: Engine, rows: Sequence[Row], size: int) -> Plan:
    """How each row draws; those without a cut get one that cuts nothing."""
    jobs, model = [row.job for row in rows], engine.model
    cuts: dict[str, Any] = {}
    # All cuts or none, so that there are two programs and not eight.
    if any(job.top_k or job.top_p or job.min_p for job in jobs):
        everything = {"top_k": model.config.vocab_size, "top_p": 1.0, "min_p": 0.0}
        for name, all_of in everything.items():
            values = [getattr(job, name) for job in jobs]
            cuts[name] = np.asarray([all_of if v is None else v for v in values])
    sampling = Sampling(np.asarray([job.temperature for job in jobs]), **cuts)
    seeds = np.asarray([job.seed for job in jobs], np.uint32)
    padded = seeds[np.minimum(np.arange(size), len(jobs) - 1)]
    processors = ()
    if engine.num_tokens < model.config.vocab_size:
        known = range(engine.num_tokens)
        processors = (allow_tokens(known, model.config.vocab_size),)
    return Plan(
        keys=jax.vmap(jax.random.key)(padded),
        sampling=sampling.rows(len(jobs), size),
        stop_ids=jnp.asarray(engine.stop_ids or (-1,), jnp.int32),
        processors=processors,
    )


@functools.partial(
    jax.jit, static_argnames=("config", "buffer", "hidden_layers", "make_cache")
)
def _begin(
    config: DecoderConfig,
    params: PyTree,
    tokens: Int[Array, "batch tokens"],
    mask: Bool[Array, "batch tokens"],
    real: Bool[Array, " batch"],
    plan: Plan,
    *,
    buffer: int,
    hidden_layers: tuple[int, ...],
    make_cache: MakeCache,
) -> State:
    state = start(
        config,
        params,
        tokens,
        mask,
        plan,
        buffer=buffer,
        hidden_layers=hidden_layers,
        make_cache=make_cache,
        # A long prompt takes no more memory than a short one, but for its cache.
        chunk=prefill.chosen_chunk(None, make_cache),
    )
    # Rows that only fill the bucket count as ended, or the loop would wait for them.
    return state._replace(finished=state.finished | ~real)


# The state is donated: the cache is updated in place instead of copied each piece.
@functools.partial(
    jax.jit, static_argnames=("config", "hidden_layers"), donate_argnames="state"
)
def _go_on(
    config: DecoderConfig,
    params: PyTree,
    state: State,
    plan: Plan,
    ended: Bool[Array, " batch"],
    until: Int[Array, ""] | int,
    *,
    hidden_layers: tuple[int, ...],
) -> State:
    state = state._replace(finished=state.finished | ended)
    return advance(config, params, state, plan, until, hidden_layers=hidden_layers)


@functools.partial(jax.jit, static_argnames=("count", "most"))
def _top(
    params: PyTree,
    hidden: Float[Array, "1 batch buffer width"],
    begin: Int[Array, ""] | int,
    *,
    count: int,
    most: int,
) -> list[Array]:
    """Log-probabilities and ids of the likeliest tokens of some steps."""
    states = jax.lax.dynamic_slice_in_dim(hidden[0], begin, count, axis=1)
    table = params["embedding"]
    if "head" in params:
        logits = states @ params["head"]["kernel"]
    elif isinstance(table, jax.Array):
        logits = decoder.unembed(table, states)
    else:
        logits = table.unembed(states)
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    return list(jax.lax.top_k(log_probs, most))
