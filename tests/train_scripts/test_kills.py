"""Test that killed scripts end with the bits of a run that nobody disturbed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jeff import assets
from train_scripts.systems import SYSTEMS

PROGRAM = Path(__file__).parents[1] / "programs" / "kills.py"
LONG = os.environ.get("JEFF_EXAMPLES") == "long"


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SYSTEMS, "finetune", "endpoint"])
def test_a_killed_script(name, tmp_path):
    """Two kills at random moments. `test_main` kills a script in every suite."""
    if not LONG:
        pytest.skip("runs under JEFF_EXAMPLES=long")
    for asset in SYSTEMS[name].assets if name in SYSTEMS else ():
        if assets.status(asset) is None:
            pytest.skip(f"{asset} is not here")
    words = [str(tmp_path), "--systems", name, "--kills", "2"]
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *words],
        env=os.environ | {"PYTHONPATH": str(PROGRAM.parents[2])},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["code"] == 0, found["said"]
    assert found["kills"] >= 1
    assert found["resumed"] == found["starts"] - 1
    assert found["folders"] == 1
    for field in ("differ", "missing", "left"):
        assert found[field] == [], found
    assert found["asked_twice"] == 0
