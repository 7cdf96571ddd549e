"""Test weights of edges against dense matrices, and where they come from."""

from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_graph.editing import (
    as_graph,
    degrees,
    loaders,
    make_graph,
    nearby_tasks,
    sample_neighbours,
    to_jraph,
)
from jeff_graph.editing.messages import (
    compressed,
    mean_neighbours,
    propagate,
    sum_neighbours,
)
from jeff_graph.editing.nets import make_net, split_net

NAMES = ("gcn", "sgc", "appnp", "sage", "gin", "mlp")


@pytest.fixture(scope="module")
def weighed():
    """``(graph, adjacency)``: 12 nodes, undirected, each edge with its weight."""
    rng = np.random.default_rng(0)
    edges = np.unique(np.sort(rng.integers(0, 11, (20, 2)), axis=1), axis=0)
    edges = edges[edges[:, 0] != edges[:, 1]]
    weights = rng.uniform(0.2, 3, len(edges)).astype(np.float32)
    dense = np.zeros((12, 12))
    dense[edges[:, 0], edges[:, 1]] = dense[edges[:, 1], edges[:, 0]] = weights
    features = rng.normal(size=(12, 5))
    return make_graph(features, edges, weights=weights), dense


def reference(name, params, adjacency, x):
    """Two layers in float64; A[i, j] is the weight of the edge from j to i."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)["layers"]
    looped = adjacency + np.eye(12)
    root = np.diag(looped.sum(1) ** -0.5)
    spread = root @ looped @ root
    total = adjacency.sum(1)
    mean = adjacency / np.where(total > 0, total, 1)[:, None]

    def relu(x):
        return np.maximum(x, 0)

    def dense(p, x):
        return x @ p["kernel"] + p["bias"]

    def one(p, x):
        if name == "gcn":
            return dense(p, spread @ x)
        if name == "sage":
            return dense(p["own"], x) + mean @ x @ p["neighbour"]
        if name == "gin":
            mixed = (1 + p["epsilon"]) * x + adjacency @ x
            return dense(p["second"], relu(dense(p["first"], mixed)))
        return dense(p, x)

    if name == "sgc":
        return dense(params[0], spread @ spread @ x)
    own = one(params[1], relu(one(params[0], x)))
    z = own
    for _ in range(10 if name == "appnp" else 0):
        z = 0.9 * spread @ z + 0.1 * own
    return z


@pytest.mark.parametrize("name", NAMES)
def test_networks_weigh_messages(name, weighed, lively, key):
    """As a GraphsTuple, inside, compressed, and mapped over parameters."""
    graph, dense = weighed
    apply_fn, params = split_net(make_net(name, 5, 3, hidden=8, key=key))
    params = lively(params)
    expected = reference(name, params, dense, graph.nodes)
    if name != "mlp":
        plain = reference(name, params, dense > 0, graph.nodes)
        assert np.abs(expected - plain).max() > 0.05
    several = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), params)
    for form in (lambda graph: graph, as_graph, compressed):
        mapped = jax.jit(jax.vmap(apply_fn, (0, None)))(several, form(graph))
        np.testing.assert_allclose(mapped[0], expected, rtol=2e-4, atol=2e-4)
        assert np.abs(mapped[1] - mapped[0]).max() > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_samples_and_neighbourhoods_keep_weights(name, weighed, lively, kind, key):
    graph, _ = weighed
    options = {"steps": 2} if name == "appnp" else {}
    apply_fn, params = split_net(make_net(name, 5, 3, hidden=8, key=key, **options))
    params, seeds = lively(params), np.array([3, 0, 11])
    expected = apply_fn(params, graph)[seeds]
    form = kind(graph)
    hops = 2 if kind is as_graph else 3
    cut = sample_neighbours(form, seeds, [None] * hops, key=key).graph
    near = nearby_tasks(form, np.zeros(12, int), seeds, 2)
    for found in (
        apply_fn(params, cut)[:3],
        jnp.concatenate(
            [
                jax.vmap(apply_fn, (None, 0))(params, task.inputs)[:, 0]
                for task in near.tasks
            ]
        )[np.argsort(np.concatenate(near.places))],
    ):
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_attention_refuses_weights(weighed, kind, key):
    apply_fn, params = split_net(make_net("gat", 5, 3, hidden=8, key=key))
    graph = kind(weighed[0])
    with pytest.raises(ValueError, match=r"graph.edges: expected None for attention"):
        apply_fn(params, graph)
    assert apply_fn(params, weighed[0]._replace(edges=None)).shape == (12, 3)


def test_messages_by_hand(kind):
    """A chain of weights 2 and 3; node 3 is alone."""
    graph = kind(make_graph(np.ones((4, 1)), [[0, 1], [1, 2]], weights=[2.0, 3.0]))
    x = jnp.array([[1.0], [10.0], [100.0], [7.0]])
    np.testing.assert_array_equal(degrees(graph), [2, 5, 3, 0])
    np.testing.assert_allclose(sum_neighbours(graph, x)[:, 0], [20, 302, 30, 0])
    np.testing.assert_allclose(mean_neighbours(graph, x)[:, 0], [10, 60.4, 10, 0])
    ends = np.sqrt(np.array([3, 6, 4, 1]))
    scaled = np.array([1, 10, 100, 7]) / ends
    sums = [2 * scaled[1], 2 * scaled[0] + 3 * scaled[2], 3 * scaled[1], 0]
    np.testing.assert_allclose(
        propagate(graph, x)[:, 0], (sums + scaled) / ends, rtol=1e-6
    )


@pytest.mark.parametrize("operation", [propagate, mean_neighbours, sum_neighbours])
def test_a_compressed_graph_is_mapped_and_differentiated(operation, weighed):
    """Forwards and backwards, inside vmap and outside, as sums over segments."""
    graph = weighed[0]
    x, moved, weight = jax.random.normal(jax.random.key(0), (3, 4, 12, 6))

    @jax.jit
    def found(graph):
        def value(x):
            return jnp.sum(jnp.sin(operation(graph, x)) * weight[0])

        along = jax.vmap(lambda x, d: jax.jvp(jax.grad(value), (x,), (d,)))(x, moved)
        back = jax.grad(lambda x: jax.vmap(value)(x).sum())(x)
        return along, back

    chex.assert_trees_all_close(
        found(compressed(graph)), found(as_graph(graph)), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    ("weights", "error", "words"),
    [
        ([1.0, 2.0, 3.0], ValueError, r"weights: expected one for each of 2 edges"),
        ([1.0, 0.0], ValueError, "weights: expected positive numbers, got 0.0"),
        ([1.0, np.nan], ValueError, "weights: expected positive numbers, got nan"),
        ([-1.0, 1.0], ValueError, "weights: expected positive numbers, got -1.0"),
        (["a", "b"], TypeError, "weights: expected real numbers"),
    ],
)
def test_weights_that_are_refused(weights, error, words):
    with pytest.raises(error, match=words):
        make_graph(np.ones((3, 1)), [[0, 1], [1, 2]], weights=np.array(weights))


def test_an_edge_that_comes_twice():
    edges = [[0, 1], [1, 0], [1, 2]]
    same = make_graph(np.ones((3, 1)), edges, weights=[2.0, 2.0, 5.0])
    np.testing.assert_array_equal(same.edges, [2, 2, 5, 5])
    with pytest.raises(ValueError, match=r"one weight an edge, got two for \(1, 0\)"):
        make_graph(np.ones((3, 1)), edges, weights=[2.0, 3.0, 5.0])
    both = make_graph(np.ones((3, 1)), edges, weights=[2.0, 3.0, 5.0], undirected=False)
    np.testing.assert_array_equal(both.senders, [1, 0, 1])
    np.testing.assert_array_equal(both.edges, [3, 2, 5])
    with pytest.raises(ValueError, match="expected an undirected one"):
        compressed(both)
    uneven = make_graph(
        np.ones((2, 1)), [[0, 1], [1, 0]], weights=[2.0, 3.0], undirected=False
    )
    with pytest.raises(ValueError, match="graph: expected the same weight both ways"):
        compressed(uneven)


ARRAYS = {
    "features": np.ones((3, 2)),
    "labels": np.array([0, 1, 1]),
    "edges": np.array([[0, 1], [1, 2]]),
}
COMPACT = {
    "shape": np.array([3, 2]),
    "y": np.array([0, 1, 1]),
    "adj_indptr": np.array([0, 1, 3, 4]),
    "adj_indices": np.array([1, 0, 2, 1]),
    "x_indptr": np.array([0, 1, 2, 3]),
    "x_indices": np.array([0, 1, 0]),
    "x_data": np.ones(3),
}


@pytest.mark.parametrize(
    "arrays",
    [
        ARRAYS | {"weights": np.array([2.0, 5.0])},
        COMPACT | {"adj_data": np.array([2, 2, 5, 5])},
    ],
)
def test_weights_of_a_file(tmp_path, arrays):
    np.savez(tmp_path / "g.npz", **arrays)
    graph, _ = loaders.load_npz(tmp_path / "g.npz")
    np.testing.assert_array_equal(graph.edges, [2, 2, 5, 5])
    np.testing.assert_array_equal(graph.receivers, [0, 1, 1, 2])
    assert to_jraph(as_graph(graph)).edges.tolist() == [2, 2, 5, 5]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (ARRAYS | {"edge_weight": np.ones(2)}, "edge_weight: .* as 'weights', got an"),
        (ARRAYS | {"edge_attr": np.ones((2, 3))}, "edge_attr: .* rename it, or leave"),
        (ARRAYS | {"weights": np.ones(3)}, "weights: expected one for each of 2 edges"),
        (COMPACT | {"weights": np.ones(4)}, "weights: .* as 'adj_data'"),
        (COMPACT | {"adj_data": np.ones(3)}, "adj_data: expected 4 numbers"),
        (
            COMPACT | {"adj_data": np.array([2.0, 3.0, 5.0, 5.0])},
            "one weight an edge, got two",
        ),
    ],
)
def test_weights_of_a_file_that_are_refused(tmp_path, arrays, words):
    np.savez(tmp_path / "g.npz", **arrays)
    with pytest.raises(ValueError, match=rf"g\.npz: .*{words}"):
        loaders.load_npz(tmp_path / "g.npz")


def test_weights_of_other_libraries():
    torch = pytest.importorskip("torch")
    index = np.array([[0, 1], [1, 2]])
    given = {"x": torch.ones(3, 2), "y": torch.tensor([0, 1, 1])}
    given |= {"edge_index": torch.tensor(index)}
    data = SimpleNamespace(**given, edge_weight=torch.tensor([2.0, 5.0]))
    graph, _ = loaders.from_pyg(data)
    np.testing.assert_array_equal(graph.edges, [2, 5])
    np.testing.assert_array_equal(graph.receivers, [1, 2])
    data = SimpleNamespace(**given, edge_attr=torch.ones(2, 4))
    with pytest.raises(ValueError, match=r"edge_attr: .* got shape \(2, 4\); drop it"):
        loaders.from_pyg(data)
    item = {"node_feat": np.ones((3, 2)), "edge_index": index, "edge_feat": None}
    labels = np.zeros((3, 1), int)
    graph, _ = loaders.from_ogb(
        item | {"edge_weight": np.array([[2.0], [5.0]])}, labels
    )
    np.testing.assert_array_equal(graph.edges, [2, 2, 5, 5])
    assert loaders.from_ogb(item, labels).graph.edges is None
    with pytest.raises(ValueError, match=r"edge_feat: expected None"):
        loaders.from_ogb(item | {"edge_feat": np.ones((2, 8))}, labels)
