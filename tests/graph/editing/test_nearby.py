"""Test that edits on the target's neighbourhood equal those on the whole graph."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_graph.editing import as_graph, make_graph, nets
from jeff_graph.editing.evaluation import independent
from jeff_graph.editing.hops import subgraph
from jeff_graph.editing.methods import gradient_descent, gre
from jeff_graph.editing.nearby import nearby_tasks
from jeff_graph.editing.task import make_task


@pytest.mark.parametrize("name", ["gcn", "sage", "gat", "gin"])
@pytest.mark.parametrize(
    ("method", "form"), [(gradient_descent, as_graph), (gre, lambda graph: graph)]
)
def test_the_same_edits(name, method, form) -> None:
    """A hub, a node without edges, and others; two layers reach two hops."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    edges = np.concatenate(
        [rng.integers(0, 50, (70, 2)), [[0, n] for n in range(1, 20)]]
    )
    graph = form(make_graph(rng.normal(size=(60, 5)), edges))
    net = nets.make_net(name, 5, 3, hidden=8, key=jax.random.key(0))
    apply_fn, params = nets.split_net(net)
    train = jnp.arange(60) < 30
    task = make_task(
        graph,
        labels,
        train,
        training_inputs=subgraph(graph, train),
        training_labels=labels,
        training_where=train,
    )
    targets = jnp.array([0, 59, 31, 45])
    run = functools.partial(
        jax.jit(functools.partial(independent, method(apply_fn))),
        params,
        task,
        targets,
        ~train,
        key=jax.random.key(1),
    )
    whole, near = run(), run(near=nearby_tasks(graph, labels, targets, 2))
    assert whole.steps.max() > 0
    np.testing.assert_array_equal(near.steps, whole.steps)
    np.testing.assert_array_equal(near.success, whole.success)
    np.testing.assert_allclose(near.drawdowns, whole.drawdowns, atol=1e-4)
    np.testing.assert_allclose(near.divergence, whole.divergence, rtol=1e-3)
