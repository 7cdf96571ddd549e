"""Test networks against dense numpy: padding, order, masks, dropout, dtypes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental.sparse import BCSR

from jeff_graph.editing import nets
from jeff_graph.editing.graphs import Graph, as_graph, make_graph, num_edges, pad
from jeff_graph.editing.hops import subgraph
from jeff_graph.editing.messages import attend, compressed, sum_neighbours
from jeff_graph.editing.nets import make_net, split_net

NAMES = tuple(nets.NETWORKS)
HEADS = 2


def build(name: str, seed: int = 0, **options):
    """A network of 5 features and 3 classes."""
    if name == "gat":
        options = {"heads": HEADS, **options}
    options = {"hidden": 8, **options}
    return split_net(make_net(name, 5, 3, key=jax.random.key(seed), **options))


def dense_reference(name, params, adjacency, x, norm="none"):
    """Logits in float64 from A[i, j] = 1 where j sends to i."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    n = len(adjacency)
    looped = adjacency + np.eye(n)
    root = np.diag(looped.sum(1) ** -0.5)
    spread = root @ looped @ root
    mean = np.diag(1 / np.maximum(adjacency.sum(1), 1)) @ adjacency

    def gat(p, x, last):
        kernel = p["kernel"].reshape(x.shape[1], HEADS, -1)
        heads = []
        for h in range(HEADS):
            z = x @ kernel[:, h]
            score = (z @ p["receiver"][h])[:, None] + (z @ p["sender"][h])[None]
            score = np.where(score > 0, score, 0.2 * score)
            weight = np.where(looped > 0, np.exp(score), 0)
            heads.append(weight / weight.sum(1, keepdims=True) @ z)
        mixed = sum(heads) / HEADS if last else np.concatenate(heads, axis=1)
        return mixed + p["bias"]

    def gin(p, x):
        total = (1 + p["epsilon"]) * x + adjacency @ x
        hidden = np.maximum(total @ p["first"]["kernel"] + p["first"]["bias"], 0)
        return hidden @ p["second"]["kernel"] + p["second"]["bias"]

    def layer(p, x, last):
        if name == "gat":
            return gat(p, x, last)
        if name == "gin":
            return gin(p, x)
        if name == "sage":
            own = x @ p["own"]["kernel"] + p["own"]["bias"]
            return own + mean @ x @ p["neighbour"]
        if name == "gcn":
            x = spread @ x
        if name == "sgc":
            x = spread @ spread @ x
        return x @ p["kernel"] + p["bias"]

    layers = params["layers"]
    for index in range(len(layers)):
        last = index == len(layers) - 1
        x = layer(layers[index], x, last)
        if last:
            break
        if norm == "layer":
            p = params["norms"][index]
            x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1)[:, None] + 1e-6)
            x = x * p["scale"] + p["bias"]
        x = np.where(x > 0, x, np.expm1(np.minimum(x, 0)) if name == "gat" else 0)
    if name == "appnp":
        h = x
        for _ in range(10):
            x = 0.9 * spread @ x + 0.1 * h
    return x


def assert_close(found, expected, error=1e-5):
    """Equal but for rounding, and different from node to node."""
    expected = np.asarray(expected)
    assert np.ptp(expected, axis=0).max() > 0.1
    bound = error * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound)


def adjacency_of(edges, nodes, undirected=True):
    dense = np.zeros((nodes, nodes))
    dense[edges[:, 1], edges[:, 0]] = 1
    return np.maximum(dense, dense.T) if undirected else dense


@pytest.mark.parametrize(
    ("undirected", "norm", "form"),
    [(True, "none", as_graph), (False, "layer", lambda graph: graph)],
)
@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_dense_matrices(
    name, undirected, norm, form, small, lively
):
    features, edges = small
    graph = make_graph(features, edges, undirected=undirected)
    layers = 2 if name in ("sgc", "appnp") else 3
    apply_fn, params = build(name, norm=norm, layers=layers)
    params = lively(params)
    found = jax.jit(apply_fn)(params, form(graph))
    adjacency = adjacency_of(edges, 12, undirected)
    norm = "none" if name == "sgc" else norm
    expected = dense_reference(name, params, adjacency, features, norm)
    assert found.shape == (12, 3) and found.dtype == jnp.float32
    assert_close(found, expected)


@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_nothing(name, kind, small, lively):
    """Neither logits nor gradients, whatever stands in the slots of padding."""
    graph = make_graph(*small)
    apply_fn, params = build(name, norm="layer")
    params = lively(params)
    padded = pad(kind(graph), 17, num_edges(graph) + 9)

    def filled(value):
        features = as_graph(padded).features.at[12:].set(value)
        if isinstance(padded, Graph):
            return dataclasses.replace(padded, features=features)
        return padded._replace(nodes=features)

    expected = jax.jit(apply_fn)(params, graph)
    for value in (0.0, 50.0, jnp.nan):
        found = jax.jit(apply_fn)(params, filled(value))[:12]
        assert_close(found, expected, 1e-6)

    def loss(params, graph):
        return jnp.sum(jnp.sin(apply_fn(params, graph)[:12]))

    gradient = jax.jit(jax.grad(loss))
    wanted, found = gradient(params, graph), gradient(params, filled(50.0))
    for mine, theirs in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
        bound = 1e-5 * jnp.abs(theirs).max()
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=bound)


