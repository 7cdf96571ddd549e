"""Test degrees, distances and subgraphs against a dense adjacency and a search."""

import dataclasses
from collections import deque

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_graph.editing.graphs import (
    Graph,
    as_graph,
    make_graph,
    num_edges,
    pad,
)
from jeff_graph.editing.hops import degrees, hop_distance, k_hop, subgraph
from jeff_graph.editing.messages import propagate


def chain(nodes: int):
    steps = np.arange(nodes - 1)
    edges = np.stack([steps, steps + 1], axis=1)
    return make_graph(np.ones((nodes, 2)), edges)


def pairs_of(graph) -> list[tuple[int, int]]:
    """Real edges as a list, repetitions included."""
    graph = as_graph(graph)
    real = np.asarray(graph.edge_mask)
    ends = (np.asarray(graph.senders)[real], np.asarray(graph.receivers)[real])
    return list(zip(*(end.tolist() for end in ends), strict=True))


def test_subgraphs_keep_their_places(small, kind, key):
    graph = kind(make_graph(*small))
    keep = jax.random.bernoulli(key, 0.6, (12,))
    inner = isinstance(graph, Graph)
    part = (jax.jit(subgraph) if inner else subgraph)(graph, keep)
    assert type(part) is type(graph)
    expected = [(s, r) for s, r in pairs_of(graph) if keep[s] and keep[r]]
    assert 0 < len(expected) < num_edges(graph)
    assert pairs_of(part) == expected
    counted = np.bincount([r for _, r in expected], minlength=12)
    np.testing.assert_array_equal(degrees(part), counted)
    np.testing.assert_array_equal(as_graph(part).features, as_graph(graph).features)
    if inner:
        np.testing.assert_array_equal(part.node_mask, keep)
        told = dataclasses.replace(graph, degree=jnp.full(12, 99.0))
        np.testing.assert_array_equal(degrees(subgraph(told, keep)), counted)
    else:
        assert num_edges(part) == len(expected) == part.n_edge.sum()


def test_subgraph_of_a_padded_graph(small, kind):
    graph = pad(kind(make_graph(*small)), 16, 50)
    everything = subgraph(graph, jnp.ones(16, bool))
    assert pairs_of(everything) == pairs_of(graph)
    mask = as_graph(everything).node_mask
    np.testing.assert_array_equal(mask, as_graph(graph).node_mask)


def test_a_subgraph_of_jraph_needs_values(small, unchecked):
    graph = make_graph(*small)
    with pytest.raises(TypeError, match=r"graph: expected values, .* outside jit"):
        jax.jit(subgraph)(graph, jnp.ones(12, bool))


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
def test_distances_are_those_of_a_search(seed, kind):
    edges = np.random.default_rng(seed).integers(0, 40, (60, 2))
    graph = make_graph(np.ones((40, 1)), edges, undirected=False)
    graph = pad(kind(graph), 43, 70)
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


def test_distances_vmapped_and_from_several(kind):
    graph = kind(chain(6))
    together = jax.vmap(lambda node: hop_distance(graph, node, 2))(jnp.arange(6))
    apart = np.abs(np.arange(6)[:, None] - np.arange(6))
    np.testing.assert_array_equal(together, np.minimum(apart, 3))
    near = hop_distance(graph, jnp.array([0, 5]), 9)
    np.testing.assert_array_equal(near, [0, 1, 2, 2, 1, 0])
    mask = jnp.zeros(6, bool).at[2].set(True)
    np.testing.assert_array_equal(k_hop(graph, mask, 1), k_hop(graph, 2, 1))
    np.testing.assert_array_equal(hop_distance(graph, 3, 0), [1, 1, 1, 0, 1, 1])


def test_padding_and_masked_nodes_reach_nothing(kind):
    graph = pad(kind(chain(4)), 6, 10)
    assert not k_hop(graph, 5, 3).any()
    assert (hop_distance(graph, 5, 3) == 4).all()
    cut = subgraph(kind(chain(5)), jnp.array([True, True, False, True, True]))
    np.testing.assert_array_equal(k_hop(cut, 0, 9), [True, True, False, False, False])
    # A node that is masked reaches nothing; one that lost its edges, itself alone.
    inner = isinstance(cut, Graph)
    assert int(k_hop(cut, 2, 9).sum()) == (0 if inner else 1)


def test_a_graph_without_edges(kind):
    graph = kind(make_graph(np.ones((3, 1)), []))
    assert num_edges(graph) == 0
    np.testing.assert_array_equal(k_hop(graph, 1, 2), [False, True, False])
    np.testing.assert_array_equal(degrees(graph), 0)


GOOD = (np.ones((4, 2)), np.array([[0, 1], [2, 3], [1, 2]]))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
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
def test_questions_that_are_refused(unchecked, kind, call, error, words):
    with pytest.raises(error, match=words):
        call(kind(make_graph(*GOOD)))


class WithAndWithoutJit(chex.TestCase):
    """The same numbers from numpy's arrays, from a device's, and under jit."""

    @chex.variants(with_jit=True, without_jit=True, with_device=True)
    def test_reach_degrees_and_messages(self):
        edges = np.array([[0, 1], [1, 2], [2, 3]])
        graph = make_graph(np.eye(5, dtype=np.float32), edges)
        for one in (graph, as_graph(graph)):
            reached, degree, sent = self.variant(
                lambda g: (k_hop(g, 0, 2), degrees(g), propagate(g, jnp.eye(5)))
            )(one)
            assert reached.tolist() == [True, True, True, False, False]
            assert degree.tolist() == [1, 2, 2, 1, 0]
            np.testing.assert_allclose(sent[0, :2], [1 / 2, 6**-0.5], rtol=1e-6)
