"""Scores of all methods on all data sets and seeds, each measured once."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from configs.anomaly import Config
from jeff import files
from jeff.arrays import load_arrays
from train_scripts.anomaly import data_sets, measure, wordings
from train_scripts.anomaly.measure import Scores, Study
from train_scripts.running import machines
from train_scripts.running.stages import say

__all__ = ["FUSIONS", "RATIO", "STYLE", "Collected", "collect"]

STYLE = "kNN, MiniLM + characters"
RATIO = "SmolLM2 ratio"
FUSIONS = {
    "fused: ratio + similarity + characters": (
        RATIO,
        "MiniLM similarity",
        "kNN, characters",
    ),
    "fused: ratio + characters": (RATIO, "kNN, characters"),
    "fused: similarity + characters": ("MiniLM similarity", "kNN, characters"),
}


class Collected(NamedTuple):
    """Scores on one data set with one seed.

    Attributes:
      study: the data set; kept for the first seed alone.
      label: of the test texts.
      detectors: scores of the trained detectors.
      chosen: test texts that the zero-shot scorers read.
      zero_shot: their scores, and those of trained detectors fused with them, of the
        chosen texts.
      failed: share of texts without a usable answer, by scorer.
      asked: which of the test texts "SmolLM2 prompted" read.
      words: descriptions chosen without labels, by model.
    """

    study: Study | None
    label: np.ndarray
    detectors: dict[str, Scores]
    chosen: np.ndarray
    zero_shot: dict[str, np.ndarray]
    failed: dict[str, float]
    asked: np.ndarray
    words: dict[str, str]


def collect(
    config: Config, workdir: Path, *, progress: bool
) -> dict[str, list[Collected]]:
    """Score the test texts of every data set by every method.

    Args:
      config: settings of the run.
      workdir: the run's folder; what an interrupted run has measured is read.
      progress: say what is being done.

    Returns:
      By data set, one entry per seed; the zero-shot scorers read texts of the first
      seed alone.

    Raises:
      FileNotFoundError: if none of the data sets is on this machine.
    """
    names = data_sets.available(config.data_sets)
    if not names:
        raise FileNotFoundError(
            f"data sets: expected some of {config.data_sets}, found none; set JEFF_DATA"
        )

    def one(item: tuple[str, int]) -> Collected:
        name, seed = item
        say("anomaly", progress, f"{name}, seed {seed}")
        return _one(config, name, seed, workdir, first=seed == config.seeds[0])

    work = [(name, seed) for name in names for seed in config.seeds]
    machines.deal(work, one)
    rows = [one(item) for item in work]
    count = len(config.seeds)
    return {n: rows[i * count : (i + 1) * count] for i, n in enumerate(names)}


def _one(
    config: Config, name: str, seed: int, workdir: Path, *, first: bool
) -> Collected:
    study = measure.make_study(config, name, seed)
    path = workdir / "scores" / f"{name}_{seed}.npz"
    detectors = _read(path)
    if not detectors:
        detectors = measure.detect(config, study, seed, pyod=first)
        _write(path, detectors)
    empty = np.zeros(0, int)
    if not first:
        return Collected(None, study.label, detectors, empty, {}, {}, empty, {})
    if "table" not in config.parts:  # the other parts read none of them
        return Collected(study, study.label, detectors, empty, {}, {}, empty, {})
    made = wordings.zero_shot(config, study, seed, workdir)
    scores = dict(made.scores)
    few = {
        each: Scores(part.reference, part.calibration, part.test[made.chosen])
        for each, part in detectors.items()
    }
    for fusion, parts in FUSIONS.items():
        if all(part in {**scores, **few} for part in parts):
            scores[fusion] = measure.fused([{**scores, **few}[part] for part in parts])
    words = {
        model: " | ".join([*chosen.normal.values(), *chosen.anomalous.values()])
        for model, chosen in made.descriptions.items()
    }
    return Collected(
        study,
        study.label,
        detectors,
        made.chosen,
        {each: part.test for each, part in scores.items()},
        made.failed,
        made.asked,
        words,
    )


def _write(path: Path, scores: dict[str, Scores]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        f"{name}|{field}": getattr(each, field)
        for name, each in scores.items()
        for field in Scores._fields
    }
    with files.replacing(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)


def _read(path: Path) -> dict[str, Scores]:
    if not path.is_file():
        return {}
    arrays = load_arrays(path)
    names = dict.fromkeys(key.partition("|")[0] for key in arrays)
    with files.reading(path, "scores of this run", advice="delete it"):
        return {
            name: Scores(*(arrays[f"{name}|{field}"] for field in Scores._fields))
            for name in names
        }
