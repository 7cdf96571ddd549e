"""Test sampled neighbourhoods: members, uniformity, and unchanged logits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.sparse import BCSR

from jeff_graph.editing.graphs import Graph, degrees, make_graph, pad, subgraph
from jeff_graph.editing.nets import NETWORKS, make_net, split_net
from jeff_graph.editing.sampling import neighbourhoods, sample_neighbours


@pytest.fixture
def graph() -> Graph:
    """Sixty nodes, 110 undirected edges at most, with a hub, node 0."""
    rng = np.random.default_rng(0)
    edges = np.concatenate(
        [rng.integers(0, 60, (90, 2)), np.stack([np.zeros(20, int), np.arange(20)]).T]
    )
    return make_graph(rng.normal(size=(60, 5)), rng.integers(0, 3, 60), edges)


def edges_of(graph: Graph, ids=None) -> set[tuple[int, int]]:
    """Real edges, in the numbers of the larger graph where ids are given."""
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
    count = int(small.node_mask.sum())
    np.testing.assert_array_equal(ids[:3], seeds)
    assert len(np.unique(ids[:count])) == count
    np.testing.assert_array_equal(ids[count:], 60)
    np.testing.assert_array_equal(small.features[:count], graph.features[ids[:count]])
    np.testing.assert_array_equal(small.labels[:count], graph.labels[ids[:count]])
    np.testing.assert_array_equal(small.labels[count:], -1)
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
    small, ids = sample_neighbours(graph, seeds, (fanout, fanout), key=key)
    if fanout is None:
        assert small.node_mask.sum() < 60
    expected = apply_fn(params, graph)[seeds]
    found = apply_fn(params, small)[:3]
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(ids[:3], seeds)


def test_a_cut_of_a_cut_and_of_a_subgraph(graph, lively, key):
    """Degrees are those of the graph at hand."""
    apply_fn, params = split_net(make_net("gcn", 5, 3, hidden=8, key=key))
    params = lively(params)
    part = subgraph(graph, jnp.arange(60) % 4 > 0)
    part = pad(part, 66, part.num_edges + 4)
    seeds = np.array([5, 33])
    small, _ = sample_neighbours(part, seeds, (None, None), key=key)
    expected = apply_fn(params, part)[seeds]
    np.testing.assert_allclose(apply_fn(params, small)[:2], expected, atol=2e-5)
    again, _ = sample_neighbours(small, np.array([1, 0]), (None, None), key=key)
    np.testing.assert_allclose(apply_fn(params, again)[:2], expected[::-1], atol=2e-5)


def test_edges_in_any_order(graph, key):
    mixed = np.random.default_rng(0).permutation(graph.num_edges)
    other = dataclasses.replace(
        graph, senders=graph.senders[mixed], receivers=graph.receivers[mixed]
    )
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
    assert graphs.num_nodes == int(graphs.node_mask.sum(1).max()) < 60

    def loss(params, graph, slot):
        return -jax.nn.log_softmax(apply_fn(params, graph)[slot])[1]

    gradient = jax.value_and_grad(loss)
    found = jax.vmap(gradient, (None, 0, None))(params, graphs, 0)
    expected = jax.vmap(gradient, (None, None, 0))(params, graph, nodes)
    for mine, theirs in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=5e-5, atol=5e-5)
    alone, _ = neighbourhoods(graph, nodes, 0)
    assert alone.node_mask.shape == (4, 1) and alone.edge_mask.shape == (4, 0)


def test_sparse_features_are_cut_too(key):
    features = np.eye(6, dtype=np.float32)
    edges = np.array([[0, 1], [1, 2], [2, 3]])
    graph = make_graph(BCSR.fromdense(features), np.zeros(6, int), edges)
    small, ids = sample_neighbours(graph, np.array([2]), (5,), key=key)
    assert small.features.shape == (6, 6)
    np.testing.assert_array_equal(ids[:3], [2, 1, 3])
    np.testing.assert_array_equal(small.features[:3], features[[2, 1, 3]])
    np.testing.assert_array_equal(small.features[3:], 0)


def test_sizes_do_not_depend_on_the_draw(graph):
    keys = jax.random.split(jax.random.key(0), 8)
    cuts = [sample_neighbours(graph, np.array([0, 9]), (3, 2), key=k) for k in keys]
    assert {(c.graph.num_nodes, c.graph.num_edges) for c in cuts} == {(20, 18)}
    assert len({frozenset(edges_of(*cut)) for cut in cuts}) > 1
    assert len({int(cut.graph.node_mask.sum()) for cut in cuts}) > 1
    again = sample_neighbours(graph, np.array([0, 9]), (3, 2), key=keys[0])
    assert edges_of(*again) == edges_of(*cuts[0])
    whole = sample_neighbours(graph, np.array([0, 9]), (None, 9), key=keys[0])
    assert whole.graph.num_nodes == 60 and whole.graph.num_edges == graph.num_edges
    told = sample_neighbours(graph, np.array([0]), (3,), key=keys[0], sizes=(9, 7))
    assert (told.graph.num_nodes, told.graph.num_edges) == (9, 7)


def test_every_neighbour_is_as_likely(key):
    edges = np.stack([np.arange(1, 11), np.zeros(10, int)], axis=1)
    star = make_graph(np.ones((11, 1)), np.zeros(11, int), edges)
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
    graph = make_graph(rng.normal(size=(nodes, 16)), np.zeros(nodes, int), pairs)
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
        ([0], {"sizes": (2, 9)}, ValueError, "sizes: .* 4 slots of nodes, got 2"),
        ([0], {"sizes": (4, 2)}, ValueError, "sizes: .* 3 slots of edges, got 2"),
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
    padded = pad(graph, 61, graph.num_edges)
    with pytest.raises(ValueError, match=r"seeds: .* real nodes, got 60"):
        sample_neighbours(padded, np.array([60]), (1,), key=key)
