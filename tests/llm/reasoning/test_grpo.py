"""GRPO's loss by hand, against numpy and TRL; the step, its rollouts and resumption."""

import collections
import types
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jeff import training
from jeff_llm import generate
from jeff_llm.models import lora
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.reasoning import advantages, arithmetic, grpo, policy

CONFIG = arithmetic.model_config(width=32, num_layers=1)
POLICY = policy.decoder_policy(CONFIG, max_new_tokens=12, stop_ids=[arithmetic.END])
OPTIMIZER = optax.adam(3e-3)


def numbers(samples: int = 4, width: int = 5) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    old = -rng.exponential(size=(samples, width))
    return {
        "log_probs": jnp.asarray(old + 0.3 * rng.normal(size=old.shape), jnp.float32),
        "old_log_probs": jnp.asarray(old, jnp.float32),
        "reference": jnp.asarray(old + 0.2 * rng.normal(size=old.shape), jnp.float32),
        "advantage": jnp.asarray([1.0, -0.5, 0.0, 2.0], jnp.float32),
        # One row is full, one has a single token, one none at all.
        "mask": jnp.arange(width) < jnp.asarray([5, 3, 0, 1])[:, None],
    }


def reference_gradient(
    log_probs: Any,
    old_log_probs: Any,
    reference: Any,
    advantage: Any,
    mask: Any,
    clip: tuple[float, float],
    kl_weight: float,
    normalise: str,
) -> tuple[float, np.ndarray]:
    """Loss and its gradient in ``log_probs``, one token at a time."""
    lp, old, ref, adv, m = (
        np.asarray(x, np.float64)
        for x in (log_probs, old_log_probs, reference, advantage, mask)
    )
    loss, gradient = 0.0, np.zeros_like(lp)
    for row, column in zip(*np.nonzero(m), strict=True):
        weight = {
            "sequence": 1 / (m[row].sum() * len(lp)),
            "token": 1 / m.sum(),
            "constant": 1 / lp.size,
        }[normalise]
        ratio = np.exp(lp[row, column] - old[row, column])
        limited = np.clip(ratio, 1 - clip[0], 1 + clip[1])
        loss -= weight * min(ratio * adv[row], limited * adv[row])
        if ratio * adv[row] <= limited * adv[row]:
            gradient[row, column] -= weight * ratio * adv[row]
        d = ref[row, column] - lp[row, column]
        loss += weight * kl_weight * (np.exp(d) - d - 1)
        gradient[row, column] += weight * kl_weight * (1 - np.exp(d))
    return loss, gradient


