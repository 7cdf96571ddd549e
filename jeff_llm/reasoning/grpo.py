"""Group-relative policy optimisation: rollout, reward and update as one pure step.

`make_step` joins a `Policy`, a reward and `jeff_llm.reasoning.losses.policy_loss` to
``step(state, batch) -> (state, metrics)``, as `jeff.training.fit` runs it: with log,
checkpoints and a resumption that is exact bit for bit. The rewards are in
`jeff_llm.reasoning.rewards`, the advantages in `jeff_llm.reasoning.advantages`.

Departures from common trainers: the log-probabilities of the sampling loop enter the
ratio, not those of a second pass, so that the ratio corrects what differs between the
two. Groups whose rewards are all equal have advantage 0, and still count in the mean,
unless the advantages are `advantages.BatchAdvantages`, which leaves them out.

References:
  Shao et al., "DeepSeekMath", 2024 (arXiv 2402.03300), algorithm 1.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from jeff.steps import Metrics, Step, TrainState
from jeff_llm.reasoning import advantages as group_advantages
from jeff_llm.reasoning.chunks import Samples, chunked_gradient
from jeff_llm.reasoning.losses import Normalise, kl_estimate, policy_loss
from jeff_llm.reasoning.policy import Policy, Prompts, Rollout, repeat_rows

__all__ = ["AdvantageFn", "RewardFn", "kl_estimate", "make_step", "policy_loss"]

# (rollout, context, group, step) -> (reward [samples], metrics)
RewardFn = Callable[
    [Rollout, PyTree, Int[Array, " samples"], Int[Array, ""]],
    tuple[Float[Array, " samples"], Metrics],
]
# (reward, length, group) -> advantage, all [samples], or the samples kept beside it
AdvantageFn = Callable[[Array, Array, Array], Array | group_advantages.BatchAdvantages]


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
    num_chunks: int = 1,
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
        `jeff_llm.reasoning.advantages.group_normalised` of the reward. Samples that a
        `BatchAdvantages` does not keep are left out of the loss.
      clip: as in `policy_loss`.
      kl_weight: likewise; the reference is then the step's last argument.
      normalise: as in `policy_loss`.
      num_iterations: updates per rollout.
      num_chunks: parts of similar length in which the gradient is computed, a divisor
        of the samples (`jeff_llm.reasoning.chunks`): less time and memory on one
        device, the same gradient. Leave it at 1 where a batch is split over devices.
      combine: ``(trained, frozen) -> params`` of the policy, where only a part is
        trained, such as LoRA's factors; all parameters by default.

    Returns:
      ``step(state, prompts, frozen=None, reference=None) -> (state, metrics)``, with
      metrics ``loss``, ``reward``, ``length``, ``finished``, those of the reward and
      those of the loss. Pass ``frozen`` and ``reference`` as ``constants`` of
      `jeff.training.fit`.

    Raises:
      ValueError: if ``group_size`` or ``num_iterations`` is not positive, the samples
        cannot be divided into chunks, or a reference is missing.
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
        mask = rollout.mask
        if isinstance(advantage, group_advantages.BatchAdvantages):
            advantage, kept = advantage
            mask &= kept[:, None]
        fixed = None
        if kl_weight:
            fixed = policy.log_probs(assemble(reference, frozen), prompts, rollout)

        def loss_fn(trained: PyTree, some: Samples) -> tuple[Array, Metrics]:
            return policy_loss(
                policy.log_probs(assemble(trained, frozen), some.prompts, some.rollout),
                some.rollout.log_probs,
                some.advantage,
                some.mask,
                clip=clip,
                reference=some.reference,
                kl_weight=kl_weight,
                normalise=normalise,
            )

        samples = Samples(
            prompts._replace(context=None), rollout, advantage, mask, fixed
        )

        def grad_fn(trained: PyTree) -> tuple[tuple[Array, Metrics], PyTree]:
            if num_chunks == 1:
                return jax.value_and_grad(loss_fn, has_aux=True)(trained, samples)
            return chunked_gradient(
                loss_fn, trained, samples, num_chunks=num_chunks, normalise=normalise
            )

        state, metrics = _update(state, grad_fn, optimizer, num_iterations)
        metrics |= {
            "reward": reward.mean(),
            "length": rollout.length.mean(),
            "finished": rollout.finished.mean(),
        }
        return state, metrics | measured

    return step


def _update(
    state: TrainState,
    grad_fn: Callable[[PyTree], tuple[tuple[Array, Metrics], PyTree]],
    optimizer: optax.GradientTransformation,
    num_iterations: int,
) -> tuple[TrainState, Metrics]:
    """Several updates on one rollout; the metrics are means over them."""

    def iteration(carry: tuple[PyTree, PyTree], _: None) -> tuple[PyTree, Metrics]:
        params, opt_state = carry
        (loss, metrics), grads = grad_fn(params)
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
