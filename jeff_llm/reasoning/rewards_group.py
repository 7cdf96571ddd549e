"""Rewards that weigh the correctness of an answer against its length.

Each function is one published formula over flat arrays: whether each sample is right,
its length in tokens, and where needed the prompt that it belongs to. None depends on
our models or our training, and all are safe under jit. `rewards_budget` has the rewards
with a length limit, a target or a budget.

Correctness is bool, or a score c in [0, 1]. A score mixes the reward of a right answer
and that of a wrong one, ``c r(right) + (1 - c) r(wrong)``, and it weighs the sample in
averages over right samples.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jeff_llm.reasoning.groups import (
    Samples,
    check_samples,
    group_extremes,
    group_mean,
    group_sum,
)

__all__ = ["adaptive_length_penalty", "arora_zanette", "cosine", "kimi", "o1_pruner"]


def arora_zanette(
    correct: Samples,
    length: Samples,
    group: Samples,
    *,
    scale: float | int = 0.1,
    finished: Samples | None = None,
) -> Float[Array, " samples"]:
    """Reward of right answers, less for those longer than the other right ones.

    ``r = c (1 - a sigmoid((L - mean) / (std + 1e-7)))``, mean and standard deviation of
    the length over the right samples of the prompt.

    Args:
      correct: whether each answer is right, or how right, in [0, 1].
      length: tokens of each sample, at least 0.
      group: prompt of each sample, any integers.
      scale: a, the share of the reward that length can cost, in [0, 1].
      finished: whether the end token was met, bool; an unfinished sample earns 0 and is
        not among the right ones. All by default.

    Returns:
      Rewards in [0, 1]; right answers earn more than ``1 - scale``.

    Raises:
      ValueError: if lengths differ, there is no sample, a value is out of range, or the
        scale is outside [0, 1].
      TypeError: if ``group`` is not integer or ``finished`` not bool.

    References:
      Arora and Zanette, "Training Language Models to Reason Efficiently", 2025 (arXiv
      2502.04463), section 4.

    >>> arora_zanette(jnp.array([True, False]), jnp.array([5, 5]), jnp.array([0, 0]))
    Array([0.95, 0.  ], dtype=float32)
    """
    check_samples(correct=correct, length=length, group=group, finished=finished)
    if not 0 <= scale <= 1:
        raise ValueError(f"scale: expected a share in [0, 1], got {scale}")
    right, length = _right(correct, finished), jnp.asarray(length, float)
    mean = group_mean(length, group, weight=right)
    least = group_extremes(jnp.where(right > 0, length, jnp.inf), group)[0]
    greatest = group_extremes(jnp.where(right > 0, length, -jnp.inf), group)[1]
    # The mean of equal lengths may round, and 1e-7 would not hide it.
    equal = (length == least) & (length == greatest)
    excess = jnp.where(equal, 0.0, length - mean)
    spread = jnp.sqrt(group_mean(excess**2, group, weight=right))
    return right * (1 - scale * jax.nn.sigmoid(excess / (spread + 1e-7)))


def o1_pruner(
    correct: Samples,
    length: Samples,
    *,
    reference_length: Samples,
    reference_correct: Samples,
    weight: float | int = 2.0,
) -> Float[Array, " samples"]:
    """Length saved against a frozen reference model, and accuracy gained on it.

    ``r = Lref / L - 1 + weight (c - Aref)``, with the mean length and accuracy of the
    reference's samples of the same prompt.

    Args:
      correct: whether each answer is right, or how right, in [0, 1].
      length: tokens of each sample, at least 0; 0 counts as 1.
      reference_length: mean tokens of the reference for the prompt of each sample.
      reference_correct: its mean correctness, in [0, 1].
      weight: of accuracy against length.

    Returns:
      The rewards; without an upper bound as the length goes to 0.

    Raises:
      ValueError: if lengths differ, there is no sample or a value is out of range.

    References:
      Luo et al., "O1-Pruner: Length-Harmonizing Fine-Tuning for O1-Like Reasoning
      Pruning", 2025 (arXiv 2501.12570), section 3.

    >>> half, twenty = jnp.array([0.5]), jnp.array([20.0])
    >>> ten, right = jnp.array([10]), jnp.array([True])
    >>> o1_pruner(right, ten, reference_length=twenty, reference_correct=half)
    Array([2.], dtype=float32)
    """
    check_samples(
        correct=correct,
        length=length,
        reference_length=reference_length,
        reference_correct=reference_correct,
    )
    saved = jnp.asarray(reference_length, float) / jnp.maximum(
        jnp.asarray(length, float), 1.0
    )
    gained = jnp.asarray(correct, float) - jnp.asarray(reference_correct, float)
    return saved - 1 + weight * gained


def kimi(correct: Samples, length: Samples, group: Samples) -> Float[Array, " samples"]:
    """Length reward of Kimi k1.5, from the shortest to the longest sample of a prompt.

    ``lambda = 1/2 - (L - min) / (max - min)``, over all samples of the prompt. A right
    answer earns lambda, a wrong one ``min(0, lambda)``. Where all lengths are equal, it
    is 0. The paper adds it, weighted, to the reward of the answer.

    Args:
      correct: whether each answer is right, or how right, in [0, 1].
      length: tokens of each sample, at least 0.
      group: prompt of each sample, any integers.

    Returns:
      Rewards in [-1/2, 1/2].

    Raises:
      ValueError: if lengths differ, there is no sample or a value is out of range.
      TypeError: if ``group`` is not integer.

    References:
      Kimi Team, "Kimi k1.5: Scaling Reinforcement Learning with LLMs", 2025 (arXiv
      2501.12599), section 2.3.3.

    >>> right, prompt = jnp.array([True, False, False]), jnp.array([1, 1, 1])
    >>> kimi(right, jnp.array([2, 2, 6]), prompt)
    Array([ 0.5,  0. , -0.5], dtype=float32)
    """
    check_samples(correct=correct, length=length, group=group)
    right, length = jnp.asarray(correct, float), jnp.asarray(length, float)
    least, greatest = group_extremes(length, group)
    span = greatest - least
    # Compared with 0 so that NaN, which is not 0, stays NaN.
    place = jnp.where(
        span == 0, 0, 0.5 - (length - least) / jnp.where(span == 0, 1, span)
    )
    return right * place + (1 - right) * jnp.minimum(place, 0.0)


def cosine(
    correct: Samples,
    length: Samples,
    *,
    max_length: float | int,
    right: tuple[float | int, float | int] = (2.0, 1.0),
    wrong: tuple[float | int, float | int] = (-10.0, 0.0),
    exceeded: float | int = -10.0,
    finished: Samples | None = None,
) -> Float[Array, " samples"]:
    """Cosine reward: right answers gain by brevity, wrong ones by thinking longer.

    ``r = end + (start - end) (1 + cos(pi L / Lmax)) / 2``, from ``start`` at length 0
    to ``end`` at the limit, and ``exceeded`` at the limit and past it. The table of the
    survey "Stop Overthinking" prints the wrong branch differently; this is the paper's.

    Args:
      correct: whether each answer is right, or how right, in [0, 1].
      length: tokens of each sample, at least 0.
      max_length: Lmax, the limit in tokens, positive.
      right: start and end of a right answer's reward.
      wrong: start and end of a wrong answer's reward.
      exceeded: reward at the limit and past it.
      finished: whether the end token was met, bool; an unfinished sample earns
        ``exceeded``. All by default.

    Returns:
      Rewards between the least and the greatest of the five numbers.

    Raises:
      ValueError: if lengths differ, there is no sample, a value is out of range, or the
        limit is not positive.
      TypeError: if ``finished`` is not bool.

    References:
      Yeo et al., "Demystifying Long Chain-of-Thought Reasoning in LLMs", 2025 (arXiv
      2502.03373), section 4.2 and appendix C.

    >>> cosine(jnp.array([True, False]), jnp.array([0, 0]), max_length=100)
    Array([  2., -10.], dtype=float32)
    """
    check_samples(correct=correct, length=length, finished=finished)
    if not max_length > 0:
        raise ValueError(f"max_length: expected positive tokens, got {max_length}")
    score, length = jnp.asarray(correct, float), jnp.asarray(length, float)
    share = (1 + jnp.cos(jnp.pi * length / max_length)) / 2

    def between(ends: tuple[float | int, float | int]) -> Float[Array, " samples"]:
        return ends[1] + (ends[0] - ends[1]) * share

    reward = score * between(right) + (1 - score) * between(wrong)
    beyond = length >= max_length
    if finished is not None:
        beyond |= ~jnp.asarray(finished)
    return jnp.where(beyond, exceeded, reward)


def adaptive_length_penalty(
    correct: Samples, length: Samples, group: Samples, *, scale: float | int
) -> Float[Array, " samples"]:
    """Reward with a price per token that is higher for easy prompts (ALP).

    ``r = c - b L max(solve rate, 1 / K)``, with the solve rate and the number K of the
    prompt's samples.

    Args:
      correct: whether each answer is right, or how right, in [0, 1].
      length: tokens of each sample, at least 0.
      group: prompt of each sample, any integers.
      scale: b, the price of a token on a prompt that is always solved, at least 0.

    Returns:
      Rewards of at most 1.

    Raises:
      ValueError: if lengths differ, there is no sample or a value is out of range.
      TypeError: if ``group`` is not integer.

    References:
      Xiang et al., "Just Enough Thinking: Efficient Reasoning with Adaptive Length
      Penalties Reinforcement Learning", 2025 (arXiv 2506.05256), section 3.

    >>> right, ten = jnp.array([True, False]), jnp.array([10, 10])
    >>> adaptive_length_penalty(right, ten, jnp.array([3, 3]), scale=0.01)
    Array([ 0.95, -0.05], dtype=float32)
    """
    check_samples(correct=correct, length=length, group=group)
    if not scale >= 0:
        raise ValueError(f"scale: expected at least 0, got {scale}")
    right, length = jnp.asarray(correct, float), jnp.asarray(length, float)
    count = group_sum(jnp.ones_like(right), group)
    rate = jnp.maximum(group_mean(right, group), 1 / count)
    return right - scale * length * rate


def _right(correct: Samples, finished: Samples | None) -> Float[Array, " samples"]:
    right = jnp.asarray(correct, float)
    return right if finished is None else right * jnp.asarray(finished)
