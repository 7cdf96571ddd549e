"""Train and measure one seed of a YODO run: the line and the fixed models."""

import functools
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from configs.yodo import Config
from jeff import line, metrics, training
from jeff.fairness import evaluation, nets, tabular, yodo
from jeff.fairness.front import monotone_levels
from jeff.fairness.model import ApplyFn
from train_scripts.running import machines
from train_scripts.running.seeds import seed_key
from train_scripts.yodo import summary

__all__ = ["DATA", "Trained", "levels_at", "measure", "network", "train"]

# Purposes of a seed's random keys.
DATA, TRAINING, CHOICE = range(3)


class Trained(NamedTuple):
    """The line and fixed models of one seed, and their training times in seconds.

    The times exclude compilation.
    """

    line: yodo.Line
    fixed: PyTree
    line_seconds: float
    fixed_seconds: float


def network(
    config: Config, train: yodo.Examples, key: jax.Array
) -> tuple[ApplyFn, yodo.Line]:
    """Choose the network for the data, and initialise a line.

    Args:
      config: settings of the run.
      train: training people, as images or rows of a table.
      key: random key of the initial parameters.

    Returns:
      ``(apply_fn, line)``.
    """
    size = train.inputs.shape[-1]
    if train.inputs.ndim == 4:
        return nets.cnn_line(size, key=key, dropout_rate=config.dropout_rate)
    return nets.mlp_line(
        size, key=key, hidden=config.hidden, dropout_rate=config.dropout_rate
    )


def train(
    config: Config,
    seed: int,
    parts: tabular.Splits,
    optimizer: optax.GradientTransformation,
    steps: tuple[training.Step, training.Step],
    workdir: Path,
    progress: bool,
) -> Trained:
    """Train the line, then all fixed models in one vmapped run.

    Args:
      config: settings of the run.
      seed: the seed.
      parts: training, validation and test people.
      optimizer: optimiser of the line and of the fixed models.
      steps: training steps of the line and of the fixed models.
      workdir: the run's folder, for checkpoints.
      progress: show progress bars.

    Returns:
      The trained line and models, with their times.
    """
    initial, order, noise, apart = jax.random.split(seed_key(seed, TRAINING), 4)
    _, start = network(config, parts.train, initial)
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
            machines.placed(state),
            batches,
            num_steps=num_steps,
            batch_sharding=machines.batch_sharding(batches.batch_size),
            workdir=machines.kept(workdir / f"seed{seed}" / "training" / name),
            checkpoint_every=max(1, config.num_epochs // 10),
            progress=progress,
            description=f"seed {seed}: {label}",
        )
        fits.append(fit.state)
        # The median excludes the first chunk, whose time includes compilation.
        each = np.median([row["seconds"] for row in fit.history])
        seconds.append(float(each) * len(fit.history))
    return Trained(fits[0].params, fits[1][0].params, seconds[0], seconds[1])


def measure(
    config: Config,
    seed: int,
    parts: tabular.Splits,
    apply_fn: ApplyFn,
    trained: Trained,
) -> summary.Seed:
    """Measure the line at every level, and the fixed models, on the test part.

    Args:
      config: settings of the run.
      seed: the seed.
      parts: training, validation and test people.
      apply_fn: the network.
      trained: the trained line and fixed models.

    Returns:
      Measurements of the seed.
    """
    alphas = jnp.linspace(0, 1, config.num_levels)
    test = parts.test
    sweep = functools.partial(evaluation.evaluate, apply_fn, trained.line)
    jax.block_until_ready(sweep(test, alphas))  # compiles
    began = time.perf_counter()
    levels = jax.block_until_ready(sweep(test, alphas))
    seconds = time.perf_counter() - began
    held_out = sweep(parts.validation, alphas)
    gaps = getattr(levels, config.gap)
    served = _served(gaps, getattr(held_out, config.gap))
    prob = jax.lax.map(
        lambda params: jax.nn.sigmoid(apply_fn(params, test.inputs)), trained.fixed
    )
    at = jnp.linspace(0, 1, config.num_fixed)
    choice = _choose(config, seed, parts.validation, apply_fn, trained.line, alphas)
    return summary.Seed(
        line=levels,
        fixed=evaluation.measure(prob, test.label, test.group, at, weight=test.weight),
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


def _served(gaps: jax.Array, held_out: jax.Array) -> jax.Array:
    """Gaps of the levels that serve; NaN where the validation part has no gap."""
    if jnp.isnan(held_out).any():
        return jnp.full_like(gaps, jnp.nan)
    return gaps[monotone_levels(held_out)]


def _growth(gaps: jax.Array) -> float:
    """Largest increase of the gap over the smallest gap at any earlier level.

    NaN where a gap is.
    """
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
            validation,
            alphas,
            key=seed_key(seed, CHOICE),
            metric=config.gap,
            at_most=config.gap_limit,
            confidence=config.confidence,
        )
    # Reported by the claim; the work of the training is not lost.
    except (evaluation.NoLevelError, evaluation.EmptyCellError):
        return None


def levels_at(levels: evaluation.Evaluation, alpha: float) -> dict[str, float]:
    """Metrics of the level nearest to ``alpha``.

    Args:
      levels: result of `jeff.fairness.evaluate`.
      alpha: level, in [0, 1].

    Returns:
      Accuracy and gaps by name.
    """
    place = int(jnp.argmin(jnp.abs(levels.alpha - alpha)))
    names = ("accuracy", "demographic_parity", "equal_opportunity", "equalized_odds")
    return {name: float(getattr(levels, name)[place]) for name in names}
