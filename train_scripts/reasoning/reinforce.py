"""Reinforcement learning of the small model, with each published length reward."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from configs.reasoning import Config
from jeff import training
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.reasoning import (
    advantages,
    arithmetic,
    grpo,
    policy,
    rewards,
)
from train_scripts.reasoning import small
from train_scripts.running import machines
from train_scripts.running.seeds import seed_key

__all__ = ["TARGET", "reinforce"]

# Length in tokens at which rewards with a target or a limit aim: the shortest chain of
# five operations has 33 tokens.
TARGET = 36
# A longer chain earns what an unfinished answer earns.
_LIMIT = 96
_REFERENCE_SAMPLES = 4


def reinforce(
    config: Config,
    base: LanguageModel,
    name: str,
    seed: int,
    folder: Path,
    *,
    progress: bool = False,
) -> LanguageModel:
    """Train the base with one reward; resumes in its folder.

    Args:
      config: settings of the run.
      base: the base.
      name: one of `configs.reasoning.REWARDS`.
      seed: the seed.
      folder: for log and checkpoints.
      progress: show a progress bar.

    Returns:
      The trained model.
    """
    questions = small.questions_of(config, seed, "reinforce")
    if name in ("l1_exact", "l1_max"):  # they ask for the length in the prompt
        questions = arithmetic.with_budget(questions, TARGET)
    context = {"answer": questions.answer}
    if name == "o1_pruner":
        context |= _reference(base, questions, seed)
    prompts = policy.Prompts(
        jnp.asarray(questions.tokens),
        jnp.asarray(questions.mask),
        jax.tree.map(jnp.asarray, context),
    )
    # The rate falls to zero, so that the last policies do not wander.
    rate = optax.cosine_decay_schedule(config.learning_rate, config.rl_steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate, b2=0.98))
    step = grpo.make_step(
        policy.decoder_policy(
            base.config, max_new_tokens=_LIMIT, stop_ids=[arithmetic.END]
        ),
        _reward(name, config),
        optimizer,
        group_size=config.group_size,
        advantage_fn=_advantage(name, config),
        clip=(0.2, 0.28) if name == "dler" else (0.2, 0.2),
        normalise="token" if name == "dler" else "sequence",
    )
    keys = jax.random.split(seed_key(seed, 2))
    fitted = training.fit(
        step,
        machines.placed(training.init_state(base.params, optimizer, key=keys[0])),
        training.Shuffled(prompts, config.batch_size, keys[1]),
        batch_sharding=machines.batch_sharding(config.batch_size),
        num_steps=config.rl_steps,
        chunk_steps=min(10, config.rl_steps),
        workdir=machines.kept(folder),
        progress=progress,
        description=name,
    )
    return base._replace(params=fitted.state.params)


def _reward(name: str, config: Config) -> grpo.RewardFn:
    """A reward as `grpo.make_step` takes it."""

    def reward_fn(rollout: policy.Rollout, context: Any, group: Any, step: Any) -> Any:
        read = arithmetic.read(
            rollout.tokens, rollout.length, rollout.finished, context["answer"]
        )
        correct = read.correct.astype(jnp.float32)
        length = rollout.length.astype(jnp.float32)
        stage = 3 * step // config.rl_steps
        limits = (2 * TARGET, 3 * TARGET // 2, TARGET)
        values = {
            "correct": lambda: correct,
            "arora_zanette": lambda: rewards.arora_zanette(
                correct, length, group, scale=config.length_weight
            ),
            "l1_exact": lambda: rewards.l1_exact(
                correct, length, target=TARGET, scale=1 / _LIMIT
            ),
            "l1_max": lambda: rewards.l1_max(
                correct, length, target=TARGET, scale=1 / _LIMIT
            ),
            "o1_pruner": lambda: rewards.o1_pruner(
                correct,
                length,
                reference_length=context["reference_length"],
                reference_correct=context["reference_correct"],
            ),
            "kimi": lambda: correct + rewards.kimi(correct, length, group),
            "cosine": lambda: rewards.cosine(correct, length, max_length=_LIMIT),
            "soft_overlong": lambda: (
                correct
                + rewards.soft_overlong(length, max_length=2 * TARGET, buffer=TARGET)
            ),
            "dast": lambda: rewards.dast(correct, length, group, max_length=_LIMIT),
            "thinkprune": lambda: rewards.thinkprune(
                correct, length, stage=stage, limits=limits
            ),
            "laser": lambda: rewards.laser(correct, length, target=TARGET),
            "laser_d": lambda: rewards.laser(
                correct,
                length,
                target=rewards.laser_target(
                    correct, length, group, lengths=tuple(range(16, _LIMIT + 1, 8))
                ),
            ),
            "alp": lambda: rewards.adaptive_length_penalty(
                correct, length, group, scale=config.length_weight / TARGET
            ),
            "gfpo": lambda: correct,
            "dler": lambda: rewards.truncation(correct, length, limit=TARGET),
        }
        return values[name](), {"correct": correct.mean()}

    return reward_fn


def _advantage(name: str, config: Config) -> grpo.AdvantageFn:
    """The advantage that the paper of a reward uses."""
    if name == "gfpo":
        keep = max(1, config.group_size // 2)

        def filtered(reward: Any, length: Any, group: Any) -> Any:
            kept = advantages.gfpo_keep(length, group, keep=keep)
            return advantages.group_normalised(reward, group, where=kept)

        return filtered
    if name == "dler":
        return lambda reward, _, group: advantages.batch_normalised(reward, group)
    if name == "arora_zanette":
        return lambda reward, _, group: advantages.leave_one_out(reward, group)
    return lambda reward, _, group: advantages.group_normalised(reward, group)


def _reference(
    base: LanguageModel, questions: arithmetic.Questions, seed: int
) -> dict[str, np.ndarray]:
    """Mean length and accuracy of the frozen base on each question."""
    solved = small.solve(
        base,
        questions,
        samples=_REFERENCE_SAMPLES,
        key=seed_key(seed, 3),
    )
    return {
        "reference_length": solved.length.mean(axis=1).astype(np.float32),
        "reference_correct": solved.correct.mean(axis=1).astype(np.float32),
    }
