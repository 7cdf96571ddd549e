"""YODO on real data: one line against plain training and separately trained models.

Run it with ``python -m train_scripts run yodo [PRESET] [--field value]``.
"""

import functools
import json
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from configs.yodo import Config
from jeff import checkpoint, line, metrics, training
from jeff.fairness import evaluation, images, nets, tabular, yodo
from jeff.fairness.front import monotone_levels
from jeff.fairness.model import ApplyFn
from train_scripts.running import results
from train_scripts.yodo import summary

__all__ = ["run"]


class Trained(NamedTuple):
    """One seed: the line, the fixed models, and the seconds each took, compiled."""

    line: yodo.Line
    fixed: PyTree
    line_seconds: float
    fixed_seconds: float


def run(
    config: Config, workdir: Path, *, preset: str = "custom", progress: bool = True
) -> results.Result:
    """Train and measure every seed; write plots, explorer and result.

    Args:
      config: what to do.
      workdir: where everything goes; an interrupted run in it is taken up again.
      preset: name for the result.
      progress: show progress bars.

    Returns:
      The result that was written.

    Raises:
      ValueError: if the data or a field are not as expected.
      FileNotFoundError: if data are missing; says how to get them.
    """
    began = time.perf_counter()
    splits = [_load(config, seed) for seed in config.seeds]
    steps = config.num_epochs * _batches_of(splits[0][0].train, config)
    optimizer = optax.adam(_schedule(config, steps))
    apply_fn, _ = _network(config, splits[0][0].train, jax.random.key(0))
    line_step = yodo.train_step(
        apply_fn,
        optimizer,
        strength=config.strength,
        ramp=config.ramp,
        gap=config.gap,
        end_mass=config.end_mass,
    )
    fixed_step = jax.vmap(
        evaluation.fixed_step(apply_fn, optimizer, gap=config.gap), in_axes=(0, None)
    )
    seeds = []
    for seed, (parts, _) in zip(config.seeds, splits, strict=True):
        trained = _train(
            config, seed, parts, optimizer, (line_step, fixed_step), workdir, progress
        )
        seeds.append(_measure(config, seed, parts, apply_fn, trained))
        width = parts.train.inputs.shape[-1]
        _save_line(config, trained.line, width, workdir / f"seed{seed}" / "line")
    result = results.Result(
        system="yodo",
        preset=preset,
        seed=config.seeds[0],
        device=results.device_name(),
        seconds=time.perf_counter() - began,
        versions=results.versions(),
        metrics=summary.numbers(seeds),
        claims=summary.claims(config, seeds),
    )
    groups = splits[0][1]
    summary.plot(seeds, groups, workdir)
    explorer = summary.explorer(config, seeds, groups)
    results.write_text(workdir / "explorer.json", json.dumps(explorer))
    results.write(result, workdir)
    return result


def _key(seed: int, purpose: int) -> jax.Array:
    """Keys of one seed that never meet: 0 data, 1 training, 2 the choice of a level."""
    return jax.random.fold_in(jax.random.key(seed), purpose)


def _load(config: Config, seed: int) -> tuple[tabular.Splits, tuple[str, str]]:
    key = _key(seed, 0)
    path = config.path or None
    if config.dataset == "digits":
        return images.coloured_digits(key=key), ("first colour", "second colour")
    if config.dataset == "adult":
        data = tabular.adult(config.sensitive, path=path)
    elif config.dataset == "german":
        data = tabular.german(config.sensitive, path=path)
    elif config.dataset == "acs":
        root = path or "data/acs"
        data = tabular.acs(config.outcome or "employment", config.sensitive, root=root)
    elif config.dataset == "celeba":
        source = path or "flwrlabs/celeba"
        data = images.celeba(config.outcome, config.sensitive, source=source)
    elif config.dataset == "utkface":
        data = images.utkface(config.path)
    else:
        data = tabular.read_csv(
            config.path, label=config.outcome, group=config.sensitive
        )
    return tabular.split(data, key=key, standardize=bool(data.features)), data.groups


def _batches_of(train: yodo.Examples, config: Config) -> int:
    order = training.Shuffled(train, config.batch_size, jax.random.key(0))
    return order.steps_per_epoch


def _schedule(config: Config, steps: int) -> optax.ScalarOrSchedule:
    if config.schedule == "constant":
        return config.learning_rate
    return optax.cosine_decay_schedule(config.learning_rate, steps)


def _network(
    config: Config, train: yodo.Examples, key: jax.Array
) -> tuple[ApplyFn, yodo.Line]:
    size = train.inputs.shape[-1]
    if train.inputs.ndim == 4:
        return nets.cnn_line(size, key=key, dropout_rate=config.dropout_rate)
    return nets.mlp_line(
        size, key=key, hidden=config.hidden, dropout_rate=config.dropout_rate
    )


