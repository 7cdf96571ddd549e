"""Test that any optax transformation trains, in one step or through `fit`."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jeff import training
from jeff_graph.editing import gre

X = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
DATA = {"x": X, "y": X @ np.array([1, -2, 0.5], np.float32)}
PARAMS = {"w": jnp.zeros(3), "b": jnp.zeros(())}
ANCHORS = {"w": jnp.array([[1.0, 0, 0]]), "b": jnp.zeros(1)}
ONLY_W = {"w": True, "b": False}
SCHEDULE = optax.linear_schedule(0.1, 0.01, 10)


def loss(params, batch, key):
    del key
    error = batch["x"] @ params["w"] + params["b"] - batch["y"]
    return jnp.mean(error**2), {}


def part(inner):
    """Train ``w`` with ``inner`` and leave ``b``."""
    labels = {"w": "moves", "b": "stays"}
    return optax.multi_transform({"moves": inner, "stays": optax.set_to_zero()}, labels)


OPTIMIZERS = {
    "plateau": optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=1)),
    "lbfgs": optax.lbfgs(),
    "backtracking": optax.lbfgs(linesearch=optax.scale_by_backtracking_linesearch(9)),
    "polyak": optax.polyak_sgd(),
    "apply_if_finite": optax.apply_if_finite(optax.adam(0.1), 3),
    "multi_steps": optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation(),
    "inject": optax.inject_hyperparams(optax.adam)(learning_rate=SCHEDULE),
    "schedule_free": optax.contrib.schedule_free_sgd(0.1),
    "muon": optax.contrib.muon(0.1),
    "sam": optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.05), sync_period=2),
    "opaque sam": optax.contrib.sam(
        optax.sgd(0.1), optax.sgd(0.05), sync_period=2, opaque_mode=True
    ),
    "rewire in masked": optax.chain(
        optax.masked(gre.rewire(ANCHORS, 0.0), ONLY_W), optax.sgd(0.1)
    ),
    "rewire in multi_transform": part(
        optax.chain(gre.rewire(ANCHORS, 0.0), optax.sgd(0.1))
    ),
    "rewire_update in masked": optax.chain(
        optax.sgd(0.1), optax.masked(gre.rewire_update(ANCHORS), ONLY_W)
    ),
    "rewired_adam in multi_transform": part(gre.rewired_adam(SCHEDULE, ANCHORS)),
    "injected rewired_adam": optax.inject_hyperparams(gre.rewired_adam)(
        learning_rate=SCHEDULE, anchors=ANCHORS
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_trains_under_a_scan(name):
    optimizer = OPTIMIZERS[name]
    state = training.init_state(PARAMS, optimizer, key=jax.random.key(0))
    step = training.make_step(loss, optimizer)
    after, metrics = jax.jit(
        lambda state: jax.lax.scan(lambda s, _: step(s, DATA), state, None, length=6)
    )(state)
    assert metrics["loss"][-1] < metrics["loss"][0]
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
    if name.startswith("rewire"):
        # The descent along the first weight alone would raise the anchor's loss.
        assert after.params["w"][0] < 1e-6
        assert after.params["w"][1] < -0.1
    if "multi_transform" in name:
        assert after.params["b"] == 0


def test_a_schedule_of_rewired_adam_counts_from_the_first_step():
    scheduled = gre.rewired_adam(lambda count: 0.1 / (1 + count), ANCHORS)
    fixed = gre.rewired_adam(1.0, ANCHORS)
    gradient = {"w": jnp.array([1.0, -2, 3]), "b": jnp.ones(())}
    states = [optimizer.init(PARAMS) for optimizer in (scheduled, fixed)]
    for count in range(3):
        mine, states[0] = scheduled.update(gradient, states[0])
        whole, states[1] = fixed.update(gradient, states[1])
        chex.assert_trees_all_close(
            mine, jax.tree.map(lambda x, n=count: 0.1 / (1 + n) * x, whole), rtol=1e-6
        )


def test_a_mask_of_everything_is_refused():
    nothing = optax.masked(gre.rewire(ANCHORS), {"w": False, "b": False})
    with pytest.raises(ValueError, match="anchors: expected leaves to rewire"):
        nothing.init(PARAMS)


def test_complex_parameters_go_downhill():
    """JAX's gradient of a complex parameter points against its imaginary part."""
    optimizer = optax.sgd(0.1)
    step = training.make_step(lambda z, *_: (jnp.abs(z - 2j) ** 2, {}), optimizer)
    state = training.init_state(jnp.complex64(1 + 1j), optimizer, key=jax.random.key(0))
    after, _ = step(state, None)
    np.testing.assert_allclose(after.params, 1 + 1j - 0.1 * 2 * (1 - 1j), rtol=1e-6)


def test_a_metric_called_loss_is_refused():
    optimizer = optax.sgd(0.1)
    step = training.make_step(lambda p, *_: (p**2, {"loss": p}), optimizer)
    state = training.init_state(jnp.ones(()), optimizer, key=jax.random.key(0))
    with pytest.raises(ValueError, match='other names than "loss"'):
        step(state, None)


def broken_at(step, **options):
    """Fit 12 steps in chunks of 4 whose batches hold NaN at some steps."""
    optimizer = optax.apply_if_finite(optax.sgd(0.1), 2)
    return training.fit(
        training.make_step(loss, optimizer),
        training.init_state(PARAMS, optimizer, key=jax.random.key(0)),
        lambda at: DATA | ({"y": DATA["y"] * np.float32("nan")} if at in step else {}),
        num_steps=12,
        chunk_steps=4,
        progress=False,
        **options,
    )


def test_steps_that_apply_if_finite_skips_are_counted():
    whole, broken = broken_at(()), broken_at((5, 6))
    assert [row["skipped"] for row in broken.history] == [0, 2, 0]
    assert np.isfinite([row["loss"] for row in broken.history]).all()
    assert broken.history[0]["loss"] == whole.history[0]["loss"]
    assert 0 < broken.history[1]["loss"] < broken.history[0]["loss"]
    # Every skipped step is one less of twelve.
    assert broken.history[-1]["loss"] > whole.history[-1]["loss"]


def test_when_apply_if_finite_gives_up_so_does_fit(tmp_path):
    with pytest.raises(training.NonFiniteLossError, match=r"step 5; .*checkpoints/4"):
        broken_at((5, 6, 7), workdir=tmp_path)
