"""Test the table of benchmarks, and that the page says what was measured."""

import importlib
from pathlib import Path

import pytest

from benchmarks import __main__ as program
from benchmarks import page, records
from benchmarks.comparisons import Comparison, decide, outcome, table
from benchmarks.readings import READINGS, read

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("ratios", "goal", "said"),
    [
        ((2.1, 2.0, 3.0), 2.0, "met"),
        ((1.9, 1.5), 2.0, "not met"),
        ((1.9, 2.1), 2.0, "too small to tell"),
        ((2.5,), 2.0, "too small to tell"),
        ((4.0,), 2.0, "met"),
        ((0.9,), 2.0, "not met"),
        ((1.0, 5.0), None, ""),
    ],
)
def test_a_goal_is_decided_by_all_repetitions(ratios, goal, said):
    each = Comparison("a step", "a peer", ratios, goal)
    assert outcome(each) == said
    assert decide(each) == {"met": True, "not met": False}.get(said)


def test_a_row_of_the_table():
    each = Comparison("a step", "a peer", (2.0, 4.0, 3.0), 2.0, 0.5)
    title, *_, row = table([("yodo", "cpu x2", [each])]).splitlines()
    assert title == "## cpu x2"
    assert row == "| yodo | a step | a peer | 3.00 | 2.00 to 4.00 | 2.00 | met | 50% |"


def test_every_record_can_be_read():
    found = records.load()
    assert {"yodo", "gre", "wds", "kv", "kv_gpu", "decoder"} <= {n for n, _ in found}
    for name, record in found:
        for each in read(name, record):
            assert min(each.ratios) > 0
            assert each.floor is None or 0 < each.floor <= 1


def test_every_benchmark_has_a_reading_and_says_what_it_needs():
    modules = {
        path.stem
        for path in (ROOT / "benchmarks").glob("*.py")
        if "records.write(" in path.read_text()
    }
    assert modules == set(READINGS) == set(program.NEEDS)
    with pytest.raises(ValueError, match="name: expected one of"):
        read("nothing", {})


def test_the_page_says_what_the_records_say():
    found = [(name, r["device"], read(name, r)) for name, r in records.load()]
    written = (ROOT / "docs" / "results" / "benchmarks.md").read_text()
    assert written == page.text(found)


def test_what_cannot_run_is_named(monkeypatch, capsys):
    monkeypatch.setitem(program.NEEDS, "yodo", ("no_such_package",))
    monkeypatch.setattr(program.records, "load", lambda: [])
    assert program.main(program.Config(only=("yodo",))) == 0
    said = capsys.readouterr().out
    assert "yodo: not in the table: needs no_such_package" in said
    with pytest.raises(ValueError, match="only: expected some of"):
        program.Config(only=("nothing",))


def test_a_benchmark_that_fails_is_told(monkeypatch, capsys):
    monkeypatch.setattr(program, "NEEDS", {"yodo": ()})
    monkeypatch.setattr(program.sys, "executable", "false")
    monkeypatch.setattr(program.records, "load", lambda: [])
    assert program.main(program.Config()) == 1
    assert "yodo: not in the table: ended with status 1" in capsys.readouterr().out


def test_records_name_their_command():
    for name, record in records.load():
        module = importlib.util.find_spec(f"benchmarks.{name}")
        assert module is not None and record["command"].startswith("python -m ")
