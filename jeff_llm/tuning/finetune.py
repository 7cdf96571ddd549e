"""Supervised fine-tuning: examples of texts, packed into rows, and their loss.

Several examples share a row (`pack`); segments separate them, so a packed batch has the
same loss as the examples one by one. Only answer tokens count. The optimiser's step is
`jeff.training.make_step` around `loss`, the loop is `jeff.training.fit`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from jeff_llm.models import decoder
from jeff_llm.models.config import DecoderConfig
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.models.tokenizer import Tokenizer
from jeff_llm.tuning.turns import encode_turns

__all__ = [
    "Example",
    "Packed",
    "encode_examples",
    "loss",
    "most_targets",
    "pack",
    "token_loss",
]


class Example(NamedTuple):
    """Token ids of one example, and which of them are learned.

    Attributes:
      tokens: prompt and answer, or a conversation.
      learned: weight of each token in the loss: 0 for what the model reads, 1 for what
        it says.
    """

    tokens: list[int]
    learned: list[float]


class Packed(NamedTuple):
    """Rows of packed examples, as `loss` takes them in batches.

    Attributes:
      tokens: ids, zero in padding.
      positions: place of each token in its example.
      segments: number of the example in its row, from 1; 0 for padding.
      weights: weight of each token as a target; 0 for the first token of an example.
    """

    tokens: Any
    positions: Any
    segments: Any
    weights: Any


def encode_examples(
    model: LanguageModel,
    rows: Sequence[dict[str, Any]],
    *,
    max_tokens: int,
    places: Sequence[str] | None = None,
) -> list[Example]:
    """Examples from prompts and answers, or from conversations.

    A prompt is put through the chat template; it may be a text or a list of messages.
    The answer ends with the template's own end of turn, which is learned too. Of a
    conversation every turn of the assistant is learned, likewise with its end.

    Args:
      model: the model, for its tokenizer.
      rows: ``{"prompt": text or messages, "answer": text}``, or the chat format
        ``{"messages": [{"role", "content"}, ...]}``; other fields, such as ``"id"``,
        are ignored.
      max_tokens: longest example.
      places: where each row comes from, for errors, as `jeff.files.json_lines` gives
        them; "row 0" and so on by default.

    Returns:
      The examples, in order.

    Raises:
      ValueError: naming the row that lacks a field, is empty, is too long, has both
        forms, or is a conversation that `encode_turns` refuses.
    """
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise ValueError("model: expected one with a tokenizer, got none")
    if places is None:
        places = [f"row {number}" for number in range(len(rows))]
    return [
        _encode(tokenizer, place, row, max_tokens)
        for place, row in zip(places, rows, strict=True)
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
    config: DecoderConfig,
    params: PyTree,
    batch: Packed,
    *,
    remat: bool = False,
    embedded: Float[Array, "rows tokens width"] | None = None,
    num_targets: int | None = None,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Mean negative log-likelihood of the learned tokens, in nats.

    ``-sum_t w_t log p(token_t | tokens before it in its example) / sum_t w_t``.

    Args:
      config: the decoder's configuration.
      params: its parameters, plain or with LoRA's factors beside them.
      batch: packed rows.
      remat: as in `jeff_llm.models.decoder.apply`.
      embedded: likewise; hidden states of frozen lower layers
        (`jeff_llm.tuning.trunk`).
      num_targets: most learned tokens in a row (`most_targets`); the head is then run
        on that many tokens of each row instead of on all.

    Returns:
      ``(loss, {"accuracy", "tokens"})``: the share of learned tokens that are the
      likeliest, and their summed weight.
    """
    batch = jax.tree.map(jnp.asarray, batch)
    select, targets = None, _targets(batch)
    if num_targets is not None:
        learned = (targets[1] > 0).astype(jnp.int32)
        # Their places, in a static number; the rest have weight 0. With the vocabulary
        # the head is the largest single product of a small model.
        select = jax.lax.top_k(learned, num_targets)[1]
        targets = [jnp.take_along_axis(each, select, axis=1) for each in targets]
    logits = decoder.apply(
        config,
        params,
        batch.tokens,
        mask=batch.segments > 0,
        positions=batch.positions,
        segments=batch.segments,
        remat=remat,
        embedded=embedded,
        select=select,
    ).logits
    return token_loss(logits, *targets)


