"""Which questions to train a reasoning model on: few, hard and of all kinds.

The functions take arrays with one row per question and return indices.
"""

import math
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from jeff.checks import check_binary, check_floating, check_mask, check_same_length

__all__ = ["limo_select", "s1k_select"]

AnyArray: TypeAlias = Array | np.ndarray


def s1k_select(
    quality: Bool[AnyArray, " questions"],
    small_correct: Shaped[AnyArray, " questions"],
    large_correct: Shaped[AnyArray, " questions"],
    length: Shaped[AnyArray, " questions"],
    kind: Int[AnyArray, " questions"],
    *,
    count: int,
    key: Key[Array, ""],
) -> Int[np.ndarray, " chosen"]:
    """Choose questions as s1K does: by quality, then difficulty, then diversity.

    Questions of low quality, and those that the small or the large model answers
    rightly, are left out. Then, until there are enough, a kind is drawn uniformly from
    those that are left, and of it a question with probability proportional to
    ``2^-rank``, rank 1 the one with the longest solution.

    Args:
      quality: whether each question and its solution are well formed.
      small_correct: whether a small model answers it rightly.
      large_correct: likewise a large model.
      length: length of its solution.
      kind: class of the question, such as its subject.
      count: questions to choose.
      key: random key.

    Returns:
      Indices, in the order in which they were drawn; all where fewer are left.

    Raises:
      TypeError: if ``quality`` is not bool, or a correctness is not binary.
      ValueError: if lengths of the arrays differ, or ``count`` is negative.

    References:
      Muennighoff et al., "s1: Simple test-time scaling", 2025, arXiv 2501.19393,
      section 2.2.
    """
    _check_questions(count, quality=quality, kind=kind, length=length)
    _check_lengths(kind=kind, small_correct=small_correct, large_correct=large_correct)
    check_mask(quality=jnp.asarray(quality))
    check_binary(
        small_correct=jnp.asarray(small_correct),
        large_correct=jnp.asarray(large_correct),
    )
    solved = np.asarray(small_correct).astype(bool) | np.asarray(large_correct)
    left = _by_kind(np.asarray(quality) & ~solved, kind, -np.asarray(length))
    total = min(count, sum(map(len, left)))
    chosen = []
    for which, place in np.asarray(jax.random.uniform(key, (total, 2))).tolist():
        rows = left[min(int(which * len(left)), len(left) - 1)]
        # Inverse of the distribution 2^-1, 2^-2, ... cut at the last rank.
        rank = int(-math.log2(1 - place * (1 - 0.5 ** len(rows))))
        chosen.append(rows.pop(min(rank, len(rows) - 1)))
        left = [rows for rows in left if rows]
    return np.array(chosen, int)


def limo_select(
    small_rate: Float[AnyArray, " questions"],
    large_rate: Float[AnyArray, " questions"],
    quality: Float[AnyArray, " questions"],
    kind: Int[AnyArray, " questions"],
    *,
    count: int,
    max_large_rate: float = 3 / 32,
) -> Int[np.ndarray, " chosen"]:
    """Choose questions as LIMO does: hard but solvable, of all kinds, well explained.

    Questions that the small model solves even once are left out, and of the others
    those that the large model never solves, or solves more often than
    ``max_large_rate``. The best solutions of each kind are then taken in turn. (The
    paper balances subjects by hand; taking turns is our reading of it.)

    Args:
      small_rate: share of a small model's attempts that are right, in [0, 1].
      large_rate: likewise of a large model.
      quality: how good the best solution is; higher is better.
      kind: class of the question, such as its subject.
      count: questions to choose.
      max_large_rate: the largest rate at which a question still counts as hard.

    Returns:
      Indices, best of each kind first; all where fewer are left.

    Raises:
      TypeError: if an argument is not floating point.
      ValueError: if lengths of the arrays differ, or a number is out of its range.

    References:
      Ye et al., "LIMO: Less is More for Reasoning", COLM 2025, arXiv 2502.03387.
    """
    _check_questions(count, quality=quality, kind=kind)
    _check_lengths(kind=kind, small_rate=small_rate, large_rate=large_rate)
    for name, rate in (("small_rate", small_rate), ("large_rate", large_rate)):
        check_floating(**{name: jnp.asarray(rate)})
        if not ((np.asarray(rate) >= 0) & (np.asarray(rate) <= 1)).all():
            raise ValueError(f"{name}: expected numbers in [0, 1], got {rate}")
    large = np.asarray(large_rate)
    hard = (np.asarray(small_rate) == 0) & (large > 0) & (large <= max_large_rate)
    ranked = [
        (rank, number, row)
        for number, rows in enumerate(_by_kind(hard, kind, -np.asarray(quality)))
        for rank, row in enumerate(rows)
    ]
    return np.array([row for _, _, row in sorted(ranked)][:count], int)


def _by_kind(keep: np.ndarray, kind: AnyArray, order: np.ndarray) -> list[list[int]]:
    """Rows to keep of each kind, in increasing order of a number."""
    kinds = np.asarray(kind)
    rows = [row for row in np.argsort(order, kind="stable").tolist() if keep[row]]
    return [[r for r in rows if kinds[r] == each] for each in np.unique(kinds[rows])]


def _check_questions(count: int, **arrays: AnyArray) -> None:
    _check_lengths(**arrays)
    if count < 0:
        raise ValueError(f"count: expected at least 0, got {count}")


def _check_lengths(**arrays: AnyArray) -> None:
    check_same_length(**{name: jnp.asarray(array) for name, array in arrays.items()})
