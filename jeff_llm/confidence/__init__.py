"""Confidence: measures of it, routing by it, and tokens that report it.

`uncertainty` and `samples` turn a model's outputs into confidences, `reading` takes the
outputs from a decoder of jeff, `probes` learn confidence from hidden states. `routing`
gives accuracy and cost as the least confident queries go to a large model, `router`
chooses the threshold, with a guarantee if wanted, `calibration` carries it over to
unseen traffic. `selfref` teaches a model the two confidence tokens, `evaluation` scores
a confidence.
"""

import importlib
from typing import TYPE_CHECKING, Any

from jeff_llm.confidence.calibration import Calibration, Transfer, calibrate, transfer
from jeff_llm.confidence.evaluation import Scores, evaluate, rejection
from jeff_llm.confidence.router import (
    Router,
    for_accuracy,
    for_budget,
    for_rate,
    with_guarantee,
)
from jeff_llm.confidence.routing import (
    Logs,
    RoutingCurve,
    alignment,
    curve,
    from_jsonl,
    normalised_area,
    rate_to_match,
    sweep,
)

if TYPE_CHECKING:  # so that editors know what `__getattr__` brings
    from jeff_llm.confidence import probes, reading, samples, selfref, uncertainty

_LATER = ("probes", "reading", "samples", "selfref", "uncertainty")

__all__ = [
    "Calibration",
    "Logs",
    "Router",
    "RoutingCurve",
    "Scores",
    "Transfer",
    "alignment",
    "calibrate",
    "curve",
    "evaluate",
    "for_accuracy",
    "for_budget",
    "for_rate",
    "from_jsonl",
    "normalised_area",
    "probes",
    "rate_to_match",
    "reading",
    "rejection",
    "samples",
    "selfref",
    "sweep",
    "transfer",
    "uncertainty",
    "with_guarantee",
]


def __getattr__(name: str) -> Any:
    """Load a submodule at first use."""
    if name in _LATER:
        return importlib.import_module(f"jeff_llm.confidence.{name}")
    raise AttributeError(f"module 'jeff_llm.confidence' has no attribute {name!r}")
