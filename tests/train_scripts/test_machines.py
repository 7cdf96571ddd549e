"""Test the options of the machine, and two real processes that share a run."""

import dataclasses
import importlib
import json
import math
import runpy
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jeff import sharding
from jeff_llm.anomaly import streaming
from jeff_llm.anomaly.detectors import knn
from jeff_llm.models import adapters, weights
from train_scripts import cli
from train_scripts.finetune import run as finetune
from train_scripts.running import machines
from train_scripts.running.options import Options, cluster, sizes, take

PROGRAM = Path(__file__).parents[1] / "programs" / "two_scripts.py"


@pytest.mark.parametrize(
    ("words", "options", "rest"),
    [
        (["run", "gre"], Options(), ["run", "gre"]),
        (["--mesh=data=8", "gre"], Options("data=8"), ["gre"]),
        (["--mesh", "data=-1,tensor=2"], Options("data=-1,tensor=2"), []),
        (["--distributed", "smoke"], Options("", "auto"), ["smoke"]),
        (["--distributed", "--seed"], Options("", "auto"), ["--seed"]),
        (["--distributed", "h:1,2,0"], Options("", "h:1,2,0"), []),
        (["--distributed=h:1,2,1", "a"], Options("", "h:1,2,1"), ["a"]),
    ],
)
def test_options_stand_anywhere(words: Any, options: Options, rest: Any) -> None:
    assert take(words) == (options, rest)


@pytest.mark.parametrize(
    "words",
    [
        ["--mesh"],
        ["--mesh", "8"],
        ["--mesh", "data=0"],
        ["--mesh", "data=2,data=2"],
        ["--mesh", "rows=2"],
        ["--mesh", "data=2", "--mesh", "data=4"],
        ["--distributed", "h:1,2,2"],
        ["--distributed", "h,2,1"],
        ["--distributed=2"],
    ],
)
def test_a_wrong_option_is_told(words: Any, capsys: Any) -> None:
    """At once, without JAX, and as a fault of the command line."""
    assert cli.main(["run", "gre", *words]) == 2
    assert f"error: {words[0].partition('=')[0]}: expected" in capsys.readouterr().err


def test_what_the_values_mean() -> None:
    assert sizes("tensor=2,data=-1") == {"tensor": 2, "data": -1}
    assert sizes("fsdp=2") == {"data": 1, "fsdp": 2}
    assert cluster("10.0.0.1:80,16,15") == ("10.0.0.1:80", 16, 15)


def test_a_mesh_that_does_not_fit(capsys: Any, tmp_path: Path) -> None:
    words = ["run", "gre", "smoke", "--runs", str(tmp_path), "--mesh", "data=64"]
    assert cli.main(words) == 1
    assert "product is the number of devices" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("dialogue", {"batch_size": 3}),
        ("gre", {"edits": 3, "protocols": ("independent",)}),
        ("reasoning", {"batch_size": 3}),
        ("selfref", {"batch_size": 3}),
    ],
)
def test_a_batch_that_does_not_divide_is_told_at_once(
    name: str, fields: dict[str, Any], monkeypatch: Any, tmp_path: Path
) -> None:
    """Before models are loaded, trained or asked, which may take an hour."""
    eight = np.array(jax.devices()[:1] * 8).reshape(8, 1, 1)
    mesh = jax.sharding.Mesh(eight, ("data", "fsdp", "tensor"))
    monkeypatch.setattr(machines._MACHINE, "mesh", mesh)
    presets = importlib.import_module(f"configs.{name}").PRESETS
    config = dataclasses.replace(presets["smoke"], **fields)
    run = importlib.import_module(f"train_scripts.{name}.run").run
    with pytest.raises(
        ValueError, match=f"{next(iter(fields))}: expected a multiple of 8"
    ):
        run(config, tmp_path, progress=False)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("rows", "split"), [(8, True), (16, True), (12, False)])
def test_a_batch_of_a_fixed_size_may_stay_whole(rows: int, split: bool) -> None:
    eight = np.array(jax.devices()[:1] * 8).reshape(8, 1, 1)
    mesh = jax.sharding.Mesh(eight, ("data", "fsdp", "tensor"))
    assert (sharding.batches_of(rows, mesh, whole=True) is not None) == split