@pytest.mark.parametrize("name", NAMES)
def test_order_of_nodes_and_edges_changes_nothing(name, small, lively):
    features, edges = small
    apply_fn, params = build(name)
    params = lively(params)
    rng = np.random.default_rng(1)
    order = rng.permutation(12)
    place = np.argsort(order)
    shuffled = make_graph(features[order], place[edges])
    graph = make_graph(*small)
    expected = jax.jit(apply_fn)(params, graph)
    found = jax.jit(apply_fn)(params, shuffled)
    assert_close(found, expected[order])
    mixed = rng.permutation(num_edges(graph))
    unsorted = graph._replace(
        senders=graph.senders[mixed], receivers=graph.receivers[mixed]
    )
    found = jax.jit(apply_fn)(params, unsorted)
    assert_close(found, expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_masked_subgraph_is_a_small_graph(name, kind, small, lively):
    features, edges = small
    apply_fn, params = build(name)
    params = lively(params)
    keep = np.array([0, 1, 3, 4, 6, 7, 9, 10])
    part = subgraph(kind(make_graph(*small)), jnp.zeros(12, bool).at[keep].set(True))
    inside = edges[np.isin(edges, keep).all(1)]
    assert 2 < len(inside) < len(edges)
    alone = make_graph(features[keep], np.searchsorted(keep, inside))
    assert_close(
        jax.jit(apply_fn)(params, part)[keep], jax.jit(apply_fn)(params, alone)
    )


@pytest.mark.parametrize("name", NAMES)
def test_sparse_features_change_nothing(name, kind, small, lively):
    features, edges = small
    features = np.where(features > 0.3, features, 0)
    apply_fn, params = build(name)
    params = lively(params)
    dense = make_graph(features, edges)
    sparse = pad(kind(make_graph(BCSR.fromdense(features), edges)), 14, 40)
    assert_close(
        jax.jit(apply_fn)(params, sparse)[:12], jax.jit(apply_fn)(params, dense)
    )


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_differences(name, small, lively):
    """Along a random direction, in float64 arithmetic of the dense reference."""
    features, edges = small
    graph = make_graph(*small)
    apply_fn, params = build(name)
    params, direction = lively(params, 3), lively(params, 4)
    weight = np.random.default_rng(0).normal(size=(12, 3))

    def along(t):
        moved = jax.tree.map(
            lambda p, d: np.float64(p) + t * np.float64(d), params, direction
        )
        adjacency = adjacency_of(edges, 12)
        return (weight * dense_reference(name, moved, adjacency, features)).sum()

    expected = (along(1e-5) - along(-1e-5)) / 2e-5

    @jax.jit
    def total(params):
        return jnp.sum(jnp.asarray(weight) * apply_fn(params, graph))

    _, found = jax.jvp(total, (params,), (direction,))
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    products = jax.tree.map(jnp.vdot, jax.grad(total)(params), direction)
    np.testing.assert_allclose(sum(jax.tree.leaves(products)), expected, rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_dropout_only_with_a_key(name, small, lively, key):
    graph = make_graph(*small)
    apply_fn, params = build(name, dropout_rate=0.5)
    apply_fn, params = jax.jit(apply_fn), lively(params)
    calm = apply_fn(params, graph)
    np.testing.assert_array_equal(calm, apply_fn(params, graph, None))
    noisy = apply_fn(params, graph, key)
    assert np.allclose(noisy, calm) == (name == "sgc")
    np.testing.assert_array_equal(noisy, apply_fn(params, graph, key=key))
    apply_fn, _ = build(name, dropout_rate=0.0)
    np.testing.assert_array_equal(jax.jit(apply_fn)(params, graph, key), calm)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_computes_in_bfloat16(name, small, lively):
    graph = make_graph(*small)
    wide, params = build(name, norm="layer")
    narrow, like = build(name, norm="layer", dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(like)} == {jnp.dtype("float32")}
    params = lively(params)
    expected, found = (jax.jit(f)(params, graph) for f in (wide, narrow))
    assert found.dtype == jnp.float32
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert 1e-5 < error < 0.04


@pytest.mark.parametrize("name", NAMES)
def test_vmap_over_parameters_is_a_loop(name, small, lively):
    graph = make_graph(*small)
    apply_fn, params = build(name)
    many = [lively(params, seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *many)
    found = jax.jit(jax.vmap(apply_fn, (0, None)))(stacked, graph)
    apply_fn = jax.jit(apply_fn)
    for each, one in zip(found, many, strict=True):
        assert_close(each, apply_fn(one, graph))


def test_a_graph_without_edges(lively):
    """Every node by itself: GCN and GAT are then MLPs of their kernels."""
    x = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    graph = make_graph(x, [])
    for name in NAMES:
        apply_fn, params = build(name)
        params = lively(params)
        expected = dense_reference(name, params, np.zeros((4, 4)), x)
        found = jax.jit(apply_fn)(params, graph)
        assert_close(found, expected)


def test_attention_of_extreme_scores_is_finite(small):
    """A score ahead by thousands takes all the weight; nothing overflows."""
    graph = pad(as_graph(make_graph(*small)), 14, 60)
    x = jnp.arange(14.0)[:, None, None]
    score = jnp.zeros((14, 1)).at[jnp.argmax(graph.edge_mask * graph.senders)].set(1e4)

    def mixed(score):
        return attend(graph, x, score, score)[:12]

    assert jnp.isfinite(mixed(score)).all()
    assert jnp.isfinite(jax.grad(lambda s: mixed(s).sum())(score)).all()
    far = jnp.where(graph.node_mask[:, None], score, -1e30)
    assert jnp.isfinite(jax.grad(lambda s: mixed(s).sum())(far)).all()


def test_sums_of_bfloat16_are_taken_in_float32():
    """A hub of 4,000 neighbours; bfloat16 would lose count at 256."""
    edges = np.stack([np.arange(1, 4001), np.zeros(4000, int)], axis=1)
    graph = as_graph(make_graph(np.ones((4001, 1)), edges))
    total = sum_neighbours(graph, jnp.ones((4001, 1), jnp.bfloat16))
    assert total.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(total[0, 0]), 4000, rtol=2**-8)


def test_initial_parameters(key):
    """Glorot's bound is reached, biases are 0, and the key decides."""
    apply_fn, params = split_net(make_net("gcn", 300, 7, hidden=50, key=key))
    kernel = params["layers"][0]["kernel"]
    bound = (6 / 350) ** 0.5
    assert 0.99 * bound < jnp.abs(kernel).max() <= bound
    np.testing.assert_array_equal(params["layers"][0]["bias"], 0)
    _, again = split_net(make_net("gcn", 300, 7, hidden=50, key=key))
    np.testing.assert_array_equal(kernel, again["layers"][0]["kernel"])
    _, other = split_net(make_net("gcn", 300, 7, hidden=50, key=jax.random.key(1)))
    assert not np.array_equal(kernel, other["layers"][0]["kernel"])
    assert callable(apply_fn)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("gnn", {}, "name: expected one of .*'gcn'.* got 'gnn'"),
        ("gcn", {"layers": 0}, "layers: expected at least 1, got 0"),
        ("sgc", {"layers": 0}, "layers: expected at least 1, got 0"),
        ("gin", {"hidden": 0}, "hidden: expected at least 1, got 0"),
        ("mlp", {"norm": "batch"}, "norm: expected one of .* got 'batch'"),
        ("gat", {"heads": 3}, "heads: expected a divisor of the 8 hidden units, got 3"),
        ("gat", {"heads": 0}, "heads: expected a divisor .* got 0"),
        ("appnp", {"teleport": 0.0}, r"teleport, steps: .*\(0, 1\].* got 0.0 and 10"),
        ("appnp", {"steps": -1}, "teleport, steps: .* got 0.1 and -1"),
    ],
)
def test_networks_that_are_refused(unchecked, name, options, words):
    with pytest.raises(ValueError, match=words):
        build(name, **options)


