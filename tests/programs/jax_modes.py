"""Run the core under JAX's strict modes and print what fails.

usage: jax_modes.py [MODE ...]   all modes by default

A part is a function without arguments that raises where something fails; a new one is
added to `PARTS`. Modes come from context managers, so that one process serves all.
"""

import sys
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jeff import fairness, training
from jeff import line as lines
from jeff_graph.editing import gre

MODES = {
    "x64": lambda: jax.enable_x64(True),
    "debug_nans": lambda: jax.debug_nans(True),
    "strict_promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "rank_promotion": lambda: jax.numpy_rank_promotion("raise"),
}


def linear(params, inputs):
    return inputs @ params["w"] + params["b"][None]


def params(seed):
    w = jax.random.normal(jax.random.key(seed), (3,), jnp.float32)
    return {"w": w, "b": jnp.zeros((), jnp.float32)}


def rows(seed=0, count=32):
    return np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)


def squares(params, batch, key):
    del key
    return jnp.mean((linear(params, batch["x"]) - batch["y"]) ** 2), {}


def finite(tree):
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


def sgd():
    # optax's own Adam raises a float to an integer, which strict promotion refuses.
    return optax.sgd(0.1, momentum=0.9)


@jax.jit
def line_values(start, end):
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), start, end)
    zero = jax.tree.map(jnp.zeros_like, start)
    return (
        lines.interpolate(start, end, 0.25),
        lines.simplex(both, jnp.array([0.75, 0.25], jnp.float32)),
        jax.tree.map(lambda x: x[0], lines.grid(start, end, jnp.array([0.25]))),
        jax.value_and_grad(lines.cosine_squared)(start, end),
        jax.grad(lines.cosine_squared)(zero, end),
    )


def line_part():
    point, mixed, first, *rest = line_values(params(0), params(1))
    finite((point, rest))
    assert point["w"].dtype == mixed["w"].dtype == jnp.float32
    for other in (mixed, first):
        np.testing.assert_allclose(other["w"], point["w"], rtol=1e-6)


def training_part():
    x = rows()
    data = {"x": x, "y": x.sum(axis=1)}
    batches = training.Shuffled(data, 8, jax.random.key(0))
    held = params(0)
    optimizer = optax.chain(optax.add_decayed_weights(0.01), sgd())
    step = training.make_step(squares, optimizer, frozen="b")
    state = training.init_state(held, optimizer, key=jax.random.key(1))
    result = training.fit(step, state, batches, num_steps=8, progress=False)
    finite(result.state.params)
    assert result.state.params["w"].dtype == jnp.float32
    np.testing.assert_array_equal(result.state.params["b"], held["b"])


def fairness_part():
    x = rows(1, 200)
    people = fairness.Examples(
        jnp.asarray(x),
        jnp.asarray(x[:, 0] > 0, jnp.int32),
        jnp.asarray(x[:, 1] > 0, jnp.int32),
    )
    line = fairness.train(
        linear,
        fairness.Line(params(0), params(1)),
        people,
        key=jax.random.key(0),
        optimizer=sgd(),
        num_epochs=2,
        batch_size=50,
    )
    alphas = jnp.linspace(0, 1, 3, dtype=jnp.float32)
    finite(fairness.predict(linear, line, people.inputs, alphas))
    fairness.evaluate(linear, line, people, alphas)
    fairness.choose_alpha(
        linear, line, people, alphas, key=jax.random.key(1), at_most=0.9
    )


def gre_part():
    """Each transformation under a scan, whose state must keep its dtypes."""
    x = jnp.asarray(rows(2))
    batches = training.Shuffled({"x": x, "y": x.sum(axis=1)}, 32, jax.random.key(0))
    anchors = gre.anchor_gradients(
        lambda p, rows: jnp.mean(linear(p, rows)), params(1), x.reshape(2, 16, 3)
    )
    optimizers = [
        optax.chain(gre.rewire(anchors), sgd()),
        optax.chain(sgd(), gre.rewire_update(anchors)),
    ]
    if jax.config.jax_numpy_dtype_promotion != "strict":
        optimizers.append(gre.rewired_adam(optax.constant_schedule(0.1), anchors))
    for optimizer in optimizers:
        step = training.make_step(squares, optimizer)
        state = training.init_state(params(0), optimizer, key=jax.random.key(0))
        state, _ = training.run_epochs(step, state, batches, num_epochs=3)
        finite(state.params)
        assert state.params["w"].dtype == jnp.float32


PARTS = {
    "line": line_part,
    "training": training_part,
    "fairness": fairness_part,
    "gre": gre_part,
}


def main(modes: list[str]) -> None:
    for mode in modes or MODES:
        for name, part in PARTS.items():
            try:
                with MODES[mode]():
                    part()
            except Exception:
                print(f"{mode} {name} failed:\n{traceback.format_exc()}")
            else:
                print(f"{mode} {name} ok")


if __name__ == "__main__":
    main(sys.argv[1:])
