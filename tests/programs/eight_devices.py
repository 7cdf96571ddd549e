"""Check sharding and training on eight devices; failures are assertions.

Run with ``XLA_FLAGS=--xla_force_host_platform_device_count=8`` and the name of a check.
"""

import re
import tempfile
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from jeff import sharding, training
from jeff.fairness import gaps, yodo


def refuses(message: str, call, *args, **kwargs) -> None:
    """Assert that a call raises ValueError whose text has all the words of message."""
    words = "".join(f"(?=.*{re.escape(word)})" for word in message.split())
    with pytest.raises(ValueError, match=f"(?s)^{words}"):
        call(*args, **kwargs)


def meshes() -> None:
    """Sizes are filled in; sizes that do not fit are refused."""
    shape = {"data": 2, "fsdp": 2, "tensor": 2}
    assert dict(sharding.make_mesh(fsdp=2, tensor=2).shape) == shape
    assert dict(sharding.make_mesh(2, 2, -1).shape) == shape
    assert sharding.make_mesh().shape["data"] == 8
    half = sharding.make_mesh(devices=jax.devices()[:4])
    assert half.shape["data"] == half.size == 4
    refuses("product 8 data=3", sharding.make_mesh, 3)
    refuses("product 8 fsdp=3", sharding.make_mesh, fsdp=3)
    refuses("product 8 fsdp=16", sharding.make_mesh, fsdp=16)
    refuses("-1 data fsdp", sharding.make_mesh, fsdp=-1)
    refuses("tensor positive 0", sharding.make_mesh, tensor=0)


def batches() -> None:
    """Rows are split over data x fsdp and whole along tensor."""
    mesh = sharding.make_mesh(fsdp=2, tensor=2)
    batch = {"x": np.arange(24.0).reshape(8, 3), "y": {"label": np.arange(8)}}
    placed = sharding.shard_batch(batch, mesh)
    np.testing.assert_array_equal(placed["x"], batch["x"])
    assert {s.data.shape for s in placed["x"].addressable_shards} == {(2, 3)}
    assert placed["y"]["label"].sharding == sharding.batch_sharding(mesh)
    batch["y"]["label"] = np.arange(6)
    refuses("y/label multiple 4 (6,)", sharding.shard_batch, batch, mesh)
    refuses("x () multiple", sharding.shard_batch, {"x": np.array(1.0)}, mesh)


def parameters() -> None:
    """The first rule that matches decides, everything else is copied."""
    mesh = sharding.make_mesh(fsdp=2, tensor=2)
    params = {
        "embed": {"table": np.ones((6, 4))},
        "layers": [{"kernel": np.ones((4, 6)), "bias": np.ones(6)}] * 2,
    }
    rules = [
        ("layers/1/kernel", P(None, ("fsdp", "tensor"))),
        ("kernel$", P("fsdp", "tensor")),
        ("table", P("fsdp")),
        ("embed", P("tensor")),
    ]
    chosen = sharding.specs(params, rules)
    assert chosen["embed"]["table"] == P("fsdp")
    assert chosen["layers"][0] == {"kernel": P("fsdp", "tensor"), "bias": P()}
    assert chosen["layers"][1]["kernel"] == P(None, ("fsdp", "tensor"))
    refuses(
        "layers/1/kernel dimension 1 multiple 4 6",
        sharding.shard_params,
        params,
        mesh,
        rules,
    )
    placed = sharding.shard_params(params, mesh, rules[1:])
    kernel = placed["layers"][1]["kernel"]
    assert kernel.addressable_data(0).shape == (2, 3)
    np.testing.assert_array_equal(kernel, params["layers"][1]["kernel"])
    assert placed["layers"][0]["bias"].sharding.is_fully_replicated
    refuses(
        "bias 'model' axes", sharding.shard_params, params, mesh, [("bias", P("model"))]
    )
    refuses("bias most 1 (6,)", sharding.specs, params, [("bias", P(None, "fsdp"))])
    copied = sharding.replicate(params, mesh)
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(copied))
    assert (
        len(kernel.sharding.device_set) == len(copied["embed"]["table"].devices()) == 8
    )


def gap() -> None:
    """Every gap over sharded rows, by jit and by shard_map, is that of one device."""
    mesh = sharding.make_mesh(fsdp=2)
    rng = np.random.default_rng(0)
    prob = (rng.integers(0, 65, 80) / 64).astype(np.float32)
    group, label = rng.random(80) < np.linspace(0, 1, 80), rng.random(80) < 0.5
    data = sharding.shard_batch((prob, group, label), mesh)
    axes = ("data", "fsdp")
    for metric in (
        gaps.equal_opportunity_gap,
        gaps.equalized_odds_gap,
        lambda p, s, y, **k: gaps.demographic_parity_gap(p, s, **k),
        lambda p, s, y, **k: gaps.p_rule(p, s, **k),
        gaps.group_rates,
    ):
        whole = metric(*map(jnp.asarray, (prob, group, label)))
        mapped = jax.shard_map(
            partial(metric, axis_name=axes), mesh=mesh, in_specs=P(axes), out_specs=P()
        )
        np.testing.assert_array_equal(jax.jit(mapped)(*data), whole)
        np.testing.assert_array_equal(jax.jit(metric)(*data), whole)
        slope = jax.grad(lambda p: metric(p, *data[1:]).sum())(data[0])  # noqa: B023
        parts = jax.jit(jax.grad(lambda p: mapped(p, *data[1:]).sum()))(data[0])  # noqa: B023
        np.testing.assert_allclose(parts, slope, rtol=1e-6)


def linear(params, x, key=None):
    """Logits of a linear model."""
    return x @ params["w"]


def training_run() -> None:
    """A line trained over a mesh is that of one device; so is one that was resumed."""
    mesh = sharding.make_mesh(fsdp=2)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(320, 6)).astype(np.float32)
    group = (rng.random(320) < 0.5).astype(np.int32)
    label = (x[:, 0] + group > 0.5).astype(np.int32)
    people = yodo.Examples(*map(jnp.asarray, (x, label, group)))
    line = yodo.Line({"w": jnp.ones(6)}, {"w": -jnp.ones(6)})
    optimizer = optax.adam(0.05)
    step = yodo.train_step(linear, optimizer)
    key = jax.random.key(0)
    state = training.init_state(line, optimizer, key=key)
    options = {"num_steps": 30, "progress": False}
    alone = training.fit(step, state, training.Shuffled(people, 32, key), **options)

    spread = {**options, "batch_sharding": sharding.batch_sharding(mesh)}
    start = sharding.replicate(state, mesh)
    batches = training.Shuffled(sharding.replicate(people, mesh), 32, key)
    with tempfile.TemporaryDirectory() as folder:
        training.fit(
            step, start, batches, **{**spread, "num_steps": 20}, workdir=folder
        )
        together = training.fit(step, start, batches, **spread, workdir=folder)
    weights = together.state.params.end["w"]
    assert len(weights.devices()) == 8
    chex.assert_trees_all_close(together.state.params, alone.state.params, atol=1e-5)

    def batch_at(number: int) -> yodo.Examples:
        epoch, place = divmod(number, 10)
        rows = np.asarray(batches.order(epoch)[place])
        return yodo.Examples(x[rows], label[rows], group[rows])

    streamed = training.fit(step, start, batch_at, **spread)
    chex.assert_trees_all_close(streamed.state.params, alone.state.params, atol=1e-5)


def main(name: str) -> None:
    """Make one check."""
    assert jax.device_count() == 8
    checks = (meshes, batches, parameters, gap, training_run)
    {check.__name__: check for check in checks}[name]()