@pytest.mark.parametrize("normalise", ["sequence", "token", "constant"])
def test_gradient_equals_a_numpy_reference(normalise: str) -> None:
    values = numbers()

    def loss(log_probs: Any) -> Any:
        return grpo.policy_loss(
            **values | {"log_probs": log_probs},
            clip=(0.2, 0.28),
            kl_weight=0.3,
            normalise=normalise,
        )

    (found, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(
        values["log_probs"]
    )
    expected, by_hand = reference_gradient(
        **values, clip=(0.2, 0.28), kl_weight=0.3, normalise=normalise
    )
    assert float(found) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(gradient, by_hand, rtol=1e-5, atol=1e-7)
    assert float(metrics["kl"]) > 0 and 0 < float(metrics["clipped"]) < 1


@pytest.mark.parametrize(
    ("normalise", "kind"),
    [("sequence", "grpo"), ("token", "bnpo"), ("constant", "dr_grpo")],
)
def test_loss_equals_trl(normalise: str, kind: str) -> None:
    torch = pytest.importorskip("torch")
    trl = pytest.importorskip("trl")
    values = numbers()
    log_probs = torch.tensor(np.asarray(values["log_probs"]), requires_grad=True)

    def tensor(name: str) -> Any:
        return torch.tensor(np.asarray(values[name]))

    one_process = types.SimpleNamespace(
        num_processes=1, gather=lambda x: x, reduce=lambda x, **_: x
    )
    trainer = types.SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (
            log_probs,
            torch.zeros_like(log_probs),
            None,
        ),
        accelerator=one_process,
        args=types.SimpleNamespace(
            delta=None, use_bias_correction_kl=False, steps_per_generation=1
        ),
        beta=0.3,
        epsilon_low=0.2,
        epsilon_high=0.28,
        loss_type=kind,
        importance_sampling_level="token",
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        aux_loss_enabled=False,
        _entropy_bonus_enabled=False,
        model=types.SimpleNamespace(training=False),
        max_completion_length=log_probs.shape[1],
        current_gradient_accumulation_steps=1,
        _metrics={"eval": collections.defaultdict(list)},
    )
    whole = torch.ones((4, 1), dtype=torch.long)
    inputs = {
        "prompt_ids": whole,
        "prompt_mask": whole,
        "completion_ids": torch.zeros_like(log_probs, dtype=torch.long),
        "completion_mask": tensor("mask").long(),
        "advantages": tensor("advantage"),
        "old_per_token_logps": tensor("old_log_probs"),
        "ref_per_token_logps": tensor("reference"),
        "num_items_in_batch": tensor("mask").sum(),
    }
    loss = trl.GRPOTrainer._compute_loss(trainer, trainer.model, inputs)
    loss.backward()
    (found, _), gradient = jax.value_and_grad(
        lambda x: grpo.policy_loss(
            **values | {"log_probs": x},
            clip=(0.2, 0.28),
            kl_weight=0.3,
            normalise=normalise,
        ),
        has_aux=True,
    )(values["log_probs"])
    assert float(found) == pytest.approx(loss.item(), rel=1e-5)
    np.testing.assert_allclose(gradient, log_probs.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("padding", [(1e4, -1e4), (-np.inf, -np.inf), (np.nan, 0.0)])
def test_padding_may_hold_anything(padding: tuple[float, float]) -> None:
    values = numbers()
    mask = values["mask"]
    broken = {
        name: jnp.where(mask, values[name], padding[name != "log_probs"])
        for name in ("log_probs", "old_log_probs", "reference")
    }
    plain = grpo.policy_loss(**values, kl_weight=0.1)[0]
    loss, gradient = jax.value_and_grad(
        lambda x: grpo.policy_loss(**values | broken | {"log_probs": x}, kl_weight=0.1)[
            0
        ]
    )(broken["log_probs"])
    assert float(loss) == float(plain)
    assert np.isfinite(gradient).all() and not np.asarray(gradient)[~mask].any()


def test_bad_arguments() -> None:
    values = numbers()
    with pytest.raises(ValueError, match="reference: expected log-probabilities"):
        grpo.policy_loss(**values | {"reference": None}, kl_weight=0.1)
    with pytest.raises(ValueError, match="mask: expected the shape"):
        grpo.policy_loss(**values | {"mask": values["mask"][:, :2]})
    with pytest.raises(ValueError, match="advantage: expected one per sample"):
        grpo.policy_loss(**values | {"advantage": values["advantage"][:2]})
    with pytest.raises(ValueError, match="log_probs: expected at least 1 sample"):
        grpo.policy_loss(**{name: value[:0] for name, value in values.items()})
    with pytest.raises(ValueError, match="group_size: expected at least 1, got 0"):
        grpo.make_step(POLICY, mean_token, OPTIMIZER, group_size=0)
    with pytest.raises(ValueError, match="stop_ids"):
        policy.decoder_policy(CONFIG, max_new_tokens=4, stop_ids=[])


@pytest.mark.usefixtures("unchecked")
def test_a_mask_of_numbers_is_refused() -> None:
    values = numbers()
    with pytest.raises(TypeError, match="mask: expected a bool array, got float32"):
        grpo.policy_loss(**values | {"mask": values["mask"].astype(np.float32)})


def mean_token(rollout: Any, answer: Any, group: Any, step: Any) -> Any:
    """A dense reward that a random model can climb: the mean id of its tokens."""
    total = jnp.where(rollout.mask, rollout.tokens, 0).sum(axis=1)
    return total / (rollout.length * CONFIG.vocab_size), {}


def prompts(count: int, seed: int = 0) -> policy.Prompts:
    drawn = arithmetic.draw(count, seed=seed, operations=(2, 4))
    return policy.Prompts(
        *(jnp.asarray(each) for each in (drawn.tokens, drawn.mask, drawn.answer))
    )


@pytest.fixture(scope="module")
def params(make_params: Any) -> Any:
    return make_params(CONFIG)


def test_both_log_probabilities_agree(params: Any) -> None:
    """Sampling loop and update see the same model, whatever the padding."""
    batch = prompts(6)
    rollout = jax.jit(POLICY.sample)(params, batch, jax.random.key(0))
    again = jax.jit(POLICY.log_probs)(params, batch, rollout)
    mask = np.asarray(rollout.mask)
    np.testing.assert_allclose(
        np.asarray(again)[mask], np.asarray(rollout.log_probs)[mask], atol=2e-5
    )
    assert np.asarray(rollout.length).min() >= 1


def test_rollouts_equal_generate(params: Any) -> None:
    """The same tokens as `jeff_llm.generate.generate`, given the same keys."""
    drawn = arithmetic.draw(4, seed=0, operations=(2, 4))
    batch, key = prompts(4), jax.random.key(5)
    rollout = POLICY.sample(params, batch, key)
    found = generate.generate(
        LanguageModel(CONFIG, params, None),
        drawn.prompts,
        max_new_tokens=12,
        sampling=generate.Sampling(1.0),
        keys=jax.random.split(key, 4),
        stop_ids=[arithmetic.END],
    )
    assert np.array_equal(rollout.tokens, found.tokens)
    assert np.array_equal(rollout.length, found.lengths)


def test_fifty_steps_raise_the_reward(params: Any) -> None:
    """And rollouts are compiled once, whatever the lengths are."""
    step = grpo.make_step(POLICY, mean_token, OPTIMIZER, group_size=4)
    counted = chex.assert_max_traces(step, n=1)
    result = training.fit(
        counted,
        training.init_state(params, OPTIMIZER, key=jax.random.key(1)),
        training.Shuffled(prompts(32), 8, jax.random.key(2)),
        num_steps=50,
        chunk_steps=10,
        progress=False,
    )
    rewards = [row["reward"] for row in result.history]
    assert rewards[-1] > rewards[0] + 0.1
    assert len({row["length"] for row in result.history}) > 1
    chex.clear_trace_counter()


def test_killed_and_resumed_equals_unbroken(params: Any, tmp_path: Path) -> None:
    step = grpo.make_step(
        POLICY, mean_token, OPTIMIZER, group_size=4, num_iterations=2, kl_weight=0.1
    )
    state = training.init_state(params, OPTIMIZER, key=jax.random.key(1))
    batches = training.Shuffled(prompts(16), 4, jax.random.key(2))

    def run(steps: int, folder: Path | None) -> Any:
        return training.fit(
            step,
            state,
            batches,
            num_steps=steps,
            chunk_steps=2,
            constants=(None, params),
            workdir=folder,
            progress=False,
        )

    run(2, tmp_path)
    resumed, unbroken = run(4, tmp_path), run(4, None)
    assert resumed.step == 4
    chex.assert_trees_all_equal(resumed.state.params, unbroken.state.params)
    chex.assert_trees_all_equal(resumed.state.opt_state, unbroken.state.opt_state)


def test_a_part_may_be_trained(params: Any) -> None:
    """LoRA's factors over a frozen base: the base gets no gradient and no update."""
    factors = lora.init(params, key=jax.random.key(3), rank=2)
    optimizer = optax.sgd(1.0)
    step = jax.jit(
        grpo.make_step(
            POLICY,
            mean_token,
            optimizer,
            group_size=4,
            combine=lambda trained, frozen: lora.apply(frozen, trained),
        )
    )
    state = training.init_state(factors, optimizer, key=jax.random.key(1))
    new, metrics = step(state, prompts(4), params)
    moved = jax.tree.map(
        lambda x, y: bool((x != y).any()), new.params.factors, factors.factors
    )
    assert any(pair["b"] for pair in moved.values())
    assert np.isfinite(float(metrics["loss"]))


def test_equal_rewards_change_nothing(params: Any) -> None:
    """All right, all wrong and groups of one have no advantage, so no gradient."""
    for group_size, value in ((4, 0.0), (4, 1.0), (1, 0.5)):
        step = grpo.make_step(
            POLICY,
            lambda rollout, *_, value=value: (
                jnp.full(rollout.length.shape, value),
                {},
            ),
            optax.sgd(1.0),
            group_size=group_size,
            advantage_fn=lambda reward, _, group: advantages.leave_one_out(
                reward, group
            ),
        )
        state = training.init_state(params, optax.sgd(1.0), key=jax.random.key(1))
        new, _ = step(state, prompts(2))
        chex.assert_trees_all_equal(new.params, params)


def test_groups_without_spread_are_left_out(params: Any) -> None:
    """DLER: the mean over tokens is that of the kept group alone."""

    def first_group(rollout: Any, answer: Any, group: Any, step: Any) -> Any:
        reward, _ = mean_token(rollout, answer, group, step)
        return jnp.where(group == 0, reward, 1.0), {}

    def update(advantage_fn: Any, normalise: str) -> Any:
        step = grpo.make_step(
            POLICY,
            first_group,
            optax.sgd(1.0),
            group_size=4,
            advantage_fn=advantage_fn,
            normalise=normalise,
        )
        state = training.init_state(params, optax.sgd(1.0), key=jax.random.key(1))
        return step(state, prompts(3))[0].params

    kept = update(lambda r, _, g: advantages.batch_normalised(r, g), "token")
    plain = update(lambda r, _, g: advantages.batch_normalised(r, g).advantage, "token")
    ratio = jax.tree.leaves(
        jax.tree.map(
            lambda a, b, p: float(jnp.abs(a - p).sum() / jnp.abs(b - p).sum()),
            kept,
            plain,
            params,
        )
    )
    # One factor everywhere, the tokens of all groups over those of the first.
    assert min(ratio) > 1.2
    assert max(ratio) == pytest.approx(min(ratio), rel=1e-3)


def test_a_ratio_beyond_all_numbers_is_clipped() -> None:
    """No NaN where an old token was all but impossible."""
    values = numbers() | {"advantage": jnp.ones(4)}
    values["old_log_probs"] = values["old_log_probs"].at[0, 0].set(-200.0)
    (loss, _), gradient = jax.value_and_grad(
        lambda x: grpo.policy_loss(**values | {"log_probs": x}), has_aux=True
    )(values["log_probs"])
    assert np.isfinite(float(loss)) and np.isfinite(gradient).all()
    assert float(gradient[0, 0]) == 0


@pytest.mark.parametrize("normalise", ["sequence", "token", "constant"])
def test_chunks_give_the_same_gradient(params: Any, normalise: str) -> None:
    """Rows sorted by length and cut to their width, with a reference beside."""
    acting = policy.decoder_policy(CONFIG, max_new_tokens=12, stop_ids=range(1, 12))
    steps = [
        grpo.make_step(
            acting,
            mean_token,
            optax.sgd(1.0),
            group_size=4,
            normalise=normalise,
            kl_weight=0.1,
            num_chunks=num_chunks,
        )
        for num_chunks in (1, 4)
    ]
    state = training.init_state(params, optax.sgd(1.0), key=jax.random.key(1))
    moved = jax.tree.map(lambda leaf: 1.1 * leaf, params)
    (one, mine), (other, theirs) = (
        step(state, prompts(4), None, moved) for step in steps
    )
    assert float(mine["length"]) < 9  # or nothing would be cut
    chex.assert_trees_all_close(theirs, mine, rtol=1e-4, atol=1e-6)
    update = jax.tree.map(jnp.subtract, one.params, params)
    again = jax.tree.map(jnp.subtract, other.params, params)
    chex.assert_trees_all_close(again, update, rtol=1e-3, atol=1e-6)


def test_chunks_divide_the_samples(params: Any) -> None:
    step = grpo.make_step(POLICY, mean_token, OPTIMIZER, group_size=4, num_chunks=3)
    state = training.init_state(params, OPTIMIZER, key=jax.random.key(1))
    with pytest.raises(
        ValueError, match="num_chunks: expected a divisor of the 8 samp"
    ):
        step(state, prompts(2))
