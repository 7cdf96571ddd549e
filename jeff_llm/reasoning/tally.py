"""Counting votes: the leading answers after each sample, for many questions at once."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jeff_llm.reasoning.votes import Vote

__all__ = ["Tally", "slots", "tally", "vote_at", "vote_of"]


class Tally(NamedTuple):
    """Votes after each sample.

    Attributes:
      leader: place of the leading answer's first sample; of answers that tie, the one
        seen first leads. The number of samples where there is no vote.
      top: votes of the leading answer.
      second: votes of the next.
      votes: all votes.
      entropy: of the shares of the answers, in nats; 0 where there is no vote.
    """

    leader: Int[Array, "questions samples"]
    top: Int[Array, "questions samples"]
    second: Int[Array, "questions samples"]
    votes: Int[Array, "questions samples"]
    entropy: Float[Array, "questions samples"]


def slots(
    answer: Int[Array, "questions samples"], where: Bool[Array, "questions samples"]
) -> Int[Array, "questions samples"]:
    """Place of the first sample with the same answer.

    Args:
      answer: codes, -1 for none.
      where: False for padding.

    Returns:
      Places from 0; the number of samples where a sample has no vote.

    >>> slots(jnp.array([[8, -1, 5, 8]]), jnp.ones((1, 4), bool))
    Array([[0, 4, 2, 0]], dtype=int32)
    """
    size = answer.shape[1]
    votes = where & (answer >= 0)
    code = jnp.where(votes, answer, -1)
    place = jnp.where(votes, jnp.arange(size), size)
    # A loop over samples: all pairs at once would be a hundred times the memory.
    first = jnp.full(answer.shape, size)

    def step(j: Array, first: Array) -> Array:
        same = (code == code[:, j, None]) & votes
        return jnp.where(same, jnp.minimum(first, place[:, j, None]), first)

    return jax.lax.fori_loop(0, size, step, first)


def tally(slot: Int[Array, "questions samples"]) -> Tally:
    """Count the votes after each sample.

    Args:
      slot: as from `slots`.

    Returns:
      The counts after each sample; an answer leads that has the most votes, of several
      the one seen first.
    """
    questions, size = slot.shape
    # The last column takes the samples without a vote and is never read.
    start = jnp.zeros((questions, size + 1), jnp.int32)
    rows = jnp.arange(questions)

    def step(carry: tuple[Array, ...], now: Array) -> tuple[tuple, tuple]:
        counts, leader, top, second = carry
        counts = counts.at[rows, now].add(1)
        mine, votes = counts[rows, now], now < size
        is_leader = now == leader
        # Only the answer just seen has changed, so no other need be looked at.
        ahead = votes & ((mine > top) | ((mine == top) & (now < leader)))
        passed = ahead & ~is_leader
        behind = votes & ~ahead & ~is_leader
        second = jnp.where(passed, top, second)
        second = jnp.where(behind, jnp.maximum(second, mine), second)
        top = jnp.where(ahead, mine, top)
        leader = jnp.where(ahead, now, leader)
        return (counts, leader, top, second), (leader, top, second, mine)

    zero = jnp.zeros(questions, jnp.int32)
    carry = (start, jnp.full(questions, size, jnp.int32), zero, zero)
    _, (leader, top, second, mine) = jax.lax.scan(step, carry, slot.T.astype(jnp.int32))
    voted = slot < size
    votes = jnp.cumsum(voted, axis=1)
    # sum c log c grows by what the answer just seen adds; H = log n - sum / n.
    added = jnp.where(voted, _xlogx(mine.T) - _xlogx(mine.T - 1), 0.0)
    count = jnp.maximum(votes, 1)
    entropy = jnp.log(count) - jnp.cumsum(added, axis=1) / count
    return Tally(leader.T, top.T, second.T, votes, jnp.maximum(entropy, 0.0))


def vote_at(
    answer: Int[Array, "questions samples"],
    where: Bool[Array, "questions samples"],
    length: Float[Array, "questions samples"],
    found: Tally,
    stop: Bool[Array, "questions samples"],
) -> Vote:
    """The leading answer at the first sample at which a rule stops.

    Args:
      answer: codes, -1 for none.
      where: False for padding.
      length: tokens of each sample.
      found: the counts of these answers.
      stop: whether the rule would stop after each sample.

    Returns:
      The votes, over all samples where the rule does not stop.
    """
    stop = stop & where
    used = jnp.where(stop.any(1), stop.argmax(1) + 1, where.sum(1))
    rows, last = jnp.arange(len(used)), jnp.maximum(used - 1, 0)
    return vote_of(answer, where, length, found.leader[rows, last], used)


def vote_of(
    answer: Int[Array, "questions samples"],
    where: Bool[Array, "questions samples"],
    length: Float[Array, "questions samples"],
    leader: Int[Array, " questions"],
    used: Int[Array, " questions"],
) -> Vote:
    """The result of a vote from the place of the winning answer.

    Args:
      answer: codes, -1 for none.
      where: False for padding.
      length: tokens of each sample.
      leader: place of a sample with the winning answer; the number of samples where
        there is no vote.
      used: samples drawn, from the first one.

    Returns:
      The votes.
    """
    questions, size = answer.shape
    code = answer[jnp.arange(questions), jnp.minimum(leader, size - 1)]
    drawn = where & (jnp.arange(size) < used[:, None])
    tokens = jnp.sum(jnp.where(drawn, length, 0.0), axis=1)
    return Vote(jnp.where(leader < size, code, -1), used, tokens)


def _xlogx(count: Int[Array, "..."]) -> Float[Array, "..."]:
    return count * jnp.log(jnp.maximum(count, 1))
