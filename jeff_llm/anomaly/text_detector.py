"""A detector of anomalous texts, from a pile of normal ones and nothing else.

`fit` takes normal texts, keeps a part of them aside, and learns from the rest how a
normal text looks to each *view*: a function from texts to vectors, such as a sentence
encoder, or character n-grams, which see the style that an encoder overlooks. A *scorer*
is a function from texts to scores that needs no fitting, such as a zero-shot scorer.
`score` fuses views and scorers, and counts how many of the texts kept aside look at
least as strange.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from jeff.checks import check_choice
from jeff_llm.anomaly import conformal, neighbors
from jeff_llm.anomaly.categories import check_texts
from jeff_llm.anomaly.characters import CharacterEncoder, character_encoder
from jeff_llm.anomaly.covariance import Mahalanobis, mahalanobis
from jeff_llm.anomaly.detectors import KNN, knn
from jeff_llm.anomaly.fusion import fuse
from jeff_llm.anomaly.local_outlier import LOF, lof
from jeff_llm.anomaly.views import (
    CHARACTERS,
    Encode,
    Scorer,
    check_encoders,
    check_reference,
    scorer_scores,
    view_functions,
    view_vectors,
)

__all__ = ["METHODS", "Found", "TextDetector", "fit", "score"]

METHODS: dict[str, Callable[..., KNN | LOF | Mahalanobis]] = {
    # The mean of five distances ranks better than the fifth on every data set tried.
    "knn": functools.partial(knn, method="mean"),
    "lof": lof,
    "mahalanobis": mahalanobis,
}
_BATCH = 4096  # texts whose vectors are in memory at once
_ROUNDING = 1e-5  # of a score; ten times what was seen between batches
_FEWEST = 8  # training texts: fewer have no neighbours to speak of


@dataclasses.dataclass(frozen=True, eq=False)
class TextDetector:
    """What `fit` learnt.

    Attributes:
      method: name of the detector of each view, one of `METHODS`.
      views: names of the views, in the order of ``parts``.
      parts: the detector of each view.
      characters: the character view, if it is one of the views.
      texts: training texts, of which the nearest are shown as a reason.
      calibration: scores of the normal texts that were kept aside.
      embeddings: training texts as each view sees them.
      scorers: names of the scorers.
      scored: scores of the training texts by each scorer.
    """

    method: str
    views: tuple[str, ...]
    parts: tuple[KNN | LOF | Mahalanobis, ...]
    characters: CharacterEncoder | None
    texts: tuple[str, ...]
    calibration: Float[np.ndarray, " calibration"]
    embeddings: tuple[np.ndarray, ...]
    scorers: tuple[str, ...] = ()
    scored: tuple[np.ndarray, ...] = ()


class Found(NamedTuple):
    """Scores of texts; no field of a text depends on the other texts.

    The compiler may round in another order for another number of texts, so scores
    repeat to about six digits. P-values repeat exactly, but for a score that far below
    one that was kept aside: nearer ones count as equal to it.

    Attributes:
      score: higher for a more anomalous text.
      p_value: share of normal texts at least as strange, by those kept aside.
      by_view: score of each view, then of each scorer.
      nearest: index of the nearest training texts in the first view, nearest first.
      distance: their Euclidean distance.
    """

    score: Float[np.ndarray, " texts"]
    p_value: Float[np.ndarray, " texts"]
    by_view: Float[np.ndarray, "views texts"]
    nearest: Int[np.ndarray, "texts neighbors"]
    distance: Float[np.ndarray, "texts neighbors"]


def fit(
    texts: Sequence[str],
    encoders: Mapping[str, Encode],
    *,
    views: Sequence[str] | None = None,
    scorers: Mapping[str, Scorer] | None = None,
    method: str = "knn",
    holdout: float = 0.3,
    progress: Callable[[int, int], None] | None = None,
    key: jax.Array,
) -> TextDetector:
    """Fit a detector to normal texts.

    Args:
      texts: normal texts, each once (`jeff_llm.anomaly.texts.distinct`).
      encoders: name of a view to its function from texts to vectors, such as
        ``{"minilm": encoder.load("minilm").encode}``.
      views: the views to use; all encoders and `CHARACTERS` by default.
      scorers: name to a function from texts to scores, higher for a more anomalous
        text; it must not depend on the other texts.
      method: detector of each view: "knn", "lof" or "mahalanobis".
      holdout: share of the texts that is kept aside for p-values.
      progress: called with the number of views and scorers that have seen the texts,
        and of all.
      key: random key of the parting.

    Returns:
      The detector. Its p-values can reach ``1 / (kept aside + 1)``; `conformal` says
      how many texts a level needs.

    Raises:
      TypeError: if ``texts`` is a single text, or an encoder is no function.
      ValueError: if there are too few texts, a view is unknown, an encoder does not
        give each text a row of finite numbers, a view sees no difference between the
        texts, or an argument is out of its range.
    """
    texts = check_texts(texts)
    check_choice("method", method, tuple(METHODS))
    names = _view_names(views, encoders)
    kept = _number_aside(holdout, len(texts))
    order = np.asarray(jax.random.permutation(key, len(texts)))
    train = [texts[place] for place in order[kept:]]
    aside = [texts[place] for place in order[:kept]]
    characters = character_encoder(train) if CHARACTERS in names else None
    functions = view_functions(names, encoders, characters)
    scorers = dict(scorers or {})
    if both := set(scorers) & set(names):
        raise ValueError(f"scorers: expected other names than the views', got {both}")
    total = len(names) + len(scorers)
    done = itertools.count(1)

    def tell(value: np.ndarray) -> np.ndarray:
        if progress is not None:
            progress(next(done), total)
        return value

    embeddings = tuple(
        tell(view_vectors(name, each, train))
        for name, each in zip(names, functions, strict=True)
    )
    parts = tuple(METHODS[method](each) for each in embeddings)
    for name, part in zip(names, parts, strict=True):
        check_reference(name, np.asarray(part.reference))
    scored = tuple(
        tell(scorer_scores(name, each, train)) for name, each in scorers.items()
    )
    fitted = TextDetector(
        method,
        names,
        parts,
        characters,
        tuple(train),
        np.zeros(0, np.float32),
        embeddings,
        tuple(scorers),
        scored,
    )
    _check_spread(fitted)
    vectors = [
        view_vectors(name, each, aside)
        for name, each in zip(names, functions, strict=True)
    ]
    by_view = _by_view(fitted, vectors, aside, scorers)
    return dataclasses.replace(fitted, calibration=_fused(fitted, by_view))


def _view_names(
    views: Sequence[str] | None, encoders: Mapping[str, Encode]
) -> tuple[str, ...]:
    check_encoders(encoders)
    if isinstance(views, str):
        raise TypeError(f"views: expected a sequence of names, got {views!r}")
    known = (*encoders, CHARACTERS)
    names = known if views is None else tuple(views)
    if CHARACTERS in encoders:
        raise ValueError(f"encoders: expected no {CHARACTERS!r}: that name is taken")
    for name in names:
        check_choice("views", name, known)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"views: expected different names, got {names}")
    return names


def _number_aside(holdout: float, count: int) -> int:
    """How many of the texts are kept aside; enough must be left to learn from."""
    if not 0 < holdout < 1:
        raise ValueError(f"holdout: expected a share in (0, 1), got {holdout}")
    kept = math.ceil(holdout * count)
    if count - kept < _FEWEST:
        least = math.ceil(round(_FEWEST / (1 - holdout), 6))
        raise ValueError(f"texts: expected at least {least} normal texts, got {count}")
    return kept


def score(
    detector: TextDetector,
    texts: Sequence[str],
    encoders: Mapping[str, Encode],
    *,
    scorers: Mapping[str, Scorer] | None = None,
    num_nearest: int = 3,
    progress: Callable[[int, int], None] | None = None,
) -> Found:
    """Score texts.

    Args:
      detector: from `fit`.
      texts: any texts, empty ones and repeats too.
      encoders: the encoders that the detector was fitted with, by name.
      scorers: the scorers that it was fitted with, by name.
      num_nearest: nearest training texts to name.
      progress: called with the number of texts that are done, and of all.

    Returns:
      Scores, p-values and the nearest normal texts.

    Raises:
      TypeError: if ``texts`` is a single text.
      ValueError: if an encoder or a scorer is missing, or does not give each text a
        row of finite numbers of the width that was fitted.
    """
    texts = check_texts(texts)
    if not 1 <= num_nearest <= len(detector.texts):
        raise ValueError(
            f"num_nearest: expected 1 to {len(detector.texts)}, got {num_nearest}"
        )
    functions = view_functions(detector.views, encoders, detector.characters)
    parts = []
    for begin in range(0, len(texts), _BATCH):
        batch = texts[begin : begin + _BATCH]
        vectors = [
            view_vectors(name, each, batch)
            for name, each in zip(detector.views, functions, strict=True)
        ]
        by_view = _by_view(detector, vectors, batch, scorers or {})
        near = neighbors.nearest(
            detector.embeddings[0],
            vectors[0],
            neighbors=num_nearest,
        )
        total = _fused(detector, by_view)
        parts.append(
            Found(
                total,
                _p_values(detector.calibration, total),
                by_view,
                np.asarray(near.index),
                np.asarray(near.distance),
            )
        )
        if progress is not None:
            progress(min(begin + _BATCH, len(texts)), len(texts))
    if not parts:
        empty = np.zeros(0, np.float32)
        table = np.zeros((0, num_nearest))
        rows = len(detector.views) + len(detector.scorers)
        views = np.zeros((rows, 0), np.float32)
        return Found(empty, empty, views, table.astype(int), table.astype(np.float32))
    columns = zip(*parts, strict=True)
    return Found(
        *(np.concatenate(each, axis=int(i == 2)) for i, each in enumerate(columns))
    )


def _p_values(
    calibration: Float[np.ndarray, " calibration"], score: Float[np.ndarray, " texts"]
) -> Float[np.ndarray, " texts"]:
    """P-values that no rounding changes for a text that equals one kept aside.

    Lower scores only raise p-values, so the guarantee stays.
    """
    unit = np.maximum(np.abs(score), np.median(np.abs(calibration)))
    lowered = np.asarray(score - _ROUNDING * unit, np.float32)
    return np.asarray(conformal.p_values(calibration, lowered))


def _check_spread(detector: TextDetector) -> None:
    """A constant score cannot be put on the scale of the others."""
    for name, found in zip(detector.scorers, detector.scored, strict=True):
        if np.all(found == found[0]):
            raise ValueError(
                f"scorers: expected at least two different scores of {len(found)} "
                f"normal texts from {name!r}, got {found[0]:g} for all; leave it out"
            )


def _by_view(
    detector: TextDetector,
    vectors: Sequence[np.ndarray],
    texts: list[str],
    scorers: Mapping[str, Scorer],
) -> Float[np.ndarray, "views texts"]:
    rows = []
    for name, part, fitted, given in zip(
        detector.views, detector.parts, detector.embeddings, vectors, strict=True
    ):
        if given.shape[1] != fitted.shape[1]:
            raise ValueError(
                f"encoders: expected vectors of width {fitted.shape[1]} from {name!r}, "
                f"got shape {given.shape}"
            )
        rows.append(np.asarray(part.score(given)))
    for name in detector.scorers:
        if name not in scorers:
            raise ValueError(
                f"scorers: expected one named {name!r}, got {list(scorers)}"
            )
        rows.append(scorer_scores(name, scorers[name], texts))
    return np.stack(rows)


def _fused(
    detector: TextDetector, by_view: Float[np.ndarray, "views texts"]
) -> Float[np.ndarray, " texts"]:
    """One score per text; a single view needs no fusion."""
    if len(by_view) == 1:
        return by_view[0]
    references = [np.asarray(part.reference) for part in detector.parts]
    return np.asarray(fuse(by_view, [*references, *detector.scored]))
