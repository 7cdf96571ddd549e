"""Damaged files of every format: refused by name, or read rightly."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "programs" / "mutate.py"
CASES = 10_000 if os.environ.get("JEFF_EXAMPLES") == "long" else 500


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_no_damage_goes_unnamed() -> None:
    for package in ("anndata", "gguf", "openai", "tokenizers"):
        pytest.importorskip(package)
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--cases", str(CASES)],
        check=False,
        capture_output=True,
        text=True,
        cwd=PROGRAM.parent,
    )
    # The program prints each case that is none of "same", "other" and "refused".
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
    total = done.stdout.strip().splitlines()[-1].split("|")
    assert total[1:3] == [" all ", f" {CASES} "]
    # Most damage must be noticed, or nothing was damaged.
    assert int(total[5]) > CASES / 2
