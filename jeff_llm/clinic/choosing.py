"""Choice of evidence by the likelihood of its number.

A language model reads a maze; the numbers that are still free are scored as its answer,
and the likeliest is taken (constrained decoding, so no answer fails to parse). The
prompt is read once: numbers, and in several rounds the turns between them, are added to
its cache.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from jeff_llm.clinic import prompts
from jeff_llm.clinic.maze import Maze
from jeff_llm.clinic.prompts import ROUNDS, Message
from jeff_llm.generate import batching
from jeff_llm.models import decoder
from jeff_llm.models.cache import Cache, init_cache
from jeff_llm.models.config import DecoderConfig
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.models.tokenizer import Tokenizer

__all__ = ["Choices", "choose_by_number"]

# Sentences up to which each number is told by its first digit alone.
_ONE_DIGIT = 9
# Tokens of a number with its separator, and of a turn without its sentences; ample,
# since a cache without room would drop tokens.
_NUMBER, _TURN = 8, 64


class Choices(NamedTuple):
    """Choices in mazes.

    Attributes:
      picks: for each maze the chosen places, in order.
      probability: of each pick among those that were free, by the model.
    """

    picks: list[list[int]]
    probability: list[list[float]]


def choose_by_number(
    model: LanguageModel,
    mazes: Sequence[Maze],
    *,
    rounds: str = "one",
    batch_size: int = 4,
) -> Choices:
    """Let a model choose as many sentences as there is evidence.

    ``pick_t = argmax_k log p(number k | prompt, picks before t)`` over the free ``k``.

    Args:
      model: the model, with a tokenizer that has a chat template.
      mazes: the tasks.
      rounds: "one" asks for all numbers at once, "several" for one a turn and shows
        what was chosen so far.
      batch_size: mazes at a time.

    Returns:
      The choices, in the order of the mazes.

    Raises:
      ValueError: if ``rounds`` is unknown, the model has no tokenizer, its template
        rewrites earlier turns, or a maze is longer than the model's context.
    """
    if rounds not in ROUNDS:
        raise ValueError(f"rounds: expected one of {ROUNDS}, got {rounds!r}")
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    # Mazes with as many picks share a batch, and among them those of one length.
    order = sorted(
        range(len(mazes)),
        key=lambda i: (len(mazes[i].gold), sum(map(len, mazes[i].listed))),
    )
    picks: list[list[int]] = [[] for _ in mazes]
    probability: list[list[float]] = [[] for _ in mazes]
    for begin in range(0, len(order), batch_size):
        places = order[begin : begin + batch_size]
        states = [_State(_tokenizer(model), mazes[place], rounds) for place in places]
        _choose(model, states, batch_size)
        for place, state in zip(places, states, strict=True):
            picks[place], probability[place] = state.picks, state.probability
    return Choices(picks, probability)


class _State:
    """A maze while it is being answered."""

    def __init__(self, tokenizer: Tokenizer, maze: Maze, rounds: str):
        self.tokenizer, self.maze, self.several = tokenizer, maze, rounds == "several"
        self.picks: list[int] = []
        self.probability: list[float] = []
        make = prompts.several_rounds if self.several else prompts.one_round
        self.messages: list[Message] = make(maze)
        self.shown = tokenizer.apply_chat_template(
            self.messages, add_generation_prompt=True
        )
        self.prompt = self.encode(self.shown)

    @property
    def done(self) -> bool:
        return len(self.picks) == len(self.maze.gold)

    @property
    def free(self) -> list[int]:
        return [k for k in range(len(self.maze.listed)) if k not in self.picks]

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def number(self, place: int) -> list[int]:
        # Without what follows it, "1" would stand for "10" as well.
        end = "" if len(self.maze.listed) <= _ONE_DIGIT else self.end
        return self.encode(f"{place + 1}{end}")

    @property
    def end(self) -> str:
        return "\n" if self.several else ","

    def take(self, place: int, probability: float) -> list[int]:
        """Note a pick; returns the tokens that follow the prompt so far."""
        self.picks.append(place)
        self.probability.append(probability)
        if self.done:
            return []
        if not self.several:
            return self.encode(f"{place + 1}, ")
        self.messages += [
            {"role": "assistant", "content": str(place + 1)},
            prompts.next_turn(self.maze, self.picks),
        ]
        shown = self.tokenizer.apply_chat_template(
            self.messages, add_generation_prompt=True
        )
        if not shown.startswith(self.shown):
            raise ValueError(
                "model: expected a chat template that keeps earlier turns as they "
                "were, got one that rewrites them; use rounds='one'"
            )
        new, self.shown = shown[len(self.shown) :], shown
        return self.encode(new)


def _choose(model: LanguageModel, states: list[_State], batch_size: int) -> None:
    """Pick for a batch, step by step."""
    room = max(len(state.prompt) + _room(state) for state in states)
    for state in states:
        batching.check_room(model, state.prompt, _room(state), state.maze.item.id)
    new = [state.prompt for state in states]
    # Rows of padding keep one shape for every batch.
    rows = batching.bucket(min(len(states), batch_size), smallest=1)
    dtype = model.params["embedding"].dtype
    cache: Cache = init_cache(model.config, rows, batching.bucket(room), dtype)
    while any(new):
        width = batching.bucket(max(map(len, new)))
        # A row that is done reads one token more, which nothing sees.
        tokens, mask = batching.pad([each or [0] for each in new], rows, width)
        arrays = batching.place(model, tokens, mask)
        logits, cache = _read(model.config, model.params, cache, *arrays)
        active = [row for row, state in enumerate(states) if not state.done]
        log_probs = _score(model, states, active, cache, logits)
        new = [[] for _ in states]
        for row, scores in zip(active, log_probs, strict=True):
            state = states[row]
            best = int(np.argmax(scores))
            share = np.exp(scores - scores.max())
            new[row] = state.take(state.free[best], float(share[best] / share.sum()))


def _room(state: _State) -> int:
    """At least the tokens that can follow the prompt."""
    maze = state.maze
    count = len(maze.gold)
    if not state.several:
        return _NUMBER * count
    longest = sorted((len(state.encode(each)) for each in maze.listed), reverse=True)
    # Turn t shows t sentences.
    shown = sum(sum(longest[:turn]) + _NUMBER * turn for turn in range(1, count))
    return shown + _TURN * count


def _score(
    model: LanguageModel,
    states: list[_State],
    active: list[int],
    cache: Cache,
    logits: Float[Array, "rows vocabulary"],
) -> list[Float[np.ndarray, " free"]]:
    """Log-probability of each free number, for each active row."""
    owner = [row for row in active for _ in states[row].free]
    tails = [states[row].number(place) for row in active for place in states[row].free]
    width = max(map(len, tails))
    first = np.asarray(jax.nn.log_softmax(logits))
    total = np.array(
        [first[row, ids[0]] for row, ids in zip(owner, tails, strict=True)]
    )
    if width > 1:
        count = batching.bucket(len(tails), smallest=1)
        ids, mask = batching.pad(tails, count, width)
        rows = np.zeros(count, np.int32)
        rows[: len(owner)] = owner
        rest = _tail_log_probs(model.config, model.params, cache, rows, ids, mask)
        total = total + np.asarray(rest)[: len(tails)]
    found, begin = [], 0
    for row in active:
        size = len(states[row].free)
        found.append(total[begin : begin + size])
        begin += size
    return found


@functools.partial(jax.jit, static_argnames=("config",))
def _read(
    config: DecoderConfig,
    params: PyTree,
    cache: Cache,
    tokens: Int[Array, "rows tokens"],
    mask: Bool[Array, "rows tokens"],
) -> tuple[Float[Array, "rows vocabulary"], Cache]:
    """Logits after the new tokens, and the cache with them."""
    last = jnp.max(jnp.where(mask, jnp.arange(tokens.shape[1]), 0), axis=1)[:, None]
    out = decoder.apply(config, params, tokens, mask=mask, cache=cache, select=last)
    assert out.cache is not None
    return out.logits[:, 0], out.cache


@functools.partial(jax.jit, static_argnames=("config",))
def _tail_log_probs(
    config: DecoderConfig,
    params: PyTree,
    cache: Cache,
    rows: Int[Array, " items"],
    tails: Int[Array, "items tail"],
    mask: Bool[Array, "items tail"],
) -> Float[Array, " items"]:
    """Summed log-probability of all tokens of the tails but their first."""
    out = decoder.apply(
        config,
        params,
        tails[:, :-1],
        mask=mask[:, :-1],
        cache=cache.repeat_rows(rows),
    )
    log_probs = jax.nn.log_softmax(out.logits)
    chosen = jnp.take_along_axis(log_probs, tails[:, 1:, None], axis=-1)[..., 0]
    return jnp.where(mask[:, 1:], chosen, 0).sum(axis=1)


def _tokenizer(model: LanguageModel) -> Tokenizer:
    if model.tokenizer is None:
        raise ValueError("model: expected one with a tokenizer, got none")
    return model.tokenizer
