"""Rewards with a limit on the length, or a budget.

The companion of `jeff_llm.reasoning.rewards`, with the same conventions.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jeff_llm.reasoning.groups import (
    Samples,
    Tokens,
    check_samples,
    group_mean,
    tokens,
)

__all__ = [
    "dast",
    "soft_overlong",
    "thinkprune",
    "thinkprune_limit",
    "truncation",
]


def soft_overlong(
    length: Samples, *, max_length: float | int, buffer: float | int
) -> Float[Array, " samples"]:
    """Penalty of DAPO for the last tokens before the limit.

    0 up to ``Lmax - B``, then linear to -1 at ``Lmax``, -1 past it. The paper adds it
    to the reward of the answer.

    Args:
      length: tokens of each sample, at least 0.
      max_length: Lmax, the limit in tokens.
      buffer: B, tokens over which the penalty grows, in (0, Lmax].

    Returns:
      Penalties in [-1, 0].

    Raises:
      ValueError: if there is no sample or a value is out of range.

    References:
      Yu et al., "DAPO: An Open-Source LLM Reinforcement Learning System at Scale", 2025
      (arXiv 2503.14476), eq. 13.

    >>> soft_overlong(jnp.array([80, 90, 120]), max_length=100, buffer=20)
    Array([ 0. , -0.5, -1. ], dtype=float32)
    """
    check_samples(length=length)
    if not 0 < buffer <= max_length:
        raise ValueError(
            f"buffer: expected tokens in (0, max_length = {max_length}], got {buffer}"
        )
    over = max_length - buffer - jnp.asarray(length, float)
    return jnp.clip(over / buffer, -1.0, 0.0)


def dast(
    correct: Samples, length: Samples, group: Samples, *, max_length: float | int
) -> Float[Array, " samples"]:
    """Reward by the deviation from a budget that grows with difficulty (DAST).

    The budget of a prompt is ``Lb = p mean + (1 - p) Lmax``, with the share p of right
    samples and their mean length. With ``lambda = (L - Lb) / Lb`` a right answer earns
    ``max(-lambda / 2 + 1/2, 0.1)``, a wrong one ``min(0.9 lambda - 0.1, -0.1)``: right
    answers gain by brevity, wrong ones by using the budget.

    Args:
      correct: whether each answer is right, or how right, in [0, 1].
      length: tokens of each sample, at least 0.
      group: prompt of each sample, any integers.
      max_length: Lmax, the budget in tokens of a prompt that is never solved, positive.

    Returns:
      Rewards in [-1, 1]: at least 0.1 if right, at most -0.1 if wrong.

    Raises:
      ValueError: if lengths differ, there is no sample, a value is out of range, or the
        limit is not positive.
      TypeError: if ``group`` is not integer.

    References:
      Shen et al., "DAST: Difficulty-Adaptive Slow Thinking for Large Reasoning Models",
      2025 (arXiv 2503.04472), section 3.

    >>> right, length = jnp.array([True, False]), jnp.array([40, 80])
    >>> dast(right, length, jnp.array([0, 0]), max_length=120)
    Array([ 0.75, -0.1 ], dtype=float32)
    """
    check_samples(correct=correct, length=length, group=group)
    if not max_length > 0:
        raise ValueError(f"max_length: expected positive tokens, got {max_length}")
    right, length = jnp.asarray(correct, float), jnp.asarray(length, float)
    rate = group_mean(right, group)
    mean = group_mean(length, group, weight=right)
    budget = rate * mean + (1 - rate) * max_length
    # The budget is 0 only where all are right with no token: no deviation either.
    deviation = (length - budget) / jnp.where(budget > 0, budget, 1.0)
    if_right = jnp.maximum(0.5 - 0.5 * deviation, 0.1)
    if_wrong = jnp.minimum(0.9 * deviation - 0.1, -0.1)
    return right * if_right + (1 - right) * if_wrong


def truncation(
    correct: Samples,
    length: Samples,
    *,
    limit: Tokens,
    finished: Samples | None = None,
) -> Float[Array, " samples"]:
    """Reward of right answers that end within a limit, the simplest length penalty.

    ``r = c`` where ``L <= limit`` and the end token was met, else 0. DLER trains with
    it alone, with advantages from `jeff_llm.reasoning.advantages.batch_normalised`.

    Args:
      correct: whether each answer is right, or how right, in [0, 1].
      length: tokens of each sample, at least 0.
      limit: in tokens, one for all samples or one each.
      finished: whether the end token was met, bool; all by default.

    Returns:
      Rewards in [0, 1].

    Raises:
      ValueError: if lengths differ, there is no sample or a value is out of range.
      TypeError: if ``finished`` is not bool.

    References:
      Liu et al., "DLER: Doing Length pEnalty Right", 2025 (arXiv
      2510.15110), section 3.

    >>> truncation(jnp.array([True, True]), jnp.array([90, 110]), limit=100)
    Array([1., 0.], dtype=float32)
    """
    check_samples(correct=correct, length=length, finished=finished)
    limit = tokens("limit", limit, length)
    within = jnp.asarray(length, float) <= limit
    if finished is not None:
        within &= jnp.asarray(finished)
    return jnp.asarray(correct, float) * within


def thinkprune(
    correct: Samples,
    length: Samples,
    *,
    stage: Int[Array, ""] | int,
    limits: Sequence[float | int] = (4000, 3000, 2000),
    finished: Samples | None = None,
) -> Float[Array, " samples"]:
    """Reward of right answers within a limit that falls stage by stage (ThinkPrune).

    `truncation` at the limit that `thinkprune_limit` gives for the stage.

    Args:
      correct: whether each answer is right, or how right, in [0, 1].
      length: tokens of each sample, at least 0.
      stage: stage of training, from 0; past the last one the last limit stays.
      limits: tokens of each stage, falling.
      finished: whether the end token was met, bool; all by default.

    Returns:
      Rewards in [0, 1].

    Raises:
      ValueError: as `truncation` and `thinkprune_limit`.
      TypeError: if ``finished`` is not bool.

    References:
      Hou et al., "ThinkPrune: Pruning Long Chain-of-Thought of LLMs via Reinforcement
      Learning", 2025 (arXiv 2504.01296), section 3.

    >>> thinkprune(jnp.array([True]), jnp.array([3500]), stage=1)
    Array([0.], dtype=float32)
    """
    limit = thinkprune_limit(stage, limits)
    return truncation(correct, length, limit=limit, finished=finished)


def thinkprune_limit(
    stage: Int[Array, ""] | int, limits: Sequence[float | int] = (4000, 3000, 2000)
) -> Float[Array, ""]:
    """Length limit of a stage of ThinkPrune.

    Args:
      stage: stage of training, from 0, for example ``step // steps_per_stage``; past
        the last one the last limit stays. May be traced.
      limits: tokens of each stage, falling; those of the paper by default.

    Returns:
      The limit in tokens.

    Raises:
      ValueError: if there is no limit, one is not positive, or a limit rises.

    References:
      Hou et al., "ThinkPrune: Pruning Long Chain-of-Thought of LLMs via Reinforcement
      Learning", 2025 (arXiv 2504.01296), section 3.2.

    >>> [int(thinkprune_limit(stage)) for stage in range(4)]
    [4000, 3000, 2000, 2000]
    """
    values = np.asarray(limits, float)
    if values.ndim != 1 or not values.size or not (values > 0).all():
        raise ValueError(f"limits: expected positive tokens a stage, got {limits}")
    if (np.diff(values) > 0).any():
        raise ValueError(f"limits: expected limits that fall, got {limits}")
    last = len(values) - 1
    return jnp.asarray(values, jnp.float32)[jnp.clip(jnp.asarray(stage), 0, last)]
