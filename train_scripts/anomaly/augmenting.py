"""Do synthetic normal texts help a detector that has few real ones?"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from configs.anomaly import Config
from jeff_llm import chat
from jeff_llm.anomaly import augment, fusion, similarity
from jeff_llm.anomaly.categories import Categories
from jeff_llm.anomaly.characters import character_encoder
from jeff_llm.anomaly.text_detector import METHODS
from train_scripts.anomaly.measure import Study, minilm, smollm2

__all__ = ["Augmented", "described", "measure", "recorded"]

_EXAMPLES = 3  # real texts of a category that the model is shown
_NEIGHBORS = {"kNN, MiniLM": 5, "LOF, MiniLM": 20, "kNN, characters": 5}


class Augmented(NamedTuple):
    """Scores after training on a small part, with synthetic texts, and on more.

    Attributes:
      source: who wrote the texts.
      written: number of synthetic texts; copies that were left out by kind.
      copies: numbers of exact copies, repeats and near-copies.
      short: categories for which the model gave too few keywords.
      scores: of the test texts, by training set and detector.
      samples: three of the texts, to be looked at.
    """

    source: str
    written: int
    copies: dict[str, int]
    short: int
    scores: dict[str, dict[str, np.ndarray]]
    samples: tuple[str, ...]


def recorded(name: str) -> Path:
    """Where the answers of a large model for a data set are stored.

    Args:
      name: of the data set.

    Returns:
      The file; it may be missing.
    """
    return Path(__file__).parent / "recorded" / f"{name}.jsonl"


def measure(config: Config, study: Study, workdir: Path) -> list[Augmented]:
    """Train on a small part, with synthetic texts of each source, and on everything.

    Args:
      config: settings of the run.
      study: a data set; its first training texts are the small part.
      workdir: the run's folder, where answers are stored.

    Returns:
      One result per source of synthetic texts.
    """
    few = min(config.small_part, len(study.train) - 1)
    small = study.train[:few]
    kinds = [study.data.kind[place] for place in study.split.train[:few]]
    categories = study.data.candidates[0].normal
    each = max(1, config.synthetic // len(categories))
    examples = {
        name: [text for text, kind in zip(small, kinds, strict=True) if kind == name][
            :_EXAMPLES
        ]
        for name in categories
    }
    local = chat.Cached(chat.Local(smollm2()), workdir / "answers.db")
    sources = {
        "SmolLM2": augment.synthesise(local, categories, each, examples=examples)
    }
    path = recorded(study.data.name)
    if path.is_file():
        # A cassette answers what it was asked, whatever the seed of the parting: its
        # requests hold no example.
        sources["large model, recorded"] = augment.synthesise(
            chat.Cassette(path), categories, 60 // len(categories)
        )
    base = {"small part": small, "everything": study.train}
    scores = {name: _scores(texts, study) for name, texts in base.items()}
    found = []
    for source, made in sources.items():
        copies = augment.find_copies(
            made.texts,
            small,
            minilm().encode(list(made.texts)),
            study.embeddings[0][:few],
            limit=config.near_copy,
        )
        kept = [
            text for text, keep in zip(made.texts, copies.kept, strict=True) if keep
        ]
        more = study.train[few : few + len(kept)]
        found.append(
            Augmented(
                source,
                len(made.texts),
                {
                    "exact": int(copies.exact.sum()),
                    "repeated": int((copies.repeated & ~copies.exact).sum()),
                    "near": int(copies.near.sum()),
                    "empty": made.empty,
                },
                len(made.short),
                {
                    "small part": scores["small part"],
                    "part + synthetic": _scores([*small, *kept], study),
                    "part + as many real": _scores([*small, *more], study),
                    "everything": scores["everything"],
                },
                tuple(kept[:3]),
            )
        )
    return found


def described(config: Config, study: Study, workdir: Path) -> dict[str, np.ndarray]:
    """Score by similarity to descriptions, with and without what a model adds to them.

    Args:
      config: settings of the run.
      study: a data set.
      workdir: the run's folder, where answers are stored.

    Returns:
      Scores of the test texts, by who described the categories.
    """
    few = min(config.small_part, len(study.train))
    kinds = [study.data.kind[place] for place in study.split.train[:few]]
    plain = study.data.candidates[0]
    examples: dict[str, list[str]] = {}
    for text, kind in zip(study.train, kinds, strict=False):
        if len(examples.setdefault(kind, [])) < _EXAMPLES:
            examples[kind].append(text)
    local = chat.Cached(chat.Local(smollm2()), workdir / "answers.db")
    richer = augment.describe_categories(local, plain, examples=examples)

    def scored(categories: Categories) -> np.ndarray:
        return similarity.description_similarity(
            minilm().encode, study.test, categories
        ).score

    return {"descriptions as given": scored(plain), "with SmolLM2's": scored(richer)}


def _scores(texts: list[str], study: Study) -> dict[str, np.ndarray]:
    """Scores of the test texts by each detector, trained on these texts."""
    characters = character_encoder(texts)
    meaning = minilm().encode(texts), study.embeddings[2]
    style = characters.encode(texts), characters.encode(study.test)
    found, references = {}, []
    for name, neighbors in _NEIGHBORS.items():
        train, test = style if name.endswith("characters") else meaning
        make = METHODS["lof" if name.startswith("LOF") else "knn"]
        part = make(train, neighbors=min(neighbors, len(texts) - 1))
        found[name] = np.asarray(part.score(test))
        if not name.startswith("LOF"):
            references.append((found[name], np.asarray(part.reference)))
    found["fused"] = np.asarray(
        fusion.fuse(
            np.stack([scores for scores, _ in references]),
            [reference for _, reference in references],
        )
    )
    return found