def test_commands_without_devices_take_no_mesh(capsys: Any) -> None:
    assert cli.main(["list", "--mesh", "data=2"]) == 2
    assert "--mesh" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_share_a_run(
    tmp_path: Path, two_processes: Any, tiny_chat_model: Path
) -> None:
    """Seeds, rows, texts, patients and a training; numbers are those of one."""
    program = runpy.run_path(str(PROGRAM))
    people = _people(tmp_path / "people.csv")
    data = tmp_path / "data.jsonl"
    rows = [{"prompt": f"say {c}", "answer": f"{c} {c}"} for c in ["red", "two"] * 30]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    outputs = two_processes(PROGRAM, tmp_path, tiny_chat_model)
    first, second = (json.loads(output.splitlines()[-1]) for output in outputs)

    assert (first["status"], second["status"]) == (0, 0)
    (folder,) = (tmp_path / "runs" / "yodo").iterdir()
    assert (folder / "seed1" / "trained.npz").is_file()
    alone = tmp_path / "alone"
    assert cli.main([*program["YODO"], str(people), "--runs", str(alone)]) == 0
    (single,) = (alone / "yodo").iterdir()
    assert _metrics(folder) == pytest.approx(_metrics(single), abs=1e-4)

    _check_rows(first, second)
    normal, new = np.split(program["texts"](), 2)
    scores = streaming.score_blocks(knn(normal), new)
    for seen in (first, second):
        np.testing.assert_allclose(seen["texts"], scores, rtol=1e-5)
    if first["patients"] is not None:
        assert second["patients"].startswith("Done")
        here = program["patients"](tmp_path / "here")
        for name, found in here.items():
            np.testing.assert_allclose(first["patients"][name], found, rtol=1e-5)
    _check_training(program, tmp_path, tiny_chat_model, (first, second))
    if first["patients"] is None:
        pytest.skip("all but the patients passed: HPO is not on this machine")


def _people(path: Path) -> Path:
    """A table of 400 made people with a group and an outcome."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, 2, 400)
    features = rng.normal(size=(400, 5))
    features[:, 0] += group
    outcome = features[:, 0] + rng.normal(size=400) > 0.5
    table = np.column_stack([features, group, outcome])
    np.savetxt(path, table, "%.6g", ",", header="a,b,c,d,e,s,y", comments="")
    return path


def _check_rows(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Each group is measured by one process; a failure ends both, and is told."""
    assert first["rows 1"] == "ValueError: row 1 is bad"
    assert second["rows 1"] == "OtherProcessError: process 0 failed: row 1 is bad"
    assert first["rows 4"] == "OtherProcessError: process 1 failed: row 4 is bad"
    assert second["rows 4"] == "ValueError: row 4 is bad"
    found = first["rows -1"]
    assert [(row["step"], row["square"], row["by"]) for row in found] == [
        (1, 0, 0),
        (2, 1, 0),
        (3, 4, 0),
        (4, 9, 1),
        (5, 16, 1),
    ]
    assert all(math.isnan(row["nan"]) for row in found)
    assert second["rows -1"].startswith("Done: process 1 of 2")


def _check_training(
    program: dict[str, Any], folder: Path, model: Path, seen: Any
) -> None:
    config = program["fine_tuning"](folder, str(model))
    single = dataclasses.replace(config, workdir=str(folder / "single"))
    here = finetune.run(single, progress=False)
    for each in seen:
        assert each["tuned"]["train_loss"] == pytest.approx(here.train_loss, rel=1e-4)
    base = weights.load(model)
    for path in ("tuned", "single"):
        assert (folder / path / "summary.json").is_file()
    both = [
        adapters.merged(base, folder / path / "adapters").params
        for path in ("tuned", "single")
    ]
    merged = weights.load(folder / "tuned" / "merged").params
    for tree in (both[1], merged):
        for one, other in zip(
            jax.tree.leaves(both[0]), jax.tree.leaves(tree), strict=True
        ):
            np.testing.assert_allclose(one, other, atol=2e-4)


def _metrics(folder: Path) -> dict[str, float]:
    """Of a run's result, those that do not depend on its machine's speed."""
    found = json.loads((folder / "result.json").read_text())["metrics"]
    speeds = ("seconds", "speedup")
    return {n: v for n, v in found.items() if not n.startswith(speeds)}
