"""Test the explorer's file field by field, and the layout of its chart."""

import json
from pathlib import Path
from typing import Any

import pytest

from train_scripts.report import explorer


def explorer_document() -> dict[str, Any]:
    """A valid ``explorer.json`` of three levels."""
    spread = {"low": [80.0, 79.0, 78.0], "high": [86.0, 85.0, 84.0]}
    accuracy = {"label": "Accuracy", "unit": "%", "values": [85.0, 84.0, 82.0]}
    gap = {"label": "Gap", "unit": "", "values": [0.17, 0.1, 0.02]}
    ends = {"low_label": "accurate", "high_label": "fair"}
    return {
        "title": "Choose",
        "slider": {"label": "Level", "values": [0.0, 0.5, 1.0], **ends},
        "readouts": [{**accuracy, **spread}, {**gap, "low": None, "high": None}],
        "curve": {"x": 1, "y": 0, "x_label": "Gap", "y_label": "Accuracy"},
        "references": [{"label": "plain", "x": 0.16, "y": 85.2}],
    }


def test_valid_document_reads(tmp_path: Path) -> None:
    """A valid document comes back as it is."""
    path = tmp_path / "explorer.json"
    path.write_text(json.dumps(explorer_document()))
    assert explorer.read(path) == explorer_document()


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("title",), "", "title: expected a text"),
        (("slider", "values"), [0.0], r"slider.values: .*at least 2 items"),
        (("slider", "values"), [0.0, 1.0], "expected 2 numbers"),
        (("readouts",), [], "readouts: .*at least 1 item"),
        (("readouts", 0, "unit"), "points", "unit: expected '%' or ''"),
        (("readouts", 0, "values"), [85.0, 84.0], "expected 3 numbers"),
        (("readouts", 0, "values"), [85.0, 84.0, 182.0], "percentages"),
        (
            ("readouts", 1, "values", 2),
            float("nan"),
            "finite number, came NaN",
        ),
        (("readouts", 0, "low"), None, "both low and high"),
        (
            ("readouts", 0, "low"),
            [90.0, 1.0, 1.0],
            r"readouts\[0\]: .*low <= high",
        ),
        (("curve", "x"), 2, "the index of a readout, 0 to 1"),
        (("curve", "y"), True, "curve.y: expected a valid integer"),
        (("references", 0, "x"), "far", r"references\[0\].x: expected a valid number"),
        (("references",), None, "references: expected a valid array"),
    ],
)
def test_explorer_refuses(
    place: tuple[str | int, ...], value: Any, says: str, tmp_path: Path
) -> None:
    """Each wrong field of ``explorer.json`` is named; lengths must agree."""
    inner: Any = (document := explorer_document())
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    path = tmp_path / "explorer.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=says) as caught:
        explorer.read(path)
    assert str(caught.value).startswith(str(path))


def test_chart_by_hand() -> None:
    """A straight curve between two corners, laid out by hand."""
    document = explorer_document()
    document["references"] = []
    y, x = document["readouts"]
    y.update(values=[0.0, 50.0, 100.0], low=None, high=None)
    x.update(values=[0.0, 50.0, 100.0])
    chart = explorer.chart(document)
    assert (
        chart.marks[0]["x"] == explorer.LEFT and chart.marks[0]["y"] == explorer.BOTTOM
    )
    across = (explorer.RIGHT - explorer.LEFT) * 100 / 106
    assert chart.marks[2]["x"] == pytest.approx(explorer.LEFT + across, abs=0.01)
    assert [text for _, text in chart.x_ticks] == ["0", "50", "100"]
    assert chart.marks[1]["x_low"] is None


def test_flat_curve_has_a_domain() -> None:
    """Equal values give a chart with finite numbers, not a division by zero."""
    document = explorer_document()
    for readout in document["readouts"]:
        readout.update(values=[0.0] * 3, low=None, high=None)
    document["references"] = []
    assert len(explorer.chart(document).marks) == 3


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0.0, 100.0, ["0", "20", "40", "60", "80", "100"]),
        (82.1, 85.9, ["83", "84", "85"]),
        (-0.011, 0.012, ["-0.010", "-0.005", "0.000", "0.005", "0.010"]),
        (1.2e6, 1.9e6, ["1200000", "1400000", "1600000", "1800000"]),
    ],
)
def test_ticks(low: float, high: float, texts: list[str]) -> None:
    """Ticks are round, lie within the range, and show as many decimals as needed."""
    found = explorer.ticks(low, high, 5)
    assert all(low <= value <= high for value, _ in found)
    assert [text for _, text in found] == texts


def test_labels_share_a_shape() -> None:
    """Reference points of one label have one shape and one entry in the legend."""
    document = explorer_document()
    points = [("plain", 0.1), ("fixed", 0.1), ("fixed", 0.2)]
    document["references"] = [{"label": k, "x": x, "y": 85.0} for k, x in points]
    chart = explorer.chart(document)
    assert [label for _, label in chart.legend] == ["plain", "fixed"]
    assert len({shape for _, _, shape, _ in chart.references}) == 2
