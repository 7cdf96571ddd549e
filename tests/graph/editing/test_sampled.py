"""Test training on sampled neighbourhoods, and the simulated graph for it."""

import jax
import numpy as np
import pytest

from jeff_graph.editing.graphs import Graph, num_edges
from jeff_graph.editing.nets import make_net, split_net
from jeff_graph.editing.sampled import fit_sampled
from jeff_graph.editing.simulate import simulate_graph
from jeff_graph.editing.splits import split
from jeff_graph.editing.training import fit


@pytest.fixture(scope="module")
def made():
    return simulate_graph(600, 3000, width=8, classes=3, seed=1)


def test_the_made_graph(made):
    """Sizes as asked, hubs among the first nodes, edges mostly within a class."""
    graph, labels = made
    assert graph.nodes.shape == (600, 8)
    assert 5000 < num_edges(graph) <= 6000
    assert set(np.bincount(labels)) == {200}
    degree = np.bincount(graph.receivers, minlength=600)
    assert degree[:60].mean() > 2 * degree[300:].mean()
    same = labels[np.stack([graph.senders, graph.receivers])]
    # Within a class by design, or else by chance.
    assert abs((same[0] == same[1]).mean() - (0.65 + 0.35 / 3)) < 0.04
    again = simulate_graph(600, 3000, width=8, classes=3, seed=1)
    np.testing.assert_array_equal(again.graph.nodes, graph.nodes)


def test_all_neighbours_in_one_batch_are_the_whole_graph(made, kind, key):
    """With nothing left out, the steps are those of training on whole graphs."""
    graph, labels = kind(made.graph), made.labels
    # Without the degrees of the inner form, one hop more makes them right.
    fanouts = [None] * (2 if isinstance(graph, Graph) else 3)
    parts = split(labels, 200, 100, key=key)
    net = make_net("gcn", 8, 3, hidden=8, dropout_rate=0.0, key=key)
    apply_fn, params = split_net(net)
    settings = {"num_epochs": 6, "key": key}
    whole = fit(apply_fn, params, graph, labels, parts, inductive=True, **settings)
    sampled = fit_sampled(
        apply_fn,
        params,
        graph,
        labels,
        parts,
        fanouts=fanouts,
        batch_size=1000,
        chunk_steps=1,
        **settings,
    )
    pairs = zip(*map(jax.tree.leaves, (sampled.params, whole.params)), strict=True)
    for mine, theirs in pairs:
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-5)
    assert sampled[1:] == whole[1:]


def test_it_learns_and_goes_on_where_it_broke_off(made, kind, key, tmp_path):
    graph, labels = kind(made.graph), made.labels
    parts = split(labels, 200, 100, key=key)
    net = make_net("sage", 8, 3, hidden=16, key=key)
    apply_fn, params = split_net(net)

    def run(epochs, workdir):
        return fit_sampled(
            apply_fn,
            params,
            graph,
            labels,
            parts,
            key=key,
            fanouts=(5, 3),
            batch_size=20,
            num_epochs=epochs,
            chunk_steps=10,
            workdir=workdir,
        )

    whole = run(6, tmp_path / "whole")
    assert whole.test > 0.6  # chance: 1/3
    run(3, tmp_path / "broken")
    again = run(6, tmp_path / "broken")
    for mine, theirs in zip(*map(jax.tree.leaves, (again, whole)), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_mistakes(made, key, unchecked):
    graph, labels = made
    apply_fn, params = split_net(make_net("mlp", 8, 3, key=key))
    parts = split(labels, 200, 100, key=key)

    def run(parts=parts, **settings):
        return fit_sampled(apply_fn, params, graph, labels, parts, key=key, **settings)

    with pytest.raises(ValueError, match="num_steps: expected at least 1, got 0"):
        run(num_epochs=0)
    with pytest.raises(ValueError, match="batch_size: expected 1 to 200"):
        run(batch_size=0)
    with pytest.raises(ValueError, match="fanouts: expected at least 1"):
        run(fanouts=(0,))
    nobody = parts._replace(train=np.zeros(600, bool))
    with pytest.raises(ValueError, match=r"split.train: expected at least one"):
        run(nobody)
    with pytest.raises(ValueError, match="nodes, edges, width, classes: "):
        simulate_graph(2, 5, classes=3)
