"""Advantages of samples from their rewards, relative to the other samples of a prompt.

Group-relative methods need no value network: a sample is compared with other samples of
the same prompt. All functions take flat arrays over samples and the prompt of each, and
are safe under jit. A group with equal rewards, or of one, has advantages of 0.

Standard deviations are those of the population (divided by n). Some libraries divide by
n - 1; the papers do not say.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jeff.checks import check_choice, check_mask, check_same_length
from jeff_llm.reasoning.groups import (
    Samples,
    check_samples,
    group_extremes,
    group_mean,
    group_rank,
    group_sum,
)

__all__ = [
    "BatchAdvantages",
    "batch_normalised",
    "gfpo_keep",
    "group_normalised",
    "leave_one_out",
]


class BatchAdvantages(NamedTuple):
    """Advantages normalised over a batch, and the samples that carry one.

    Attributes:
      advantage: 0 for the samples left out.
      kept: False for the samples of a group without spread; leave them out of the loss
        too, or it is averaged over samples that teach nothing.
    """

    advantage: Float[Array, " samples"]
    kept: Bool[Array, " samples"]


def group_normalised(
    reward: Samples,
    group: Samples,
    *,
    scale: bool = True,
    epsilon: float | int = 1e-6,
    where: Samples | None = None,
) -> Float[Array, " samples"]:
    """Advantages of group-relative policy optimisation (GRPO).

    ``A = (r - mean) / (std + epsilon)``, mean and standard deviation over the samples
    of the prompt. Without ``scale`` it is ``r - mean``, as in Dr. GRPO, which removes
    the weight that the division gives to very easy and very hard prompts.

    Args:
      reward: of each sample.
      group: prompt of each sample, any integers.
      scale: whether to divide by the standard deviation.
      epsilon: added to the standard deviation, at least 0.
      where: samples that count, bool, as from `gfpo_keep`; all by default.

    Returns:
      The advantages; 0 for samples that do not count, for groups of one and for groups
      with equal rewards.

    Raises:
      ValueError: if lengths differ, there is no sample, a reward is not finite, or
        ``epsilon`` is negative.
      TypeError: if ``group`` is not integer or ``where`` not bool.

    References:
      Shao et al., "DeepSeekMath", 2024, section 4.1 (GRPO).
      Liu et al., "Understanding R1-Zero-Like Training", 2025 (Dr. GRPO).
      Shrivastava et al., "Sample More to Think Less: Group Filtered Policy Optimization
      for Concise Reasoning", 2025 (arXiv 2508.09726; with ``where``).

    >>> reward, prompt = jnp.array([1.0, 0.0, 0.5]), jnp.array([4, 4, 9])
    >>> group_normalised(reward, prompt, epsilon=0.0)
    Array([ 1., -1.,  0.], dtype=float32)
    """
    check_samples(reward=reward, group=group)
    _check_epsilon(epsilon)
    if where is not None:
        check_mask(where=jnp.asarray(where))
        check_same_length(reward=jnp.asarray(reward), where=jnp.asarray(where))
    weight = jnp.ones(np.shape(reward)) if where is None else jnp.asarray(where, float)
    centred = _centred(reward, group, weight)
    if not scale:
        return centred
    deviation = jnp.sqrt(group_mean(centred**2, group, weight=weight))
    # Without a spread the numerator is 0; the divisor must not be 0 as well.
    divisor = deviation + epsilon
    return centred / jnp.where(divisor == 0, 1.0, divisor)


def leave_one_out(reward: Samples, group: Samples) -> Float[Array, " samples"]:
    """Advantages against the mean of the prompt's other samples (RLOO).

    ``A = r - mean of the other samples = n / (n - 1) (r - mean)``: the
    baseline is unbiased.

    Args:
      reward: of each sample.
      group: prompt of each sample, any integers.

    Returns:
      The advantages; 0 for a group of one, which has no baseline.

    Raises:
      ValueError: if lengths differ, there is no sample or a reward is not finite.
      TypeError: if ``group`` is not integer.

    References:
      Ahmadian et al., "Back to Basics: Revisiting REINFORCE Style Optimization for
      Learning from Human Feedback in LLMs", ACL 2024, section 2.

    >>> leave_one_out(jnp.array([1.0, 0.0, 0.5]), jnp.array([4, 4, 9]))
    Array([ 1., -1.,  0.], dtype=float32)
    """
    check_samples(reward=reward, group=group)
    weight = jnp.ones(np.shape(reward))
    count = group_sum(weight, group)
    return _centred(reward, group, weight) * count / jnp.maximum(count - 1, 1.0)


def batch_normalised(
    reward: Samples, group: Samples, *, epsilon: float | int = 1e-6
) -> BatchAdvantages:
    """Advantages centred in the group and scaled over the batch (DLER).

    ``A = (r - group mean) / (std of those over the batch + epsilon)``. A length limit
    leaves many groups with rewards almost all 0, whose own standard deviation is noise;
    that of the batch is not. Groups without spread are left out of it.

    Args:
      reward: of each sample.
      group: prompt of each sample, any integers.
      epsilon: added to the standard deviation, at least 0.

    Returns:
      The advantages, and which samples carry one.

    Raises:
      ValueError: if lengths differ, there is no sample, a reward is not finite, or
        ``epsilon`` is negative.
      TypeError: if ``group`` is not integer.

    References:
      Liu et al., "DLER: Doing Length pEnalty Right", 2025 (arXiv
      2510.15110), section 3.

    >>> found = batch_normalised(jnp.array([1.0, 0.0, 1.0]), jnp.array([4, 4, 9]))
    >>> found.advantage.round(3), found.kept
    (Array([ 1., -1.,  0.], dtype=float32), Array([ True,  True, False], dtype=bool))
    """
    check_samples(reward=reward, group=group)
    _check_epsilon(epsilon)
    least, greatest = group_extremes(reward, group)
    kept = greatest > least
    centred = _centred(reward, group, jnp.ones_like(least))
    variance = jnp.sum(centred**2) / jnp.maximum(jnp.sum(kept), 1)
    divisor = jnp.sqrt(variance) + epsilon
    return BatchAdvantages(centred / jnp.where(divisor == 0, 1.0, divisor), kept)


def gfpo_keep(
    length: Samples,
    group: Samples,
    *,
    keep: int,
    by: str = "length",
    reward: Samples | None = None,
) -> Bool[Array, " samples"]:
    """Samples that group-filtered policy optimisation keeps of each group.

    The ``keep`` shortest samples of each prompt, or those with the most reward per
    token, ``r / L``. Pass the result as ``where`` to `group_normalised`: the advantages
    are then computed over the samples kept and are 0 for the others.

    Args:
      length: tokens of each sample, at least 0; 0 counts as 1 in ``r / L``.
      group: prompt of each sample, any integers.
      keep: samples to keep of each prompt, at least 1.
      by: "length" or "reward_per_token".
      reward: of each sample; needed for "reward_per_token".

    Returns:
      Exactly ``keep`` True in each group, or all in a smaller one. Of equal samples the
      earlier one is kept.

    Raises:
      ValueError: if lengths differ, ``keep`` is below 1, ``by`` is unknown, or
        ``reward`` is missing.
      TypeError: if ``group`` is not integer.

    References:
      Shrivastava et al., "Sample More to Think Less: Group Filtered Policy Optimization
      for Concise Reasoning", 2025 (arXiv 2508.09726), algorithm 1.

    >>> gfpo_keep(jnp.array([9, 3, 5]), jnp.array([0, 0, 0]), keep=2)
    Array([False,  True,  True], dtype=bool)
    """
    check_samples(length=length, group=group, reward=reward)
    check_choice("by", by, ("length", "reward_per_token"))
    if keep < 1:
        raise ValueError(f"keep: expected at least 1 sample, got {keep}")
    length = jnp.asarray(length, float)
    if by == "length":
        return group_rank(length, group) < keep
    if reward is None:
        raise ValueError("reward: expected one number a sample, got None")
    per_token = jnp.asarray(reward, float) / jnp.maximum(length, 1.0)
    return group_rank(-per_token, group) < keep


def _centred(
    reward: Samples, group: Samples, weight: Float[Array, " samples"]
) -> Float[Array, " samples"]:
    """Rewards less the mean of the group; exactly 0 where the group has no spread."""
    reward, counts = jnp.asarray(reward, float), weight > 0
    centred = reward - group_mean(reward, group, weight=weight)
    least = group_extremes(jnp.where(counts, reward, jnp.inf), group)[0]
    greatest = group_extremes(jnp.where(counts, reward, -jnp.inf), group)[1]
    # The mean of equal numbers may round, and the division would blow that up.
    # Compared for equality so that the advantages of a NaN reward are NaN, not 0.
    return jnp.where(~counts | (greatest == least), 0.0, centred)


def _check_epsilon(epsilon: float | int) -> None:
    if not epsilon >= 0:
        raise ValueError(f"epsilon: expected at least 0, got {epsilon}")
