"""Test the core under 64 bits, NaN checks and strict promotion of dtypes and ranks."""

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parent / "programs" / "jax_modes.py"


def test_the_core_works_in_every_mode(devices):
    """In a process of its own, where no other test has compiled anything."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        env=devices(),
    )
    lines = done.stdout.splitlines()
    works = {line.removesuffix(" ok") for line in lines if line.endswith(" ok")}
    failed = {line.removesuffix(" failed:") for line in lines if "failed:" in line}
    assert not failed, done.stdout
    assert len(works) == 16
