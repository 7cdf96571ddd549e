"""Test networks against those of jraph, and jraph's networks in every function."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest

from jeff_graph.editing import (
    Editor,
    as_graph,
    degrees,
    evaluation,
    k_hop,
    make_graph,
    make_task,
    methods,
    nearby_tasks,
    newton,
    sample_neighbours,
    split,
    subgraph,
)
from jeff_graph.editing.nets import make_net, split_net
from jeff_graph.editing.sampled import fit_sampled
from jeff_graph.editing.training import fit

LAYERS = 2


def layer(params, index):
    return params["layers"][index]


def chained(make_layer, activation=jax.nn.relu):
    """A network of jraph of two layers on the parameters of jeff's."""

    def apply_fn(params, graph):
        for index in range(LAYERS):
            last = index == LAYERS - 1
            graph = make_layer(layer(params, index))(graph)
            if not last:
                graph = graph._replace(nodes=activation(graph.nodes))
        return graph.nodes

    return apply_fn


def gcn_layer(p):
    def plus_bias(graph):
        return graph._replace(nodes=graph.nodes + p["bias"])

    convolution = jraph.GraphConvolution(lambda x: x @ p["kernel"], add_self_edges=True)
    return lambda graph: plus_bias(convolution(graph))


def gat_layer(p):
    """Of one head; jraph wants loops, and has one vector for both ends."""
    attention = jnp.concatenate([p["sender"][0], p["receiver"][0]])

    def with_loops(graph):
        loops = jnp.arange(graph.nodes.shape[0])
        return graph._replace(
            senders=jnp.concatenate([graph.senders, loops]),
            receivers=jnp.concatenate([graph.receivers, loops]),
        )

    def score(sent, received, edges):
        both = jnp.concatenate([sent, received], axis=1)
        return jax.nn.leaky_relu(both @ attention, 0.2)[:, None]

    attend = jraph.GAT(lambda x: x @ p["kernel"], score, lambda x: x + p["bias"])
    return lambda graph: graph._replace(nodes=attend(with_loops(graph)).nodes)


def sage_layer(p):
    return jraph.GraphNetwork(
        update_edge_fn=lambda edges, sent, received, globals_: sent @ p["neighbour"],
        update_node_fn=lambda nodes, sent, received, globals_: (
            nodes @ p["own"]["kernel"] + p["own"]["bias"] + received
        ),
        aggregate_edges_for_nodes_fn=jraph.segment_mean,
    )


def sage(params, graph):
    # A network of jraph writes its messages into the edges.
    for index in range(LAYERS):
        graph = sage_layer(layer(params, index))(graph._replace(edges=None))
        if index < LAYERS - 1:
            graph = graph._replace(nodes=jax.nn.relu(graph.nodes))
    return graph.nodes


PEERS = {
    "gcn": chained(gcn_layer),
    "gat": chained(gat_layer, jax.nn.elu),
    "sage": sage,
}


@pytest.mark.parametrize("name", PEERS)
def test_networks_equal_those_of_jraph(name, small, lively):
    """Logits and gradients, in one compiled call each."""
    options = {"heads": 1} if name == "gat" else {}
    net = make_net(name, 5, 3, hidden=8, key=jax.random.key(0), **options)
    apply_fn, params = split_net(net)
    params, graph = lively(params), make_graph(*small)
    weight = jax.random.normal(jax.random.key(1), (12, 3))

    @functools.partial(jax.jit, static_argnums=0)
    def found(apply_fn, params):
        def total(params):
            logits = apply_fn(params, graph)
            return jnp.sum(weight * logits), logits

        return jax.grad(total, has_aux=True)(params)

    mine, theirs = found(apply_fn, params), found(PEERS[name], params)
    assert np.ptp(theirs[1], axis=0).min() > 0.1
    chex.assert_trees_all_close(mine, theirs, rtol=1e-5, atol=1e-5)


class Convolutions(nn.Module):
    """A Linen network that calls jraph."""

    @nn.compact
    def __call__(self, graph):
        for width in (8, 3):
            graph = jraph.GraphConvolution(nn.Dense(width), add_self_edges=True)(graph)
            if width == 8:
                graph = graph._replace(nodes=nn.relu(graph.nodes))
        return graph.nodes


