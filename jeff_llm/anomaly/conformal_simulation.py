"""Simulation of the conformal guarantees on data sets whose truth is known.

Normal texts have standard normal scores, anomalies are shifted; with ``step`` the
scores are rounded to multiples, so that they tie. The false-alarm rate of a threshold
is then known exactly, and no measuring error hides a broken guarantee.
"""

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt32

from jeff_llm.anomaly.conformal import p_values, threshold_rank
from jeff_llm.anomaly.false_discovery import benjamini_hochberg
from jeff_llm.anomaly.score_checks import check_level

__all__ = ["Simulation", "simulate_guarantees"]

RandomKey: TypeAlias = Key[Array, ""] | UInt32[Array, "2"]


class Simulation(NamedTuple):
    """Outcomes of the guarantees, one for each made data set.

    Attributes:
      marginal_rate: exact false-alarm rate of the threshold with the marginal
        guarantee; its mean should be at most the level.
      conditional_rate: likewise with the conditional guarantee; at most a share
        ``delta`` of them should be above the level.
      false_share: share of false alarms among what Benjamini and Hochberg's procedure
        flags, 0 where it flags nothing; its mean should be at most the level times the
        share of normal texts.
      power: share of the anomalies that it flags; NaN without anomalies.
      broken: share of the data sets whose conditional rate is above the level.
    """

    marginal_rate: Float[Array, " sets"]
    conditional_rate: Float[Array, " sets"]
    false_share: Float[Array, " sets"]
    power: Float[Array, " sets"]
    broken: Float[Array, ""]


def simulate_guarantees(
    num_calibration: int,
    *,
    level: float,
    delta: float,
    key: RandomKey,
    num_sets: int = 1000,
    num_texts: int = 200,
    anomaly_share: float = 0.1,
    shift: float = 3.0,
    step: float | None = None,
) -> Simulation:
    """Draw data sets, and measure on each what the guarantees promise.

    Args:
      num_calibration: calibration texts of a data set.
      level: bound on the false-alarm rate and on the share of false alarms, in (0, 1).
      delta: probability with which the conditional guarantee may fail, in (0, 1).
      key: random key.
      num_sets: number of data sets, at least 1.
      num_texts: texts of the batch that is tested on a data set, at least 1.
      anomaly_share: share of anomalies among them, in [0, 1].
      shift: mean score of an anomaly, in standard deviations of a normal text's.
      step: scores are rounded to multiples of it, so that they tie; None for scores
        without ties.

    Returns:
      The outcomes, [sets].

    Raises:
      ValueError: if a number is outside its range, or there are too few calibration
        texts for the level and delta.
    """
    check_level(level=level, delta=delta)
    for name, count in (("num_sets", num_sets), ("num_texts", num_texts)):
        if count < 1:
            raise ValueError(f"{name}: expected at least 1, got {count}")
    if not 0 <= anomaly_share <= 1:
        raise ValueError(
            f"anomaly_share: expected a number in [0, 1], got {anomaly_share}"
        )
    if step is not None and not step > 0:
        raise ValueError(f"step: expected a positive number, got {step}")
    ranks = [threshold_rank(num_calibration, level, delta=d) for d in (None, delta)]
    anomaly = jnp.arange(num_texts) < round(anomaly_share * num_texts)

    def one(key: RandomKey) -> tuple[Array, Array, Array]:
        of_calibration, of_batch = jax.random.split(key)
        calibration = jax.random.normal(of_calibration, (num_calibration,))
        batch = jax.random.normal(of_batch, (num_texts,)) + shift * anomaly
        if step is not None:
            calibration, batch = (
                jnp.round(x / step) * step for x in (calibration, batch)
            )
        highest = -jnp.sort(-calibration)
        flagged = benjamini_hochberg(p_values(calibration, batch), level)
        false_share = jnp.sum(flagged & ~anomaly) / jnp.maximum(flagged.sum(), 1)
        power = jnp.sum(flagged & anomaly) / anomaly.sum()
        return highest[jnp.array(ranks) - 1], false_share, power

    thresholds, false_share, power = jax.jit(jax.vmap(one))(
        jax.random.split(key, num_sets)
    )
    # A rounded score is above a threshold if it was above the middle to the next value.
    rates = jax.scipy.stats.norm.sf(thresholds + (step or 0) / 2)
    return Simulation(
        rates[:, 0], rates[:, 1], false_share, power, jnp.mean(rates[:, 1] > level)
    )
