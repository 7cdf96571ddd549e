"""Test graphs by hand, against a dense adjacency and a search; rejected input."""

import dataclasses
from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental.sparse import BCSR

from jeff_graph.editing.graphs import (
    Graph,
    degrees,
    hop_distance,
    k_hop,
    make_graph,
    pad,
    subgraph,
)


def chain(nodes: int, **options) -> Graph:
    steps = np.arange(nodes - 1)
    edges = np.stack([steps, steps + 1], axis=1)
    return make_graph(np.ones((nodes, 2)), np.zeros(nodes, int), edges, **options)


def pairs_of(graph: Graph) -> list[tuple[int, int]]:
    """Real edges as a list, repetitions included."""
    real = np.asarray(graph.edge_mask)
    ends = (np.asarray(graph.senders)[real], np.asarray(graph.receivers)[real])
    return list(zip(*(end.tolist() for end in ends), strict=True))


def test_a_graph_by_hand():
    """A repeated edge, its reverse and a self-loop: one edge each way is left."""
    edges = np.array([[0, 2], [0, 2], [2, 0], [1, 1], [3, 2]])
    graph = make_graph(np.eye(5)[:, :3], np.array([0, 1, 2, -1, 1]), edges)
    assert pairs_of(graph) == [(2, 0), (0, 2), (3, 2), (2, 3)]
    assert (graph.num_nodes, graph.num_edges) == (5, 4)
    assert graph.features.dtype == jnp.float32 and graph.labels.dtype == jnp.int32
    assert graph.node_mask.all() and graph.edge_mask.all()
    np.testing.assert_array_equal(graph.labels, [0, 1, 2, -1, 1])
    np.testing.assert_array_equal(degrees(graph), [1, 0, 2, 1, 0])


def test_directed_edges_go_one_way():
    edges = np.array([[0, 2], [1, 2], [2, 1], [1, 2]])
    graph = make_graph(np.ones((3, 1)), np.zeros(3, int), edges, undirected=False)
    assert pairs_of(graph) == [(2, 1), (0, 2), (1, 2)]
    np.testing.assert_array_equal(degrees(graph), [0, 1, 2])


@given(
    st.integers(1, 12).flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1))),
        )
    ),
    st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_edges_are_the_nonzeros_of_the_adjacency(problem, undirected):
    nodes, edges = problem
    graph = make_graph(
        np.ones((nodes, 1)), np.zeros(nodes, int), edges, undirected=undirected
    )
    dense = np.zeros((nodes, nodes), bool)
    for sender, receiver in edges:
        dense[receiver, sender] = True
        dense[sender, receiver] |= undirected
    np.fill_diagonal(dense, False)
    assert pairs_of(graph) == [(s, r) for r, s in np.argwhere(dense).tolist()]
    np.testing.assert_array_equal(degrees(graph), dense.sum(1))


def test_padding(small):
    graph = make_graph(*small)
    padded = pad(graph, 20, graph.num_edges + 7)
    assert (padded.num_nodes, padded.num_edges) == (20, graph.num_edges + 7)
    assert pairs_of(padded) == pairs_of(graph)
    assert padded.node_mask.sum() == 12 and padded.degree is None
    np.testing.assert_array_equal(padded.labels[12:], -1)
    np.testing.assert_array_equal(padded.features[12:], 0)
    np.testing.assert_array_equal(degrees(padded)[:12], degrees(graph))
    np.testing.assert_array_equal(degrees(padded)[12:], 0)
    assert padded.senders.max() < 20 and padded.senders.min() >= 0
    told = dataclasses.replace(graph, degree=jnp.arange(12.0))
    expected = [*range(12), 0, 0]
    np.testing.assert_array_equal(degrees(pad(told, 14, told.num_edges)), expected)
    same = pad(graph, graph.num_nodes, graph.num_edges + 3)
    assert pairs_of(same) == pairs_of(graph)


