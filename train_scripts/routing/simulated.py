"""Routing on a grid of simulated settings, and a test of the guarantee."""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from configs.routing import Config
from jeff_llm.confidence import router, routing
from train_scripts.routing.transfers import RATES
from train_scripts.running import plots
from train_scripts.running.claims import at_most
from train_scripts.running.results import Claim, Part

__all__ = ["simulated"]


def simulated(config: Config, workdir: Path) -> Part:
    """Evaluate a grid of settings in one call, and the guarantee on many draws.

    Args:
      config: settings of the run.
      workdir: the run's folder.

    Returns:
      Numbers, claims and table.
    """
    key = jax.random.key(config.seed)
    settings = int(np.prod(config.grid))
    keys = jax.random.split(key, 4)
    shape = (settings, config.queries)
    # Each setting has its own sharpness, which determines how closely the confidence
    # follows the ease of a query.
    sharp = jax.random.uniform(keys[0], (settings, 1), minval=0.0, maxval=3.0)
    ease = jax.random.normal(keys[1], shape)
    small = jax.random.uniform(keys[2], shape) < jax.nn.sigmoid(ease)
    noise = jax.random.normal(keys[3], shape)
    sure = jax.nn.sigmoid(sharp * ease + noise)
    large = jax.random.uniform(jax.random.fold_in(key, 1), shape) < 0.85
    rates = jnp.asarray(RATES, jnp.float32)
    jax.block_until_ready(routing.sweep(sure, small, large, rates))  # compiles
    began = time.perf_counter()
    found = jax.block_until_ready(routing.sweep(sure, small, large, rates))
    seconds = time.perf_counter() - began
    broken, kept = _guarantee(config)
    with plots.figure(workdir / "simulated_alignment.png") as axes:
        axes.plot(
            found.alignment, found.area, ".", markersize=3, color=plots.COLOURS["line"]
        )
        axes.set_xlabel("alignment (AUROC)")
        axes.set_ylabel("normalised area")
    numbers = {
        "sweep_settings": float(settings),
        "sweep_seconds": seconds,
        "guarantee_broken": broken,
        "guarantee_kept": kept,
    }
    # Clopper and Pearson's exact interval for the share of failed draws.
    ends = stats.binomtest(round(broken * config.draws), config.draws).proportion_ci()
    claim = Claim(
        f"The guarantee (errors at most {config.max_error:.0%}) fails in at most "
        f"{config.delta:.0%} of {config.draws} draws of the log.",
        "not in the papers",
        f"{broken:.1%}; {kept:.1%} of the queries are kept",
        at_most(broken, config.delta, ends=(ends.low, ends.high)),
    )
    table = (
        f"{settings} settings of {config.queries} queries in one call: "
        f"{seconds:.2f} s.\nThe guarantee fails in {broken:.1%} of {config.draws} "
        "draws.\n"
    )
    return Part(numbers, (claim,), table)


def _guarantee(config: Config) -> tuple[float, float]:
    """Share of the draws in which the guarantee fails, and of the queries kept.

    Confidence c is uniform on [0, 1], and an answer is wrong with probability
    (1 - c)^2. The error rate above a threshold t is then (1 - t)^2 / 3.
    """
    rng = np.random.default_rng(config.seed)
    broken, kept = [], []
    for _ in range(config.draws):
        sure = rng.random(500).astype(np.float32)
        right = rng.random(500) > (1 - sure) ** 2
        found = router.with_guarantee(
            jnp.asarray(sure),
            jnp.asarray(right),
            max_error=config.max_error,
            delta=config.delta,
        )
        share = 1 - min(max(found.threshold, 0.0), 1.0)
        broken.append(share**2 / 3 > config.max_error)
        kept.append(share)
    return float(np.mean(broken)), float(np.mean(kept))
