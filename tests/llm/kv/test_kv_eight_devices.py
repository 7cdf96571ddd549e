"""The quantised cache on eight forced CPU devices, against one."""

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
PROGRAM = ROOT / "tests" / "programs" / "kv_eight_devices.py"

pytestmark = pytest.mark.slow


def test_data_and_tensor(
    tiny_config: Any, make_params: Callable[..., Any], tmp_path: Path
) -> None:
    """Batch and cache in four parts, heads in two; tokens are the same."""
    config = dataclasses.replace(tiny_config, vocab_size=64, max_positions=512)
    model = LanguageModel(config, make_params(config), None)
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    }
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            PROGRAM,
            weights.save(model, tmp_path),
            "4,1,2",
        ],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
