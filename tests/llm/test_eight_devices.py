"""Test every package on eight forced CPU devices against one, in one process."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jeff import assets
from jeff_llm.models import weights
from jeff_llm.models.language_model import LanguageModel

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests" / "programs" / "eight_devices_server.py"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def check(devices: Any) -> Iterator[Callable[..., str]]:
    """``check(program, *arguments)``: its traceback, empty where it holds."""
    server = subprocess.Popen(
        [sys.executable, "-W", "error", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=devices(8),
    )

    def ask(*words: str | Path) -> str:
        server.stdin.write(json.dumps([str(word) for word in words]) + "\n")
        server.stdin.flush()
        answer = server.stdout.readline()
        assert answer, "the process has died"
        return json.loads(answer)

    yield ask
    server.communicate(timeout=60)
    assert server.returncode == 0


@pytest.fixture(scope="module")
def save(make_params: Callable[..., Any], tmp_path_factory: Any) -> Callable[..., Path]:
    """A tiny model of a configuration, in a folder."""

    def write(config: Any) -> Path:
        model = LanguageModel(config, make_params(config), None)
        return weights.save(model, tmp_path_factory.mktemp("tiny"))

    return write


def test_a_fault_is_told(check: Callable[..., str]) -> None:
    """A check that fails names its place, and the process goes on."""
    assert "KeyError: 'nothing'" in check("eight_devices.py", "nothing")


@pytest.mark.parametrize("name", ["meshes", "batches", "parameters", "gap"])
def test_meshes_and_placement(check: Callable[..., str], name: str) -> None:
    assert check("eight_devices.py", name) == ""


def test_a_training_run(check: Callable[..., str]) -> None:
    assert check("eight_devices.py", "training_run") == ""


def test_language_model_by_data_and_tensor(check: Any, save: Any, tiny_config: Any):
    """Parameters and heads in two parts, batch and cache in four more."""
    folder = save(dataclasses.replace(tiny_config, vocab_size=64))
    assert check("llm_eight_devices.py", folder, "4,1,2", "cache", "generation") == ""


def test_language_model_by_all_three_axes(check: Any, save: Any, tiny_config: Any):
    """Parameters in four parts, batch and cache too; a step of LoRA over them."""
    folder = save(dataclasses.replace(tiny_config, vocab_size=64))
    checks = ("logits", "cache", "scores", "lora_step")
    assert check("llm_eight_devices.py", folder, "2,2,2", *checks) == ""


def test_smollm2(check: Callable[..., str], smollm2_path: Path) -> None:
    """The real model over all three axes."""
    assert check("llm_eight_devices.py", smollm2_path, "2,2,2", "texts") == ""


def test_the_packed_cache(check: Any, save: Any, tiny_config: Any) -> None:
    """Batch and cache in four parts, heads in two; tokens are the same."""
    folder = save(dataclasses.replace(tiny_config, vocab_size=64, max_positions=512))
    assert check("kv_eight_devices.py", folder, "4,1,2") == ""


def test_rewiring_and_edits(check: Callable[..., str]) -> None:
    assert check("gre_eight_devices.py") == ""


def test_sketches_of_cells(check: Callable[..., str]) -> None:
    assert check("wds_many_devices.py") == ""


@pytest.mark.parametrize(
    ("name", "asset"), [("sentences", "minilm"), ("cells", ""), ("patients", "hpo")]
)
def test_what_takes_a_mesh(check: Callable[..., str], name: str, asset: str) -> None:
    """Sentences, trainings and maps of cells, and patients."""
    try:
        _ = asset and assets.find(asset)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert check("mesh_eight_devices.py", name) == ""


def test_a_step_of_reinforcement_learning(check: Callable[..., str]) -> None:
    """Sampling, rewards over groups and update, split by prompts."""
    assert check("grpo_eight_devices.py") == ""
