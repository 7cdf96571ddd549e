"""Test meshes and placement, on one device and in two real processes."""

import json
import runpy
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff import sharding
from jeff.fairness import gaps

PROGRAMS = Path(__file__).parent / "programs"


def test_one_device() -> None:
    """The same code runs on one device."""
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    batch = {"x": np.arange(3.0)}
    np.testing.assert_array_equal(sharding.shard_batch(batch, mesh)["x"], batch["x"])
    assert sharding.replicate(jnp.ones(2), mesh).sharding.mesh == mesh


@pytest.mark.slow
def test_two_processes(tmp_path: Path, two_processes: Any) -> None:
    """Two processes with half a batch each see the gap of the whole batch."""
    program = runpy.run_path(str(PROGRAMS / "two_hosts.py"))
    batch, train = program["batch"], program["train"]
    workdir = tmp_path / "run"
    train(batch(), None, str(tmp_path / "handed here"), (10,))
    outputs = two_processes("two_hosts.py", workdir)
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
