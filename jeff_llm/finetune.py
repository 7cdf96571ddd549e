"""Supervised fine-tuning: prompts and answers, packed into rows, and the loss on them.

Several examples share a row (`pack`); segments keep them apart, so a packed batch has
the loss of the examples one by one. Only answer tokens count. The optimiser's step is
`jeff.training.make_step` around `loss`, the loop is `jeff.training.fit`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from jeff_llm.models import decoder
from jeff_llm.models.config import DecoderConfig
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.models.tokenizer import Tokenizer

__all__ = ["Example", "Packed", "encode_examples", "loss", "pack"]


class Example(NamedTuple):
    """Token ids of one example, and which of them are learned.

    Attributes:
      tokens: prompt and answer.
      learned: weight of each token in the loss, 0 for the prompt's.
    """

    tokens: list[int]
    learned: list[float]


class Packed(NamedTuple):
    """Rows of packed examples; a batch of them is what `loss` takes.

    Attributes:
      tokens: ids, zero in padding.
      positions: place of each token in its example.
      segments: number of the example in its row, from 1; 0 for padding.
      weights: weight of each token as a target; a first token is nobody's target.
    """

    tokens: Any
    positions: Any
    segments: Any
    weights: Any


def encode_examples(
    model: LanguageModel, rows: Sequence[dict[str, Any]], *, max_tokens: int
) -> list[Example]:
    """Examples from prompts and answers.

    A prompt is put through the chat template; it may be a text or a list of messages.
    The answer ends with the template's own end of turn, which is learned too.

    Args:
      model: the model, for its tokenizer.
      rows: ``{"prompt": text or messages, "answer": text}``.
      max_tokens: longest example.

    Returns:
      The examples, in order.

    Raises:
      ValueError: naming the row that lacks a field, is empty, or is too long.
    """
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise ValueError("model: expected one with a tokenizer, got none")
    return [
        _encode(tokenizer, number, row, max_tokens) for number, row in enumerate(rows)
    ]


def pack(examples: Sequence[Example], width: int) -> Packed:
    """Put examples into as few rows as first-fit decreasing finds.

    Args:
      examples: none longer than ``width``.
      width: tokens of a row.

    Returns:
      Arrays [rows, width]; every example is in exactly one row, whole.

    Raises:
      ValueError: if there is no example, or one is empty or longer than a row.
    """
    if not examples:
        raise ValueError("examples: expected at least one, got none")
    for number, (tokens, learned) in enumerate(examples):
        if not tokens or len(tokens) != len(learned):
            raise ValueError(
                f"example {number}: expected tokens, and a weight for each, got "
                f"{len(tokens)} and {len(learned)}"
            )
    longest = max(len(example.tokens) for example in examples)
    if longest > width:
        raise ValueError(
            f"width: expected at least {longest}, the longest example, got {width}"
        )
    bins = _first_fit([len(example.tokens) for example in examples], width)
    shape = (len(bins), width)
    packed = Packed(
        tokens=np.zeros(shape, np.int32),
        positions=np.zeros(shape, np.int32),
        segments=np.zeros(shape, np.int32),
        weights=np.zeros(shape, np.float32),
    )
    for row, members in enumerate(bins):
        begin = 0
        for segment, member in enumerate(members, start=1):
            tokens, learned = examples[member]
            place = (row, slice(begin, begin + len(tokens)))
            packed.tokens[place] = tokens
            packed.positions[place] = np.arange(len(tokens))
            packed.segments[place] = segment
            packed.weights[place] = [0.0, *learned[1:]]
            begin += len(tokens)
    return packed


def loss(
    config: DecoderConfig, params: PyTree, batch: Packed, *, remat: bool = False
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Mean negative log-likelihood of the learned tokens, in nats.

    ``-sum_t w_t log p(token_t | tokens before it in its example) / sum_t w_t``.

    Args:
      config: the decoder's configuration.
      params: its parameters, plain or with LoRA's factors beside them.
      batch: packed rows.
      remat: as in `jeff_llm.models.decoder.apply`.

    Returns:
      ``(loss, {"accuracy", "tokens"})``: the share of learned tokens that are the
      likeliest, and their summed weight.
    """
    batch = jax.tree.map(jnp.asarray, batch)
    logits = decoder.apply(
        config,
        params,
        batch.tokens,
        mask=batch.segments > 0,
        positions=batch.positions,
        segments=batch.segments,
        remat=remat,
    ).logits
    # Targets are shifted rather than logits cut: they are a vocabulary's size smaller.
    target = jnp.roll(batch.tokens, -1, axis=1)
    weight = jnp.roll(batch.weights.at[:, 0].set(0.0), -1, axis=1)
    chosen = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    log_prob = chosen - jax.nn.logsumexp(logits, axis=-1)
    total = jnp.maximum(weight.sum(), 1e-6)
    right = chosen >= logits.max(axis=-1)
    metrics = {"accuracy": (weight * right).sum() / total, "tokens": weight.sum()}
    return -(weight * log_prob).sum() / total, metrics


def _encode(
    tokenizer: Tokenizer, number: int, row: dict[str, Any], max_tokens: int
) -> Example:
    for name in ("prompt", "answer"):
        if not row.get(name):
            raise ValueError(
                f"row {number}: expected a {name!r} that is not empty, got "
                f"{row.get(name)!r}"
            )
    prompt, answer = row["prompt"], row["answer"]
    if not isinstance(answer, str):
        raise ValueError(f"row {number}: expected the answer as text, got {answer!r}")
    messages = (
        [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    )
    before = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    after = tokenizer.apply_chat_template(
        [*messages, {"role": "assistant", "content": answer}],
        add_generation_prompt=False,
    )
    first = tokenizer.encode(before, add_special_tokens=False)
    if after.startswith(before):
        # A line's end behind the end of turn is never generated, so it is not learned.
        tail = after[len(before) :].rstrip()
        second = tokenizer.encode(tail, add_special_tokens=False)
    else:
        # The template rewrites the answer: only the answer itself is sure.
        second = tokenizer.encode(answer, add_special_tokens=False)
        second += tokenizer.stop_ids[:1]
    tokens = first + second
    if len(tokens) > max_tokens:
        raise ValueError(
            f"row {number}: expected at most {max_tokens} tokens, got {len(tokens)}; "
            "raise max_tokens, or leave the row out"
        )
    return Example(tokens, [0.0] * len(first) + [1.0] * len(second))


def _first_fit(lengths: Sequence[int], width: int) -> list[list[int]]:
    bins: list[list[int]] = []
    room: list[int] = []
    for member in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fits = (place for place, left in enumerate(room) if left >= lengths[member])
        place = next(fits, len(bins))
        if place == len(bins):
            bins.append([])
            room.append(width)
        bins[place].append(member)
        room[place] -= lengths[member]
    return bins
