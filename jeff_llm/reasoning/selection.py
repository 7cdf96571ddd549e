"""Which samples to train on, so that a model learns to think briefly.

The functions take arrays over samples, [samples]: whether each is ``correct``, its
``length`` in tokens, and the ``group`` of samples of one question, numbered from 0.
They return indices, and do not touch texts. `jeff_llm.reasoning.curation` chooses the
questions, `jeff_llm.reasoning.compression` the tokens of a sample.
"""

from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Shaped

from jeff.checks import check_binary, check_mask, check_same_length

__all__ = [
    "Mixture",
    "Pairs",
    "first_correct_pairs",
    "first_correct_solution",
    "longest_correct",
    "mixed",
    "shortest_correct",
]

AnyArray: TypeAlias = Array | np.ndarray


class Pairs(NamedTuple):
    """Preference pairs, one per group that has one.

    Attributes:
      group: the group of each pair.
      chosen: index of the preferred sample.
      kept: solutions of it to keep, from the first.
      rejected: index of the other sample.
    """

    group: Int[np.ndarray, " pairs"]
    chosen: Int[np.ndarray, " pairs"]
    kept: Int[np.ndarray, " pairs"]
    rejected: Int[np.ndarray, " pairs"]


class Mixture(NamedTuple):
    """Examples for training on long and short solutions together.

    Attributes:
      sample: index of each example's sample.
      short: whether it is the short one of its question; the prompt should say so.
    """

    sample: Int[np.ndarray, " examples"]
    short: Bool[np.ndarray, " examples"]


def shortest_correct(
    correct: Shaped[AnyArray, " samples"],
    length: Shaped[AnyArray, " samples"],
    group: Int[AnyArray, " samples"],
) -> Int[np.ndarray, " groups"]:
    """Index of the shortest correct sample of each group.

    Args:
      correct: whether each sample is right; bool, or 0 and 1.
      length: its length in tokens.
      group: its group, from 0.

    Returns:
      An index for each group up to the largest number, the first of equally short ones;
      -1 for a group without a correct sample.

    Raises:
      TypeError: if ``correct`` is not binary, or ``group`` not integer.
      ValueError: if lengths of the arrays differ, a group is negative, or a length NaN.

    References:
      Munkhbat et al., "Self-Training Elicits Concise Reasoning in Large Language
      Models", 2025, arXiv 2502.20122 (best of n by length).

    >>> shortest_correct(np.array([1, 1, 0]), np.array([9, 4, 2]), np.array([0, 0, 1]))
    array([ 1, -1])
    """
    return _first(correct, length, group, 1)


def longest_correct(
    correct: Shaped[AnyArray, " samples"],
    length: Shaped[AnyArray, " samples"],
    group: Int[AnyArray, " samples"],
) -> Int[np.ndarray, " groups"]:
    """Index of the longest correct sample of each group.

    Args:
      correct: as in `shortest_correct`.
      length: as in `shortest_correct`.
      group: as in `shortest_correct`.

    Returns:
      An index for each group; -1 for a group without a correct sample.

    Raises:
      TypeError: if ``correct`` is not binary, or ``group`` not integer.
      ValueError: if lengths of the arrays differ, a group is negative, or a length NaN.
    """
    return _first(correct, length, group, -1)


def mixed(
    correct: Shaped[AnyArray, " samples"],
    length: Shaped[AnyArray, " samples"],
    group: Int[AnyArray, " samples"],
) -> Mixture:
    """The longest and the shortest correct sample of each group.

    A group whose correct samples are all of one length gives one example, as a long
    one: nothing in it shows what short means.

    Args:
      correct: as in `shortest_correct`.
      length: as in `shortest_correct`.
      group: as in `shortest_correct`.

    Returns:
      Examples, group by group, the long one first.

    Raises:
      TypeError: if ``correct`` is not binary, or ``group`` not integer.
      ValueError: if lengths of the arrays differ, a group is negative, or a length NaN.

    References:
      Kang et al., "C3oT: Generating Shorter Chain-of-Thought without Compromising
      Effectiveness", AAAI 2025, arXiv 2412.11664; Yu et al., "Long-Short
      Chain-of-Thought Mixture Supervised Fine-Tuning", 2025, arXiv 2505.03469.
    """
    short, long = (
        shortest_correct(correct, length, group),
        longest_correct(correct, length, group),
    )
    length = np.asarray(length)
    found = []
    for one, other in zip(long.tolist(), short.tolist(), strict=True):
        if one >= 0:
            found.append((one, False))
            if length[one] > length[other]:
                found.append((other, True))
    samples, shorts = (
        (list(each) for each in zip(*found, strict=True)) if found else ([], [])
    )
    return Mixture(np.array(samples, int), np.array(shorts, bool))


