"""Anomalies in texts: by detectors, by language models, with false alarms controlled.

`fit` learns from normal texts alone, `score` gives new texts a score, a p-value and the
normal texts nearest to them; `save` and `load` keep a detector in a folder. A flag on
``p_value <= level`` has a false-alarm rate of at most that level; `threshold` gives the
guarantee for one detector that serves long, `benjamini_hochberg` for a batch.

Without training: `likelihood_ratio` and `option_logits` by a decoder, `prompted` by any
chat model, `description_similarity` by a sentence encoder, all from `Categories` in
words; `descriptions` chooses the words without labels. `fuse` joins scores without
labels. `augment` writes synthetic normal texts, `select` asks a model which detector to
use. `knn`, `lof` and `mahalanobis` are detectors of vectors; `pyod_detectors` has
PyOD's.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # so that editors know what `__getattr__` brings
    from jeff_llm.anomaly import (
        augment,
        characters,
        conformal,
        descriptions,
        detectors,
        evaluation,
        false_alarms,
        false_discovery,
        fusion,
        likelihood,
        official,
        options,
        prompting,
        pyod_detectors,
        select,
        similarity,
        streaming,
        texts,
    )
    from jeff_llm.anomaly.categories import Categories, Scored
    from jeff_llm.anomaly.conformal import flag, p_values, threshold
    from jeff_llm.anomaly.covariance import mahalanobis
    from jeff_llm.anomaly.detectors import knn
    from jeff_llm.anomaly.evaluation import evaluate
    from jeff_llm.anomaly.false_discovery import benjamini_hochberg
    from jeff_llm.anomaly.fusion import fuse
    from jeff_llm.anomaly.likelihood import likelihood_ratio
    from jeff_llm.anomaly.local_outlier import lof
    from jeff_llm.anomaly.options import option_logits
    from jeff_llm.anomaly.prompting import prompted
    from jeff_llm.anomaly.similarity import description_similarity
    from jeff_llm.anomaly.store import load, save
    from jeff_llm.anomaly.text_detector import Found, TextDetector, fit, score

# The module of each function and class; every other name is a module.
_FUNCTIONS = {
    "Categories": "categories",
    "Found": "text_detector",
    "Scored": "categories",
    "TextDetector": "text_detector",
    "benjamini_hochberg": "false_discovery",
    "description_similarity": "similarity",
    "evaluate": "evaluation",
    "fit": "text_detector",
    "flag": "conformal",
    "fuse": "fusion",
    "knn": "detectors",
    "likelihood_ratio": "likelihood",
    "load": "store",
    "lof": "local_outlier",
    "mahalanobis": "covariance",
    "option_logits": "options",
    "p_values": "conformal",
    "prompted": "prompting",
    "save": "store",
    "score": "text_detector",
    "threshold": "conformal",
}

__all__ = [
    "Categories",
    "Found",
    "Scored",
    "TextDetector",
    "augment",
    "benjamini_hochberg",
    "characters",
    "conformal",
    "description_similarity",
    "descriptions",
    "detectors",
    "evaluate",
    "evaluation",
    "false_alarms",
    "false_discovery",
    "fit",
    "flag",
    "fuse",
    "fusion",
    "knn",
    "likelihood",
    "likelihood_ratio",
    "load",
    "lof",
    "mahalanobis",
    "official",
    "option_logits",
    "options",
    "p_values",
    "prompted",
    "prompting",
    "pyod_detectors",
    "save",
    "score",
    "select",
    "similarity",
    "streaming",
    "texts",
    "threshold",
]


def __getattr__(name: str) -> Any:
    """Load a module, or a function of one, at first use."""
    if name not in __all__:
        raise AttributeError(f"module 'jeff_llm.anomaly' has no attribute {name!r}")
    place = _FUNCTIONS.get(name, name)
    module = importlib.import_module(f"jeff_llm.anomaly.{place}")
    return getattr(module, name) if name in _FUNCTIONS else module


def __dir__() -> list[str]:
    """All public names, also those that are not loaded yet."""
    return sorted(__all__)
