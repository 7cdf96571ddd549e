"""Rules that look at the votes after every sample, and stop once they are clear.

Adaptive consistency differs from its authors' package in one point: there a missing
answer is an answer like any other; here it does not vote.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from jeff_llm.reasoning.tally import Tally, slots, tally, vote_at
from jeff_llm.reasoning.votes import Answers, Mask, Numbers, Vote, check_votes

__all__ = [
    "adaptive_consistency",
    "certaindex",
    "certaindex_stopping",
    "majority_probability",
]

Counts = Shaped[Array, "..."] | Shaped[np.ndarray, "..."] | float | int


def majority_probability(first: Counts, second: Counts) -> Float[Array, "..."]:
    """Probability that the leading of two answers is the more probable one.

    ``P(p > 1/2)`` for ``p ~ Beta(a + 1, b + 1)``, the share of the leading answer among
    both after a and b votes, from an even prior.

    Args:
      first: a, votes of the leading answer, at least 0.
      second: b, votes of the next, at least 0.

    Returns:
      The probability, of the broadcast shape.

    References:
      Aggarwal et al., "Let's Sample Step by Step: Adaptive-Consistency for Efficient
      Reasoning and Coding with LLMs", EMNLP 2023, section 3.2.

    >>> float(majority_probability(1, 0).round(4))
    0.75
    """
    first, second = jnp.asarray(first, float), jnp.asarray(second, float)
    return jax.scipy.special.betainc(second + 1, first + 1, 0.5)


def adaptive_consistency(
    answer: Answers,
    *,
    threshold: float = 0.95,
    length: Numbers | None = None,
    where: Mask | None = None,
) -> Vote:
    """Stop once the leading answer is very probably the majority's.

    After every sample, with a and b votes for the two leading answers, stop if
    `majority_probability` is at least the threshold.

    Args:
      answer: codes, -1 for none; as many samples as may be drawn.
      threshold: of the probability, in (0.5, 1).
      length: tokens of each sample, at least 0; ones by default.
      where: False for padding; all samples count by default.

    Returns:
      The leading answer where the rule stops, else the vote of all samples.

    Raises:
      ValueError: if shapes differ, there is no sample, a value is out of range, or the
        threshold is outside (0.5, 1).
      TypeError: if ``answer`` is not integer or ``where`` not bool.

    References:
      Aggarwal et al., "Let's Sample Step by Step: Adaptive-Consistency for Efficient
      Reasoning and Coding with LLMs", EMNLP 2023, section 3.2.

    >>> adaptive_consistency(jnp.array([[3, 3, 3, 3, 1]]))[:2]
    (Array([3], dtype=int32), Array([4], dtype=int32))
    """
    # The probability is never below a half, so less would stop before any vote.
    if not 0.5 < threshold < 1:
        raise ValueError(f"threshold: expected a number in (0.5, 1), got {threshold}")
    answer, where, (length,) = check_votes(answer, where, length=length)
    return _adaptive_consistency(answer, where, length, threshold)


def certaindex(
    answer: Answers, *, where: Mask | None = None
) -> Float[Array, " questions"]:
    """Certainty of a question from the entropy of its sampled answers.

    ``1 - H / log n``, with the entropy H of the shares of the answers among the n
    samples that have one: 1 where all agree, 0 where all differ.

    Args:
      answer: codes, -1 for none.
      where: False for padding; all samples count by default.

    Returns:
      The certainty in [0, 1]; 0 for fewer than two answers, which show no agreement.

    Raises:
      ValueError: if shapes differ, there is no sample or a value is out of range.
      TypeError: if ``answer`` is not integer or ``where`` not bool.

    References:
      Fu et al., "Efficiently Scaling LLM Reasoning with Certaindex", 2024 (arXiv
      2412.20993), section 3.

    >>> certaindex(jnp.array([[1, 1], [1, 2]]))
    Array([1., 0.], dtype=float32)
    """
    answer, where, _ = check_votes(answer, where)
    return _certainty(tally(slots(answer, where)))[:, -1]


def certaindex_stopping(
    answer: Answers,
    *,
    threshold: float | int = 0.9,
    least: int = 5,
    length: Numbers | None = None,
    where: Mask | None = None,
) -> Vote:
    """Stop once the certainty of the sampled answers reaches a threshold.

    Args:
      answer: codes, -1 for none; as many samples as may be drawn.
      threshold: of `certaindex`, in (0, 1].
      least: answers that must have been seen, at least 2.
      length: tokens of each sample, at least 0; ones by default.
      where: False for padding; all samples count by default.

    Returns:
      The leading answer where the rule stops, else the vote of all samples.

    Raises:
      ValueError: if shapes differ, there is no sample or a value is out of range.
      TypeError: if ``answer`` is not integer or ``where`` not bool.

    References:
      Fu et al., "Efficiently Scaling LLM Reasoning with Certaindex", 2024 (arXiv
      2412.20993), section 4.

    >>> certaindex_stopping(jnp.array([[3, 3, 3, 1]]), least=3)[:2]
    (Array([3], dtype=int32), Array([3], dtype=int32))
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold: expected a number in (0, 1], got {threshold}")
    if least < 2:
        raise ValueError(f"least: expected at least 2 answers, got {least}")
    answer, where, (length,) = check_votes(answer, where, length=length)
    return _certaindex_stopping(answer, where, length, threshold, least)


def _certainty(found: Tally) -> Float[Array, "questions samples"]:
    scale = jnp.log(jnp.maximum(found.votes, 2))
    return jnp.where(found.votes > 1, 1 - found.entropy / scale, 0.0)


# Settings are traced, so that all of them share one compiled program.
@jax.jit
def _adaptive_consistency(
    answer: Array, where: Array, length: Array, threshold: Array | float
) -> Vote:
    found = tally(slots(answer, where))
    if answer.shape[0] > answer.shape[1]:
        # Of every pair of counts once: the Beta function costs more than the lookup.
        counts = jnp.arange(answer.shape[1] + 1)
        enough = majority_probability(counts[:, None], counts) >= threshold
        stop = enough[found.top, found.second]
    else:  # fewer samples in all than pairs of counts
        stop = majority_probability(found.top, found.second) >= threshold
    return vote_at(answer, where, length, found, stop)


@jax.jit
def _certaindex_stopping(
    answer: Array,
    where: Array,
    length: Array,
    threshold: Array | float | int,
    least: Array | int,
) -> Vote:
    found = tally(slots(answer, where))
    # Entropies are sums of logarithms: a certainty of exactly 1 may round.
    stop = (_certainty(found) >= threshold - 1e-6) & (found.votes >= least)
    return vote_at(answer, where, length, found, stop)