def most_targets(packed: Packed) -> int:
    """Most learned tokens in a row, rounded up to a multiple of eight.

    Args:
      packed: the rows.

    Returns:
      The ``num_targets`` of `loss`, at most the width of a row.
    """
    most = int((packed.weights[:, 1:] > 0).sum(axis=1).max())
    return min(-(-max(most, 1) // 8) * 8, packed.tokens.shape[1])


def token_loss(
    logits: Float[Array, "rows tokens vocabulary"],
    target: Int[Array, "rows tokens"],
    weight: Float[Array, "rows tokens"],
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Weighted mean of the negative log-likelihood of target tokens, in nats.

    Args:
      logits: of the next token at each place.
      target: the next token at each place.
      weight: of each place; where it is 0 the logits' gradient is exactly 0.

    Returns:
      As `loss`.
    """
    chosen = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    log_prob = chosen - jax.nn.logsumexp(logits, axis=-1)
    # A batch of padding alone has loss 0, not NaN.
    total = jnp.maximum(weight.sum(), 1e-6)
    right = chosen >= logits.max(axis=-1)
    metrics = {"accuracy": (weight * right).sum() / total, "tokens": weight.sum()}
    return -(weight * log_prob).sum() / total, metrics


def _targets(batch: Packed) -> list[Array]:
    """The token after each one, and its weight."""
    # Targets are shifted rather than logits cut: they are a vocabulary's size smaller.
    weight = batch.weights.at[:, 0].set(0.0)
    return [jnp.roll(each, -1, axis=1) for each in (batch.tokens, weight)]


def _encode(
    tokenizer: Tokenizer, place: str, row: dict[str, Any], max_tokens: int
) -> Example:
    if row.get("messages") is None:
        example = _encode_answer(tokenizer, place, row)
    elif both := [name for name in ("prompt", "answer") if row.get(name) is not None]:
        raise ValueError(
            f"{place}: expected 'messages' alone, or 'prompt' and 'answer', got "
            f"'messages' and {both[0]!r}"
        )
    else:
        try:
            example = Example(*encode_turns(tokenizer, row["messages"]))
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
    if len(example.tokens) > max_tokens:
        raise ValueError(
            f"{place}: expected at most {max_tokens} tokens, got "
            f"{len(example.tokens)}; raise max_tokens, or leave the row out"
        )
    return example


def _encode_answer(tokenizer: Tokenizer, place: str, row: dict[str, Any]) -> Example:
    for name in ("prompt", "answer"):
        if not row.get(name):
            raise ValueError(
                f"{place}: expected a {name!r} that is not empty, got {row.get(name)!r}"
            )
    prompt, answer = row["prompt"], row["answer"]
    if not isinstance(answer, str):
        raise ValueError(f"{place}: expected the answer as text, got {answer!r}")
    messages = (
        [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    )
    try:
        before = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        after = tokenizer.apply_chat_template(
            [*messages, {"role": "assistant", "content": answer}],
            add_generation_prompt=False,
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: prompt: {error}") from error
    first = tokenizer.encode(before, add_special_tokens=False)
    if after.startswith(before):
        # A line's end after the end of turn is never generated, so it is not learned.
        tail = after[len(before) :].rstrip()
        second = tokenizer.encode(tail, add_special_tokens=False)
    else:
        # The template rewrites the answer: only the answer itself is sure.
        second = tokenizer.encode(answer, add_special_tokens=False)
        second += tokenizer.stop_ids[:1]
    return Example(first + second, [0.0] * len(first) + [1.0] * len(second))


def _first_fit(lengths: Sequence[int], width: int) -> list[list[int]]:
    bins: list[list[int]] = []
    room: list[int] = []
    # Longest first: short examples fill what the long ones leave.
    for member in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fits = (place for place, left in enumerate(room) if left >= lengths[member])
        place = next(fits, len(bins))
        if place == len(bins):
            bins.append([])
            room.append(width)
        bins[place].append(member)
        room[place] -= lengths[member]
    return bins
