"""The clipped policy-gradient loss on arrays, for any trainer.

`policy_loss` takes log-probabilities and advantages and needs nothing else of jeff.
`jeff_llm.reasoning.grpo` joins it with rollouts and rewards.

References:
  Shao et al., "DeepSeekMath", 2024 (arXiv 2402.03300), eq. 3.
  Yu et al., "DAPO", 2025 (arXiv 2503.14476): a higher upper clip, the mean over tokens.
  Liu et al., "Understanding R1-Zero-Like Training", 2025 (arXiv 2503.20783): a constant
  in place of the length.
"""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jeff.checks import check_mask

__all__ = ["Normalise", "kl_estimate", "policy_loss"]

# Unchecked names: shapes that differ get an error that names the argument.
TokenValues = Float[Array, "_samples _tokens"] | Float[np.ndarray, "_samples _tokens"]
Normalise = Literal["sequence", "token", "constant"]
Metrics = dict[str, Float[Array, ""]]


def kl_estimate(log_probs: TokenValues, reference: TokenValues) -> TokenValues:
    """Unbiased estimate of ``KL(policy || reference)`` from tokens of the policy.

    ``exp(d) - d - 1`` with ``d = log q - log p``: never negative, and 0 where the two
    agree.

    Args:
      log_probs: log-probabilities under the policy.
      reference: under the reference.

    Returns:
      The estimate for each token, in nats.

    References:
      Schulman, "Approximating KL Divergence", 2020, k3; Shao et al., 2024, eq. 4.
    """
    difference = reference - log_probs
    return jnp.exp(difference) - difference - 1


def policy_loss(
    log_probs: TokenValues,
    old_log_probs: TokenValues,
    advantage: Float[Array, " _samples"] | Float[np.ndarray, " _samples"],
    mask: Bool[Array, "_samples _tokens"] | Bool[np.ndarray, "_samples _tokens"],
    *,
    clip: tuple[float, float] = (0.2, 0.2),
    reference: TokenValues | None = None,
    kl_weight: float = 0.0,
    normalise: Normalise = "sequence",
) -> tuple[Float[Array, ""], Metrics]:
    """Clipped policy-gradient loss of sampled completions.

    With ``r_t = exp(log p_t - log p_old_t)`` the loss of a token is
    ``-min(r_t A, clip(r_t, 1 - low, 1 + high) A) + kl_weight KL_t``.

    Args:
      log_probs: log-probabilities under the policy that is trained.
      old_log_probs: under the policy that sampled.
      advantage: advantage of each completion.
      mask: tokens of the completions; a completion without any adds 0.
      clip: ``(low, high)``, how far the ratio may fall below and rise above 1.
      reference: log-probabilities under the reference; needed for ``kl_weight``.
      kl_weight: weight of the estimated divergence from the reference.
      normalise: "sequence" takes the mean over tokens of each completion, then over
        completions (GRPO); "token" the mean over all tokens (DAPO); "constant" divides
        the sum by ``samples * tokens``, the largest length (Dr. GRPO).

    Returns:
      ``(loss, {"clipped", "ratio", "kl"})``: shares and means over tokens.

    Raises:
      ValueError: if shapes differ, there is no sample, ``normalise`` is unknown, or a
        divergence is wanted without a reference.
      TypeError: if ``mask`` is not bool.
    """
    log_probs, old_log_probs = jnp.asarray(log_probs), jnp.asarray(old_log_probs)
    advantage, mask = jnp.asarray(advantage), jnp.asarray(mask)
    reference = None if reference is None else jnp.asarray(reference)
    _check_loss(log_probs, old_log_probs, advantage, mask, reference, kl_weight)
    weight = _token_weights(mask, normalise)
    # Padding may hold any numbers: it must not overflow in the exponential.
    log_ratio = jnp.where(mask, log_probs - old_log_probs, 0.0)
    # Far past any clip: the exponential of more is infinite, and its gradient NaN.
    log_ratio = jnp.minimum(log_ratio, 80.0)
    ratio = jnp.exp(log_ratio)
    low, high = clip
    gain = advantage[:, None]
    limited = jnp.clip(ratio, 1 - low, 1 + high) * gain
    loss = -(weight * jnp.minimum(ratio * gain, limited)).sum()
    kl = jnp.zeros_like(ratio)
    if reference is not None:
        kl = kl_estimate(*(jnp.where(mask, x, 0.0) for x in (log_probs, reference)))
        loss += kl_weight * (weight * kl).sum()
    tokens = jnp.maximum(mask.sum(), 1)
    metrics = {
        "clipped": (mask & (limited < ratio * gain)).sum() / tokens,
        "ratio": (mask * ratio).sum() / tokens,
        "kl": (mask * kl).sum() / tokens,
    }
    return loss, metrics


def _token_weights(mask: Bool[Array, "samples tokens"], normalise: str) -> TokenValues:
    samples, width = mask.shape
    counts = jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
    if normalise == "sequence":
        return mask / (counts * samples)
    if normalise == "token":
        return mask / jnp.maximum(mask.sum(), 1)
    if normalise == "constant":
        return mask / (samples * width)
    raise ValueError(
        "normalise: expected 'sequence', 'token' or 'constant', got " + repr(normalise)
    )


def _check_loss(
    log_probs: Array,
    old_log_probs: Array,
    advantage: Array,
    mask: Array,
    reference: Array | None,
    kl_weight: float,
) -> None:
    if kl_weight and reference is None:
        raise ValueError(
            "reference: expected log-probabilities with kl_weight, got None"
        )
    check_mask(mask=mask)
    if not log_probs.shape[0]:
        raise ValueError("log_probs: expected at least 1 sample, got 0")
    arrays = {"old_log_probs": old_log_probs, "mask": mask}
    if reference is not None:
        arrays["reference"] = reference
    for name, array in arrays.items():
        if array.shape != log_probs.shape:
            raise ValueError(
                f"{name}: expected the shape of log_probs, {log_probs.shape}, got "
                f"{array.shape}"
            )
    if advantage.shape != log_probs.shape[:1]:
        raise ValueError(
            f"advantage: expected one per sample, {log_probs.shape[:1]}, got "
            f"{advantage.shape}"
        )
