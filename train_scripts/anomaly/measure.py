"""Scores of every detector and zero-shot scorer on one data set."""

import contextlib
import functools
import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from configs.anomaly import Config
from jeff_llm.anomaly import (
    detectors,
    fusion,
    pyod_detectors,
)
from jeff_llm.anomaly.characters import character_encoder
from jeff_llm.anomaly.text_detector import METHODS
from jeff_llm.models import encoder, weights
from jeff_llm.models.encoder import SentenceEncoder
from jeff_llm.models.language_model import LanguageModel
from train_scripts.anomaly import data_sets
from train_scripts.anomaly.data_sets import DataSet, Split
from train_scripts.running import machines
from train_scripts.running.seeds import seed_key

__all__ = ["Scores", "Study", "detect", "make_study", "minilm", "smollm2"]

_SPLIT, _SAMPLE = 1, 2
_CHOOSING = 60  # normal texts that descriptions are chosen on
_PYOD_SEED = 0


class Study(NamedTuple):
    """One data set, parted, and what MiniLM sees of it.

    Attributes:
      data: the data set.
      split: parts of its normal texts.
      train: normal texts for training.
      calibration: normal texts that were kept aside.
      test: normal texts, then anomalous ones.
      label: 1 for the anomalous ones.
      embeddings: of the three by MiniLM.
    """

    data: DataSet
    split: Split
    train: list[str]
    calibration: list[str]
    test: list[str]
    label: np.ndarray
    embeddings: tuple[np.ndarray, np.ndarray, np.ndarray]


class Scores(NamedTuple):
    """Scores by one method.

    Attributes:
      reference: of training texts, each without itself.
      calibration: of the texts kept aside; empty where a method did not read them.
      test: of the test texts.
    """

    reference: np.ndarray
    calibration: np.ndarray
    test: np.ndarray


@functools.cache
def minilm() -> SentenceEncoder:
    """Load the encoder, once.

    Returns:
      MiniLM.
    """
    return encoder.load("minilm", mesh=machines.mesh())


@functools.cache
def smollm2() -> LanguageModel:
    """Load the decoder, once.

    Returns:
      SmolLM2.
    """
    return weights.load("smollm2", mesh=machines.mesh())


def make_study(config: Config, name: str, seed: int) -> Study:
    """Part a data set and embed its texts.

    Args:
      config: settings of the run.
      name: of the data set.
      seed: of the parting.

    Returns:
      The study.
    """
    data = data_sets.load(name)
    split = data_sets.split(
        data, share=config.split, most=config.normal_texts, key=seed_key(seed, _SPLIT)
    )
    order = jax.random.permutation(seed_key(seed, _SAMPLE), len(data.anomalous))
    chosen = np.asarray(order)[: config.anomalous_texts or len(order)]
    train, calibration, normal = (
        [data.normal[place] for place in part] for part in split
    )
    test = normal + [data.anomalous[place] for place in chosen]
    label = (np.arange(len(test)) >= len(normal)).astype(np.int32)
    embeddings = (_embed(train), _embed(calibration), _embed(test))
    return Study(data, split, train, calibration, test, label, embeddings)


@functools.cache
def _known() -> dict[str, np.ndarray]:
    """What MiniLM saw: the seeds share most texts."""
    return {}


def _embed(texts: list[str]) -> np.ndarray:
    known = _known()
    new = [text for text in dict.fromkeys(texts) if text not in known]
    if new:
        known |= dict(zip(new, minilm().encode(new), strict=True))
    return np.stack([known[text] for text in texts])


def detect(config: Config, study: Study, seed: int, *, pyod: bool) -> dict[str, Scores]:
    """Score by every trained detector.

    Args:
      config: settings of the run.
      study: data set.
      seed: of PyOD's detectors.
      pyod: whether to fit PyOD's, which take longest.

    Returns:
      Scores by name: jeff's, their fusion, and PyOD's where it is installed.
    """
    found: dict[str, Scores] = {}
    characters = character_encoder(study.train)
    by_style = tuple(
        characters.encode(part) for part in (study.train, study.calibration, study.test)
    )
    makers: dict[str, tuple[Callable[..., detectors.Detector], tuple]] = {
        "kNN, MiniLM": (METHODS["knn"], study.embeddings),
        "LOF, MiniLM": (METHODS["lof"], study.embeddings),
        "Mahalanobis, MiniLM": (METHODS["mahalanobis"], study.embeddings),
        "kNN, characters": (METHODS["knn"], by_style),
    }
    for name, (make, (train, calibration, test)) in makers.items():
        part = make(train)
        found[name] = Scores(
            np.asarray(part.reference),
            np.asarray(part.score(calibration)),
            np.asarray(part.score(test)),
        )
    found["kNN, MiniLM + characters"] = fused(
        [found["kNN, MiniLM"], found["kNN, characters"]]
    )
    for name in config.pyod if pyod else ():
        try:
            found[f"PyOD {name}"] = _pyod(name, study, seed)
        except ImportError:
            break
    if pyod and config.pyod:
        with contextlib.suppress(ImportError):
            found["PyOD EmbeddingOD (LUNAR)"] = _embedding_od(study)
    return found


def _embedding_od(study: Study) -> Scores:
    """PyOD's own pipeline for texts, with MiniLM as its encoder and its defaults."""
    from pyod.models.embedding import EmbeddingOD

    encode = minilm().encode
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = EmbeddingOD(encoder=lambda texts: encode(list(texts)))
        model.fit(study.train)
        calibration, test = (
            np.asarray(model.decision_function(texts), np.float32)
            for texts in (study.calibration, study.test)
        )
    return Scores(np.asarray(model.decision_scores_, np.float32), calibration, test)


def fused(parts: list[Scores]) -> Scores:
    """Fuse methods, without a label.

    Args:
      parts: scores by each.

    Returns:
      Their fusion (`jeff_llm.anomaly.fusion.fuse`).
    """
    references = [part.reference for part in parts]

    def of(field: str) -> np.ndarray:
        rows = [getattr(part, field) for part in parts]
        if not all(map(len, rows)):
            return np.zeros(0, np.float32)
        return np.asarray(fusion.fuse(np.stack(rows), references))

    # References of one length stem from the same texts, in one order.
    same = len({len(row) for row in references}) == 1
    reference = of("reference") if same else np.zeros(0, np.float32)
    return Scores(reference, of("calibration"), of("test"))


def _pyod(name: str, study: Study, seed: int) -> Scores:
    train, calibration, test = study.embeddings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        part = pyod_detectors.fit_pyod(name, train, seed=seed)
        return Scores(
            np.asarray(part.reference),
            np.asarray(part.score(calibration)),
            np.asarray(part.score(test)),
        )
