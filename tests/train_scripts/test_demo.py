"""Test how all systems run: in turn, side by side, and past those that fail."""

import sys

import pytest

from train_scripts import cli, demo
from train_scripts.cli import main
from train_scripts.running import launch
from train_scripts.systems import SYSTEMS

# What a process does, by the name of its system.
PROGRAMS = {
    "well": "print('all is well')",
    "told": "import sys; print('half'); sys.exit('warned\\nerror: no room\\nleft')",
    "bug": "{}['key']",
    "silent": "raise SystemExit(3)",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
}
# Each of two waits until the other has begun.
MEETING = """
import pathlib, sys, time
mine, other = map(pathlib.Path, sys.argv[1:])
mine.touch()
until = time.monotonic() + 60
while not other.exists():
    if time.monotonic() > until:
        sys.exit("error: alone")
    time.sleep(0.01)
"""


def run(here=(), beside=(), *, execute=None, command=None, at_once=2, tell=None):
    return demo.run_all(
        here,
        beside,
        execute=execute or (lambda name: None),
        command=command or (lambda name: [sys.executable, "-c", PROGRAMS[name]]),
        tell=tell or (lambda left, failed: None),
        at_once=at_once,
    )


def test_processes_that_fail_stop_no_other(capfd):
    told = []
    failed = run(
        beside=list(PROGRAMS), tell=lambda left, bad: told.append((len(left), len(bad)))
    )
    assert set(failed) == set(PROGRAMS) - {"well"}
    assert failed["told"] == "no room\nleft"
    assert failed["bug"] == "KeyError: 'key'"
    assert failed["silent"] == "ended with status 3"
    assert "ended by SIGKILL" in failed["killed"] and "--at-once 1" in failed["killed"]
    assert [left for left, _ in told] == [5, 4, 3, 2, 1, 0] and told[-1][1] == 4
    shown = capfd.readouterr()
    assert "all is well\n" in shown.out and "half\n" in shown.out
    assert "warned\n" in shown.err and "error: told: no room\nleft\n" in shown.err


def test_two_run_at_once(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    pairs = {"one": (first, second), "two": (second, first)}

    def command(name):
        return [sys.executable, "-c", MEETING, *map(str, pairs[name])]

    assert run(beside=["one", "two"], command=command) == {}


def test_those_of_this_process_come_first_and_alone(capfd):
    ran = []

    def execute(name):
        ran.append(name)
        if name == "b":
            raise ValueError("too few people")
        if name == "c":
            raise KeyError("bug")

    def command(name):
        ran.append(name)
        return [sys.executable, "-c", ""]

    failed = run("abc", ["d", "e"], execute=execute, command=command)
    assert ran == ["a", "b", "c", "d", "e"]
    assert failed == {"b": "too few people", "c": "'bug'"}
    # Only what is no message to a user comes with a traceback.
    assert capfd.readouterr().err.count("Traceback") == 1


def test_an_interrupt_ends_the_processes():
    def tell(left, failed):
        if len(left) == 1:
            raise KeyboardInterrupt

    def command(name):
        return [sys.executable, "-c", f"import time; time.sleep({int(name) * 1000})"]

    with pytest.raises(KeyboardInterrupt):
        run(beside=["0", "1"], command=command, tell=tell)


def test_demo_goes_on_after_a_failure(monkeypatch, capsys, tmp_path):
    """Every system runs; the report is told after each; the status says it."""
    ran, told = [], []

    def execute(name, preset, config, words, runs):
        ran.append((name, preset))
        if name == "kv":
            raise ValueError("kv: no memory")

    def report(runs, *, running=(), failed):
        told.append((len(running), dict(failed)))
        return runs / "report.html"

    monkeypatch.setattr(launch, "execute", execute)
    monkeypatch.setattr(cli, "_report", report)
    words = ["demo", "smoke", "--at-once", "1", "--runs", str(tmp_path)]
    assert main(words) == 1
    assert ran == [(name, "smoke") for name in SYSTEMS]
    assert [count for count, _ in told] == [*range(len(SYSTEMS), -1, -1)]
    assert told[-1][1] == {"kv": "kv: no memory"} and told[3][1] == {}
    shown = capsys.readouterr()
    assert "error: kv: kv: no memory" in shown.err and "report.html" in shown.out


def test_what_measures_time_runs_alone(monkeypatch, capsys, tmp_path):
    """But in a smoke preset, whose times say nothing."""
    here, beside = [], []

    def command(name, preset, runs):
        beside.append(name)
        assert preset in ("demo", "smoke") and runs == tmp_path
        return [sys.executable, "-c", ""]

    monkeypatch.setattr(launch, "execute", lambda name, *rest: here.append(name))
    monkeypatch.setattr(launch, "words_of", command)
    monkeypatch.setattr(cli, "_report", lambda runs, **options: runs)
    assert main(["demo", "--at-once", "2", "--runs", str(tmp_path)]) == 0
    assert here == ["yodo", "gre"] and len(beside) == len(SYSTEMS) - 2
    assert main(["demo", "smoke", "--at-once", "2", "--runs", str(tmp_path)]) == 0
    assert here == ["yodo", "gre"] and len(beside) == 2 * len(SYSTEMS) - 2


def test_words_of_a_process(tmp_path):
    words = launch.words_of("kv", "smoke", tmp_path)
    assert words[:3] == [sys.executable, "-m", "train_scripts"]
    command, fields = cli._parse(words[3:])
    assert command == cli.Run("kv", "smoke", tmp_path) and fields == []


def test_count_of_systems_at_once(capsys, monkeypatch):
    assert main(["demo", "--at-once", "-1"]) == 2
    assert "at_once: expected at least 0, got -1" in "".join(capsys.readouterr())
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    assert demo.side_by_side() == 1
    monkeypatch.setattr("jax.default_backend", lambda: "cpu")
    for cores, count in ((1, 1), (2, 2), (64, 2)):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        assert demo.side_by_side() == count