@pytest.fixture(scope="module")
def made():
    """``(graph, labels, parts)``: 60 nodes, a hub, one without edges, 3 classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    features = rng.normal(size=(60, 5)) + 3 * np.eye(3, 5)[labels]
    pairs = rng.integers(0, 55, (60, 2))
    hub = np.stack([np.zeros(15, int), np.arange(1, 16)], axis=1)
    graph = make_graph(features, np.concatenate([pairs, hub]))
    return graph, labels, split(labels, 25, 15, key=jax.random.key(0))


@pytest.fixture(scope="module", params=["arrays", "linen"])
def network(request, made):
    """``(apply_fn, params)`` of a GCN of jraph."""
    if request.param == "linen":
        module = Convolutions()
        return module.apply, module.init(jax.random.key(0), made[0])
    net = make_net("gcn", 5, 3, hidden=8, key=jax.random.key(0))
    return PEERS["gcn"], split_net(net)[1]


def test_networks_of_jraph_everywhere(network, made, key):
    """Training, samples, an editor and the protocols take graph and network alike."""
    (apply_fn, params), (graph, labels, parts) = network, made
    trained = fit(apply_fn, params, graph, labels, parts, key=key, num_epochs=30)
    assert trained.train > 0.6
    sampled = fit_sampled(
        apply_fn,
        params,
        graph,
        labels,
        parts,
        key=key,
        fanouts=(4, 3),
        batch_size=12,
        num_epochs=3,
    )
    assert 0 <= sampled.test <= 1
    assert not jnp.array_equal(*map(first_leaf, (sampled.params, params)))
    wrong = np.flatnonzero(parts.test)[:2]
    said = np.asarray(apply_fn(trained.params, graph).argmax(1))
    asked = labels.copy()
    asked[wrong] = (said[wrong] + 1) % 3
    task = make_task(graph, asked, parts.train)
    editor = Editor.start(
        newton.minimal_edit(apply_fn), trained.params, task, parts.test, key=key
    )
    for node in wrong:
        editor, outcome = editor.edit(node)
        assert outcome.success
    assert (editor.logits().argmax(1)[wrong] == asked[wrong]).all()
    descent = methods.gradient_descent(apply_fn, learning_rate=0.1)
    for protocol in (evaluation.sequential, evaluation.batch):
        run = jax.jit(functools.partial(protocol, descent, max_steps=40))
        _, report = run(trained.params, task, wrong, parts.test, key=key)
        assert report.success.all()


def first_leaf(tree):
    return jax.tree.leaves(tree)[0]


def test_nearby_edits_of_jraph_are_those_of_the_whole_graph(network, made, key):
    (apply_fn, params), (graph, labels, parts) = network, made
    task = make_task(graph, labels, parts.train)
    said = np.asarray(apply_fn(params, graph).argmax(1))
    targets = np.flatnonzero(said != labels)[:3]
    method = methods.gradient_descent(apply_fn, learning_rate=0.05)
    run = jax.jit(functools.partial(evaluation.independent, method))
    given = params, task, targets, parts.test
    whole = run(*given, key=key)
    near = run(*given, key=key, near=nearby_tasks(graph, labels, targets, LAYERS))
    assert whole.steps.min() > 0
    chex.assert_trees_all_equal(near.steps, whole.steps)
    chex.assert_trees_all_equal(near.success, whole.success)
    np.testing.assert_allclose(near.drawdowns, whole.drawdowns, atol=1e-4)
    np.testing.assert_allclose(near.divergence, whole.divergence, rtol=1e-4)


def test_whole_samples_give_the_logits_of_jraph(network, made, key):
    (apply_fn, params), (graph, _, _) = network, made
    seeds = np.array([5, 0, 59])
    near = sample_neighbours(graph, seeds, [None] * 4, key=key)
    expected = apply_fn(params, graph)[seeds]
    np.testing.assert_allclose(
        apply_fn(params, near.graph)[:3], expected, rtol=1e-5, atol=1e-5
    )


def test_features_that_are_no_matrix(made):
    """Questions of the edges alone take any features."""
    graph, _, parts = made
    bare = graph._replace(nodes={"x": graph.nodes, "more": np.zeros((60, 2, 2))})
    np.testing.assert_array_equal(degrees(bare), degrees(graph))
    np.testing.assert_array_equal(k_hop(bare, 3, 2), k_hop(graph, 3, 2))
    cut = subgraph(bare, parts.train)
    np.testing.assert_array_equal(cut.senders, subgraph(graph, parts.train).senders)
    with pytest.raises(ValueError, match=r"graph.nodes: expected an array .*'more'"):
        as_graph(bare)
    for missing in (graph._replace(senders=None), graph._replace(nodes=None)):
        with pytest.raises(ValueError, match=r"graph\.(senders|nodes).*got None"):
            degrees(missing)


def small_graphs(count=30):
    """Graphs of 3 to 7 nodes; the class is whether the first feature's mean is > 0."""
    rng = np.random.default_rng(1)
    graphs, labels = [], []
    for number in range(count):
        nodes = int(rng.integers(3, 8))
        label = number % 2
        features = rng.normal(size=(nodes, 4))
        features[:, 0] += 3 * label - 1.5
        edges = rng.integers(0, nodes, (2 * nodes, 2))
        one = make_graph(features, edges)
        graphs.append(one._replace(globals=np.zeros((1, 2), np.float32)))
        labels.append(label)
    return graphs, np.array(labels)


