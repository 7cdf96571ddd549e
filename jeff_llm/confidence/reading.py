"""A model's outputs on given answers: one pass over question and answer.

`read` gives log-probabilities, entropies and margins of the answer's tokens, the hidden
state after it, and the logits of chosen next tokens: the inputs of the measures of
`jeff_llm.confidence.uncertainty` and of the probes. The common beginning of all prompts
is read once.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jeff_llm.confidence import uncertainty
from jeff_llm.generate import batching, prefix
from jeff_llm.models import decoder
from jeff_llm.models.cache import Cache, init_cache
from jeff_llm.models.config import DecoderConfig
from jeff_llm.models.language_model import LanguageModel

__all__ = ["Reading", "read"]


class Reading(NamedTuple):
    """A model's outputs on given answers.

    Attributes:
      log_probs: log-probability of each token of an answer; 0 after its end.
      entropy: `uncertainty.entropy_confidence` of the distribution from which each
        token came, 0 after the end.
      margin: `uncertainty.margin` of that distribution, 0 after the end.
      where: the real tokens.
      hidden: hidden state of the chosen layer at the answer's last token.
      before: the same at the question's last token.
      next_logits: logits of the requested tokens, right after the answer.
    """

    log_probs: Float[np.ndarray, "answers tokens"]
    entropy: Float[np.ndarray, "answers tokens"]
    margin: Float[np.ndarray, "answers tokens"]
    where: Bool[np.ndarray, "answers tokens"]
    hidden: Float[np.ndarray, "answers width"]
    before: Float[np.ndarray, "answers width"]
    next_logits: Float[np.ndarray, "answers options"]


def read(
    model: LanguageModel,
    prompts: Sequence[batching.Prompt],
    answers: Sequence[Sequence[int]],
    *,
    layer: int | None = None,
    next_tokens: Sequence[int] = (),
    batch_size: int = 64,
) -> Reading:
    """Read questions with their answers.

    Args:
      model: the model.
      prompts: questions, texts or token ids.
      answers: token ids of each answer, at least one.
      layer: hidden state to return, numbered as in `jeff_llm.models.decoder.Output`;
        by default the eighth from the end, or the first.
      next_tokens: tokens whose logits after the answer are returned.
      batch_size: questions at a time.

    Returns:
      One row an answer.

    Raises:
      ValueError: if an answer is empty, numbers differ, or prompt and answer do not fit
        into the model's context.
    """
    rows = batching.encode(model, prompts, room=0)
    if len(rows) != len(answers):
        raise ValueError(
            f"answers: expected one for each of {len(rows)} prompts, got {len(answers)}"
        )
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    for number, (row, answer) in enumerate(zip(rows, answers, strict=True)):
        if not len(answer):
            raise ValueError(f"answer {number}: expected at least one token, got none")
        batching.check_ids(model, answer, f"answer {number}")
        batching.check_room(model, row, len(answer), f"prompt {number}")
    batching.check_ids(model, next_tokens, "next_tokens")
    if layer is None:
        layer = max(model.config.num_layers - 8, 1)
    # Answers of one bucket share a program; most are a few tokens.
    width = batching.bucket(max(map(len, answers)), smallest=4)
    shared, cache = prefix.share(model, rows, width, init_cache)
    options = np.asarray(next_tokens, np.int32)
    found = []
    for begin in range(0, len(rows), batch_size):
        some = slice(begin, begin + batch_size)
        heads = [row[shared:] for row in rows[some]]
        found.append(
            _batch(
                model, cache, heads, answers[some], width, layer, options, batch_size
            )
        )
    return Reading(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _batch(
    model: LanguageModel,
    cache: Cache | None,
    heads: Sequence[list[int]],
    answers: Sequence[Sequence[int]],
    width: int,
    layer: int,
    options: np.ndarray,
    batch_size: int,
) -> list[np.ndarray]:
    """One batch, padded to its size, so that few programs are compiled."""
    whole = [head + [int(t) for t in a] for head, a in zip(heads, answers, strict=True)]
    size = batching.bucket(min(len(whole), batch_size), smallest=1)
    tokens, mask = batching.pad(whole, size, batching.bucket(max(map(len, whole))))
    begins, lengths = np.zeros(size, np.int32), np.ones(size, np.int32)
    begins[: len(heads)] = [len(head) for head in heads]
    lengths[: len(heads)] = [len(answer) for answer in answers]
    # Rows that only fill the batch hold one token, at which nothing is out of range.
    begins[len(heads) :] = 1
    arrays = batching.place(model, tokens, mask, begins, lengths)
    read = _read(model.config, model.params, cache, *arrays, options, width, layer)
    return [np.asarray(each)[: len(heads)] for each in read]


@functools.partial(jax.jit, static_argnames=("config", "width", "layer"))
def _read(
    config: DecoderConfig,
    params: object,
    cache: Cache | None,
    tokens: Array,
    mask: Array,
    begins: Array,
    lengths: Array,
    options: Array,
    width: int,
    layer: int,
) -> tuple[Array, ...]:
    rows, longest = tokens.shape
    if cache is not None:
        cache = cache.repeat_rows(jnp.zeros(rows, jnp.int32))
    step = jnp.arange(width)
    # Position begin - 1 + t predicts token t of the answer; the last predicts the next
    # token after it.
    at = begins[:, None] - 1 + jnp.arange(width + 1)
    at = jnp.minimum(at, begins[:, None] - 1 + lengths[:, None])
    at = jnp.clip(at, 0, longest - 1)
    out = decoder.apply(
        config,
        params,
        tokens,
        mask=mask,
        cache=cache,
        select=at,
        hidden_layers=(layer,),
    )
    there = step < lengths[:, None]
    logits = out.logits[:, :-1]
    target = jnp.take_along_axis(tokens, jnp.minimum(at[:, :-1] + 1, longest - 1), 1)
    chosen = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    log_probs = chosen - jax.nn.logsumexp(logits, axis=-1)
    # Place of the answer's last token, whose logits predict what follows it.
    last = at[jnp.arange(rows), lengths]
    after = jnp.take_along_axis(out.logits, lengths[:, None, None], axis=1)[:, 0]
    hidden = out.hidden[0]
    return (
        jnp.where(there, log_probs, 0),
        jnp.where(there, uncertainty.entropy_confidence(logits), 0),
        jnp.where(there, uncertainty.margin(logits), 0),
        there,
        hidden[jnp.arange(rows), last],
        hidden[jnp.arange(rows), jnp.maximum(begins - 1, 0)],
        after[:, options],
    )
