"""Test training against a plain loop on a small graph, and on Cora."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jeff_graph.editing import loaders
from jeff_graph.editing.graphs import make_graph, pad
from jeff_graph.editing.nets import make_net, split_net
from jeff_graph.editing.splits import Split, split
from jeff_graph.editing.task import mean_error
from jeff_graph.editing.training import accuracy, fit


@pytest.fixture
def communities():
    """Features, labels, edges: two noisy groups; an edge mostly stays within one."""
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 2
    features = rng.normal(size=(80, 6)) + 0.4 * labels[:, None]
    edges = rng.integers(0, 80, (900, 2))
    same = labels[edges[:, 0]] == labels[edges[:, 1]]
    return features.astype(np.float32), labels, edges[same | (rng.random(900) < 0.1)]


def test_loss_and_accuracy_by_hand():
    logits = jnp.log(jnp.array([[0.75, 0.25], [0.5, 0.5], [0.9, 0.1], [0.2, 0.8]]))
    labels = jnp.array([0, -1, 1, 1])
    where = jnp.array([True, False, True, True])
    expected = -np.log([0.75, 0.1, 0.8]).mean()
    np.testing.assert_allclose(mean_error(logits, labels, where), expected, rtol=1e-6)
    np.testing.assert_allclose(accuracy(logits, labels, where), 2 / 3, rtol=1e-6)
    nobody = jnp.zeros(4, bool)
    assert mean_error(logits, labels, nobody) == accuracy(logits, labels, nobody) == 0
    gradient = jax.grad(mean_error)(logits.at[1].set(jnp.inf), labels, where)
    assert jnp.isfinite(gradient[jnp.array([0, 2, 3])]).all()


@pytest.mark.parametrize("inductive", [True, False])
def test_training_is_a_plain_loop(communities, kind, inductive, key):
    """On the training nodes cut out or the whole; best validation, first of equals."""
    features, labels, edges = communities
    graph = pad(kind(make_graph(features, edges)), 90, 2000)
    parts = split(labels, 30, 20, key=key)
    net = make_net("gcn", 6, 2, hidden=8, dropout_rate=0.0, key=key)
    apply_fn, params = split_net(net)
    settings = {"num_epochs": 12, "inductive": inductive}
    found = fit(apply_fn, params, graph, labels, parts, key=key, **settings)

    keep = np.flatnonzero(parts.train)
    inside = edges[np.isin(edges, keep).all(1)]
    cut = make_graph(features[keep], np.searchsorted(keep, inside))
    whole = make_graph(features, edges)
    seen, rows = (cut, np.arange(30)) if inductive else (whole, keep)
    optimizer = optax.adam(0.01)
    state, best = optimizer.init(params), (-1.0, params)

    @jax.jit
    def step(params, state):
        def loss(params):
            chances = jax.nn.log_softmax(apply_fn(params, seen))
            return -chances[rows, labels[keep]].mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    for _ in range(12):
        params, state = step(params, state)
        right = np.asarray(apply_fn(params, whole).argmax(1) == labels)
        rates = [right[np.flatnonzero(part)].mean() for part in parts]
        if rates[1] > best[0]:
            best = (rates[1], params, rates)
    for mine, theirs in zip(
        *map(jax.tree.leaves, (found.params, best[1])), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1:], best[2], rtol=1e-6)


def test_it_learns_what_the_edges_tell(communities, key):
    features, labels, edges = communities
    graph = make_graph(features, edges)
    parts = split(labels, 40, 20, key=key)
    found = {}
    for name in ("gcn", "mlp"):
        apply_fn, params = split_net(make_net(name, 6, 2, hidden=16, key=key))
        settings = {"num_epochs": 60, "inductive": True}
        trained = fit(apply_fn, params, graph, labels, parts, key=key, **settings)
        found[name] = trained.test
    assert found["gcn"] > 0.9 > found["mlp"]


@pytest.mark.slow
def test_cora(key):
    """Inductive training on 500 nodes: edges are worth a dozen points over an MLP."""
    try:
        graph, labels = loaders.load_planetoid("cora")
    except FileNotFoundError as error:
        pytest.skip(f"Cora is not here: {error}")
    parts = split(labels, 500, 500, key=key)
    found = {}
    for name in ("gcn", "mlp"):
        apply_fn, params = split_net(make_net(name, 1433, 7, key=key))
        found[name] = fit(
            apply_fn, params, graph, labels, parts, key=key, inductive=True
        ).test
    assert found["gcn"] > 0.76
    assert found["gcn"] - found["mlp"] > 0.1


def test_mistakes(communities, key):
    features, labels, edges = communities
    graph = make_graph(features, edges)
    apply_fn, params = split_net(make_net("mlp", 6, 2, key=key))
    parts = split(labels, 40, 20, key=key)
    with pytest.raises(ValueError, match="num_steps: expected at least 1, got 0"):
        fit(apply_fn, params, graph, labels, parts, key=key, num_epochs=0)
    short = Split(*(part[:70] for part in parts))
    with pytest.raises(ValueError, match=r"split.train: expected shape \(80,\), .*70"):
        fit(apply_fn, params, graph, labels, short, key=key)
