"""Test what plots draw."""

import numpy as np
import pytest

from train_scripts.running import plots


@pytest.mark.parametrize("points", [1, 3])
def test_a_mean_is_seen_at_one_position_too(points: int) -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure()
    axes = figure.subplots()
    runs = np.arange(2.0 * points).reshape(2, points)
    for name in ("one", "other"):
        plots.band(axes, np.arange(1.0, points + 1), runs, name, "#000000")
    lines = [line for line in axes.lines if line.get_marker() == "o"]
    assert len(lines) == (2 if points == 1 else 0)
    assert len({line.get_xdata()[0] for line in lines}) == len(lines)
    assert len(axes.collections) == 2, "a range a line"
