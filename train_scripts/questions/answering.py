"""Answers of a language model to any prompts, with confidences from its distributions.

`train_scripts.selfref` and `train_scripts.routing` share these functions, which do not
depend on the kind of question.
"""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jeff_llm import generate
from jeff_llm.confidence import reading, uncertainty
from jeff_llm.generate import batching
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.models.tokenizer import Tokenizer

__all__ = [
    "CHUNK",
    "answer",
    "newlines",
    "texts_of",
    "token_measures",
    "tokenizer_of",
]

# Questions per batch.
CHUNK = 128


def newlines(model: LanguageModel) -> list[int]:
    r"""Tokens that end the line of an answer, and tokens that end a text.

    Args:
      model: the model.

    Returns:
      Token ids: the model's own ends, then every token that holds the end of a line,
      alone or with other characters, as in ``.\n``.
    """
    return list(dict.fromkeys((*model.stop_ids, *_line_ends(tokenizer_of(model)))))


# A tokenizer never changes, and is compared by identity.
@functools.lru_cache(maxsize=4)
def _line_ends(tokenizer: Tokenizer) -> tuple[int, ...]:
    every = range(tokenizer.vocab_size)
    return tuple(number for number in every if "\n" in tokenizer.decode([number]))


def texts_of(model: LanguageModel, found: generate.Generation) -> list[str]:
    """Texts of answers; one that a token of `newlines` ended is cut there.

    Args:
      model: the model.
      found: its answers.

    Returns:
      The texts, without space around them.
    """
    tokenizer = tokenizer_of(model)
    lines = set(_line_ends(tokenizer))
    texts = list(found.texts)
    for row in np.flatnonzero(found.finished).tolist():
        tokens = found.tokens[row, : found.lengths[row]].tolist()
        # The token that ends a line may begin with the last characters of the line.
        if tokens[-1] in lines:
            texts[row] = tokenizer.decode(tokens).partition("\n")[0]
    return [text.strip() for text in texts]


def answer(
    model: LanguageModel,
    prompts: Sequence[batching.Prompt],
    *,
    stop_ids: Sequence[int],
    max_new_tokens: int,
) -> tuple[list[list[int]], list[str]]:
    """Let a model answer prompts greedily.

    Args:
      model: the model.
      prompts: any number of prompts.
      stop_ids: tokens that end an answer.
      max_new_tokens: maximum length of an answer, in tokens.

    Returns:
      ``(tokens, texts)`` of the answers. An empty answer consists of its end token.
    """
    tokens: list[list[int]] = []
    texts: list[str] = []
    for begin in range(0, len(prompts), CHUNK):
        found = generate.generate(
            model,
            prompts[begin : begin + CHUNK],
            max_new_tokens=max_new_tokens,
            stop_ids=stop_ids,
            share_prefix=True,
        )
        ends = np.maximum(found.lengths - found.finished, 1)
        tokens += [
            row[:end].tolist() for row, end in zip(found.tokens, ends, strict=True)
        ]
        texts += texts_of(model, found)
    return tokens, texts


def token_measures(found: reading.Reading) -> dict[str, np.ndarray]:
    """Confidences from the token distributions of the answers.

    Args:
      found: log-probabilities, entropies and margins of the answers' tokens.

    Returns:
      Confidence in [0, 1] by measure.
    """
    log_probs, where = jnp.asarray(found.log_probs), jnp.asarray(found.where)
    mean, geometric = (
        np.asarray(measure(log_probs, where=where))
        for measure in (
            uncertainty.average_token_probability,
            uncertainty.perplexity_confidence,
        )
    )
    return {
        "average probability": mean,
        "perplexity": geometric,
        "sequence probability": np.exp(found.log_probs.sum(1)),
        "first token": np.exp(found.log_probs[:, 0]),
        "entropy": found.entropy[:, 0],
        "margin": found.margin[:, 0],
    }


def tokenizer_of(model: LanguageModel) -> Tokenizer:
    """The tokenizer of a model that must have one.

    Args:
      model: the model.

    Returns:
      Its tokenizer.

    Raises:
      ValueError: if the model has no tokenizer.
    """
    if model.tokenizer is None:
        raise ValueError("model: expected one with a tokenizer, got none")
    return model.tokenizer
