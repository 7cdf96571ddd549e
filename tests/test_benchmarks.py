"""Test the table of benchmarks, and that the page says what was measured."""

import importlib
import re
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


# Sizes at which a benchmark takes seconds; its checks of equal results stay.
SMALL = {
    "yodo": {
        "num_epochs": 1,
        "batch_size": 4096,
        "num_levels": 3,
        "num_people": 64,
        "repeats": 1,
        "num_seeds": 0,
        "cold": False,
    },
    "gre": {"edits": 2, "repeats": 1, "cold": False},
    "wds": {"sizes": (64,), "hashes": 4, "cells": 64, "numpy_cells": 64, "repeats": 1},
    "reasoning": {
        "questions": 2,
        "group_size": 2,
        "new_tokens": 8,
        "num_chunks": 1,
        "width": 16,
        "num_layers": 1,
        "repeats": 1,
    },
    "genes": {"patients": 4, "compared": 2, "singles": 1, "rounds": 1},
    "anomaly": {
        "train": 64,
        "queries": 32,
        "width": 8,
        "neighbors": (2, 3),
        "rounds": 1,
        "streamed": 0,
    },
    "checkpoint": {"megabytes": (1,), "leaves": 2, "repeats": 1},
    "routing": (4, 64),
    "reasoning_votes": (64, 8),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_still_runs(name, tmp_path, monkeypatch):
    """The peers' sides, too: nothing else calls them."""
    reason = program.runnable(name)
    if reason:
        pytest.skip(reason)
    module = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    sizes = SMALL[name]
    try:
        if isinstance(sizes, tuple):
            module.main(*sizes)
        else:
            module.main(module.Config(**sizes))
    except FileNotFoundError as error:
        if not re.search("not on this machine|JEFF_DATA", str(error)):
            raise
        pytest.skip(str(error))
    [(written, record)] = records.load(tmp_path)
    assert written == name and read(name, record)
