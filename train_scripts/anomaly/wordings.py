"""Scores of every zero-shot scorer on one data set."""

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from configs.anomaly import Config
from jeff import files
from jeff_llm import chat
from jeff_llm.anomaly import descriptions as choosing
from jeff_llm.anomaly import likelihood, options, prompting, similarity
from jeff_llm.anomaly.categories import Categories
from train_scripts.anomaly.measure import Scores, Study, minilm, smollm2
from train_scripts.running.seeds import seed_key

__all__ = ["ZeroShot", "zero_shot"]

_MODEL = 3
_CHOOSING = 60  # normal texts that descriptions are chosen on


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
    read = options.option_logits(smollm2(), texts, first)
    labelled, plain = read.scores(), read.scores(calibrate=False)
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
