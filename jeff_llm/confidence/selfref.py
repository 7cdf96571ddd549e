"""Self-REF: teach a model two tokens that report whether to trust its answer.

The model answers the training questions itself. A right answer becomes the example
``question, answer, <CN>``, a wrong one ``question, answer, <UN>`` in which the answer's
tokens have no weight in the loss: the model learns that it is unsure, and not the wrong
answer. Only LoRA on attention and head, and the two rows of the embedding, are trained.
Then the confidence of an answer is ``P(<CN>) / (P(<CN>) + P(<UN>))`` right after it.
The answer may be the tuned model's own, or the base's, which the tuned model then only
judges. The tokens were learned on answers of the base.

The two tokens start from the mean of all tokens, so that both are equally likely.

References:
  Chuang et al., "Learning to Route LLMs with Confidence Tokens", ICML 2025, section 3.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jeff_llm.confidence import reading, uncertainty
from jeff_llm.confidence.adapt import Recipe, fit
from jeff_llm.generate import batching
from jeff_llm.models import adapters, lora
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.tuning import finetune

__all__ = [
    "ConfidenceTokens",
    "Recipe",
    "add_tokens",
    "confidence",
    "fit",
    "load",
    "make_examples",
]


class ConfidenceTokens(NamedTuple):
    """Ids of the two tokens.

    Attributes:
      confident: ``<CN>``.
      unconfident: ``<UN>``.
    """

    confident: int
    unconfident: int


def add_tokens(
    model: LanguageModel, names: tuple[str, str] = ("<CN>", "<UN>")
) -> tuple[LanguageModel, ConfidenceTokens]:
    """Add the two tokens to a model.

    Args:
      model: the model, with a tokenizer.
      names: of the confident and the unconfident token.

    Returns:
      The model, whose two new rows of embedding and output layer are the mean of the
      others, and the tokens' ids.

    Raises:
      ValueError: if the model has no tokenizer, or one that has these tokens already.
    """
    if model.tokenizer is None:
        raise ValueError("model: expected one with a tokenizer, got none")
    tokenizer = model.tokenizer.with_tokens(list(names))
    ids = ConfidenceTokens(*(tokenizer.token_id(name) for name in names))
    # A padded embedding may have room for them already.
    size = max(model.config.vocab_size, tokenizer.vocab_size)
    grow = size - model.config.vocab_size
    # Set by id: with room in a padded embedding they are not the last rows.
    places = jnp.asarray(ids)
    params = dict(model.params)
    table = params["embedding"]
    known = table[: model.tokenizer.vocab_size]
    # Summed in float32: a bfloat16 sum of 49,152 rows would stop growing early.
    middle = known.mean(axis=0, dtype=jnp.float32).astype(table.dtype)
    table = jnp.pad(table, ((0, grow), (0, 0)))
    params["embedding"] = table.at[places].set(middle)
    if not model.config.tied:
        kernel = params["head"]["kernel"]
        middle = kernel[:, : len(known)].mean(axis=1, dtype=jnp.float32)
        kernel = jnp.pad(kernel, ((0, 0), (0, grow)))
        kernel = kernel.at[:, places].set(middle[:, None].astype(kernel.dtype))
        params["head"] = {**params["head"], "kernel": kernel}
    config = dataclasses.replace(model.config, vocab_size=size)
    return model._replace(config=config, params=params, tokenizer=tokenizer), ids


def make_examples(
    questions: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    correct: Bool[Array, " questions"] | Bool[np.ndarray, " questions"],
    tokens: ConfidenceTokens,
    *,
    key: PRNGKeyArray,
    unconfident_share: float | int = 1.0,
    mask_wrong: bool = True,
    token_weight: float | int = 1.0,
) -> list[finetune.Example]:
    """Training examples from a model's own answers.

    Args:
      questions: token ids of each question.
      answers: token ids of the model's answer to each, without an end token.
      correct: whether it is right.
      tokens: the two tokens.
      key: random key, for the wrong answers that are kept.
      unconfident_share: share of the wrong answers that are kept, the paper's alpha.
      mask_wrong: leave a wrong answer's tokens out of the loss. Without it the model
        learns its mistakes; the option exists to show that.
      token_weight: weight of the last token.

    Returns:
      Examples in the order of the questions: a question's tokens have weight 0, a right
        answer's 1, a wrong one's 0, the token behind it ``token_weight``.

    Raises:
      ValueError: if numbers differ, the share is outside [0, 1], or only one of the
        tokens would ever be seen.
    """
    right = np.asarray(correct)
    if not len(questions) == len(answers) == len(right):
        raise ValueError(
            "questions, answers, correct: expected as many of each, got "
            f"{len(questions)}, {len(answers)}, {len(right)}"
        )
    if not 0 <= unconfident_share <= 1:
        raise ValueError(
            f"unconfident_share: expected a number in [0, 1], got {unconfident_share}"
        )
    draw = np.asarray(jax.random.uniform(key, (len(right),)))
    # An exact number of them, rather than an independent draw for each.
    rank = np.argsort(np.argsort(np.where(right, 2.0, draw)))
    kept = right | (rank < round(unconfident_share * int((~right).sum())))
    if not right.any() or not (kept & ~right).any():
        raise ValueError(
            "correct: expected right and wrong answers, so that both tokens are "
            f"learned, got {int(right.sum())} right and {int((kept & ~right).sum())} "
            "wrong ones; ask other questions, or keep more of the wrong ones"
        )
    examples = []
    for place in np.flatnonzero(kept).tolist():
        question, answer = list(questions[place]), list(answers[place])
        last = tokens.confident if right[place] else tokens.unconfident
        learned = 1.0 if right[place] or not mask_wrong else 0.0
        weights = [0.0] * len(question) + [learned] * len(answer)
        examples.append(
            finetune.Example([*question, *answer, last], [*weights, token_weight])
        )
    return examples


def confidence(
    model: LanguageModel,
    prompts: Sequence[batching.Prompt],
    answers: Sequence[Sequence[int]],
    tokens: ConfidenceTokens,
    *,
    batch_size: int = 64,
) -> Float[np.ndarray, " answers"]:
    """``P(<CN>) / (P(<CN>) + P(<UN>))`` right after each answer.

    Args:
      model: the trained model.
      prompts: questions, texts or token ids.
      answers: token ids of the answers, without the two tokens.
      tokens: the two tokens.
      batch_size: questions at a time.

    Returns:
      Confidence in [0, 1].

    Raises:
      ValueError: as `jeff_llm.confidence.reading.read` does.
    """
    found = reading.read(
        model, prompts, answers, next_tokens=list(tokens), batch_size=batch_size
    )
    return np.asarray(uncertainty.p_true(*jnp.asarray(found.next_logits).T))


def load(
    model: LanguageModel,
    directory: str | Path,
    names: tuple[str, str] = ("<CN>", "<UN>"),
) -> tuple[LanguageModel, ConfidenceTokens]:
    """A model that was taught the tokens, from its base and its adapters.

    Args:
      model: the base, before `add_tokens`; it is not changed.
      directory: where `jeff_llm.models.adapters.save` wrote the factors of `fit`.
      names: of the two tokens.

    Returns:
      The model with the factors merged in, and the tokens' ids.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if the factors are of another model, or not of two tokens.
    """
    grown, tokens = add_tokens(model, names)
    factors = adapters.load(directory, grown.config)
    if factors.ids != tuple(tokens):
        raise ValueError(
            f"{directory}: expected factors with the rows of tokens {tuple(tokens)}, "
            f"got {factors.ids or 'none'}; they are of another model or training"
        )
    return grown._replace(params=lora.merge(grown.params, factors)), tokens
