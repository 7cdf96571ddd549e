"""The survey's comparison: accuracy, tokens, and scores that join the two.

`evaluate` compares a method with a baseline on the same questions. Its parts are in
`jeff_llm.reasoning.metrics`.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Shaped

from jeff_llm.reasoning import metrics
from jeff_llm.reasoning.groups import check_samples

__all__ = ["Scores", "evaluate"]

Samples = Shaped[Array, " samples"] | Shaped[np.ndarray, " samples"]


class Scores(NamedTuple):
    """A method against a baseline.

    Attributes:
      accuracy: share of right answers, in [0, 1].
      tokens: mean length in tokens.
      tokens_per_correct: all tokens over the right answers; infinite without any.
      compression_rate: tokens over those of the baseline.
      aes: accuracy-efficiency score; 0 for the baseline itself, not finite where that
        is never right.
    """

    accuracy: Float[Array, ""]
    tokens: Float[Array, ""]
    tokens_per_correct: Float[Array, ""]
    compression_rate: Float[Array, ""]
    aes: Float[Array, ""]


def evaluate(
    correct: Samples,
    length: Samples,
    *,
    baseline_correct: Samples,
    baseline_length: Samples,
) -> Scores:
    """Compare a method with a baseline.

    Args:
      correct: whether each answer of the method is right, or how right, in [0, 1].
      length: tokens of each, at least 0.
      baseline_correct: the same of the baseline, a sample for each one of the method.
      baseline_length: likewise.

    Returns:
      The scores.

    Raises:
      ValueError: if lengths differ, there is no sample, a value is out of range, or
        the baseline has no tokens.

    References:
      Sui et al., "Stop Overthinking", 2025 (arXiv 2503.16419), section 7.

    >>> right, length = np.array([True, True]), np.array([10, 20])
    >>> scores = evaluate(
    ...     right, length, baseline_correct=right, baseline_length=2 * length
    ... )
    >>> round(float(scores.aes), 2), round(float(scores.compression_rate), 2)
    (0.5, 0.5)
    """
    arrays = {
        "correct": jnp.asarray(correct, float),
        "length": jnp.asarray(length, float),
        "baseline_correct": jnp.asarray(baseline_correct, float),
        "baseline_length": jnp.asarray(baseline_length, float),
    }
    check_samples(**arrays)
    right, tokens, before, spent = arrays.values()
    if not isinstance(spent, Tracer) and not spent.any():
        raise ValueError("baseline_length: expected some tokens, got 0 in all samples")
    return Scores(
        accuracy=right.mean(),
        tokens=tokens.mean(),
        tokens_per_correct=metrics.tokens_per_correct(right, tokens),
        compression_rate=metrics.compression_rate(tokens, spent),
        aes=metrics.aes(right.mean(), tokens.mean(), before.mean(), spent.mean()),
    )
