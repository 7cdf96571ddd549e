"""Log-probabilities of given continuations, each prefix read once.

The common beginning of all prompts of a call, such as the examples of a few-shot
prompt, is read once for all of them. Each prompt is read once for all of its
continuations.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from jeff_llm.generate import batching, prefill, prefix
from jeff_llm.generate.decoding import MakeCache
from jeff_llm.models import decoder
from jeff_llm.models.cache import Cache, init_cache
from jeff_llm.models.config import DecoderConfig
from jeff_llm.models.language_model import LanguageModel

__all__ = ["Score", "option_logits", "score"]


# Padded tokens of continuations, and slots of their caches, in one program: with a
# vocabulary of 49,152 the logits of 2,048 tokens take 400 MB.
_CHUNK_TOKENS = 2048
_CHUNK_SLOTS = 1 << 16


class Score(NamedTuple):
    """How likely a continuation is after its prompt.

    Attributes:
      total: sum of the log-probabilities of its tokens, in nats.
      mean: their mean.
      log_probs: one per token.
      greedy: whether each token is the likeliest, so greedy decoding would write it.
    """

    total: float
    mean: float
    log_probs: Float[np.ndarray, " tokens"]
    greedy: bool


class _Item(NamedTuple):
    """A continuation: the row of its prompt in the batch, and its tokens."""

    row: int
    ids: list[int]


def score(
    model: LanguageModel,
    prompts: Sequence[batching.Prompt],
    continuations: Sequence[Sequence[batching.Prompt]],
    *,
    batch_size: int = 8,
    make_cache: MakeCache = init_cache,
) -> list[list[Score]]:
    """Score continuations of prompts.

    Prompt and continuation are tokenised separately; begin a continuation with the
    space that belongs to it.

    Args:
      model: the model.
      prompts: texts, or token ids.
      continuations: for each prompt its continuations, texts or token ids; prompts may
        have different numbers of them.
      batch_size: prompts at a time.
      make_cache: ``(config, batch size, capacity, dtype) -> cache``; the plain cache by
        default. A shared prefix is then seen as the cache stores it.

    Returns:
      For each prompt the scores of its continuations, in their order.

    Raises:
      TypeError: if ``prompts``, or the continuations of a prompt, are one text.
      ValueError: if a prompt or a continuation is empty, the two together are longer
        than the context, or their numbers differ.
    """
    rows = batching.encode(model, prompts, room=0)
    if len(prompts) != len(continuations):
        raise ValueError(
            f"continuations: expected a list for each of {len(prompts)} prompts, got "
            f"{len(continuations)}"
        )
    if any(isinstance(each, str) for each in continuations):
        raise TypeError("continuations: expected a list for each prompt, got a text")
    tails = [_tails(model, number, each) for number, each in enumerate(continuations)]
    for number, (row, tail) in enumerate(zip(rows, tails, strict=True)):
        room = max(map(len, tail), default=0)
        batching.check_room(model, row, room, f"prompt {number}")
    batches = _batches(len(rows), batch_size)
    # One room for all batches: another shape would be another program.
    room = batching.bucket(max((len(ids) for tail in tails for ids in tail), default=1))
    shared, cache = prefix.share(model, rows, room, make_cache)
    scores: list[list[Score]] = [[] for _ in rows]
    for batch in batches:
        items = [_Item(row - batch[0], ids) for row in batch for ids in tails[row]]
        heads = [rows[row][shared:] for row in batch]
        if items:
            found = _score(model, cache, heads, items, batch_size, make_cache)
            for item, result in zip(items, found, strict=True):
                scores[batch[item.row]].append(result)
    return scores


def option_logits(
    model: LanguageModel,
    prompts: Sequence[batching.Prompt],
    options: Sequence[str | int],
    *,
    batch_size: int = 8,
    make_cache: MakeCache = init_cache,
) -> Float[np.ndarray, "prompts options"]:
    """Logits of single tokens after prompts: the letters of a multiple choice.

    Args:
      model: the model.
      prompts: texts, or token ids.
      options: texts that are one token each, or token ids.
      batch_size: prompts at a time.
      make_cache: as in `score`.

    Returns:
      Logits of the next token, of these options alone.

    Raises:
      TypeError: if ``prompts`` is one text.
      ValueError: if an option is not one token, or a prompt is empty or too long.
    """
    ids = [_single(model, option) for option in options]
    rows = batching.encode(model, prompts, room=0)
    batches = _batches(len(rows), batch_size)
    shared, cache = prefix.share(model, rows, 0, make_cache)
    found = []
    for batch in batches:
        heads = [rows[row][shared:] for row in batch]
        tokens, mask = _padded(heads, batch_size)
        arrays = batching.place(model, tokens, mask)
        logits = _next_logits(
            model.config, model.params, cache, *arrays, make_cache=make_cache
        )
        found.append(np.asarray(logits)[: len(heads), ids])
    return np.concatenate(found)


def _batches(count: int, batch_size: int) -> list[range]:
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    begins = range(0, count, batch_size)
    return [range(begin, min(begin + batch_size, count)) for begin in begins]


def _score(
    model: LanguageModel,
    cache: Cache | None,
    heads: list[list[int]],
    items: list[_Item],
    batch_size: int,
    make_cache: MakeCache,
) -> list[Score]:
    tokens, mask = _padded(heads, batch_size)
    arrays = batching.place(model, tokens, mask)
    # Padded to buckets, like the prompts: few programs for any set of options.
    room = batching.bucket(max(len(item.ids) for item in items))
    first, filled = _read_heads(
        model.config, model.params, cache, *arrays, room=room, make_cache=make_cache
    )
    results: list[Score | None] = [None] * len(items)
    for places in _chunks([len(item.ids) for item in items], filled.capacity):
        chunk = [items[place] for place in places]
        for place, score in zip(
            places, _score_chunk(model, first, filled, chunk), strict=True
        ):
            results[place] = score
    return [each for each in results if each is not None]


def _score_chunk(
    model: LanguageModel, first: Array, cache: Cache, items: list[_Item]
) -> list[Score]:
    width = batching.bucket(max(len(item.ids) for item in items))
    count = batching.bucket(len(items), smallest=1)
    tails, tail_mask = batching.pad([item.ids for item in items], count, width)
    # Padding items belong to row 0; their results are never read.
    owner = np.zeros(count, np.int32)
    owner[: len(items)] = [item.row for item in items]
    log_probs, greedy = _tail_log_probs(
        model.config, model.params, first, cache, owner, tails, tail_mask
    )
    # One transfer for the chunk instead of one for each item.
    log_probs, greedy = np.asarray(log_probs), np.asarray(greedy)
    results = []
    for place, item in enumerate(items):
        each = log_probs[place, : len(item.ids)]
        every = bool(greedy[place, : len(item.ids)].all())
        results.append(Score(float(each.sum()), float(each.mean()), each, every))
    return results


def _chunks(lengths: list[int], capacity: int) -> list[list[int]]:
    """Parts of the items that are scored together, in all each once.

    One long item would pad all others to its length, and each item copies the cache of
    its prompt: so long lists are cut, items of one length together.
    """
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    chunks = []
    while order:
        width = batching.bucket(lengths[order[0]])
        most = max(1, min(_CHUNK_TOKENS // width, _CHUNK_SLOTS // capacity))
        chunks.append(order[:most])
        order = order[most:]
    return chunks


def _padded(heads: list[list[int]], batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    rows = batching.bucket(min(len(heads), batch_size), smallest=1)
    return batching.pad(heads, rows, batching.bucket(max(map(len, heads))))


def _continue(
    config: DecoderConfig,
    params: PyTree,
    prefix: Cache | None,
    tokens: Int[Array, "batch tokens"],
    mask: Bool[Array, "batch tokens"],
    room: int,
    make_cache: MakeCache,
) -> tuple[Float[Array, "batch vocabulary"], Cache]:
    """Logits after each prompt, and a cache with room for the continuation."""
    batch, width = tokens.shape
    if prefix is None:
        cache = make_cache(config, batch, width + room, params["embedding"].dtype)
    else:
        cache = prefix.repeat_rows(jnp.zeros(batch, jnp.int32))
    chunk = prefill.chosen_chunk(None, make_cache)
    logits, _, cache = prefill.read(config, params, tokens, mask, cache, chunk=chunk)
    return logits, cache


@functools.partial(jax.jit, static_argnames=("config", "make_cache"))
def _next_logits(
    config: DecoderConfig,
    params: PyTree,
    prefix: Cache | None,
    tokens: Array,
    mask: Array,
    *,
    make_cache: MakeCache,
) -> Float[Array, "batch vocabulary"]:
    return _continue(config, params, prefix, tokens, mask, 0, make_cache)[0]


@functools.partial(jax.jit, static_argnames=("config", "room", "make_cache"))
def _read_heads(
    config: DecoderConfig,
    params: PyTree,
    prefix: Cache | None,
    tokens: Array,
    mask: Array,
    *,
    room: int,
    make_cache: MakeCache,
) -> tuple[Float[Array, "batch vocabulary"], Cache]:
    return _continue(config, params, prefix, tokens, mask, room, make_cache)


@functools.partial(jax.jit, static_argnames=("config",))
def _tail_log_probs(
    config: DecoderConfig,
    params: PyTree,
    first: Float[Array, "batch vocabulary"],
    cache: Cache,
    owner: Int[Array, " items"],
    tails: Int[Array, "items tail"],
    tail_mask: Bool[Array, "items tail"],
) -> tuple[Float[Array, "items tail"], Bool[Array, "items tail"]]:
    """Log-probability of every token of the tails, and whether it is the likeliest."""
    # The last token of a tail predicts nothing, so it is not read.
    out = decoder.apply(
        config,
        params,
        tails[:, :-1],
        mask=tail_mask[:, :-1],
        cache=cache.repeat_rows(owner),
    )
    # The first token of each tail is predicted by its prompt's last logits.
    logits = jnp.concatenate([first[owner][:, None], out.logits], axis=1)
    chosen = jnp.take_along_axis(logits, tails[..., None], axis=-1)[..., 0]
    log_probs = chosen - jax.nn.logsumexp(logits, axis=-1)
    return log_probs, jnp.argmax(logits, axis=-1) == tails


def _tails(
    model: LanguageModel, number: int, continuations: Sequence[batching.Prompt]
) -> list[list[int]]:
    found = []
    for place, each in enumerate(continuations):
        if isinstance(each, str):
            ids = _plain(model, each)
        else:
            ids = [int(token) for token in each]
        name = f"continuation {place} of prompt {number}"
        if not ids:
            raise ValueError(f"{name}: expected at least one token, got none")
        batching.check_ids(model, ids, name)
        found.append(ids)
    return found


def _plain(model: LanguageModel, text: str) -> list[int]:
    if model.tokenizer is None:
        raise ValueError(
            f"expected token ids, since the model has no tokenizer, got {text!r}"
        )
    return model.tokenizer.encode(text, add_special_tokens=False)


def _single(model: LanguageModel, option: str | int) -> int:
    ids = _plain(model, option) if isinstance(option, str) else [option]
    if len(ids) != 1:
        raise ValueError(
            f"option {option!r}: expected one token, got {len(ids)}; use score instead"
        )
    batching.check_ids(model, ids, f"option {option!r}")
    return ids[0]
