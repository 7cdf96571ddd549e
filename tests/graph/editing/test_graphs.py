"""Test graphs by hand and against a dense adjacency; padding; rejected input."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental.sparse import BCSR

from jeff_graph.editing.checks import checked_labels
from jeff_graph.editing.graphs import (
    as_graph,
    make_graph,
    num_edges,
    num_nodes,
    pad,
)
from jeff_graph.editing.hops import degrees


def pairs_of(graph) -> list[tuple[int, int]]:
    """Real edges as a list, repetitions included."""
    graph = as_graph(graph)
    real = np.asarray(graph.edge_mask)
    ends = (np.asarray(graph.senders)[real], np.asarray(graph.receivers)[real])
    return list(zip(*(end.tolist() for end in ends), strict=True))


def test_a_graph_by_hand(kind):
    """A repeated edge, its reverse and a self-loop: one edge each way is left."""
    edges = np.array([[0, 2], [0, 2], [2, 0], [1, 1], [3, 2]])
    made = make_graph(np.eye(5)[:, :3], edges)
    assert made.nodes.dtype == np.float32 and made.edges is None
    assert made.senders.dtype == made.receivers.dtype == np.int32
    assert (made.n_node.tolist(), made.n_edge.tolist()) == ([5], [4])
    assert all(isinstance(x, np.ndarray) for x in (made.nodes, made.senders))
    graph = kind(made)
    assert pairs_of(graph) == [(2, 0), (0, 2), (3, 2), (2, 3)]
    assert (num_nodes(graph), num_edges(graph)) == (5, 4)
    inner = as_graph(graph)
    assert inner.node_mask.all() and inner.edge_mask.all()
    np.testing.assert_array_equal(degrees(graph), [1, 0, 2, 1, 0])


def test_directed_edges_go_one_way():
    edges = np.array([[0, 2], [1, 2], [2, 1], [1, 2]])
    graph = make_graph(np.ones((3, 1)), edges, undirected=False)
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
    graph = make_graph(np.ones((nodes, 1)), edges, undirected=undirected)
    dense = np.zeros((nodes, nodes), bool)
    for sender, receiver in edges:
        dense[receiver, sender] = True
        dense[sender, receiver] |= undirected
    np.fill_diagonal(dense, False)
    assert pairs_of(graph) == [(s, r) for r, s in np.argwhere(dense).tolist()]
    np.testing.assert_array_equal(degrees(graph), dense.sum(1))


def test_padding(small, kind):
    graph = kind(make_graph(*small))
    padded = pad(graph, 20, num_edges(graph) + 7)
    assert type(padded) is type(graph)
    assert (num_nodes(padded), num_edges(padded)) == (20, num_edges(graph) + 7)
    assert pairs_of(padded) == pairs_of(graph)
    inner = as_graph(padded)
    np.testing.assert_array_equal(inner.node_mask, np.arange(20) < 12)
    assert inner.degree is None
    np.testing.assert_array_equal(inner.features[12:], 0)
    np.testing.assert_array_equal(degrees(padded)[:12], degrees(graph))
    np.testing.assert_array_equal(degrees(padded)[12:], 0)
    assert inner.senders.max() < 20 and inner.senders.min() >= 0


def test_padding_of_the_inner_form(small):
    """Degrees are padded too, and no node need be added."""
    graph = as_graph(make_graph(*small))
    told = dataclasses.replace(graph, degree=jnp.arange(12.0))
    expected = [*range(12), 0, 0]
    np.testing.assert_array_equal(degrees(pad(told, 14, told.num_edges)), expected)
    same = pad(graph, graph.num_nodes, graph.num_edges + 3)
    assert pairs_of(same) == pairs_of(graph)


def test_padding_of_sparse_features(small, kind):
    features, edges = small
    dense = np.maximum(features, 0).astype(np.float32)
    graph = kind(make_graph(BCSR.fromdense(dense), edges))
    padded = as_graph(pad(graph, 15, num_edges(graph)))
    assert isinstance(padded.features, BCSR)
    expected = np.pad(dense, [(0, 3), (0, 0)])
    np.testing.assert_array_equal(padded.features.todense(), expected)
    np.testing.assert_array_equal(padded.node_mask, np.arange(15) < 12)


def test_sparse_features_must_be_finite(small, unchecked):
    features, edges = small
    bad = BCSR.fromdense(np.where(features > 1, np.nan, features))
    with pytest.raises(ValueError, match="a sparse matrix of finite numbers"):
        make_graph(bad, edges)


GOOD = (np.ones((4, 2)), np.array([[0, 1], [2, 3], [1, 2]]))


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
        (1, np.ones((3, 2)), TypeError, "edges: expected integers, got float64"),
        (1, GOOD[1].T, ValueError, r"edges: .* got \(2, 3\); transpose it"),
        (1, np.array([0, 1, 2]), ValueError, r"edges: expected \[edges, 2\], got \(3"),
        (
            1,
            np.array([[0, 1], [3, 4], [5, 0]]),
            ValueError,
            r"numbers from 0 to 3, got \[3, 4\] in row 1; .*\(2 such edges\)",
        ),
        (1, np.array([[0, -1]]), ValueError, r"edges: .* got \[0, -1\] in row 0"),
    ],
)
def test_arrays_that_make_no_graph(place, value, error, words):
    arrays = list(GOOD)
    arrays[place] = value
    with pytest.raises(error, match=words):
        make_graph(*arrays)


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        (np.zeros(4), TypeError, "labels: .* got float64; number the classes"),
        (np.zeros(3, int), ValueError, r"labels: expected one .* 4 nodes.*\(3,\)"),
        (np.array([0, -2, 1, 1]), ValueError, "labels: expected at least 0.*-2"),
        (np.array([0, 10**7, 1, 1]), ValueError, "10000000; number the classes"),
    ],
)
def test_labels_that_are_none(labels, error, words):
    with pytest.raises(error, match=words):
        checked_labels(labels, 4)


def test_sizes_that_are_too_small(unchecked, kind):
    graph = kind(make_graph(*GOOD))
    least = 4 if kind is as_graph else 5  # jraph pads with a graph of at least one node
    with pytest.raises(ValueError, match=f"nodes: expected at least the {least} slots"):
        pad(graph, least - 1, 9)
    with pytest.raises(ValueError, match=r"edges: .* the 6 slots, got 5"):
        pad(graph, 5, 5)
