"""A model chooses the detector: the published table replayed, and this run's own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from configs.anomaly import Config
from jeff import assets
from jeff_llm import chat
from jeff_llm.anomaly import select
from jeff_llm.anomaly.select import Facts, Regrets, Table
from train_scripts.anomaly.measure import smollm2

__all__ = ["ABSTRACTS", "Selection", "own_table", "published", "select_by_model"]

# One sentence each, from what the methods' authors say of them.
ABSTRACTS = {
    "BERT": "contextual token vectors of a masked language model, averaged",
    "OpenAI": "text-embedding-3-large, vectors trained for search and clustering",
    "MiniLM": "sentence vectors of a small encoder, trained on a billion pairs",
    "characters": "weighted counts of character n-grams: spelling and style",
    "end-to-end": "the detector reads the text itself and learns its own vectors",
    "kNN": "distance to the nearest training texts",
    "KNN": "distance to the nearest training texts",
    "LOF": "density around a text against that around its neighbours",
    "Mahalanobis": "distance from the mean in units of the covariance",
    "DeepSVDD": "a network that maps normal data into a small sphere",
    "ECOD": "tails of each coordinate's empirical distribution, joined",
    "IForest": "how few random cuts isolate a point",
    "iForest": "how few random cuts isolate a point",
    "OCSVM": "a boundary around the normal data in a kernel's space",
    "SO-GAAL": "a generative adversarial game that makes informative outliers",
    "AE": "error of an autoencoder",
    "AutoEncoder": "error of an autoencoder",
    "VAE": "error of a variational autoencoder",
    "LUNAR": "a graph network that learns from distances to neighbours",
    "CVDD": "attention heads that find context vectors of the normal texts",
    "DATE": "a transformer that finds replaced tokens and the mask used",
    "FATE": "few labelled anomalies and deviation learning",
}
_PUBLISHED = {
    "ag_news": ("World", "Business", "Sports"),
    "bbc_news": ("business", "politics", "sport", "tech"),
    "email_spam": ("ham",),
    "emotion": ("sadness", "love", "anger", "fear", "surprise"),
    "movie_review": ("positive",),
    "n24_news": ("news of all other desks",),
    "sms_spam": ("ham",),
    "yelp_review": ("positive",),
}


class Selection(NamedTuple):
    """Regrets of choosing on each data set of a table.

    Attributes:
      table: the table.
      baselines: regrets of choosing without a model.
      told: mean regret of the model that is told the facts; NaN where not asked.
      control: the same for the model that is told nothing.
      failed: share of answers that named no candidate, told and control.
    """

    table: Table
    baselines: Regrets
    told: np.ndarray
    control: np.ndarray
    failed: tuple[float, float]


def published() -> tuple[Table, list[Facts]] | None:
    """Read the published table, and what is known of its data sets.

    Returns:
      The table and the facts; None if the shared data are absent.
    """
    try:
        path = assets.shared_file("adbench_table/auroc.csv")
    except FileNotFoundError:
        return None
    table = select.read_table(path)
    about = []
    for name in table.data_sets:
        classes = _PUBLISHED.get(name, (name,))
        # The texts themselves are not at hand: names alone.
        about.append(Facts(name, 0, classes, ("",) * len(classes), (0.0, 0, 0)))
    return table, about


def own_table(names: Sequence[str], aurocs: Mapping[str, Mapping[str, float]]) -> Table:
    """Make a table of what this run measured.

    Args:
      names: data sets.
      aurocs: AUROC by data set and method, "detector, encoder" or "PyOD detector".

    Returns:
      The table of the methods that are a pair of encoder and detector.
    """
    found: dict[str, tuple[str, str]] = {}
    for method in aurocs[names[0]]:
        detector, _, encoder = method.partition(", ")
        if method.startswith("PyOD "):
            found[method] = ("MiniLM", method)
        elif encoder in ("MiniLM", "characters"):
            found[method] = (encoder, detector)
    auroc = [[aurocs[name].get(method, np.nan) for method in found] for name in names]
    return Table(tuple(found.values()), tuple(names), np.array(auroc))


def select_by_model(
    config: Config, table: Table, about: Sequence[Facts], workdir: Path
) -> Selection:
    """Let SmolLM2 choose for each data set, with the facts and without.

    Args:
      config: settings of the run.
      table: what each candidate reaches.
      about: facts of each data set.
      workdir: the run's folder, where answers are stored.

    Returns:
      Regrets.
    """
    without = select.baselines(table)
    unknown = np.full(len(table.data_sets), np.nan)
    if not config.queries:
        return Selection(table, without, unknown, unknown, (np.nan, np.nan))
    model = chat.Cached(chat.Local(smollm2()), workdir / "answers.db")
    abstracts = {
        part: ABSTRACTS[part.removeprefix("PyOD ")]
        for pair in table.candidates
        for part in pair
        if part.removeprefix("PyOD ") in ABSTRACTS
    }
    # The control is asked once for all data sets: it is told nothing that differs.
    nothing = select.pick(
        model, table.candidates, None, abstracts, queries=config.queries
    )
    told, control, failed = [], [], []
    for row, known in zip(table.auroc, about, strict=True):
        picks = select.pick(
            model, table.candidates, known, abstracts, queries=config.queries
        )
        told.append(select.regret(row, picks.index).mean())
        control.append(select.regret(row, nothing.index).mean())
        failed.append(float(np.mean(picks.index < 0)))
    return Selection(
        table,
        without,
        np.array(told),
        np.array(control),
        (float(np.mean(failed)), float(np.mean(nothing.index < 0))),
    )
