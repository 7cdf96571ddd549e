"""Check rewiring on eight devices; failures are assertions.

Run with ``XLA_FLAGS=--xla_force_host_platform_device_count=8``.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from jeff import sharding
from jeff_graph.editing import evaluation, gre, methods
from jeff_graph.editing.task import make_task

SHAPES = {"embed": (16, 8), "bias": (8,), "scale": ()}
PLACES = {"embed": ("fsdp", "tensor"), "bias": ("tensor",), "scale": ()}


def draw(seed: int, lead: tuple[int, ...] = ()) -> dict[str, jax.Array]:
    """A gradient, or stacked anchors."""
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(rng.normal(size=lead + shape), jnp.float32)
        for name, shape in SHAPES.items()
    }


def place(tree: dict, mesh: jax.sharding.Mesh, lead: tuple = ()) -> dict:
    """Leaves over ``fsdp`` and ``tensor``."""
    return {
        name: jax.device_put(
            leaf, NamedSharding(mesh, PartitionSpec(*lead, *PLACES[name]))
        )
        for name, leaf in tree.items()
    }


def transformations(mesh: jax.sharding.Mesh) -> None:
    """Updates of sharded gradients are those of one device, and stay in place."""
    for count in (3, 7):
        gradient, anchors = draw(count), draw(count + 1, (count,))
        gradient = {n: g - anchors[n].mean(0) for n, g in gradient.items()}

        def step(gradient, anchors, kind):
            optimizer = {
                "rewire": lambda: optax.chain(gre.rewire(anchors), optax.adam(0.1)),
                "update": lambda: optax.chain(
                    optax.adam(0.1), gre.rewire_update(anchors)
                ),
                "adam": lambda: gre.rewired_adam(0.1, anchors),
            }[kind]()
            return optimizer.update(gradient, optimizer.init(gradient))[0]

        run = jax.jit(step, static_argnums=2)
        for kind in ("rewire", "update", "adam"):
            alone = run(gradient, anchors, kind)
            spread = run(place(gradient, mesh), place(anchors, mesh, (None,)), kind)
            assert spread["embed"].addressable_data(0).shape == (8, 4)
            for name in SHAPES:
                np.testing.assert_allclose(spread[name], alone[name], atol=2e-5)


def edits(mesh: jax.sharding.Mesh) -> None:
    """Independent edits shared out over the devices."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(64, 6)), jnp.float32)
    params = {"w": jnp.asarray(rng.normal(size=(6, 3)), jnp.float32)}
    labels = (x @ params["w"]).argmax(1)
    targets = jnp.arange(8)
    labels = labels.at[targets].set((labels[targets] + 1) % 3)
    task = make_task(x, labels, jnp.arange(64) >= 40)
    test = (jnp.arange(64) >= 8) & (jnp.arange(64) < 40)
    method = methods.gre(lambda p, x: x @ p["w"], num_anchors=3, learning_rate=0.1)

    @jax.jit
    def run(targets):
        return evaluation.independent(
            method, params, task, targets, test, key=jax.random.key(0)
        )

    alone = run(targets)
    over = NamedSharding(mesh, PartitionSpec(("data", "fsdp", "tensor")))
    spread = run(jax.device_put(targets, over))
    np.testing.assert_array_equal(spread.success, alone.success)
    np.testing.assert_array_equal(spread.steps, alone.steps)
    np.testing.assert_allclose(spread.drawdowns, alone.drawdowns, atol=1e-4)
    np.testing.assert_allclose(spread.divergence, alone.divergence, rtol=1e-4)


def main() -> None:
    """Both checks."""
    assert jax.device_count() == 8
    eight = sharding.make_mesh(fsdp=2, tensor=2)
    transformations(eight)
    edits(eight)
