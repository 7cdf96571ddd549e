"""Test that counts over two processes equal those on one device."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def start(*arguments: str, environment: dict[str, str]) -> subprocess.Popen:
    program = ROOT / "tests" / "programs" / "wds_many_devices.py"
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(program), *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


@pytest.mark.slow
def test_two_processes_count_the_same(devices) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    programs = [start(str(number), port, environment=devices(2)) for number in range(2)]
    for program in programs:
        _, errors = program.communicate(timeout=240)
        assert program.returncode == 0, errors[-3000:]
