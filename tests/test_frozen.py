"""Test parameters that are not trained: statistics, counters and keys."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from jeff import frozen, training
from jeff.fairness import yodo

PARAMS = {
    "params": {"w": jnp.array([1.0, 2.0])},
    "batch_stats": {"norm": {"mean": jnp.zeros(2), "var": jnp.ones(2)}},
    "count": jnp.int32(5),
    "key": jax.random.key(3),
}


def loss(params, batch, key):
    stats = params["batch_stats"]["norm"]
    scaled = (params["params"]["w"] - stats["mean"]) / jnp.sqrt(stats["var"])
    return jnp.sum(scaled * batch) * params["count"], {}


def plain(params):
    return params | {"key": jax.random.key_data(params["key"])}


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ((), {"params/w", "batch_stats/norm/mean", "batch_stats/norm/var"}),
        ("batch_stats", {"params/w"}),
        (["norm/mean", "var"], {"params/w"}),
        (["params", "batch_stats/norm/var"], {"batch_stats/norm/mean"}),
        (lambda path: path[-1] in "wn", {"batch_stats/norm/var"}),
    ],
)
def test_what_is_trained(what, names):
    trained, rest = frozen.split(PARAMS, what)
    found, _, _ = frozen.named_leaves.flatten(trained)
    assert set(found) == names
    assert jax.tree.structure(frozen.join(trained, rest)) == jax.tree.structure(PARAMS)
    chex.assert_trees_all_equal(plain(frozen.join(trained, rest)), plain(PARAMS))


def test_a_step_moves_only_what_is_trained():
    """With weight decay and a norm, both of which would see frozen leaves."""
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.add_decayed_weights(0.1), optax.sgd(0.5)
    )
    state = training.init_state(PARAMS, optimizer, key=jax.random.key(0))
    step = training.make_step(loss, optimizer, frozen="batch_stats")
    after, metrics = jax.jit(step)(state, jnp.array([3.0, 4.0]))
    # The gradient is 5 (3, 4), its norm 25 and its direction (.6, .8).
    w = PARAMS["params"]["w"]
    np.testing.assert_allclose(
        after.params["params"]["w"],
        w - 0.5 * (jnp.array([0.6, 0.8]) + 0.1 * w),
        rtol=1e-6,
    )
    assert metrics["loss"] == 5 * (3 + 8)
    chex.assert_trees_all_equal(
        plain(after.params | {"params": 0}), plain(PARAMS | {"params": 0})
    )
    again, _ = training.make_step(loss, frozen.freeze(optimizer, "batch_stats"))(
        state, jnp.array([3.0, 4.0])
    )
    chex.assert_trees_all_close(plain(again.params), plain(after.params), rtol=1e-6)


def test_freeze_in_a_loop_of_your_own():
    floats = {name: PARAMS[name] for name in ("params", "batch_stats", "count")}
    optimizer = frozen.freeze(optax.adamw(0.1), "batch_stats")
    gradient = jax.tree.map(jnp.ones_like, floats)
    updates, _ = optimizer.update(gradient, optimizer.init(floats), floats)
    after = optax.apply_updates(floats, updates)
    chex.assert_trees_all_equal(after["batch_stats"], floats["batch_stats"])
    assert after["count"] == 5
    assert (after["params"]["w"] < floats["params"]["w"]).all()


@pytest.mark.parametrize(
    ("params", "what", "error", "words"),
    [
        (PARAMS, None, ValueError, r"batch_stats/norm/mean: .*running statistics; na"),
        (
            nnx.state(nnx.BatchNorm(2, rngs=nnx.Rngs(0))),
            None,
            ValueError,
            "params: mean: .*running statistics",
        ),
        (PARAMS, "batch_stat", ValueError, r"part of a path, got 'batch_stat'; .*/w"),
        (PARAMS, ["w", "no"], ValueError, "part of a path, got 'no'"),
        ({"a": jax.nn.relu}, (), TypeError, "a: expected an array"),
    ],
)
def test_refused_by_name(params, what, error, words):
    with pytest.raises(error, match=words):
        frozen.is_frozen(params, what)


class Normed(linen.Module):
    """Linen as its users have it: statistics beside the parameters, and dropout."""

    @linen.compact
    def __call__(self, x, train=True):
        x = linen.BatchNorm(use_running_average=True)(linen.Dense(4)(x))
        x = linen.Dropout(0.5, deterministic=not train)(x)
        return linen.Dense(1)(x)[:, 0]


def test_yodo_trains_a_linen_line_with_its_own_apply():
    """`model.apply` has ``**kwargs`` and takes dropout's key as ``rngs``."""
    x = jax.random.normal(jax.random.key(0), (32, 3))
    label = (x[:, 0] > 0).astype(int)
    people = yodo.Examples(x, label, (x[:, 1] > 0).astype(int))
    model = Normed()
    ends = [model.init(jax.random.key(k), x, train=False) for k in (1, 2)]
    line = yodo.Line(*ends)
    options = {"optimizer": optax.adam(0.1), "batch_size": 16, "num_epochs": 2}
    with pytest.raises(ValueError, match=r"start/batch_stats/.* frozen='batch_stats'"):
        yodo.train(model.apply, line, people, key=jax.random.key(3), **options)
    trained = yodo.train(
        model.apply,
        line,
        people,
        key=jax.random.key(3),
        frozen="batch_stats",
        **options,
    )
    for before, after in zip(line, trained, strict=True):
        chex.assert_trees_all_equal(after["batch_stats"], before["batch_stats"])
        moved = jax.tree.map(
            lambda a, b: jnp.abs(a - b).max(), after["params"], before["params"]
        )
        assert max(jax.tree.leaves(moved)) > 0.01
    noisy, other = (
        yodo.loss(model.apply, line, people, 0.5, key=jax.random.key(k))[0]
        for k in (0, 1)
    )
    assert noisy != other