def _train(
    config: Config,
    seed: int,
    parts: tabular.Splits,
    optimizer: optax.GradientTransformation,
    steps: tuple[training.Step, training.Step],
    workdir: Path,
    progress: bool,
) -> Trained:
    """Train the line, then all fixed models side by side in one vmapped run."""
    initial, order, noise, apart = jax.random.split(_key(seed, 1), 4)
    _, start = _network(config, parts.train, initial)
    batches = training.Shuffled(parts.train, config.batch_size, order)
    num_steps = config.num_epochs * batches.steps_per_epoch
    weights = config.strength * jnp.linspace(0, 1, config.num_fixed) ** config.ramp
    fixed_state = jax.vmap(
        lambda key, weight: (
            training.init_state(start.start, optimizer, key=key),
            weight,
        )
    )(jax.random.split(apart, config.num_fixed), weights)
    runs = [
        ("line", steps[0], training.init_state(start, optimizer, key=noise)),
        ("fixed", steps[1], fixed_state),
    ]
    fits, seconds = [], []
    for name, step_fn, state in runs:
        label = "the line" if name == "line" else f"{config.num_fixed} fixed models"
        fit = training.fit(
            step_fn,
            state,
            batches,
            num_steps=num_steps,
            workdir=workdir / f"seed{seed}" / "training" / name,
            checkpoint_every=max(1, config.num_epochs // 10),
            progress=progress,
            description=f"seed {seed}: {label}",
        )
        fits.append(fit.state)
        # The median leaves out the chunk that was compiled.
        each = np.median([row["seconds"] for row in fit.history])
        seconds.append(float(each) * len(fit.history))
    return Trained(fits[0].params, fits[1][0].params, seconds[0], seconds[1])


def _measure(
    config: Config,
    seed: int,
    parts: tabular.Splits,
    apply_fn: ApplyFn,
    trained: Trained,
) -> summary.Seed:
    alphas = jnp.linspace(0, 1, config.num_levels)
    test = parts.test
    sweep = functools.partial(evaluation.evaluate, apply_fn, trained.line)
    on_test = (test.inputs, test.label, test.group, alphas)
    jax.block_until_ready(sweep(*on_test))  # compiles
    began = time.perf_counter()
    levels = jax.block_until_ready(sweep(*on_test))
    seconds = time.perf_counter() - began
    held_out = sweep(*parts.validation, alphas)
    gaps = getattr(levels, config.gap)
    served = gaps[monotone_levels(getattr(held_out, config.gap))]
    prob = jax.lax.map(
        lambda params: jax.nn.sigmoid(apply_fn(params, test.inputs)), trained.fixed
    )
    at = jnp.linspace(0, 1, config.num_fixed)
    choice = _choose(config, seed, parts.validation, apply_fn, trained.line, alphas)
    return summary.Seed(
        line=levels,
        fixed=evaluation.measure(prob, test.label, test.group, at),
        choice=choice,
        chosen=levels_at(levels, choice.alpha) if choice else None,
        tau=float(metrics.kendall_tau(alphas, gaps)),
        growth=_growth(gaps),
        growth_served=_growth(served),
        cosine=float(line.cosine_squared(*trained.line)),
        line_seconds=trained.line_seconds,
        levels_seconds=seconds,
        fixed_seconds=trained.fixed_seconds,
    )


def _growth(gaps: jax.Array) -> float:
    """Largest rise of the gap above the smallest one before it on the line."""
    return float(jnp.max(gaps - jax.lax.cummin(gaps)))


def _choose(
    config: Config,
    seed: int,
    validation: yodo.Examples,
    apply_fn: ApplyFn,
    trained: yodo.Line,
    alphas: jax.Array,
) -> evaluation.Choice | None:
    try:
        return evaluation.choose_alpha(
            apply_fn,
            trained,
            validation.inputs,
            validation.label,
            validation.group,
            alphas,
            key=_key(seed, 2),
            metric=config.gap,
            at_most=config.gap_limit,
            confidence=config.confidence,
        )
    except evaluation.NoLevelError:  # the claim says so
        return None


def levels_at(levels: evaluation.Evaluation, alpha: float) -> dict[str, float]:
    """Metrics of the level nearest to ``alpha``.

    Args:
      levels: what `jeff.fairness.evaluate` gave.
      alpha: a level.

    Returns:
      Accuracy and gaps by name.
    """
    place = int(jnp.argmin(jnp.abs(levels.alpha - alpha)))
    names = ("accuracy", "demographic_parity", "equal_opportunity", "equalized_odds")
    return {name: float(getattr(levels, name)[place]) for name in names}


def _save_line(
    config: Config, trained: yodo.Line, num_features: int, path: Path
) -> None:
    if not path.exists():
        network = {
            "dataset": config.dataset,
            "num_features": num_features,
            "hidden": list(config.hidden),
        }
        checkpoint.save(path, trained, metadata=network)
