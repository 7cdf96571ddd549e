"""Confidence in an answer that was just generated, in [0, 1]."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from jeff_llm.confidence import selfref, uncertainty
from jeff_llm.generate import batching
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.serving.text import Token

__all__ = ["MEASURES", "Measure", "from_tokens", "with_confidence_tokens"]

# (prompt, tokens of the answer) -> confidence; may compute, so not in an event loop.
Measure = Callable[[Sequence[int], Sequence[Token]], float]

# Measures that need no more than the log-probabilities of the answer.
MEASURES = {
    "perplexity": uncertainty.perplexity_confidence,
    "average": uncertainty.average_token_probability,
}


def from_tokens(name: str) -> Measure:
    """A measure from the log-probabilities of the answer's tokens.

    Args:
      name: "perplexity", ``exp(mean log p)``, or "average", ``mean p``; as
        `jeff_llm.confidence.from_jsonl` computes them from a log.

    Returns:
      The measure; 0 for an answer without tokens, which shows nothing.

    Raises:
      ValueError: if there is no such measure.
    """
    if name not in MEASURES:
        raise ValueError(f"measure: expected one of {sorted(MEASURES)}, got {name!r}")
    function = MEASURES[name]

    def measure(prompt: Sequence[int], tokens: Sequence[Token]) -> float:
        del prompt
        if not tokens:
            return 0.0
        # Padded to a bucket, or each length would be another program.
        padded = np.zeros(batching.bucket(len(tokens)), np.float32)
        padded[: len(tokens)] = [token.log_prob for token in tokens]
        where = jnp.arange(len(padded)) < len(tokens)
        return float(function(jnp.asarray(padded), where=where))

    return measure


def with_confidence_tokens(
    model: LanguageModel, tokens: selfref.ConfidenceTokens
) -> Measure:
    """The probability of Self-REF's confident token right after the answer.

    Args:
      model: the tuned model, as `jeff_llm.confidence.selfref.load` gives it.
      tokens: its two tokens.

    Returns:
      The measure; 0 for an answer without tokens.
    """

    def measure(prompt: Sequence[int], answer: Sequence[Token]) -> float:
        if not answer:
            return 0.0
        ids = [token.number for token in answer]
        return float(selfref.confidence(model, [list(prompt)], [ids], tokens)[0])

    return measure
