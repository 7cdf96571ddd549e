"""Votes of several samples: the majority, weighted votes, and windows that agree.

Every rule takes ``answer`` [questions, samples], codes in the order of the samples, and
gives the answer of each question with the samples and tokens that it took. Code -1 is
no answer: it never votes, and it is the result where no sample has an answer. Of
answers with equally many votes the one seen first wins. Rows of different lengths are
padded at the end and masked with ``where``; see `jeff_llm.reasoning.votes.fold`.

`jeff_llm.reasoning.voting_adaptive` has the rules that look at every sample, and
`jeff_llm.reasoning.voting_parallel` those for samples that run side by side.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from jeff_llm.reasoning.tally import slots, vote_of
from jeff_llm.reasoning.votes import Answers, Mask, Numbers, Vote, check_votes

__all__ = [
    "confidence_weighted_vote",
    "early_stopping",
    "esc_expected_samples",
    "majority_vote",
]


def majority_vote(
    answer: Answers, *, length: Numbers | None = None, where: Mask | None = None
) -> Vote:
    """The answer with the most votes of all samples (self-consistency).

    Args:
      answer: codes, -1 for none.
      length: tokens of each sample, at least 0; ones by default.
      where: False for padding; all samples count by default.

    Returns:
      The votes; of answers that tie, the one seen first.

    Raises:
      ValueError: if shapes differ, there is no sample or a value is out of range.
      TypeError: if ``answer`` is not integer or ``where`` not bool.

    References:
      Wang et al., "Self-Consistency Improves Chain of Thought Reasoning in Language
      Models", ICLR 2023.

    >>> majority_vote(jnp.array([[4, 9, 9], [4, 9, -1]])).answer
    Array([9, 4], dtype=int32)
    """
    answer, where, (length,) = check_votes(answer, where, length=length)
    return _weighted(answer, where, length, jnp.ones(answer.shape))


def confidence_weighted_vote(
    answer: Answers,
    weight: Numbers,
    *,
    length: Numbers | None = None,
    where: Mask | None = None,
) -> Vote:
    """The answer with the largest sum of weights.

    Args:
      answer: codes, -1 for none.
      weight: confidence in each sample, at least 0; 0 does not vote.
      length: tokens of each sample, at least 0; ones by default.
      where: False for padding; all samples count by default.

    Returns:
      The votes; of answers that tie, the one seen first.

    Raises:
      ValueError: if shapes differ, there is no sample or a value is out of range.
      TypeError: if ``answer`` is not integer or ``where`` not bool.

    References:
      Taubenfeld et al., "Confidence Improves Self-Consistency in LLMs", 2025 (arXiv
      2502.06233), section 3.

    >>> weight = jnp.array([[0.9, 0.3, 0.4]])
    >>> confidence_weighted_vote(jnp.array([[4, 9, 9]]), weight).answer
    Array([4], dtype=int32)
    """
    answer, where, (length, weight) = check_votes(
        answer, where, length=length, weight=weight
    )
    return _weighted(answer, where, length, weight)


def early_stopping(
    answer: Answers,
    *,
    window: int = 5,
    length: Numbers | None = None,
    where: Mask | None = None,
) -> Vote:
    """Early-stopping self-consistency: stop at the first unanimous window (ESC).

    Samples are drawn in windows. If all of a window have the same answer, it is the
    result; if no window does, the vote of all samples is. A window with a sample that
    has no answer, or with fewer samples, is not unanimous.

    Args:
      answer: codes, -1 for none; as many samples as may be drawn.
      window: w, samples in a window, at least 1.
      length: tokens of each sample, at least 0; ones by default.
      where: False for padding; all samples count by default.

    Returns:
      The answers, with all samples of the windows drawn.

    Raises:
      ValueError: if shapes differ, there is no sample, a value is out of range, or the
        window is below 1.
      TypeError: if ``answer`` is not integer or ``where`` not bool.

    References:
      Li et al., "Escape Sky-high Cost: Early-stopping Self-Consistency for Multi-step
      Reasoning", ICLR 2024, algorithm 1.

    >>> early_stopping(jnp.array([[1, 2, 3, 3, 1, 1]]), window=2)[:2]
    (Array([3], dtype=int32), Array([4], dtype=int32))
    """
    if window < 1:
        raise ValueError(f"window: expected at least 1 sample, got {window}")
    answer, where, (length,) = check_votes(answer, where, length=length)
    return _early_stopping(answer, where, length, window)


def esc_expected_samples(
    probability: Float[Array, "... answers"] | Float[np.ndarray, "... answers"],
    *,
    window: int,
    limit: int,
) -> Float[Array, "..."]:
    """Expected number of samples of `early_stopping`.

    With ``q = sum_k p_k^w``, the probability that a window is unanimous, it is
    ``w (sum_{i=0}^{n-2} q (1 - q)^i (i + 1) + (1 - q)^{n-1} n)`` for ``n = L / w``
    windows.

    Args:
      probability: of each answer, at least 0; what is missing to 1 is no answer.
      window: w, samples in a window, at least 1.
      limit: L, samples that may be drawn, a multiple of the window.

    Returns:
      The expected number, between ``window`` and ``limit``.

    Raises:
      ValueError: if a probability is negative, their sum above 1, or ``limit`` no
        multiple of ``window``.

    References:
      Li et al., "Escape Sky-high Cost: Early-stopping Self-Consistency for Multi-step
      Reasoning", ICLR 2024, eq. 3.

    >>> esc_expected_samples(jnp.array([0.5, 0.5]), window=2, limit=4)
    Array(3., dtype=float32)
    """
    if window < 1 or limit < window or limit % window:
        raise ValueError(
            f"limit: expected a multiple of window = {window}, got {limit}"
        )
    if not isinstance(probability, Tracer):
        values = np.asarray(probability)
        if not ((values >= 0).all() and (values.sum(-1) <= 1 + 1e-5).all()):
            raise ValueError(
                "probability: expected numbers of at least 0 with a sum of at most 1, "
                f"got {values.min()} as the least and {values.sum(-1).max()} as a sum"
            )
    share = jnp.sum(jnp.asarray(probability, float) ** window, axis=-1)
    # The number of windows is the sum of the probabilities that the i-th is drawn: the
    # same as the closed form, without its cancellation at small q.
    drawn = (1 - share)[..., None] ** jnp.arange(limit // window)
    return window * jnp.sum(drawn, axis=-1)


@jax.jit
def _weighted(answer: Array, where: Array, length: Array, weight: Array) -> Vote:
    leader = _heaviest(slots(answer, where), weight)
    return vote_of(answer, where, length, leader, where.sum(1))


# The window is traced, so that all windows share one compiled program.
@jax.jit
def _early_stopping(
    answer: Array, where: Array, length: Array, window: Array | int
) -> Vote:
    questions, size = answer.shape
    slot, place = slots(answer, where), jnp.arange(size)
    first = jnp.ones((questions, 1), bool)
    changed = jnp.concatenate([first, slot[:, 1:] != slot[:, :-1]], axis=1)
    # Equal answers in a row up to each sample; a window is unanimous if it is full of
    # them.
    run = place - jax.lax.cummax(jnp.where(changed, place, 0), axis=1) + 1
    unanimous = ((place + 1) % window == 0) & (run >= window) & (slot < size)
    stopped, at = unanimous.any(1), unanimous.argmax(1)
    agreed = slot[jnp.arange(questions), at]
    leader = jnp.where(stopped, agreed, _heaviest(slot, jnp.ones(answer.shape)))
    used = jnp.where(stopped, at + 1, where.sum(1))
    return vote_of(answer, where, length, leader, used)


def _heaviest(slot: Array, weight: Array) -> Array:
    """Place of the answer with the most weight; the number of samples for none."""
    questions, size = slot.shape
    total = jnp.zeros((questions, size + 1))
    total = total.at[jnp.arange(questions)[:, None], slot].add(weight)[:, :size]
    return jnp.where(total.max(1) > 0, total.argmax(1), size)
