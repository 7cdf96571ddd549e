"""Data of the report's slider over a budget of tokens."""

from typing import Any

from train_scripts.reasoning.summary import FAMILIES, Report

__all__ = ["explorer"]


def explorer(report: Report) -> dict[str, Any] | None:
    """The most accurate method within each budget, from those of the plane.

    The methods are chosen on the questions that they are shown on, so that the front is
    a little too good.

    Args:
      report: measurements of the run.

    Returns:
      Contents of ``explorer.json`` (`train_scripts.report.explorer`); None where one
      method is both the cheapest and the best.
    """
    order = sorted(
        report.points.items(),
        key=lambda each: (each[1].tokens.mean(), -each[1].accuracy.mean()),
    )
    front, best = [], -1.0
    for name, point in order:
        if point.accuracy.mean() > best:
            best = point.accuracy.mean()
            front.append((name, point))
    if len(front) < 2:
        return None
    several = len(report.base.accuracy) > 1

    def readout(label: str, unit: str, rows: list[Any]) -> dict[str, Any]:
        return {
            "label": label,
            "unit": unit,
            "values": [float(row.mean()) for row in rows],
            "low": [float(row.min()) for row in rows] if several else None,
            "high": [float(row.max()) for row in rows] if several else None,
        }

    points = [point for _, point in front]
    return {
        "title": "Choose a budget of tokens",
        "slider": {
            "label": "Tokens per question, at most",
            "values": [float(point.tokens.mean()) for point in points],
            "low_label": "short",
            "high_label": "accurate",
            "names": [name for name, _ in front],
        },
        "readouts": [
            readout("Accuracy", "%", [100 * point.accuracy for point in points]),
            readout("Tokens per question", "", [point.tokens for point in points]),
            readout("Samples per question", "", [point.samples for point in points]),
        ],
        "curve": {
            "x": 1,
            "y": 0,
            "x_label": "Tokens per question",
            "y_label": "Accuracy (%)",
        },
        "references": [
            {
                "label": FAMILIES[point.family][0],
                "x": float(point.tokens.mean()),
                "y": 100 * float(point.accuracy.mean()),
            }
            for point in report.points.values()
        ],
    }