def test_padding_of_sparse_features(small):
    features, labels, edges = small
    dense = np.maximum(features, 0).astype(np.float32)
    graph = make_graph(BCSR.fromdense(dense), labels, edges)
    padded = pad(graph, 15, graph.num_edges)
    assert isinstance(padded.features, BCSR)
    expected = np.pad(dense, [(0, 3), (0, 0)])
    np.testing.assert_array_equal(padded.features.todense(), expected)


def test_sparse_features_must_be_finite(small, unchecked):
    features, labels, edges = small
    bad = BCSR.fromdense(np.where(features > 1, np.nan, features))
    with pytest.raises(ValueError, match="a sparse matrix of finite numbers"):
        make_graph(bad, labels, edges)


def test_subgraphs_keep_their_places(small, key):
    graph = make_graph(*small)
    keep = jax.random.bernoulli(key, 0.6, (12,))
    part = jax.jit(subgraph)(graph, keep)
    expected = [(s, r) for s, r in pairs_of(graph) if keep[s] and keep[r]]
    assert 0 < len(expected) < graph.num_edges
    assert pairs_of(part) == expected
    np.testing.assert_array_equal(part.node_mask, keep)
    np.testing.assert_array_equal(part.features, graph.features)
    counted = np.bincount([r for _, r in expected], minlength=12)
    np.testing.assert_array_equal(degrees(part), counted)
    told = dataclasses.replace(graph, degree=jnp.full(12, 99.0))
    np.testing.assert_array_equal(degrees(subgraph(told, keep)), counted)


def test_subgraph_of_a_padded_graph(small):
    graph = pad(make_graph(*small), 16, 50)
    everything = subgraph(graph, jnp.ones(16, bool))
    assert pairs_of(everything) == pairs_of(graph)
    np.testing.assert_array_equal(everything.node_mask, graph.node_mask)


def breadth_first(edges: np.ndarray, nodes: int, start: int) -> dict[int, int]:
    """Distance of every node that a queue finds from the start."""
    follow = {node: [] for node in range(nodes)}
    for sender, receiver in edges.tolist():
        follow[sender].append(receiver)
    distance, queue = {start: 0}, deque([start])
    while queue:
        node = queue.popleft()
        for other in follow[node]:
            if other not in distance:
                distance[other] = distance[node] + 1
                queue.append(other)
    return distance


@pytest.mark.parametrize("seed", range(3))
def test_distances_are_those_of_a_search(seed):
    edges = np.random.default_rng(seed).integers(0, 40, (60, 2))
    graph = make_graph(np.ones((40, 1)), np.zeros(40, int), edges, undirected=False)
    graph = pad(graph, 43, 70)
    distance = jax.jit(hop_distance, static_argnames="most")
    seen = set()
    for node in edges[:4, 0].tolist():
        lengths = breadth_first(edges, 40, node)
        expected = [min(lengths.get(n, 99), 5) for n in range(40)]
        found = distance(graph, node, most=4)
        np.testing.assert_array_equal(found, [*expected, 5, 5, 5])
        for hops in (0, 1, 3):
            reached = jax.jit(k_hop)(graph, node, hops)
            np.testing.assert_array_equal(reached, np.asarray(found) <= hops)
        seen |= set(expected)
    assert seen == {0, 1, 2, 3, 4, 5}


def test_distances_vmapped_and_from_several():
    graph = chain(6)
    together = jax.vmap(lambda node: hop_distance(graph, node, 2))(jnp.arange(6))
    apart = np.abs(np.arange(6)[:, None] - np.arange(6))
    np.testing.assert_array_equal(together, np.minimum(apart, 3))
    near = hop_distance(graph, jnp.array([0, 5]), 9)
    np.testing.assert_array_equal(near, [0, 1, 2, 2, 1, 0])
    mask = jnp.zeros(6, bool).at[2].set(True)
    np.testing.assert_array_equal(k_hop(graph, mask, 1), k_hop(graph, 2, 1))
    np.testing.assert_array_equal(hop_distance(graph, 3, 0), [1, 1, 1, 0, 1, 1])