def first_correct_solution(
    correct: Shaped[AnyArray, "samples solutions"],
    where: Bool[AnyArray, "samples solutions"],
    *,
    reflection: bool = False,
) -> Int[np.ndarray, " samples"]:
    """Solutions of each sample to keep: up to the first correct one.

    A sample of a reasoning model gives several solutions one after the other. With
    ``reflection`` the next correct one is kept too, so that the model still learns to
    check itself; where there is none, all up to the first is kept.

    Args:
      correct: whether each solution is right.
      where: solutions that exist.
      reflection: FCS + Reflection in place of FCS.

    Returns:
      Numbers of solutions; 0 where none is right.

    Raises:
      TypeError: if ``correct`` is not binary, or ``where`` is not bool.
      ValueError: if the shapes differ.

    References:
      Chen et al., "Do NOT Think That Much for 2+3=? On the Overthinking of o1-Like
      LLMs", 2024, arXiv 2412.21187 (FCS, FCS + Reflection).

    >>> first_correct_solution(np.array([[0, 1, 0, 1]]), np.ones((1, 4), bool))
    array([2])
    """
    check_mask(where=jnp.asarray(where))
    if np.shape(correct) != np.shape(where):
        raise ValueError(
            f"where: expected shape {np.shape(correct)} as correct, got "
            f"{np.shape(where)}"
        )
    check_binary(jnp.asarray(where), correct=jnp.asarray(correct))
    right = np.asarray(correct).astype(bool) & np.asarray(where)
    nth = np.cumsum(right, axis=1)
    found = np.zeros(len(right), int)
    for wanted in (1, 2) if reflection else (1,):
        hit = right & (nth == wanted)
        found = np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, found)
    return found


def first_correct_pairs(
    correct: Shaped[AnyArray, "samples solutions"],
    tokens: Int[AnyArray, "samples solutions"],
    where: Bool[AnyArray, "samples solutions"],
    group: Int[AnyArray, " samples"],
    *,
    reflection: bool = False,
) -> Pairs:
    """Preference pairs: the briefest way to a right answer against the longest sample.

    Each sample is cut as in `first_correct_solution`. The shortest that is left of a
    group is preferred to the longest sample of the group as it was written.

    Args:
      correct: whether each solution is right.
      tokens: tokens of each solution.
      where: solutions that exist.
      group: the group of each sample, from 0.
      reflection: as in `first_correct_solution`.

    Returns:
      A pair for each group in which some sample is right and the longest one is longer.

    Raises:
      TypeError: if ``correct`` is not binary, or ``where`` is not bool.
      ValueError: if lengths of the arrays differ, or a group is negative.

    References:
      Chen et al., "Do NOT Think That Much for 2+3=? On the Overthinking of o1-Like
      LLMs", 2024, arXiv 2412.21187.
    """
    kept = first_correct_solution(correct, where, reflection=reflection)
    real = np.where(np.asarray(where), np.asarray(tokens), 0)
    through = np.arange(real.shape[1]) < kept[:, None]
    cut, whole = (real * through).sum(axis=1), real.sum(axis=1)
    chosen = shortest_correct(kept > 0, cut, group)
    rejected = longest_correct(np.ones(len(cut), bool), whole, group)
    groups = np.flatnonzero((chosen >= 0) & (whole[rejected] > cut[chosen]))
    chosen = chosen[groups]
    return Pairs(groups, chosen, kept[chosen], rejected[groups])


def _first(
    correct: AnyArray, length: AnyArray, group: AnyArray, sign: int
) -> np.ndarray:
    """First correct sample of each group by signed length; -1 where there is none."""
    _check_lengths(correct=correct, length=length, group=group)
    check_binary(correct=jnp.asarray(correct))
    right, groups = np.asarray(correct).astype(bool), np.asarray(group)
    if groups.dtype.kind not in "iu":
        raise TypeError(f"group: expected integers, got {groups.dtype}")
    if groups.size and groups.min() < 0:
        raise ValueError(f"group: expected numbers from 0, got {groups.min()}")
    tokens = np.asarray(length, float)
    if np.isnan(tokens).any():
        raise ValueError(f"length: expected numbers, got {tokens}")
    found = np.full(int(groups.max(initial=0)) + 1 if groups.size else 0, -1)
    # As floats, since unsigned integers have no negative.
    order = np.argsort(sign * tokens, kind="stable")
    order = order[right[order]]
    # Written in reverse, so that the first of the order stays.
    found[groups[order[::-1]]] = order[::-1]
    return found


def _check_lengths(**arrays: AnyArray) -> None:
    check_same_length(**{name: jnp.asarray(array) for name, array in arrays.items()})
