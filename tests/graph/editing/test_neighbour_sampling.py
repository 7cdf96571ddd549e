"""Test sampled neighbourhoods: members, uniformity, and unchanged logits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.sparse import BCSR

from jeff_graph.editing.graphs import (
    AnyGraph,
    Graph,
    as_graph,
    make_graph,
    num_edges,
    num_nodes,
    pad,
    real_nodes,
)
from jeff_graph.editing.hops import degrees, subgraph
from jeff_graph.editing.nets import NETWORKS, make_net, split_net
from jeff_graph.editing.sampling import neighbourhoods, sample_neighbours


@pytest.fixture
def graph(kind) -> AnyGraph:
    """Sixty nodes, 110 undirected edges at most, with a hub, node 0."""
    rng = np.random.default_rng(0)
    edges = np.concatenate(
        [rng.integers(0, 60, (90, 2)), np.stack([np.zeros(20, int), np.arange(20)]).T]
    )
    return kind(make_graph(rng.normal(size=(60, 5)), edges))


def edges_of(graph, ids=None) -> set[tuple[int, int]]:
    """Real edges, in the numbers of the larger graph where ids are given."""
    graph = as_graph(graph)
    real = np.asarray(graph.edge_mask)
    ends = [np.asarray(end)[real] for end in (graph.senders, graph.receivers)]
    if ids is not None:
        ends = [np.asarray(ids)[end] for end in ends]
    found = list(zip(*(end.tolist() for end in ends), strict=True))
    assert len(set(found)) == len(found)
    return set(found)


@pytest.mark.parametrize("fanouts", [(3,), (3, 2), (1, 4, 2)])
def test_what_is_taken(graph, key, fanouts):
    """Edges of the graph, as many as fanout and degree allow, at the right nodes."""
    seeds = np.array([0, 41, 7])
    small, ids = sample_neighbours(graph, seeds, fanouts, key=key)
    assert type(small) is type(graph)
    count = int(real_nodes(small).sum())
    np.testing.assert_array_equal(ids[:3], seeds)
    assert len(np.unique(ids[:count])) == count
    np.testing.assert_array_equal(ids[count:], 60)
    mine, theirs = (as_graph(each).features for each in (small, graph))
    np.testing.assert_array_equal(mine[:count], theirs[ids[:count]])
    taken = edges_of(small, ids)
    assert taken <= edges_of(graph)
    whole = np.asarray(degrees(graph))
    frontier, seen = set(seeds.tolist()), set(seeds.tolist())
    for fanout in fanouts:
        for node in frontier:
            arrived = sum(receiver == node for _, receiver in taken)
            assert arrived == min(fanout, whole[node])
        senders = {sender for sender, receiver in taken if receiver in frontier}
        frontier, seen = senders - seen, seen | senders
    assert seen == set(np.asarray(ids[:count]).tolist())
    assert not any(receiver in frontier for _, receiver in taken)
    for slot in range(count):
        node = int(ids[slot])
        last = node in frontier
        arrived = sum(receiver == node for _, receiver in taken)
        expected = min(whole[node], fanouts[-1]) if last else arrived
        # jraph's own networks count what is there.
        if isinstance(small, Graph):
            assert small.degree[slot] == expected


@pytest.mark.parametrize("fanout", [None, 1000])
@pytest.mark.parametrize("name", NETWORKS)
def test_logits_at_the_seeds_are_those_of_the_whole(graph, name, fanout, lively, key):
    options = {"steps": 2} if name == "appnp" else {}
    if name == "gat":
        options = {"heads": 2}
    apply_fn, params = split_net(make_net(name, 5, 3, hidden=8, key=key, **options))
    params = lively(params)
    seeds = np.array([5, 0, 33])
    # Without the degrees of the inner form, one hop more makes them right.
    hops = 2 if isinstance(graph, Graph) else 3
    small, ids = sample_neighbours(graph, seeds, [fanout] * hops, key=key)
    if fanout is None and hops == 2:
        assert real_nodes(small).sum() < 60
    expected = apply_fn(params, graph)[seeds]
    found = apply_fn(params, small)[:3]
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(ids[:3], seeds)


def test_a_cut_of_a_cut_and_of_a_subgraph(graph, lively, key):
    """Degrees are those of the graph at hand."""
    apply_fn, params = split_net(make_net("gcn", 5, 3, hidden=8, key=key))
    params = lively(params)
    part = subgraph(graph, jnp.arange(60) % 4 > 0)
    part = pad(part, 66, num_edges(part) + 4)
    seeds = np.array([5, 33])
    hops = [None] * (2 if isinstance(graph, Graph) else 3)
    small, _ = sample_neighbours(part, seeds, hops, key=key)
    expected = apply_fn(params, part)[seeds]
    np.testing.assert_allclose(apply_fn(params, small)[:2], expected, atol=2e-5)
    again, _ = sample_neighbours(small, np.array([1, 0]), hops, key=key)
    np.testing.assert_allclose(apply_fn(params, again)[:2], expected[::-1], atol=2e-5)


def test_edges_in_any_order(graph, key):
    mixed = np.random.default_rng(0).permutation(num_edges(graph))
    ends = {"senders": graph.senders[mixed], "receivers": graph.receivers[mixed]}
    inner = isinstance(graph, Graph)
    other = dataclasses.replace(graph, **ends) if inner else graph._replace(**ends)
    cuts = [
        sample_neighbours(each, np.array([3, 0]), (None, None), key=key)
        for each in (graph, other)
    ]
    assert edges_of(*cuts[0]) == edges_of(*cuts[1])


@pytest.mark.parametrize("name", ["gcn", "gat"])
def test_each_node_in_a_graph_of_its_own(graph, name, lively, key):
    """Logits and gradients of a target are those of the whole graph."""
    apply_fn, params = split_net(make_net(name, 5, 3, hidden=8, key=key))
    params = lively(params)
    nodes = np.array([0, 17, 42, 59])
    graphs, ids = neighbourhoods(graph, nodes, 2)
    np.testing.assert_array_equal(ids[:, 0], nodes)
    inner = isinstance(graph, Graph)
    if inner:
        assert graphs.num_nodes == int(graphs.node_mask.sum(1).max()) < 60

    def loss(params, graph, slot):
        return -jax.nn.log_softmax(apply_fn(params, graph)[slot])[1]

    gradient = jax.value_and_grad(loss)
    found = jax.vmap(gradient, (None, 0, None))(params, graphs, 0)
    expected = jax.vmap(gradient, (None, None, 0))(params, graph, nodes)
    for mine, theirs in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=5e-5, atol=5e-5)
    alone, _ = neighbourhoods(graph, nodes, 0)
    if inner:
        assert alone.node_mask.shape == (4, 1) and alone.edge_mask.shape == (4, 0)
    else:  # all edges of the node, for its degrees, and a node of padding
        most = int(degrees(graph)[nodes].max())
        assert alone.nodes.shape[:2] == (4, most + 2)
        assert alone.senders.shape == (4, 2 * most)


def test_sparse_features_are_cut_too(kind, key):
    features = np.eye(6, dtype=np.float32)
    edges = np.array([[0, 1], [1, 2], [2, 3]])
    graph = kind(make_graph(BCSR.fromdense(features), edges))
    small, ids = sample_neighbours(graph, np.array([2]), (5,), key=key)
    small = as_graph(small)
    # A node of padding behind the most that there can be, where it is jraph's.
    assert small.features.shape == (6 if isinstance(graph, Graph) else 7, 6)
    np.testing.assert_array_equal(ids[:3], [2, 1, 3])
    np.testing.assert_array_equal(small.features[:3], features[[2, 1, 3]])
    np.testing.assert_array_equal(small.features[3:], 0)


def test_sizes_do_not_depend_on_the_draw(graph):
    keys = jax.random.split(jax.random.key(0), 8)
    cuts = [sample_neighbours(graph, np.array([0, 9]), (3, 2), key=k) for k in keys]
    spare = 0 if isinstance(graph, Graph) else 1
    sizes = {(num_nodes(c.graph), num_edges(c.graph)) for c in cuts}
    assert sizes == {(20 + spare, 18)}
    assert len({frozenset(edges_of(*cut)) for cut in cuts}) > 1
    assert len({int(real_nodes(cut.graph).sum()) for cut in cuts}) > 1
    again = sample_neighbours(graph, np.array([0, 9]), (3, 2), key=keys[0])
    assert edges_of(*again) == edges_of(*cuts[0])
    whole = sample_neighbours(graph, np.array([0, 9]), (None, 9), key=keys[0])
    assert num_nodes(whole.graph) == 60 + spare
    assert num_edges(whole.graph) == num_edges(graph)
    told = sample_neighbours(graph, np.array([0]), (3,), key=keys[0], sizes=(9, 7))
    assert (num_nodes(told.graph), num_edges(told.graph)) == (9, 7)


def test_every_neighbour_is_as_likely(key):
    edges = np.stack([np.arange(1, 11), np.zeros(10, int)], axis=1)
    star = as_graph(make_graph(np.ones((11, 1)), edges))
    often = np.zeros(11)
    for each in jax.random.split(key, 600):
        _, ids = sample_neighbours(star, np.array([0]), (3,), key=each)
        often[np.asarray(ids[1:])] += 1
    # Five standard deviations of 600 draws of 3 in 10.
    np.testing.assert_allclose(often[1:] / 600, 0.3, atol=0.094)


@pytest.mark.slow
def test_a_graph_of_the_size_of_arxiv(key):
    """170,000 nodes and 1.2 million edges: the batch is the right one."""
    rng = np.random.default_rng(0)
    nodes = 170_000
    popular = (nodes * rng.random(600_000) ** 3).astype(np.int64)
    pairs = np.stack([popular, rng.integers(0, nodes, 600_000)], axis=1)
    graph = as_graph(make_graph(rng.normal(size=(nodes, 16)), pairs))
    assert 1_150_000 < graph.num_edges < 1_200_001
    small, ids = sample_neighbours(graph, np.arange(1024), (15, 10), key=key)
    assert (small.num_nodes, small.num_edges) == (1024 * 166, 1024 * 165)
    whole = np.asarray(degrees(graph))
    arrived = np.bincount(np.asarray(small.receivers)[np.asarray(small.edge_mask)])
    np.testing.assert_array_equal(arrived[:1024], np.minimum(whole[:1024], 15))
    real = np.asarray(small.edge_mask)
    ends = [
        np.asarray(ids)[np.asarray(e)[real]] for e in (small.senders, small.receivers)
    ]
    from_all, to_all = np.asarray(graph.senders), np.asarray(graph.receivers)
    codes = to_all.astype(np.int64) * nodes + from_all
    assert np.isin(ends[1].astype(np.int64) * nodes + ends[0], codes).all()


@pytest.mark.parametrize(
    ("seeds", "options", "error", "words"),
    [
        ([0.5], {}, TypeError, "seeds: expected node numbers, got float64"),
        ([[0]], {}, ValueError, r"seeds: .* in a vector, got \(1, 1\)"),
        ([60], {}, ValueError, "seeds: expected numbers of real nodes, got 60"),
        ([3, -1], {}, ValueError, "seeds: .* got -1"),
        ([3, 5, 3], {}, ValueError, "seeds: expected each node once"),
        ([3], {"fanouts": (2, 0)}, ValueError, "fanouts: expected at least 1.*got 0"),
        ([0], {"sizes": (2, 9)}, ValueError, "sizes: .* [45] slots of nodes, got 2"),
        ([0], {"sizes": (5, 2)}, ValueError, "sizes: .* 3 slots of edges, got 2"),
    ],
)
def test_mistakes(unchecked, graph, key, seeds, options, error, words):
    with pytest.raises(error, match=words):
        sample_neighbours(
            graph, np.array(seeds), **{"fanouts": (3,), **options, "key": key}
        )


def test_other_mistakes(graph, key):
    with pytest.raises(ValueError, match="hops: expected at least 0, got -1"):
        neighbourhoods(graph, np.array([0]), -1)
    padded = pad(graph, 61, num_edges(graph))
    with pytest.raises(ValueError, match=r"seeds: .* real nodes, got 60"):
        sample_neighbours(padded, np.array([60]), (1,), key=key)
