"""Model-based branches: selected samples and their valve, latent thoughts, rewards."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jeff import line, training
from jeff_llm import tuning
from jeff_llm.models import lora
from jeff_llm.reasoning import arithmetic, selection, valve
from train_scripts.reasoning import coconut, reinforce, small
from train_scripts.reasoning.branches.bench import Bench, Point, sampled
from train_scripts.running import machines

__all__ = ["latent", "reinforced", "selected"]

_VALVE = (0.0, 0.5, 1.0, 1.5)


def selected(bench: Bench) -> dict[str, Point]:
    """Fine-tuning on selected samples of the base: shortest and longest right ones.

    Args:
      bench: what all branches share.

    Returns:
      Points by name.
    """
    train = small.questions_of(bench.config, bench.seed, "tune")
    drawn = small.solve(bench.base, train, samples=8, key=bench.key(6))
    correct, length = drawn.correct.ravel(), drawn.length.ravel()
    group = np.repeat(np.arange(len(train.answer)), 8)
    tokens = drawn.tokens.reshape(len(group), -1)
    ends = {}
    for name, choose in (
        ("longest", selection.longest_correct),
        ("shortest", selection.shortest_correct),
    ):
        solutions = [
            (train.prompts[group[at]], tokens[at, : length[at]].tolist())
            for at in choose(correct, length, group)
            if at >= 0
        ]
        ends[name] = _factors(bench, solutions, bench.folder / name)
    first, last = valve.valve_line(ends["longest"], ends["shortest"])
    points = {}
    for t in _VALVE:
        factors = line.interpolate(first, last, t)
        params = lora.merge(bench.base.params, factors)
        points[f"valve {t:g}"] = sampled(
            bench.base._replace(params=params), bench.test, bench.key(7)
        )
    return points


def latent(bench: Bench) -> dict[str, Point]:
    """Latent thoughts; nothing where the configuration has no steps for them.

    Args:
      bench: what all branches share.

    Returns:
      Points by name.
    """
    steps = bench.config.latent_steps
    if not steps:
        return {}
    train = small.questions_of(bench.config, bench.seed, "pretrain")
    tuned = coconut.fit_latent(
        bench.base,
        train,
        num_steps=steps,
        key=bench.key(9),
        workdir=bench.folder / "latent",
    )
    right, length = coconut.accuracy(tuned, bench.test)
    return {"latent (Coconut)": Point(float(right.mean()), float(length))}


def reinforced(bench: Bench, reward: str) -> dict[str, Point]:
    """Reinforcement learning with one length reward.

    Args:
      bench: what all branches share.
      reward: one of `configs.reasoning.REWARDS`.

    Returns:
      Points by name.
    """
    trained = reinforce.reinforce(
        bench.config, bench.base, reward, bench.seed, bench.folder / reward
    )
    test = bench.test
    if reward in ("l1_exact", "l1_max"):
        test = arithmetic.with_budget(test, reinforce.TARGET)
    return {
        f"RL, {reward}": sampled(trained, test, bench.key(1)),
        f"RL, {reward}, greedy": sampled(trained, test, bench.key(1), greedy=True),
    }


def _factors(
    bench: Bench, solutions: list[tuple[list[int], list[int]]], folder: Path
) -> lora.Lora:
    """LoRA's factors, trained on prompts and solutions."""
    examples = [
        tuning.Example(prompt + rest, [0.0] * len(prompt) + [1.0] * len(rest))
        for prompt, rest in solutions
    ]
    keys = jax.random.split(bench.key(8), 3)
    factors = lora.init(bench.base.params, key=keys[0], rank=16, where=lora.LINEAR)
    if not examples:  # a base that solves nothing has nothing to teach
        return factors
    packed = jax.tree.map(jnp.asarray, tuning.pack(examples, 256))
    optimizer = optax.adam(3e-3)
    config = bench.base.config
    rows = min(8, len(packed.tokens))

    def loss(trained: lora.Lora, batch: tuning.Packed, _: jax.Array, frozen: dict):
        return tuning.loss(config, lora.apply(frozen, trained), batch)

    fitted = training.fit(
        training.make_step(loss, optimizer),
        machines.placed(training.init_state(factors, optimizer, key=keys[1])),
        training.Shuffled(packed, rows, keys[2]),
        batch_sharding=machines.batch_sharding(rows, whole=True),
        num_steps=bench.config.tune_steps,
        chunk_steps=min(50, bench.config.tune_steps),
        constants=(bench.base.params,),
        workdir=machines.kept(folder),
        progress=False,
    )
    return fitted.state.params
