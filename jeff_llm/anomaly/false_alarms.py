"""False alarms and false discoveries on texts with labels.

`false_alarms` and `discoveries` measure what the guarantees of
`jeff_llm.anomaly.conformal` and `jeff_llm.anomaly.false_discovery` are worth on real
texts, which need not be exchangeable with the calibration texts.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, UInt32

from jeff.binomial import interval
from jeff_llm.anomaly.conformal import Threshold, flag, p_values, threshold
from jeff_llm.anomaly.false_discovery import benjamini_hochberg
from jeff_llm.anomaly.score_checks import check_level, check_scores

__all__ = ["Discoveries", "FalseAlarms", "discoveries", "false_alarms"]

RandomKey: TypeAlias = Key[Array, ""] | UInt32[Array, "2"]
Calibration: TypeAlias = (
    Float[Array, " calibration"] | Float[np.ndarray, " calibration"]
)
NormalScores: TypeAlias = Float[Array, " normal"] | Float[np.ndarray, " normal"]
AnomalyScores: TypeAlias = Float[Array, " anomalies"] | Float[np.ndarray, " anomalies"]


class FalseAlarms(NamedTuple):
    """What a threshold at one level does on texts with labels.

    Attributes:
      threshold: the threshold, with its guarantee.
      rate: share of the normal texts that are flagged.
      rate_interval: exact interval of the false-alarm rate of this threshold.
      power: share of the anomalies that are flagged.
      power_interval: exact interval of the power of this threshold.
    """

    threshold: Threshold
    rate: float
    rate_interval: tuple[float, float]
    power: float
    power_interval: tuple[float, float]


class Discoveries(NamedTuple):
    """What Benjamini and Hochberg's procedure does on batches with labels.

    Attributes:
      level: bound on the expected share of false alarms among the flagged.
      false_share: mean share of false alarms among the flagged, 0 in a batch without.
      power: mean share of the anomalies that are flagged; NaN without anomalies.
      flagged: mean number of flagged texts of a batch.
      silent: share of the batches in which nothing is flagged.
    """

    level: float
    false_share: float
    power: float
    flagged: float
    silent: float


def false_alarms(
    calibration_scores: Calibration,
    normal_scores: NormalScores,
    anomaly_scores: AnomalyScores,
    levels: Sequence[float],
    *,
    delta: float | None = None,
    confidence: float = 0.95,
) -> list[FalseAlarms]:
    """False-alarm rate and power of conformal thresholds on texts with labels.

    The intervals are exact (Clopper-Pearson) and cover the draw of the test texts for
    this one threshold. With the marginal guarantee the rate of one calibration set may
    well be above the level; only its mean over sets is not. With ``delta`` it may be
    with that probability.

    Args:
      calibration_scores: of normal texts held out of training.
      normal_scores: of normal test texts.
      anomaly_scores: of anomalous test texts.
      levels: bounds on the false-alarm rate, in (0, 1).
      delta: probability with which a bound may fail over the calibration texts; None
        for the marginal guarantee.
      confidence: coverage of the intervals, in (0, 1).

    Returns:
      Rate and power for each level, in the order of the levels.

    Raises:
      ValueError: if a set is empty, a score is NaN, a number is outside (0, 1), or
        there are too few calibration texts for a level; see `fewest_calibration`.
      TypeError: if scores are not floating point.
    """
    check_level(confidence=confidence)
    _check_sets(calibration_scores, normal_scores, anomaly_scores)
    return [
        _alarms(
            threshold(calibration_scores, level, delta=delta),
            normal_scores,
            anomaly_scores,
            confidence,
        )
        for level in levels
    ]


def discoveries(
    calibration_scores: Calibration,
    normal_scores: NormalScores,
    anomaly_scores: AnomalyScores,
    level: float,
    *,
    num_texts: int,
    anomaly_share: float,
    key: RandomKey,
    batches: int = 1000,
) -> Discoveries:
    """Share of false alarms and power of Benjamini-Hochberg on batches of a given mix.

    The bound holds in the mean over calibration texts and batches. So for each batch
    calibration and normal test texts are shuffled together (under the guarantee's
    assumption they are exchangeable) and split anew, the calibration set keeping its
    size; anomalies are drawn without replacement.

    Args:
      calibration_scores: of normal texts held out of training.
      normal_scores: of normal test texts.
      anomaly_scores: of anomalous test texts; may be empty if their share is 0.
      level: bound on the expected share of false alarms, in (0, 1).
      num_texts: size of a batch, at least 1.
      anomaly_share: share of anomalies in a batch, in [0, 1].
      key: random key.
      batches: number of batches, at least 1.

    Returns:
      Means over the batches.

    Raises:
      ValueError: if a set is empty or has too few texts for a batch, a score is NaN, or
        a number is outside its range.
      TypeError: if scores are not floating point.
    """
    check_level(level=level)
    for name, count in (("num_texts", num_texts), ("batches", batches)):
        if count < 1:
            raise ValueError(f"{name}: expected at least 1, got {count}")
    if not 0 <= anomaly_share <= 1:
        raise ValueError(
            f"anomaly_share: expected a number in [0, 1], got {anomaly_share}"
        )
    anomalies = round(anomaly_share * num_texts)
    _check_sets(
        calibration_scores,
        normal_scores,
        anomaly_scores,
        least=(1, num_texts - anomalies, anomalies),
    )
    normal = np.concatenate([np.asarray(calibration_scores), np.asarray(normal_scores)])
    false_share, power, flagged = _batches(
        jnp.asarray(normal, jnp.float32),
        jnp.asarray(anomaly_scores, jnp.float32),
        jax.random.split(key, batches),
        sizes=(calibration_scores.shape[0], num_texts - anomalies, anomalies),
        level=level,
    )
    return Discoveries(
        level=level,
        false_share=float(np.mean(false_share, dtype=float)),
        power=float(np.mean(power, dtype=float)),
        flagged=float(np.mean(flagged)),
        silent=float(np.mean(np.asarray(flagged) == 0)),
    )


@functools.partial(jax.jit, static_argnames=("sizes", "level"))
def _batches(
    normal: Float[Array, " pool"],
    anomalous: Float[Array, " anomalies"],
    keys: Array,
    *,
    sizes: tuple[int, int, int],
    level: float,
) -> tuple[Array, Array, Array]:
    """Share of false alarms, power and number of flagged texts of each batch."""
    calibration, normals, anomalies = sizes
    label = jnp.arange(normals + anomalies) >= normals

    def one(key: RandomKey) -> tuple[Array, Array, Array]:
        of_normal, of_anomalies = jax.random.split(key)
        shuffled = jax.random.permutation(of_normal, normal)
        drawn = jax.random.permutation(of_anomalies, anomalous)[:anomalies]
        batch = jnp.concatenate([shuffled[calibration : calibration + normals], drawn])
        flags = benjamini_hochberg(p_values(shuffled[:calibration], batch), level)
        flagged = flags.sum()
        false_share = jnp.sum(flags & ~label) / jnp.maximum(flagged, 1)
        return false_share, jnp.sum(flags & label) / anomalies, flagged

    return jax.lax.map(one, keys, batch_size=min(100, keys.shape[0]))


def _alarms(
    at: Threshold,
    normal_scores: NormalScores,
    anomaly_scores: AnomalyScores,
    confidence: float,
) -> FalseAlarms:
    shares, ends = [], []
    for scores in (normal_scores, anomaly_scores):
        flagged, count = int(flag(scores, at).sum()), scores.shape[0]
        shares.append(flagged / count)
        ends.append(interval(flagged, count, level=confidence))
    return FalseAlarms(at, shares[0], ends[0], shares[1], ends[1])


def _check_sets(
    calibration_scores: Calibration,
    normal_scores: NormalScores,
    anomaly_scores: AnomalyScores,
    *,
    least: tuple[int, int, int] = (1, 1, 1),
) -> None:
    sets = {
        "calibration_scores": calibration_scores,
        "normal_scores": normal_scores,
        "anomaly_scores": anomaly_scores,
    }
    check_scores(**sets)
    for (name, values), count in zip(sets.items(), least, strict=True):
        if values.shape[0] < count:
            raise ValueError(
                f"{name}: expected at least {count} texts, got {values.shape[0]}"
            )
