"""Test the routing script: your own logs, recorded answers, and a simulated grid."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from configs.routing import PRESETS, Config
from jeff import assets
from train_scripts.routing import mirage
from train_scripts.routing import run as routing
from train_scripts.running import results

ROOT = Path(__file__).parents[2]


@pytest.fixture
def logs(tmp_path):
    """600 queries of two sets: sure answers are right, the large model mostly."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(600):
        sure = float(rng.random())
        rows.append(
            {
                "confidence": sure,
                "small_correct": bool(rng.random() > (1 - sure) ** 2),
                "large_correct": bool(rng.random() < 0.95),
                "cost": 0.01,
                "dataset": "ab"[number % 2],
            }
        )
    path = tmp_path / "logs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_logs_of_one_s_own(logs, tmp_path, capsys) -> None:
    config = Config(data=str(logs), bootstrap=50)
    result = routing.run(config, tmp_path / "run", preset="file")
    assert results.read(tmp_path / "run" / "result.json") == result
    table = (tmp_path / "run" / "table.md").read_text()
    assert table.strip() in capsys.readouterr().out
    for words in (
        "600 queries",
        "| 0% |",
        "| 100% |",
        "| a | 300 |",
        "wrong at most 10%",
    ):
        assert words in table
    files = sorted(path.name for path in (tmp_path / "run").glob("*.png"))
    assert files == ["01_routing.png", "02_cost.png", "03_confidence.png"]
    routers = json.loads((tmp_path / "run" / "router.json").read_text())
    assert set(routers) == {"match", "half_cost", "guaranteed"}
    assert routers["guaranteed"]["max_error"] == 0.1
    assert 0 < routers["match"]["rate"] < 1
    assert result.metrics["all_large_cost"] == pytest.approx(0.01)


def test_scores_and_no_costs(logs, tmp_path) -> None:
    """Correctness may be a score; then nothing that counts right answers is told."""
    rows = [json.loads(line) for line in logs.read_text().splitlines()]
    for row in rows:
        del row["cost"], row["dataset"]
        row["small_correct"] = 0.7 * row["small_correct"] + 0.1
    logs.write_text("\n".join(map(json.dumps, rows)))
    result = routing.run(
        Config(data=str(logs), bootstrap=20), tmp_path / "run", progress=False
    )
    assert "alignment" not in result.metrics
    assert "large calls a query" in (tmp_path / "run" / "table.md").read_text()
    assert "guaranteed" not in json.loads(
        (tmp_path / "run" / "router.json").read_text()
    )


def test_where_nothing_is_proved(logs, tmp_path) -> None:
    config = Config(data=str(logs), bootstrap=20, max_error=0.001)
    routing.run(config, tmp_path / "run", progress=False)
    assert "No threshold is proved" in (tmp_path / "run" / "table.md").read_text()
    routers = json.loads((tmp_path / "run" / "router.json").read_text())
    assert routers["guaranteed"]["threshold"] == "inf"


def test_an_accuracy_that_is_out_of_reach(logs, tmp_path) -> None:
    with pytest.raises(ValueError, match="accuracy: expected one that routing reaches"):
        routing.run(Config(data=str(logs), accuracy=1.0), tmp_path / "run")


def test_the_command_takes_a_file(logs, tmp_path) -> None:
    """A preset need not be named, and an error is one line."""
    command = [sys.executable, "-m", "train_scripts.routing", "--data"]
    for file, code, words in ((logs, 0, "600 queries"), ("none.jsonl", 1, "error: ")):
        done = subprocess.run(
            [*command, str(file), "--bootstrap", "20"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == code, done.stderr
        assert words in done.stdout + done.stderr
        assert "running routing file in" in done.stdout
        assert "Traceback" not in done.stderr


def test_a_made_grid(tmp_path) -> None:
    config = dataclasses.replace(PRESETS["smoke"], parts=("simulated",))
    result = routing.run(config, tmp_path, progress=False)
    assert result.metrics["sweep_settings"] == 12
    assert result.claims[0].holds is None, "20 draws cannot tell 10% from less"
    assert result.metrics["guarantee_broken"] <= 0.1
    assert (tmp_path / "simulated_alignment.png").is_file()


def test_recorded_answers() -> None:
    """Five data sets; an answer without a letter is wrong and agrees with nothing."""
    try:
        assets.shared_file("routing_mirage/answers.csv")
    except FileNotFoundError as error:
        pytest.skip(f"routing_mirage is not here: {error}")
    sets = mirage.load_mirage()
    assert {name: len(s.small_correct) for name, s in sets.items()} == {
        "bioasq": 417,
        "medmcqa": 2900,
        "medqa": 550,
        "mmlu": 450,
        "pubmedqa": 347,
    }
    for each in sets.values():
        agree = each.confidence["agreement"]
        assert set(np.unique(agree)) == {0, 1}
        assert each.small_correct[agree == 1].mean() > each.small_correct.mean()
        assert each.confidence["agreement, words"].min() >= 0


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("parts", ("mmlu",), "parts: expected some of"),
        ("queries", 1, "queries: expected at least 2, got 1"),
        ("grid", (1, 2), "grid: expected four sizes"),
        ("max_error", 1.0, r"max_error: expected a share in \(0, 1\)"),
        ("accuracy", 2.0, "accuracy: expected a share, got 2.0"),
        ("share", 0.0, "share: expected a share above 0"),
    ],
)
def test_fields(field, value, message) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PRESETS["demo"], **{field: value})