def with_globals(params, graph):
    """A GraphNetwork of jraph, whose logits are the globals."""
    update = jraph.GraphNetwork(
        update_edge_fn=lambda edges, sent, received, globals_: sent,
        update_node_fn=lambda nodes, sent, received, globals_: jax.nn.relu(
            nodes @ params["own"] + received @ params["near"]
        ),
        update_global_fn=lambda nodes, edges, globals_: (
            nodes @ params["out"] + globals_
        ),
        aggregate_nodes_for_globals_fn=jraph.segment_mean,
    )
    return update(graph._replace(edges=None)).globals


def network_of_graphs(kind, key):
    if kind == "jraph":
        keys = jax.random.split(key, 3)
        shapes = {"own": (4, 8), "near": (4, 8), "out": (8, 2)}
        return with_globals, {
            name: jax.random.normal(k, shape) / 2
            for k, (name, shape) in zip(keys, shapes.items(), strict=True)
        }
    return split_net(make_net("gcn", 4, 2, hidden=8, readout=kind, key=key))


@pytest.mark.parametrize("readout", ["mean", "sum", "jraph"])
def test_graphs_are_classified_and_corrected(readout, key):
    """A rule is learned from 14 of 30 graphs; a wrong label is then taught."""
    graphs, labels = small_graphs()
    graph = jraph.batch_np(graphs)
    apply_fn, params = network_of_graphs(readout, key)
    parts = split(labels, 14, 6, key=key)
    trained = fit(apply_fn, params, graph, labels, parts, key=key, num_epochs=80)
    assert trained.test > 0.8
    task = make_task(graph, labels, parts.train)
    assert task.edges is None and task.features is None
    method = methods.gradient_descent(apply_fn)
    editor = Editor.start(method, trained.params, task, parts.test, key=key)
    editor, outcome = editor.edit(3, 1 - labels[3])
    assert outcome.success and outcome.steps > 0
    assert editor.logits().argmax(1)[3] == 1 - labels[3]
    with pytest.raises(ValueError, match=r"node: expected .* below 30, got 30"):
        editor.edit(30)
    with pytest.raises(ValueError, match="inductive: expected False for labels of gr"):
        fit(apply_fn, params, graph, labels, parts, key=key, inductive=True)
    with pytest.raises(ValueError, match="labels: expected one for each node"):
        fit_sampled(apply_fn, params, graph, labels, parts, key=key)


@pytest.mark.parametrize("readout", ["mean", "sum"])
def test_pooled_logits_by_hand(readout, key):
    """Each graph's are those of the graph by itself."""
    graphs, _ = small_graphs(5)
    graph = jraph.batch_np(graphs)
    apply_fn, params = network_of_graphs(readout, key)
    found = apply_fn(params, graph)
    for row, alone in zip(found, graphs, strict=True):
        nodes = PEERS["gcn"](params, alone)
        total = nodes.mean(0) if readout == "mean" else nodes.sum(0)
        np.testing.assert_allclose(row, total, rtol=1e-5, atol=1e-5)
    padded = jraph.pad_with_graphs(graph, 60, 150, 8)
    np.testing.assert_allclose(
        apply_fn(params, padded)[:5], found, rtol=1e-5, atol=1e-5
    )
