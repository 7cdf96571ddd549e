"""Test that padding by jraph is understood, what is taken for it, and bad graphs."""

import functools

import chex
import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest

from jeff_graph.editing import (
    Editor,
    as_graph,
    evaluation,
    make_graph,
    make_task,
    methods,
    nearby_tasks,
    real_graphs,
    real_nodes,
    replay,
    split,
    to_jraph,
)
from jeff_graph.editing.nets import make_net, split_net
from jeff_graph.editing.training import fit


@pytest.fixture(scope="module")
def made():
    """``(graph, padded, labels, parts, network)``: 40 nodes, then 9 of padding."""
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 40)
    features = rng.normal(size=(40, 5)) + np.eye(3, 5)[labels]
    graph = make_graph(features, rng.integers(0, 40, (60, 2)))
    padded = jraph.pad_with_graphs(graph, 49, 140, 4)
    net = make_net("gcn", 5, 3, hidden=8, dropout_rate=0.0, key=jax.random.key(0))
    parts = split(labels, 15, 10, key=jax.random.key(1))
    return graph, padded, labels, parts, split_net(net)


def assert_close(found, expected):
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)


def test_training_on_a_padded_graph(made, key):
    """Labels and masks as long as what is real, or with padding."""
    graph, padded, labels, parts, (apply_fn, params) = made
    run = functools.partial(fit, apply_fn, params, key=key, num_epochs=5)
    wanted = run(graph, labels, parts)
    assert_close(run(padded, labels, parts), wanted)
    longer = jax.tree.map(lambda part: np.pad(part, (0, 9)), parts)
    filled = np.pad(labels, (0, 9), constant_values=-1)
    assert_close(run(padded, filled, longer), wanted)
    with pytest.raises(ValueError, match=r"labels: expected .* 40 nodes or 1 graphs"):
        run(padded, labels[:-1], parts)


def test_edits_on_a_padded_graph(made, key):
    graph, padded, labels, parts, (apply_fn, params) = made
    said = np.asarray(apply_fn(params, graph).argmax(1))
    targets = np.flatnonzero(said != labels)[:3]
    method = replay.distilled_replay(apply_fn, learning_rate=0.05)
    tasks = [make_task(each, labels, parts.train) for each in (graph, padded)]
    assert tasks[1].where.tolist() == [True] * 40 + [False] * 9
    mine, theirs = (
        evaluation.sequential(method, params, task, targets, parts.test, key=key)
        for task in tasks
    )
    assert theirs[1].steps[0] > 0
    assert_close(mine[0], theirs[0])
    assert_close(mine[1].divergence, theirs[1].divergence)
    chex.assert_trees_all_equal(mine[1].drawdowns, theirs[1].drawdowns)
    editors = [
        Editor.start(method, params, task, parts.test, key=key) for task in tasks
    ]
    (one, outcome), (other, expected) = (each.edit(targets[0]) for each in editors)
    assert outcome == expected and outcome.success
    assert_close(one.params, other.params)
    with pytest.raises(ValueError, match="node: expected the number of a real node"):
        editors[1].edit(45)
    near = nearby_tasks(padded, labels, targets, 2)
    descent = methods.gradient_descent(apply_fn)
    run = functools.partial(evaluation.independent, descent, params)
    near, whole = (
        run(tasks[1], targets, parts.test, key=key, near=each) for each in (near, None)
    )
    chex.assert_trees_all_equal(near.steps, whole.steps)


def batch(*sizes, features=1.0):
    """Graphs of so many nodes without edges."""
    graphs = [
        make_graph(np.full((size, 2), features), []) if size else jraph.zero_graph()
        for size in sizes
    ]
    return jraph.batch_np(graphs)


def one_node(**changes):
    """Three nodes in two graphs; the last is a single node with features of 0."""
    graph = batch(2, 1)
    graph = graph._replace(nodes=np.array([[1.0], [1.0], [0.0]]))
    return graph._replace(**changes)