def test_padding_and_masked_nodes_reach_nothing():
    graph = pad(chain(4), 6, 10)
    assert not k_hop(graph, 5, 3).any()
    assert (hop_distance(graph, 5, 3) == 4).all()
    cut = subgraph(chain(5), jnp.array([True, True, False, True, True]))
    np.testing.assert_array_equal(k_hop(cut, 0, 9), [True, True, False, False, False])
    assert not k_hop(cut, 2, 9).any()


def test_a_graph_without_edges():
    graph = make_graph(np.ones((3, 1)), np.zeros(3, int), [])
    assert graph.num_edges == 0
    np.testing.assert_array_equal(k_hop(graph, 1, 2), [False, True, False])
    np.testing.assert_array_equal(degrees(graph), 0)


GOOD = (np.ones((4, 2)), np.zeros(4, int), np.array([[0, 1], [2, 3], [1, 2]]))


@pytest.mark.parametrize(
    ("place", "value", "error", "words"),
    [
        (0, np.ones(4), ValueError, r"features: expected \[nodes, width\].*\(4,\)"),
        (0, np.ones((0, 2)), ValueError, r"features: expected .*at least 1, got \(0"),
        (0, np.ones((4, 2), complex), TypeError, "features: .* got complex128"),
        (0, np.array([["a"] * 2] * 4), TypeError, "features: expected real numbers"),
        (
            0,
            np.array([[1, 1], [1, np.nan], [1, np.inf], [1, 1]]),
            ValueError,
            "finite numbers, got nan at node 1, column 1; drop or impute 2",
        ),
        (1, np.zeros(4), TypeError, "labels: .* got float64; number the classes"),
        (1, np.zeros(3, int), ValueError, r"labels: expected one .* 4 nodes.*\(3,\)"),
        (1, np.array([0, -2, 1, 1]), ValueError, "labels: expected at least 0.*-2"),
        (2, np.ones((3, 2)), TypeError, "edges: expected integers, got float64"),
        (2, GOOD[2].T, ValueError, r"edges: .* got \(2, 3\); transpose it"),
        (2, np.array([0, 1, 2]), ValueError, r"edges: expected \[edges, 2\], got \(3"),
        (
            2,
            np.array([[0, 1], [3, 4], [5, 0]]),
            ValueError,
            r"numbers from 0 to 3, got \[3, 4\] in row 1; .*\(2 such edges\)",
        ),
        (2, np.array([[0, -1]]), ValueError, r"edges: .* got \[0, -1\] in row 0"),
    ],
)
def test_arrays_that_make_no_graph(place, value, error, words):
    arrays = list(GOOD)
    arrays[place] = value
    with pytest.raises(error, match=words):
        make_graph(*arrays)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda g: pad(g, 3, 9), ValueError, "nodes: expected at least the 4 slots"),
        (lambda g: pad(g, 4, 5), ValueError, "edges: .* the 6 slots, got 5"),
        (lambda g: subgraph(g, jnp.arange(4)), TypeError, "keep: expected a bool"),
        (lambda g: subgraph(g, jnp.ones(3, bool)), ValueError, r"keep: .*4 nodes.*3,"),
        (lambda g: k_hop(g, 4, 1), ValueError, "nodes: expected .* 0 to 3, got 4"),
        (lambda g: k_hop(g, -1, 1), ValueError, "nodes: expected .* 0 to 3, got -1"),
        (lambda g: k_hop(g, 1.0, 1), TypeError, "nodes: .* node numbers, got float32"),
        (lambda g: k_hop(g, jnp.ones(5, bool), 1), ValueError, r"nodes: .*4 nodes"),
        (lambda g: hop_distance(g, 4, 1), ValueError, "node: expected .* 3, got 4"),
        (lambda g: hop_distance(g, 0, -1), ValueError, "most: expected .* got -1"),
    ],
)
def test_other_mistakes(unchecked, call, error, words):
    with pytest.raises(error, match=words):
        call(make_graph(*GOOD))
