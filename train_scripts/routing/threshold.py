"""Data of the report's slider over the router's threshold."""

from typing import Any

import numpy as np

__all__ = ["explorer"]

_LEVELS = 41


def explorer(
    sure: np.ndarray,
    small: np.ndarray,
    large: np.ndarray,
    *,
    measure: str,
    cost: np.ndarray | None = None,
) -> dict[str, Any] | None:
    """What each threshold on confidence would have done with these queries.

    Args:
      sure: confidence in the small model's answers, [queries].
      small: whether its answer is right, or how right, in [0, 1].
      large: likewise of the large model.
      measure: name of the confidence; empty where unknown.
      cost: of the large model for each query; one each by default.

    Returns:
      Contents of ``explorer.json`` (`train_scripts.report.explorer`); None where all
      confidences are equal, so that there is nothing to choose.
    """
    sure, small, large = (np.asarray(x, float) for x in (sure, small, large))
    cost = np.ones(len(sure)) if cost is None else np.asarray(cost, float)
    # The least threshold sends nothing on; none of a log sends everything on, so the
    # highest keeps what the model is surest of.
    levels = np.unique(np.quantile(sure, np.linspace(0, 1, _LEVELS)))
    if len(levels) < 2:
        return None
    sent = sure < levels[:, None]
    kept = ~sent
    accuracy = np.where(sent, large, small).mean(1)
    wrong = (kept * (1 - small)).sum(1) / kept.sum(1)
    all_of_it = cost.sum()
    spent = (sent * cost).sum(1) / all_of_it if all_of_it else np.zeros(len(levels))

    def percent(label: str, values: np.ndarray) -> dict[str, Any]:
        # Sums may end a rounding error outside of [0, 1].
        values = 100 * np.clip(values, 0, 1)
        return {
            "label": label,
            "unit": "%",
            "values": values.tolist(),
            "low": None,
            "high": None,
        }

    ends = (("small model alone", 0.0, small), ("large model alone", 100.0, large))
    return {
        "title": "Choose the router's threshold",
        "slider": {
            "label": f"Threshold on {measure or 'confidence'}",
            "values": levels.tolist(),
            "low_label": "the small model answers",
            "high_label": "the large model answers",
        },
        "readouts": [
            percent("Accuracy", accuracy),
            percent("Sent to the large model", sent.mean(1)),
            percent("Cost, of sending everything", spent),
            percent("Wrong among the answers kept", wrong),
        ],
        "curve": {
            "x": 1,
            "y": 0,
            "x_label": "Sent to the large model (%)",
            "y_label": "Accuracy (%)",
        },
        "references": [
            {"label": label, "x": share, "y": 100 * float(right.mean())}
            for label, share, right in ends
        ],
    }