LOOP = {
    "senders": np.array([2], np.int32),
    "receivers": np.array([2], np.int32),
    "n_edge": np.array([0, 1], np.int32),
}


@pytest.mark.parametrize(
    ("graph", "graphs", "nodes"),
    [
        # What pad_with_graphs makes: with edges, without, with empty graphs behind.
        (jraph.pad_with_graphs(batch(2, 3), 9, 4, 3), 2, 5),
        (jraph.pad_with_graphs(batch(2, 3), 9, 0, 3), 2, 5),
        (jraph.pad_with_graphs(batch(2, 3), 9, 4, 7), 2, 5),
        (jraph.pad_with_graphs(batch(2, 3), 6, 0, 3), 2, 5),
        # Padding twice: only the last is known as such.
        (
            jraph.pad_with_graphs(jraph.pad_with_graphs(batch(2), 4, 1, 2), 6, 2, 3),
            2,
            4,
        ),
        # A single graph is never padding, whatever it holds.
        (batch(3, features=0.0), 1, 3),
        # Nor is a last graph that holds anything.
        (batch(2, 3), 2, 5),
        (batch(2, 1), 2, 3),
        (one_node(globals=np.array([[0.0], [1.0]])), 2, 3),
        (one_node(**LOOP, edges=np.ones(1)), 2, 3),
        (
            one_node(
                senders=np.array([0], np.int32),
                receivers=np.array([2], np.int32),
                n_edge=np.array([0, 1], np.int32),
            ),
            2,
            3,
        ),
        # A lone node with features of 0 cannot be told from padding.
        (one_node(), 1, 2),
        (one_node(**LOOP), 1, 2),
        (one_node(globals=np.zeros((2, 1))), 1, 2),
    ],
)
def test_what_is_taken_for_padding(graph, graphs, nodes):
    assert real_graphs(graph).tolist() == [
        number < graphs for number in range(len(graph.n_node))
    ]
    mask = np.arange(graph.nodes.shape[0]) < nodes
    np.testing.assert_array_equal(real_nodes(graph), mask)
    np.testing.assert_array_equal(as_graph(graph).node_mask, mask)


def test_empty_graphs_behind_real_ones():
    """They are real unless padding precedes them."""
    graph = batch(2, 1)
    sizes = {name: np.array([*getattr(graph, name), 0], np.int32) for name in COUNTS}
    assert real_graphs(graph._replace(**sizes)).tolist() == [True] * 3


COUNTS = ("n_node", "n_edge")


def test_there_and_back(made):
    """Padding stays what it was, and so do weights."""
    graph, padded, *_ = made
    weights = np.arange(1.0, 1 + len(graph.senders), dtype=np.float32)
    weighed = graph._replace(edges=weights)
    back = to_jraph(as_graph(weighed))
    chex.assert_trees_all_equal(back, jax.tree.map(jnp.asarray, weighed))
    again = to_jraph(as_graph(padded))
    np.testing.assert_array_equal(again.n_node[:2], [40, 9])
    np.testing.assert_array_equal(real_nodes(again), real_nodes(padded))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"senders": np.array([0, 7])}, ValueError, r"graph.senders: .* 0 to 2, got 7"),
        ({"receivers": np.array([0, -1])}, ValueError, r"graph.receivers: .* got -1"),
        (
            {"senders": np.zeros(2)},
            TypeError,
            "graph.senders: expected integers, got f",
        ),
        ({"n_node": np.array([2])}, ValueError, r"graph.n_node: .* to 3, got \[2\]"),
        ({"n_edge": np.array([1])}, ValueError, r"graph.n_edge: .* to 2, got \[1\]"),
        (
            {"edges": np.ones((2, 4))},
            ValueError,
            r"graph.edges: .* 2 edges, got \(2, 4",
        ),
    ],
)
def test_graphs_that_are_refused(unchecked, changes, error, words):
    graph = make_graph(np.ones((3, 2)), np.array([[0, 1]]))._replace(**changes)
    with pytest.raises(error, match=words):
        as_graph(graph)