def test_a_key_goes_only_to_a_parameter_of_that_name():
    seen = []

    def takes_anything(params, inputs, **options):
        seen.append(options)
        return inputs @ params

    people = yodo.Examples(jnp.ones((2, 1)), jnp.array([0, 1]), jnp.array([0, 1]))
    line = yodo.Line(jnp.ones(1), jnp.zeros(1))
    yodo.loss(takes_anything, line, people, 0.5, key=jax.random.key(0))
    assert seen == [{}]


class Stateful(nnx.Module):
    """NNX with everything in one state: statistics, a key and a counter."""

    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(3, use_running_average=True, rngs=rngs)
        self.drop = nnx.Dropout(0.5, deterministic=True, rngs=rngs)
        self.out = nnx.Linear(3, 1, rngs=rngs)

    def __call__(self, x):
        return self.out(self.drop(self.norm(x)))[:, 0]


def test_the_whole_state_of_an_nnx_module_trains_in_fit():
    graphdef, params = nnx.split(Stateful(nnx.Rngs(0)))
    x = jax.random.normal(jax.random.key(0), (16, 3))

    def squares(params, batch, key):
        return jnp.mean((nnx.merge(graphdef, params)(batch) - batch[:, 0]) ** 2), {}

    optimizer = optax.adam(0.1)
    result = training.fit(
        training.make_step(squares, optimizer, frozen=["mean", "var"]),
        training.init_state(params, optimizer, key=jax.random.key(1)),
        training.Shuffled(x, 8, jax.random.key(2)),
        num_steps=4,
        progress=False,
    )
    after = result.state.params
    np.testing.assert_array_equal(after["norm"]["mean"].get_value(), np.zeros(3))
    assert after["drop"]["rngs"]["key"].get_value() == (
        params["drop"]["rngs"]["key"].get_value()
    )
    change = after["out"]["kernel"].get_value() - params["out"]["kernel"].get_value()
    assert jnp.abs(change).max() > 0.1