@pytest.mark.parametrize("name", NAMES)
def test_features_of_another_width(unchecked, name):
    graph = make_graph(np.ones((4, 6)), [])
    apply_fn, params = build(name)
    with pytest.raises(ValueError, match=r"features: expected a width of 5, .* got 6"):
        apply_fn(params, graph)


def test_modules_with_other_state_are_refused():
    with pytest.raises(ValueError, match="parameters alone"):
        split_net(nnx.BatchNorm(3, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize("name", NAMES)
def test_compressed_graphs_change_nothing(name, kind, small, lively):
    """Nor their gradients, nor those of a part of the graph."""
    apply_fn, params = build(name)
    params = lively(params)
    plain = pad(kind(make_graph(*small)), 14, 40)
    weight = jax.random.normal(jax.random.key(0), (14, 3))
    keep = jnp.arange(14) % 3 > 0

    @jax.jit
    def found(graph):
        def total(params, graph):
            return jnp.sum(apply_fn(params, graph) * weight)

        parts = graph, subgraph(graph, keep)
        return [jax.value_and_grad(total)(params, part) for part in parts]

    pairs = map(jax.tree.leaves, (found(compressed(plain)), found(as_graph(plain))))
    for mine, theirs in zip(*pairs, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


def test_graphs_that_cannot_be_compressed(small):
    features, edges = small
    one_way = make_graph(features, edges, undirected=False)
    with pytest.raises(ValueError, match="expected an undirected one"):
        compressed(one_way)
    graph = make_graph(*small)
    turned = graph._replace(
        senders=graph.senders[::-1], receivers=graph.receivers[::-1]
    )
    with pytest.raises(ValueError, match="expected receivers that ascend"):
        compressed(as_graph(turned))
    # Edges of jraph are sorted on the way.
    degree = np.bincount(graph.receivers, minlength=12)
    np.testing.assert_array_equal(np.diff(compressed(turned).starts), degree)
