"""Votes of the samples that finish first, of several that run side by side.

The companion of `jeff_llm.reasoning.voting`. Short thoughts are more often right than
long ones, and all samples stop once enough have finished. So the number of samples does
not fall, only their tokens.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jeff_llm.reasoning.tally import slots, tally
from jeff_llm.reasoning.votes import Answers, Mask, Numbers, Vote, check_votes

__all__ = ["first_finish", "short_m_of_k"]


def short_m_of_k(
    answer: Answers,
    *,
    finish: int,
    length: Numbers | None = None,
    order: Numbers | None = None,
    where: Mask | None = None,
) -> Vote:
    """The vote of the first samples to finish, of those that run in parallel.

    All k samples start together. The first m that finish with an answer vote; then all
    stop. Of answers that tie, the one that finished first wins. A sample that ends
    without an answer is not waited for and does not vote.

    Args:
      answer: codes, -1 for none.
      finish: m, answers to wait for, at least 1.
      length: tokens of each sample, at least 0; ones by default.
      order: rank or time at which each sample finished, at least 0; its length by
        default, as if all ran at one speed. Of equal ones the earlier column is first.
      where: False for padding; all samples count by default.

    Returns:
      The votes; all k samples were started. The tokens are what has been generated when
      the last voter finishes: the lengths of those that have finished, and for each
      other sample at most that of the longest voter.

    Raises:
      ValueError: if shapes differ, there is no sample, a value is out of range, or
        ``finish`` is below 1.
      TypeError: if ``answer`` is not integer or ``where`` not bool.

    References:
      Hassid et al., "Don't Overthink it. Preferring Shorter Thinking Chains for
      Improved LLM Reasoning", 2025 (arXiv 2505.17813), section 4.

    >>> length = jnp.array([[9.0, 2.0, 3.0]])
    >>> found = short_m_of_k(jnp.array([[1, 2, 2]]), finish=1, length=length)
    >>> found.answer, found.tokens
    (Array([2], dtype=int32), Array([6.], dtype=float32))
    """
    if finish < 1:
        raise ValueError(f"finish: expected at least 1 answer, got {finish}")
    order = length if order is None else order
    answer, where, (length, rank) = check_votes(
        answer, where, length=length, order=order
    )
    # Seconds since 1970 are equal for two minutes in float32; their ranks are not.
    if isinstance(order, np.ndarray):
        rank = jnp.asarray(np.argsort(np.argsort(order, axis=1, kind="stable"), axis=1))
    return _short(answer, where, length, rank, finish)


def first_finish(
    answer: Answers,
    *,
    length: Numbers | None = None,
    order: Numbers | None = None,
    where: Mask | None = None,
) -> Vote:
    """The answer of the first of several parallel samples to finish with one.

    `short_m_of_k` with one answer to wait for.

    Args:
      answer: codes, -1 for none.
      length: tokens of each sample, at least 0; ones by default.
      order: rank or time at which each sample finished; its length by default.
      where: False for padding; all samples count by default.

    Returns:
      As `short_m_of_k`.

    Raises:
      ValueError: as `short_m_of_k`.
      TypeError: if ``answer`` is not integer or ``where`` not bool.

    References:
      Agarwal et al., "First Finish Search: Efficient Test-Time Scaling in Large
      Language Models", 2025 (arXiv 2505.18149).

    >>> first_finish(jnp.array([[1, 2]]), length=jnp.array([[9.0, 2.0]])).answer
    Array([2], dtype=int32)
    """
    return short_m_of_k(answer, finish=1, length=length, order=order, where=where)


# The number to wait for is traced, so that all share one compiled program.
@jax.jit
def _short(
    answer: Array, where: Array, length: Array, order: Array, finish: Array | int
) -> Vote:
    size = answer.shape[1]
    ends = where & (answer >= 0)
    # Stable: samples that finish together keep the order of their columns.
    place = jnp.argsort(jnp.where(ends, order, jnp.inf), axis=1, stable=True)
    count = jnp.minimum(ends.sum(1), finish)
    voting = jnp.arange(size) < count[:, None]
    sorted_answer = jnp.take_along_axis(answer, place, axis=1)
    leader = tally(slots(sorted_answer, voting)).leader[:, -1]
    code = sorted_answer[jnp.arange(len(leader)), jnp.minimum(leader, size - 1)]
    voter = jnp.zeros(answer.shape, bool)
    voter = voter.at[jnp.arange(len(leader))[:, None], place].set(voting)
    until = jnp.max(jnp.where(voter, length, 0.0), axis=1, keepdims=True)
    # Without enough answers, every sample runs to its end.
    until = jnp.where((count < finish)[:, None], jnp.inf, until)
    spent = jnp.where(voter, length, jnp.minimum(length, until))
    tokens = jnp.sum(jnp.where(where, spent, 0.0), axis=1)
    return Vote(jnp.where(leader < size, code, -1), where.sum(1), tokens)
