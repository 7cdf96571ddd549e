"""Test meshes and placement, on one device and in two real processes."""

import json
import runpy
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff import sharding
from jeff.fairness import gaps

PROGRAMS = Path(__file__).parent / "programs"


def start(
    program: str, *arguments: str, environment: dict[str, str]
) -> subprocess.Popen[str]:
    """Start a program in an environment."""
    return subprocess.Popen(
        [sys.executable, str(PROGRAMS / program), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port() -> str:
    """A port of loopback that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def finish(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Outputs of processes that must all end well; none is left behind."""
    try:
        ends = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, ends, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [output for output, _ in ends]


def test_one_device() -> None:
    """The same code runs on one device."""
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    batch = {"x": np.arange(3.0)}
    np.testing.assert_array_equal(sharding.shard_batch(batch, mesh)["x"], batch["x"])
    assert sharding.replicate(jnp.ones(2), mesh).sharding.mesh == mesh


@pytest.mark.slow
def test_two_processes(tmp_path: Path, devices: Any) -> None:
    """Two processes with half a batch each see the gap of the whole batch."""
    program = runpy.run_path(str(PROGRAMS / "two_hosts.py"))
    batch, train = program["batch"], program["train"]
    workdir = tmp_path / "run"
    train(batch(), None, str(tmp_path / "handed here"), (10,))
    outputs = finish(
        [
            start("two_hosts.py", str(i), port, str(workdir), environment=devices(2))
            for port in [free_port()]
            for i in range(2)
        ]
    )
    first, second = (json.loads(output.splitlines()[-1]) for output in outputs)

    prob, group = (jnp.asarray(batch()[name]) for name in ("prob", "group"))
    whole, slope = jax.value_and_grad(gaps.demographic_parity_gap)(prob, group)
    for seen in (first, second):
        assert (seen["devices"], seen["rows"]) == (4, 64)
        np.testing.assert_allclose(seen["jit"], whole, rtol=1e-6)
        np.testing.assert_allclose(seen["shard_map"], whole, rtol=1e-6)
        np.testing.assert_allclose(seen["gradient"], slope, rtol=1e-6)
        assert seen["product"] == sum(i * i for i in range(8))
        assert seen["shard"] == [2, 2]
        # Split over both processes, a changed leaf is noticed by each.
        assert seen["checkpoint"] == ["28.0", "the numbers of the leaf w changed"]
        assert seen["trained"] == pytest.approx(first["alone"], rel=1e-5)
        assert seen["taken over"] == pytest.approx(first["alone"], rel=1e-5)
    # The first may keep checkpoints of its own, which orbax writes for no other.
    assert "refused" not in first
    assert "some of process 1 alone" in second["refused"]
    here = train(batch(), None, str(tmp_path / "handed over"), (20,))
    assert here == pytest.approx(first["alone"], rel=1e-5)
    log = (workdir / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(row)["step"] for row in log]
    assert steps == [5, 10, 15, 20]
    # The mean of the halves' own gaps is another number: the joining did something.
    assert abs((first["local"] + second["local"]) / 2 - whole) > 0.01
