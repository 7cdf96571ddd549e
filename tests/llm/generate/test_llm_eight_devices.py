"""The language-model runtime on eight forced CPU devices, against one."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jeff_llm.models import weights
from jeff_llm.models.language_model import LanguageModel

ROOT = Path(__file__).parents[3]
PROGRAM = ROOT / "tests" / "programs" / "llm_eight_devices.py"

pytestmark = pytest.mark.slow


def run(*arguments: str | Path) -> None:
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", PROGRAM, *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def folder(
    tiny_config: Any, make_params: Callable[..., Any], tmp_path_factory: Any
) -> Path:
    """The tiny model, with a vocabulary that can be split."""
    config = dataclasses.replace(tiny_config, vocab_size=64)
    model = LanguageModel(config, make_params(config), None)
    return weights.save(model, tmp_path_factory.mktemp("tiny"))


def test_data_and_tensor(folder: Path) -> None:
    """Parameters and heads in two parts, batch and cache in four more."""
    run(folder, "4,1,2", "cache", "generation")


def test_all_three_axes(folder: Path) -> None:
    """Parameters in four parts, batch and cache too; a step of LoRA over them."""
    run(folder, "2,2,2", "logits", "cache", "scores", "lora_step")


def test_smollm2(smollm2_path: Path) -> None:
    """The real model over all three axes."""
    run(smollm2_path, "2,2,2", "texts")
