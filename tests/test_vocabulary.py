"""Test that public names, configurations and commands use the same words."""

import ast
import dataclasses
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from train_scripts.systems import SYSTEMS

ROOT = Path(__file__).parents[1]
PACKAGES = ("jeff", "jeff_graph", "jeff_llm")
# What was called otherwise somewhere, and the word for it.
WORDS = {
    "epochs": "num_epochs",
    "n_epochs": "num_epochs",
    "dropout": "dropout_rate",
    "path": "data",
    "held_out": "holdout",
    "validation": "holdout",
    "lr": "learning_rate",
    "batch": "batch_size",
}
# A loop on the host has one of these; a pure training function has none.
HOST = {"workdir", "progress"}


def public_functions():
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.FunctionDef) and node.name[0] != "_":
                    yield path.relative_to(ROOT), node


def parameters(node):
    some = node.args
    return [p.arg for p in [*some.posonlyargs, *some.args, *some.kwonlyargs]]


def test_train_is_pure_and_fit_is_a_loop():
    """`train` trains as a pure function; whatever logs or writes is called `fit`."""
    trains, fits = [], []
    for path, node in public_functions():
        words = node.name.split("_")
        if words[0] == "train" and words[-1] != "step":
            trains.append(f"{path}:{node.name}")
            assert not HOST & set(parameters(node)), trains[-1]
        if words[0] == "fit":
            fits.append(f"{path}:{node.name}")
            assert HOST & set(parameters(node)), fits[-1]
    assert len(trains) >= 3 and len(fits) >= 5


def test_parameters_have_one_name():
    wrong = [
        f"{path}:{node.name}({name}): {WORDS[name]}"
        for path, node in public_functions()
        for name in parameters(node)
        if name in {"epochs", "n_epochs", "dropout", "held_out", "lr"}
    ]
    assert not wrong


@pytest.mark.parametrize("name", [*SYSTEMS, "finetune", "chat", "serve"])
def test_fields_of_a_configuration(name):
    config = importlib.import_module(f"configs.{name}").Config
    fields = {field.name for field in dataclasses.fields(config)}
    assert dataclasses.is_dataclass(config)
    assert not fields & set(WORDS), {field: WORDS[field] for field in fields & WORDS}
    if name not in ("chat", "serve"):
        assert "data" in fields
    source = inspect.getsource(config)
    for field in fields:
        above = source.split(f"\n    {field}:")[0].rstrip().splitlines()[-1]
        # A comment a field, or one over a group of neighbours.
        assert above.strip().startswith("#") or ":" in above, field


@pytest.mark.parametrize("name", SYSTEMS)
def test_presets_of_a_system(name):
    module = importlib.import_module(f"configs.{name}")
    assert {"demo", "smoke", "full", "paper", "file"} <= set(module.PRESETS)
    assert all(isinstance(each, module.Config) for each in module.PRESETS.values())


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_room_has_the_plan_of_all_rooms(name):
    """run, measure or parts, summary, claims, and three lines that start it."""
    room = ROOT / Path(*SYSTEMS[name].script.split("."))
    assert (room / "run.py").is_file()
    assert list(inspect.signature(_run_of(name)).parameters) == [
        "config",
        "workdir",
        "preset",
        "progress",
    ]
    statements = ast.parse((room / "__main__.py").read_text()).body[1:]
    assert len(statements) == 3, "two imports and a call"


def _run_of(name):
    return importlib.import_module(f"{SYSTEMS[name].script}.run").run


@pytest.mark.parametrize(
    "module",
    [
        "fairness",
        "confidence",
        "kv",
        "cells",
        "editing",
        "reasoning",
        "genes",
        "anomaly",
        "clinic",
    ],
)
def test_the_protocol_of_a_room_is_its_evaluation(module):
    (path,) = ROOT.glob(f"jeff*/{module}/evaluation.py")
    assert path.is_file()


def test_every_script_starts():
    """In one process: a module that printed nothing and exited with 0 was no script."""
    names = [system.script for system in SYSTEMS.values()]
    names += ["train_scripts.chat", "train_scripts.finetune", "train_scripts.serve"]
    names += ["train_scripts"]
    program = (
        "import runpy, sys\n"
        f"for name in {names!r}:\n"
        "    sys.argv = [name, '--help']\n"
        "    try:\n        runpy.run_module(name, run_name='__main__')\n"
        "    except SystemExit as stop:\n        assert not stop.code, name\n"
        "    else:\n        raise AssertionError(name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage:") == len(names)
