"""Test row-by-row measurement: immediate logging, no repetition, interruptions."""

import json

import pytest

from train_scripts.running.rows import measure_rows


def measured_of(seen, stop_at=None):
    def measure(item):
        seen.append(item)
        if item == stop_at and seen.count(item) == 1:
            raise KeyboardInterrupt
        return {"square": item**2, "loss": 1.0 / item}

    return measure


@pytest.mark.parametrize("stop_at", [1, 2, 4])
def test_what_was_measured_before_a_break_is_not_measured_again(tmp_path, stop_at):
    items, whole, seen = [1, 2, 3, 4], [], []
    expected = measure_rows(tmp_path / "whole", items, measured_of(whole))
    assert expected[1] == {"step": 2, "square": 4, "loss": 0.5}
    measure = measured_of(seen, stop_at)
    with pytest.raises(KeyboardInterrupt):
        measure_rows(tmp_path / "broken", items, measure)
    assert measure_rows(tmp_path / "broken", items, measure) == expected
    assert seen == [*items[:stop_at], *items[stop_at - 1 :]]
    logs = [
        (tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "broken")
    ]
    assert logs[0] == logs[1]
    assert [json.loads(row)["step"] for row in logs[0].splitlines()] == [1, 2, 3, 4]


def test_a_finished_table_measures_nothing(tmp_path):
    seen = []
    rows = measure_rows(tmp_path, [1, 2], measured_of(seen))
    assert measure_rows(tmp_path, [1, 2], measured_of(seen)) == rows
    assert seen == [1, 2]


def test_the_bar_shows_the_number_it_is_told(tmp_path, capsys):
    measure_rows(
        tmp_path, [3], measured_of([]), progress=True, title="rows", shown="square"
    )
    shown = capsys.readouterr().err
    assert "rows" in shown and "square 9.0000" in shown


def test_a_row_cut_short_is_measured_again(tmp_path):
    whole = measure_rows(tmp_path, [1, 2, 3], measured_of([]))
    log = tmp_path / "metrics.jsonl"
    log.write_bytes(log.read_bytes()[:-9])
    seen = []
    assert measure_rows(tmp_path, [1, 2, 3], measured_of(seen)) == whole
    assert seen == [3]


def test_a_damaged_row_is_named_and_nothing_is_lost(tmp_path):
    measure_rows(tmp_path, [1, 2, 3], measured_of([]))
    log = tmp_path / "metrics.jsonl"
    damaged = log.read_bytes().replace(b'{"step": 2', b'{"stop": 2')
    log.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"metrics\.jsonl:2: .*delete the lines"):
        measure_rows(tmp_path, [1, 2, 3], measured_of([]))
    assert log.read_bytes() == damaged
