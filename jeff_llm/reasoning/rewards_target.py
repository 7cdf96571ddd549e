"""Rewards with a target length: stated in the prompt, or set by its difficulty.

The companion of `jeff_llm.reasoning.rewards`, with the same conventions. A target may
be one number, or one for each sample.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jeff_llm.reasoning.groups import (
    Samples,
    Tokens,
    check_samples,
    group_mean,
    group_sum,
    tokens,
)

__all__ = ["l1_exact", "l1_max", "laser", "laser_target"]


def l1_exact(
    correct: Samples, length: Samples, *, target: Tokens, scale: float = 3e-4
) -> Float[Array, " samples"]:
    """Reward for meeting a length that the prompt asks for (L1-Exact).

    ``r = c - a |N - L|``.

    Args:
      correct: whether each answer is right, or how right, in [0, 1].
      length: tokens of each sample, at least 0.
      target: N, the length asked for, one for all samples or one each.
      scale: a, the price of a token of deviation.

    Returns:
      Rewards of at most 1.

    Raises:
      ValueError: if lengths differ, there is no sample or a value is out of range.

    References:
      Aggarwal and Welleck, "L1: Controlling How Long A Reasoning Model Thinks With
      Reinforcement Learning", 2025 (arXiv 2503.04697), eq. 1.

    >>> l1_exact(jnp.array([True]), jnp.array([90]), target=100, scale=0.01)
    Array([0.9], dtype=float32)
    """
    check_samples(correct=correct, length=length)
    target = tokens("target", target, length)
    distance = jnp.abs(target - jnp.asarray(length, float))
    return jnp.asarray(correct, float) - scale * distance


def l1_max(
    correct: Samples,
    length: Samples,
    *,
    target: Tokens,
    scale: float | int = 3e-4,
    offset: float | int = 0.5,
) -> Float[Array, " samples"]:
    """Reward for staying below a length that the prompt asks for (L1-Max).

    ``r = c clip(a (N - L) + 1/2, 0, 1)``.

    Args:
      correct: whether each answer is right, or how right, in [0, 1].
      length: tokens of each sample, at least 0.
      target: N, the length asked for, one for all samples or one each.
      scale: a, the price of a token.
      offset: reward of a right answer of exactly the length asked for.

    Returns:
      Rewards in [0, 1].

    Raises:
      ValueError: if lengths differ, there is no sample or a value is out of range.

    References:
      Aggarwal and Welleck, "L1: Controlling How Long A Reasoning Model Thinks With
      Reinforcement Learning", 2025 (arXiv 2503.04697), eq. 2.

    >>> l1_max(jnp.array([True]), jnp.array([90]), target=100, scale=0.01)
    Array([0.6], dtype=float32)
    """
    check_samples(correct=correct, length=length)
    target = tokens("target", target, length)
    margin = scale * (target - jnp.asarray(length, float)) + offset
    return jnp.asarray(correct, float) * jnp.clip(margin, 0.0, 1.0)


def laser(
    correct: Samples, length: Samples, *, target: Tokens, bonus: float | int = 0.5
) -> Float[Array, " samples"]:
    """Reward with a bonus for right answers within a target length (LASER).

    ``r = c (1 + a [L <= target])``. Unlike `truncation`, a right answer that is too
    long still earns its reward. The adaptive form LASER-D takes the target of each
    prompt from `laser_target`.

    Args:
      correct: whether each answer is right, or how right, in [0, 1].
      length: tokens of each sample, at least 0.
      target: in tokens, one for all samples or one each.
      bonus: a, at least 0.

    Returns:
      Rewards in [0, 1 + bonus].

    Raises:
      ValueError: if lengths differ, there is no sample or a value is out of range.

    References:
      Liu et al., "Learn to Reason Efficiently with Adaptive Length-based Reward
      Shaping", 2025 (arXiv 2505.15612), section 4.

    >>> laser(jnp.array([True, True, False]), jnp.array([5, 15, 5]), target=10)
    Array([1.5, 1. , 0. ], dtype=float32)
    """
    check_samples(correct=correct, length=length)
    if not bonus >= 0:
        raise ValueError(f"bonus: expected at least 0, got {bonus}")
    target = tokens("target", target, length)
    within = jnp.asarray(length, float) <= target
    return jnp.asarray(correct, float) * (1 + bonus * within)


def laser_target(
    correct: Samples,
    length: Samples,
    group: Samples,
    *,
    lengths: Sequence[float | int],
    expected: float | int = 1.0,
    finished: Samples | None = None,
) -> Float[Array, " samples"]:
    """Target length of each prompt by its difficulty (LASER-D).

    Prompts are hard, medium or easy by their solve rate: up to 1/3, up to 2/3, above.
    For each of these bands and each candidate length, ``P`` is the share of the band's
    samples that are complete within the length, and ``C`` the mean number of right
    samples of a prompt. The target is the shortest candidate at which a prompt can
    expect ``P C >= expected`` right and complete samples.

    The paper takes the statistics from a monitoring set every few steps; pass that
    set's samples, or those of the batch.

    Args:
      correct: whether each answer is right, or how right, in [0, 1].
      length: tokens of each sample, at least 0.
      group: prompt of each sample, any integers.
      lengths: candidate targets in tokens, positive and rising.
      expected: right and complete samples to expect of a prompt, positive.
      finished: whether the end token was met, bool; all by default.

    Returns:
      The target of each sample's prompt; the longest candidate where none suffices.

    Raises:
      ValueError: if lengths differ, there is no sample or candidate, or a value is out
        of range.
      TypeError: if ``group`` is not integer or ``finished`` not bool.

    References:
      Liu et al., "Learn to Reason Efficiently with Adaptive Length-based Reward
      Shaping", 2025 (arXiv 2505.15612), section 4.3 (expected correct responses).

    >>> right, prompt = jnp.array([True, True, True, False]), jnp.array([0, 0, 1, 1])
    >>> laser_target(right, jnp.array([5, 6, 9, 9]), prompt, lengths=(5, 10, 20))
    Array([ 5.,  5., 10., 10.], dtype=float32)
    """
    check_samples(correct=correct, length=length, group=group, finished=finished)
    grid = np.asarray(lengths, float)
    # Negated, so that NaN is found as well.
    if grid.ndim != 1 or not grid.size or not (np.diff(grid, prepend=0) > 0).all():
        raise ValueError(f"lengths: expected positive rising candidates, got {lengths}")
    if not expected > 0:
        raise ValueError(f"expected: expected a positive number, got {expected}")
    right, length = jnp.asarray(correct, float), jnp.asarray(length, float)
    count = group_sum(jnp.ones_like(right), group)
    # A hair above the thirds, where a rate such as 1/3 may round to either side.
    rate = group_mean(right, group)
    band = (rate > 1 / 3 + 1e-6).astype(int) + (rate > 2 / 3 + 1e-6).astype(int)
    within = length <= jnp.asarray(grid, jnp.float32)[:, None]
    if finished is not None:
        within &= jnp.asarray(finished)
    member = band == jnp.arange(3)[:, None]
    size = jnp.maximum(member.sum(1), 1)
    share = jnp.einsum("ds,ls->dl", member.astype(float), within.astype(float))
    share = share / size[:, None]
    # Each sample stands for 1/K of its prompt, so this is right samples a prompt.
    prompts = jnp.sum(member / count, axis=1)
    solved = jnp.sum(member * right, axis=1) / jnp.where(prompts > 0, prompts, 1.0)
    enough = share * solved[:, None] >= expected - 1e-6
    first = jnp.where(enough.any(1), enough.argmax(1), len(grid) - 1)
    return jnp.asarray(grid, jnp.float32)[first][band]
