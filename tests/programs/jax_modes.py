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
from jeff_graph import cells
from jeff_graph.cells import (
    celluformer,
    evaluation,
)
from jeff_graph.cells import training as cell_training
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


def cells_part():
    """Counts to a map of pairs, in which NaN means "not seen" and is no error."""
    design = cells.Design(num_genes=60, shares=(0.7, 0.3), markers=20)
    source = cells.simulate_cells(60, design=design)
    view = cells.collect(cells.prepare(source, cells.make_recipe(source, num_genes=8)))
    x = view.values.toarray()
    case = (source.column("label") == "case").astype(np.int32)
    hashing = cells.hash_parameters(jax.random.key(0), 8, 5)
    density = cells.score_cells([x], hashing, cells.sketch_cells([x], hashing))
    density[3] = np.nan
    weights = cells.diversity_weights(density, power=2.0, least_effective=0.3)
    few = cells.sample(weights.log_weight, 20, key=jax.random.key(1))
    finite((few.weights, few.inclusion))
    config = celluformer.Config(8, 2, width=8, heads=2, layers=1, hidden=8)
    network = celluformer.make_apply(config)
    start = celluformer.init(config, key=jax.random.key(2))
    tokens = cells.make_tokens(x)
    cell_training.fit(network, start, tokens, case, key=jax.random.key(3), num_epochs=1)
    sums = cells.pair_sums(
        celluformer.make_attention(config),
        start,
        tokens,
        8,
        num_bootstrap=3,
        key=jax.random.key(4),
    )
    pairs = cells.pair_scores(sums, prior_cells=3.0)
    cells.pair_interval(sums)
    evaluation.rank_pairs(pairs)
    evaluation.rank_agreement(pairs, pairs)
    cells.product_test(x, case == 1, np.stack(np.triu_indices(8, 1), 1))


PARTS = {
    "cells": cells_part,
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
