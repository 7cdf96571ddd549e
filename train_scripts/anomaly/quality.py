"""Figures of scores: how well they rank, what thresholds flag, what texts add."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs.anomaly import Config
from jeff import metrics
from jeff_llm.anomaly import evaluation, false_alarms
from jeff_llm.anomaly.conformal import fewest_calibration
from jeff_llm.anomaly.evaluation import Interval
from train_scripts.anomaly.augmenting import Augmented
from train_scripts.anomaly.collect import Collected
from train_scripts.running.seeds import seed_key

__all__ = ["Alarm", "Ends", "Gain", "Quality", "alarms", "gains", "quality"]

_EVALUATE, _BATCHES, _GAIN = 11, 12, 13
_BATCH = 200  # texts of a batch for discoveries
_SHARE = 0.1  # of them anomalous
_FALSE_SHARE = 0.1


class Ends(NamedTuple):
    """A figure with its 95% interval.

    Attributes:
      estimate: the figure.
      low: low end.
      high: high end.
    """

    estimate: float
    low: float
    high: float


class Quality(NamedTuple):
    """How well one method ranks the texts of one data set.

    Attributes:
      method: name.
      texts: number of test texts.
      auroc: on the texts of the first seed.
      precision: average precision on them.
      mean: mean AUROC over seeds.
      std: its standard deviation.
      seeds: number of seeds.
    """

    method: str
    texts: int
    auroc: Ends
    precision: Ends
    mean: float
    std: float
    seeds: int


class Alarm(NamedTuple):
    """What one level does on one data set, over all seeds.

    Attributes:
      method: name.
      level: allowed false-alarm rate.
      calibration: normal texts that were kept aside.
      false_alarms: measured rate; interval of the first seed.
      mean: mean rate over seeds.
      power: share of the anomalies that are flagged.
      false_share: share of false alarms among discoveries at 10%, batches of 200 texts
        with 20 anomalies; NaN where too few texts are at hand.
      discovered: share of the anomalies among them that are discovered.
      refused: why no threshold was given; empty if one was.
    """

    method: str
    level: float
    calibration: int
    false_alarms: Ends
    mean: float
    power: Ends
    false_share: float
    discovered: float
    refused: str


class Gain(NamedTuple):
    """What synthetic texts add to one detector.

    Attributes:
      source: who wrote them.
      detector: name.
      small: AUROC after training on the small part.
      synthetic: with the synthetic texts.
      gain: difference of the two, with a paired interval.
      real: with as many real texts in their place.
      everything: after training on all texts.
    """

    source: str
    detector: str
    small: float
    synthetic: float
    gain: Ends
    real: float
    everything: float


def quality(config: Config, rows: Sequence[Collected]) -> list[Quality]:
    """Compute AUROC and average precision of every method.

    Args:
      config: settings of the run.
      rows: scores on one data set, one entry per seed.

    Returns:
      Trained detectors, then zero-shot scorers and fusions, each best first.
    """
    first = rows[0]
    trained = {name: each.test for name, each in first.detectors.items()}
    found = _evaluate(config, trained, first.label)
    for place, row in enumerate(found):
        areas = [
            _area(each.detectors[row.method].test, each.label)
            for each in rows
            if row.method in each.detectors
        ]
        found[place] = row._replace(
            mean=float(np.mean(areas)), std=float(np.std(areas)), seeds=len(areas)
        )
    few = {
        name: each
        for name, each in first.zero_shot.items()
        if len(each) == len(first.chosen)
    }
    # The best trained detectors on the same texts, so that they can be compared.
    few |= {
        f"{name} (the same texts)": trained[name][first.chosen]
        for name in ("kNN, MiniLM + characters", "kNN, characters")
        if few
    }
    others = _evaluate(config, few, first.label[first.chosen])
    if "SmolLM2 prompted" in first.zero_shot:
        asked = {"SmolLM2 prompted": first.zero_shot["SmolLM2 prompted"]}
        others += _evaluate(config, asked, first.label[first.asked])
    best = sorted(found, key=lambda row: -row.auroc.estimate)
    return best + sorted(others, key=lambda row: -row.auroc.estimate)


def alarms(config: Config, rows: Sequence[Collected], method: str) -> list[Alarm]:
    """Measure false alarms, power and discoveries of one detector.

    Args:
      config: settings of the run.
      rows: scores on one data set, one entry per seed.
      method: a trained detector.

    Returns:
      One entry per level.
    """
    found = []
    for level in config.levels:
        parts = [_sides(each, method) for each in rows]
        count = len(parts[0][0])
        nothing = Ends(np.nan, np.nan, np.nan)
        needed = fewest_calibration(level, config.delta)
        if count < needed:
            refused = f"{needed} texts needed"
            found.append(
                Alarm(
                    method,
                    level,
                    count,
                    nothing,
                    np.nan,
                    nothing,
                    np.nan,
                    np.nan,
                    refused,
                )
            )
            continue
        measured = [
            false_alarms.false_alarms(*part, [level], delta=config.delta)[0]
            for part in parts
        ]
        first = measured[0]
        share, discovered = _discoveries(parts[0])
        found.append(
            Alarm(
                method,
                level,
                count,
                Ends(first.rate, *first.rate_interval),
                float(np.mean([each.rate for each in measured])),
                Ends(first.power, *first.power_interval),
                share,
                discovered,
                "",
            )
        )
    return found


def gains(config: Config, found: Sequence[Augmented], label: np.ndarray) -> list[Gain]:
    """Compute what synthetic texts add.

    Args:
      config: settings of the run.
      found: scores by source.
      label: of the test texts.

    Returns:
      One entry per source and detector.
    """
    rows = []
    for each in found:
        small, more = each.scores["small part"], each.scores["part + synthetic"]
        for detector in small:
            difference = evaluation.paired_difference(
                more[detector],
                small[detector],
                label,
                key=seed_key(config.seeds[0], _GAIN),
                resamples=config.resamples,
            )
            areas = {
                name: _area(scores[detector], label)
                for name, scores in each.scores.items()
            }
            rows.append(
                Gain(
                    each.source,
                    detector,
                    areas["small part"],
                    areas["part + synthetic"],
                    _ends(difference.auroc),
                    areas["part + as many real"],
                    areas["everything"],
                )
            )
    return rows


def difference(
    config: Config, one: np.ndarray, other: np.ndarray, label: np.ndarray
) -> Ends:
    """Compare two methods on the same texts.

    Args:
      config: settings of the run.
      one: scores of the first.
      other: scores of the second.
      label: of the texts.

    Returns:
      Difference in AUROC, with a paired bootstrap interval.
    """
    found = evaluation.paired_difference(
        one,
        other,
        label,
        key=seed_key(config.seeds[0], _EVALUATE),
        resamples=config.resamples,
    )
    return _ends(found.auroc)


def _evaluate(
    config: Config, scores: Mapping[str, np.ndarray], label: np.ndarray
) -> list[Quality]:
    if not scores:
        return []
    found = evaluation.evaluate(
        np.stack([np.asarray(each, np.float32) for each in scores.values()]),
        label,
        key=seed_key(config.seeds[0], _EVALUATE),
        resamples=config.resamples,
    )
    rows = []
    for place, name in enumerate(scores):
        auroc, precision = (
            _ends(jax.tree.map(lambda leaf, i=place: leaf[i], each)) for each in found
        )
        rows.append(
            Quality(name, len(label), auroc, precision, auroc.estimate, float("nan"), 1)
        )
    return rows


def _sides(each: Collected, method: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of the texts kept aside, of normal and of anomalous test texts."""
    scores = each.detectors[method]
    flags = each.label.astype(bool)
    return scores.calibration, scores.test[~flags], scores.test[flags]


def _discoveries(
    sides: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> tuple[float, float]:
    calibration, normal, anomalous = sides
    anomalies = round(_SHARE * _BATCH)
    if len(normal) < _BATCH - anomalies or len(anomalous) < anomalies:
        return np.nan, np.nan
    found = false_alarms.discoveries(
        calibration,
        normal,
        anomalous,
        _FALSE_SHARE,
        num_texts=_BATCH,
        anomaly_share=_SHARE,
        key=seed_key(0, _BATCHES),
    )
    return found.false_share, found.power


def _area(scores: np.ndarray, label: np.ndarray) -> float:
    return float(metrics.auroc(jnp.asarray(scores), jnp.asarray(label)))


def _ends(found: Interval) -> Ends:
    return Ends(float(found.estimate), float(found.low), float(found.high))
