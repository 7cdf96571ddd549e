"""Test what the sliders of routing and reasoning say, by hand."""

import numpy as np
import pytest

from configs.reasoning import PRESETS
from jeff import files
from train_scripts.reasoning import budget, summary
from train_scripts.report import explorer
from train_scripts.routing import threshold

SURE = np.array([0.1, 0.2, 0.6, 0.9])
SMALL = np.array([False, True, False, True])
LARGE = np.array([True, True, True, False])


def checked(document, tmp_path):
    """The document as the report reads it, and laid out."""
    read = explorer.read(files.write_json(tmp_path / "explorer.json", document))
    assert explorer.chart(read).line
    return read


def test_a_threshold_by_hand(tmp_path):
    costs = np.array([1.0, 2.0, 3.0, 4.0])
    found = threshold.explorer(SURE, SMALL, LARGE, measure="perplexity", cost=costs)
    found = checked(found, tmp_path)
    levels = np.array(found["slider"]["values"])
    assert found["slider"]["label"] == "Threshold on perplexity"
    assert (levels[0], levels[-1]) == (0.1, 0.9)
    accuracy, sent, cost, wrong = (np.array(r["values"]) for r in found["readouts"])
    # Nothing is sent on: the small model's own accuracy and errors.
    assert [each[0] for each in (accuracy, sent, cost, wrong)] == [50, 0, 0, 50]
    # All but the surest: the large model is right in all of them.
    assert [each[-1] for each in (accuracy, sent, cost, wrong)] == [100, 75, 60, 0]
    middle = np.flatnonzero((levels > 0.2) & (levels <= 0.6))
    assert set(sent[middle]) == {50} and set(cost[middle]) == {30}
    assert set(accuracy[middle]) == {75} and set(wrong[middle]) == {50}


def test_equal_confidences_leave_nothing_to_choose():
    assert threshold.explorer(np.ones(4), SMALL, LARGE, measure="") is None


def line(branch, accuracy, tokens):
    return summary.Line(branch, np.array(accuracy), np.array(tokens), np.ones(2))


def test_a_budget_takes_the_best_within_it(tmp_path):
    points = {
        summary.BASE: line("base", [0.5, 0.7], [100.0, 120.0]),
        "cap 32": line("controls:caps", [0.4, 0.4], [30.0, 34.0]),
        "worse": line("prompts:terse", [0.3, 0.3], [50.0, 50.0]),
        "vote of 5": line("votes", [0.8, 0.9], [500.0, 600.0]),
    }
    report = summary.Report(PRESETS["smoke"], points)
    found = checked(budget.explorer(report), tmp_path)
    assert found["slider"]["names"] == ["cap 32", summary.BASE, "vote of 5"]
    assert found["slider"]["values"] == [32, 110, 550]
    accuracy, tokens, _ = found["readouts"]
    assert accuracy["values"] == pytest.approx([40, 60, 85])
    assert accuracy["low"] == pytest.approx([40, 50, 80])
    assert tokens["high"] == [34, 120, 600]
    assert len(found["references"]) == 4
    del points["cap 32"], points["vote of 5"], points["worse"]
    assert budget.explorer(report) is None
    found["slider"]["names"].pop()
    path = files.write_json(tmp_path / "explorer.json", found)
    with pytest.raises(ValueError, match=r"slider\.names: expected 3 names"):
        explorer.read(path)
