"""Scores of every detector and zero-shot scorer on one data set."""

import contextlib
import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from configs.anomaly import Config
from jeff import files
from jeff_llm import chat
from jeff_llm.anomaly import descriptions as choosing
from jeff_llm.anomaly import (
    detectors,
    fusion,
    likelihood,
    options,
    prompting,
    pyod_detectors,
    similarity,
)
from jeff_llm.anomaly.categories import Categories
from jeff_llm.anomaly.characters import character_encoder
from jeff_llm.anomaly.text_detector import METHODS
from jeff_llm.models import encoder, weights
from jeff_llm.models.encoder import SentenceEncoder
from jeff_llm.models.language_model import LanguageModel
from train_scripts.anomaly import data_sets
from train_scripts.anomaly.data_sets import DataSet, Split
from train_scripts.running.seeds import seed_key

__all__ = ["Scores", "Study", "detect", "make_study", "minilm", "smollm2", "zero_shot"]

_SPLIT, _SAMPLE, _MODEL = 1, 2, 3
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
    return encoder.load("minilm")


@functools.cache
def smollm2() -> LanguageModel:
    """Load the decoder, once.

    Returns:
      SmolLM2.
    """
    return weights.load("smollm2")


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
    ours, theirs = _embedded(name)
    embeddings = (
        ours[split.train],
        ours[split.calibration],
        np.concatenate([ours[split.test], theirs[chosen]]),
    )
    return Study(data, split, train, calibration, test, label, embeddings)


@functools.lru_cache(maxsize=1)
def _embedded(name: str) -> tuple[np.ndarray, np.ndarray]:
    """All normal and all anomalous texts as MiniLM sees them, for every seed."""
    data = data_sets.load(name)
    encode = minilm().encode
    return encode(list(data.normal)), encode(list(data.anomalous))


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


class ZeroShot(NamedTuple):
    """Zero-shot scores of a sample of the test texts.

    Attributes:
      chosen: indices of the texts among the study's test texts.
      scores: by name; references are of a sample of the training texts.
      failed: share of texts without a usable answer, by name.
      descriptions: what was chosen without labels, by model.
      asked: indices of the texts that the model was asked about in words.
    """

    chosen: np.ndarray
    scores: dict[str, Scores]
    failed: dict[str, float]
    descriptions: dict[str, Categories]
    asked: np.ndarray


def zero_shot(config: Config, study: Study, seed: int, cache: Path) -> ZeroShot:
    """Score by every zero-shot scorer.

    Args:
      config: settings of the run.
      study: data set.
      seed: of the sample of texts that the decoder reads.
      cache: folder where the decoder's likelihoods are kept, since they take longest.

    Returns:
      The scores.
    """
    key = seed_key(seed, _MODEL)
    chosen = _sample(study.label, config.model_texts, key)
    asked = chosen[_sample(study.label[chosen], config.prompted_texts, key)]
    few = list(range(min(len(study.train), max(2, config.model_texts // 2))))
    texts = [study.test[place] for place in chosen]
    learn = [study.train[place] for place in few]
    kinds = [study.data.kind[place] for place in study.split.train[: len(few)]]
    first = study.data.candidates[0]
    encode = minilm().encode
    train = study.embeddings[0]
    near = choosing.choose(
        lambda words: encode(words) @ train[few].T, study.data.candidates, kinds
    ).categories
    scores: dict[str, Scores] = {}

    def similar(categories: Categories) -> Scores:
        def of(given: list[str]) -> np.ndarray:
            return similarity.description_similarity(encode, given, categories).score

        return Scores(of(learn), np.zeros(0, np.float32), of(texts))

    scores["MiniLM similarity, first descriptions"] = similar(first)
    scores["MiniLM similarity"] = similar(near)
    if not len(chosen):
        return ZeroShot(chosen, {}, {}, {}, asked)
    table = _Likelihoods(cache, study.data.name, seed, learn, texts)
    best = choosing.choose(
        lambda words: table.learnt(words)[:, :_CHOOSING],
        study.data.candidates,
        kinds[:_CHOOSING],
    ).categories
    scores["SmolLM2 ratio, first descriptions"] = table.ratio(first)
    scores["SmolLM2 ratio"] = table.ratio(best)
    # The neutral description compared with itself would tell nothing.
    if best.anomalous and set(best.normal.values()) != {likelihood.NEUTRAL}:
        alone = Categories(best.normal)
        scores["SmolLM2 ratio, normal kinds only"] = table.ratio(alone)
    labelled = options.option_scores(smollm2(), texts, first)
    plain = options.option_scores(smollm2(), texts, first, calibrate=False)
    none = np.zeros(0, np.float32)
    scores["SmolLM2 options"] = Scores(none, none, labelled.score)
    scores["SmolLM2 options, not calibrated"] = Scores(none, none, plain.score)
    failed = {"SmolLM2 options": float(labelled.failed.mean())}
    if len(asked):
        words = [study.test[place] for place in asked]
        said = prompting.prompted(
            chat.Cached(chat.Local(smollm2()), cache / "answers.db"), words, first
        )
        scores["SmolLM2 prompted"] = Scores(none, none, said.scored.score)
        failed["SmolLM2 prompted"] = float(said.scored.failed.mean())
    described = {"MiniLM similarity": near, "SmolLM2 ratio": best}
    return ZeroShot(chosen, scores, failed, described, asked)


class _Likelihoods:
    """Log-likelihoods of texts after descriptions, kept in files."""

    def __init__(
        self, cache: Path, name: str, seed: int, learn: list[str], texts: list[str]
    ):
        self._path = cache / f"likelihoods_{name}_{seed}.json"
        self._learn, self._texts = learn, texts
        self._known: dict[str, list[float | None]] = (
            files.read_json(self._path) if self._path.is_file() else {}
        )

    def learnt(self, words: list[str]) -> np.ndarray:
        return self._rows("train", words, self._learn)

    def ratio(self, categories: Categories) -> Scores:
        none = np.zeros(0, np.float32)
        normal = list(categories.normal.values())
        anomalous = list(categories.anomalous.values()) or [likelihood.NEUTRAL]
        found = []
        for part, texts in (("train", self._learn), ("test", self._texts)):
            rows = self._rows(part, anomalous + normal, texts)
            split = len(anomalous)
            ratio = np.asarray(likelihood.ratio(rows[:split], rows[split:]))
            found.append(np.nan_to_num(ratio, nan=0.0))
        return Scores(found[0], none, found[1])

    def _rows(self, part: str, words: list[str], texts: list[str]) -> np.ndarray:
        new = [word for word in words if f"{part} {word}" not in self._known]
        if new:
            prompts = [likelihood.describe(word) for word in new]
            rows = likelihood.log_likelihoods(smollm2(), texts, prompts)
            for word, row in zip(new, rows, strict=True):
                # JSON has no NaN.
                self._known[f"{part} {word}"] = [
                    None if np.isnan(x) else float(x) for x in row
                ]
            files.write_json(self._path, self._known, indent=None)
        return np.array([self._known[f"{part} {word}"] for word in words], np.float32)


def _sample(label: np.ndarray, each: int, key: jax.Array) -> np.ndarray:
    """Indices of at most so many texts of each side, in the order of the texts."""
    order = np.asarray(jax.random.permutation(key, len(label)))
    sides = [order[label[order] == side][:each] for side in (0, 1)]
    return np.sort(np.concatenate(sides))
