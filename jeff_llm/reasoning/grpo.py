"""Group-relative policy optimisation: rollout, reward and update as one pure step.

`policy_loss` is the clipped loss on arrays of log-probabilities and advantages, and
nothing of jeff. `make_step` joins it with a `Policy` and a reward to
``step(state, batch) -> (state, metrics)``, as `jeff.training.fit` runs it: with log,
checkpoints and a resumption that is exact bit for bit. The rewards are in
`jeff_llm.reasoning.rewards`, the advantages in `jeff_llm.reasoning.advantages`.

Departures from common trainers: the log-probabilities of the sampling loop enter the
ratio, not those of a second pass, so that the ratio corrects what differs between the
two. Groups whose rewards are all equal have advantage 0, and still count in the mean.

References:
  Shao et al., "DeepSeekMath", 2024 (arXiv 2402.03300), eq. 3.
  Yu et al., "DAPO", 2025 (arXiv 2503.14476): a higher upper clip, the mean over tokens.
  Liu et al., "Understanding R1-Zero-Like Training", 2025 (arXiv 2503.20783): a constant
  in place of the length.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from jeff.checks import check_mask
from jeff.steps import Metrics, Step, TrainState
from jeff_llm.reasoning import advantages as group_advantages
from jeff_llm.reasoning.policy import Policy, Prompts, Rollout, repeat_rows

__all__ = ["AdvantageFn", "RewardFn", "kl_estimate", "make_step", "policy_loss"]

# Unchecked names: shapes that differ get an error that names the argument.
TokenValues = Float[Array, "_samples _tokens"]
Normalise = Literal["sequence", "token", "constant"]

# (rollout, context, group, step) -> (reward [samples], metrics)
RewardFn = Callable[
    [Rollout, PyTree, Int[Array, " samples"], Int[Array, ""]],
    tuple[Float[Array, " samples"], Metrics],
]
# (reward, length, group) -> advantage, all [samples]
AdvantageFn = Callable[[Array, Array, Array], Array]


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
    advantage: Float[Array, " _samples"],
    mask: Bool[Array, "_samples _tokens"],
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
    _check_loss(log_probs, old_log_probs, advantage, mask, reference, kl_weight)
    weight = _token_weights(mask, normalise)
    # Padding may hold any numbers: it must not overflow in the exponential.
    log_ratio = jnp.where(mask, log_probs - old_log_probs, 0.0)
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


def make_step(
    policy: Policy,
    reward_fn: RewardFn,
    optimizer: optax.GradientTransformation,
    *,
    group_size: int,
    advantage_fn: AdvantageFn | None = None,
    clip: tuple[float, float] = (0.2, 0.2),
    kl_weight: float = 0.0,
    normalise: Normalise = "sequence",
    num_iterations: int = 1,
    combine: Callable[[PyTree, PyTree], PyTree] | None = None,
) -> Step:
    """One step of reinforcement learning as a pure function.

    Args:
      policy: samples and scores completions.
      reward_fn: ``(rollout, context, group, step) -> (reward, metrics)``; ``context``
        is that of the prompts, a row per sample, ``group`` numbers the prompts, and
        ``step`` is the number of the step, for schedules.
      optimizer: the optax transformation that made the state.
      group_size: completions per prompt.
      advantage_fn: ``(reward, length, group) -> advantage``; by default
        `jeff_llm.reasoning.advantages.group_normalised` of the reward.
      clip: as in `policy_loss`.
      kl_weight: likewise; the reference is then the step's last argument.
      normalise: as in `policy_loss`.
      num_iterations: updates per rollout.
      combine: ``(trained, frozen) -> params`` of the policy, where only a part is
        trained, such as LoRA's factors; all parameters by default.

    Returns:
      ``step(state, prompts, frozen=None, reference=None) -> (state, metrics)``, with
      metrics ``loss``, ``reward``, ``length``, ``finished``, those of the reward and
      those of the loss. Pass ``frozen`` and ``reference`` as ``constants`` of
      `jeff.training.fit`.

    Raises:
      ValueError: if ``group_size`` or ``num_iterations`` is not positive, or a
        reference is missing.
    """
    for name, value in (("group_size", group_size), ("num_iterations", num_iterations)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    advantage_fn = advantage_fn or (
        lambda reward, _, group: group_advantages.group_normalised(reward, group)
    )

    def assemble(trained: PyTree, frozen: PyTree) -> PyTree:
        return trained if combine is None else combine(trained, frozen)

    def step(
        state: TrainState,
        batch: Prompts,
        frozen: PyTree = None,
        reference: PyTree = None,
    ) -> tuple[TrainState, Metrics]:
        if kl_weight and reference is None:
            raise ValueError(
                f"reference: expected parameters, since kl_weight is {kl_weight}, got "
                "None"
            )
        prompts = repeat_rows(Prompts(*batch), group_size)
        group = jnp.repeat(jnp.arange(batch[0].shape[0]), group_size)
        # From the step's number: a resumed run samples the same completions.
        key = jax.random.fold_in(state.key, state.step)
        rollout = policy.sample(assemble(state.params, frozen), prompts, key)
        reward, measured = reward_fn(rollout, prompts.context, group, state.step)
        advantage = advantage_fn(reward, rollout.length, group)
        fixed = None
        if kl_weight:
            fixed = policy.log_probs(assemble(reference, frozen), prompts, rollout)

        def loss_fn(trained: PyTree) -> tuple[Array, Metrics]:
            return policy_loss(
                policy.log_probs(assemble(trained, frozen), prompts, rollout),
                rollout.log_probs,
                advantage,
                rollout.mask,
                clip=clip,
                reference=fixed,
                kl_weight=kl_weight,
                normalise=normalise,
            )

        state, metrics = _update(state, loss_fn, optimizer, num_iterations)
        metrics |= {
            "reward": reward.mean(),
            "length": rollout.length.mean(),
            "finished": rollout.finished.mean(),
        }
        return state, metrics | measured

    return step


def _update(
    state: TrainState,
    loss_fn: Callable[[PyTree], tuple[Array, Metrics]],
    optimizer: optax.GradientTransformation,
    num_iterations: int,
) -> tuple[TrainState, Metrics]:
    """Several updates on one rollout; the metrics are means over them."""

    def iteration(carry: tuple[PyTree, PyTree], _: None) -> tuple[PyTree, Metrics]:
        params, opt_state = carry
        (loss, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), {
            "loss": loss,
            **metrics,
        }

    (params, opt_state), metrics = jax.lax.scan(
        iteration, (state.params, state.opt_state), None, length=num_iterations
    )
    state = TrainState(params, opt_state, state.key, state.step + 1)
    return state, {name: value.mean() for name, value in metrics.items()}


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
