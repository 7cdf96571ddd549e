"""Run the core under JAX's strict modes and print what fails.

usage: jax_modes.py [MODE ...]   all modes by default

A part is a function without arguments that raises where something fails; a new one is
added to `PARTS`. Modes come from context managers, so that one process serves all.
"""

import contextlib
import functools
import sys
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jeff import fairness, training
from jeff import line as lines
from jeff_graph import cells, editing
from jeff_graph.cells import (
    celluformer,
    evaluation,
)
from jeff_graph.cells import training as cell_training
from jeff_graph.editing import gre, methods, nets, newton, replay, rivals
from jeff_graph.editing import training as fits


@contextlib.contextmanager
def both(*modes):
    with contextlib.ExitStack() as stack:
        for mode in modes:
            stack.enter_context(mode)
        yield


# Two at a time, since what takes time is compiling anew.
MODES = {
    "x64, debug_nans": lambda: both(jax.enable_x64(True), jax.debug_nans(True)),
    "strict promotion of dtypes and ranks": lambda: both(
        jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise")
    ),
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


def edit_methods(apply_fn):
    """Every method, its own training cut short."""
    rate = {"learning_rate": 0.05}
    return {
        "gd": methods.gradient_descent(apply_fn, **rate),
        "gre": methods.gre(apply_fn, **rate),
        "gre update": methods.gre(apply_fn, num_anchors=3, project="update", **rate),
        "gre adam": methods.gre(apply_fn, num_anchors=3, project="adam", **rate),
        "rehearsal": replay.rehearsal(apply_fn, **rate),
        "memory": replay.memory_rewiring(apply_fn, **rate),
        "replay": replay.distilled_replay(apply_fn, **rate),
        "minimal": newton.minimal_edit(apply_fn),
        "enn": rivals.enn(apply_fn, meta_steps=3, **rate),
        "egnn": rivals.egnn(apply_fn, warmup_steps=3, **rate),
        "seed": rivals.seed(apply_fn, **rate),
    }


def graph_task():
    """``(apply_fn, params, task, test, targets)`` of a GCN on a small graph."""
    rng = np.random.default_rng(0)
    graph = editing.make_graph(rows(3, 24), rng.integers(0, 24, (40, 2)))
    net = nets.make_net("gcn", 3, 3, hidden=4, key=jax.random.key(0))
    apply_fn, held = nets.split_net(net)
    asked = np.asarray((apply_fn(held, graph).argmax(1) + 1) % 3)
    labels = np.where(np.arange(24) < 2, asked, rng.integers(0, 3, 24))
    task = editing.make_task(graph, labels, np.arange(24) >= 12)
    return apply_fn, held, task, np.arange(24) < 12, np.arange(2)


def edits_by(choose):
    """An edit by an editor, and protocols, for the methods that are chosen."""
    apply_fn, held, task, test, targets = graph_task()
    for name, method in edit_methods(apply_fn).items():
        if not choose(name):
            continue
        options = {"key": jax.random.key(0), "max_steps": 200}
        start = editing.Editor.start(method, held, task, test, bisections=0, **options)
        editor, outcome = start.edit(targets[0])
        assert outcome.success, name
        finite(editor.params)
        # Test nodes at every distance: where there is none, drawdown is NaN by design.
        hops = jnp.tile(jnp.arange(24, dtype=jnp.int32)[None] % 3 + 1, (2, 1))
        for protocol in PROTOCOLS.get(name, ()):
            run = jax.jit(functools.partial(protocol, method, max_steps=40))
            out = run(held, task, targets, test, key=jax.random.key(0), hops=hops)
            finite(out if protocol is editing.independent else out[0])


PROTOCOLS = {
    "gd": (editing.independent,),
    "gre": (editing.sequential,),
    "minimal": (editing.independent, editing.batch),
}


def editing_part():
    """Every method that steps with optax's Adam, or its own."""
    edits_by(lambda name: name != "minimal")


def minimal_part():
    edits_by(lambda name: name == "minimal")


def total_and_slope(apply_fn, params, graph):
    return jax.value_and_grad(lambda p: apply_fn(p, graph).sum())(params)


def graphs_part():
    """Layers, distances, samples, and a training without Adam."""
    apply_fn, held, task, _, _ = graph_task()
    graph = task.inputs
    finite((editing.degrees(graph), editing.k_hop(graph, 3, 2).astype(jnp.int32)))
    editing.hop_distance(graph, 3, 2)
    for number, name in enumerate(("gcn", "gat", "gin")):
        net = nets.make_net(name, 3, 4, hidden=4, norm="layer", key=jax.random.key(0))
        other, start = nets.split_net(net)
        form = editing.as_graph(graph) if number % 2 else graph
        finite(jax.jit(total_and_slope, static_argnums=0)(other, start, form))
    near = editing.sample_neighbours(graph, np.arange(3), (2, 2), key=jax.random.key(0))
    finite(apply_fn(held, near.graph, jax.random.key(1)))
    parts = editing.split(task.labels, 8, 8, key=jax.random.key(0))
    fit = fits.fit(
        apply_fn,
        held,
        graph,
        task.labels,
        parts,
        key=jax.random.key(0),
        num_epochs=3,
        optimizer=sgd(),
    )
    finite(fit.params)


PARTS = {
    "cells": cells_part,
    "line": line_part,
    "training": training_part,
    "fairness": fairness_part,
    "gre": gre_part,
    "graphs": graphs_part,
    "minimal": minimal_part,
    "editing": editing_part,
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
