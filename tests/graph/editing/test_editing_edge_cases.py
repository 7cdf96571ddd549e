"""Test unusual graphs, from plain arrays through training to reports."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_graph import editing
from jeff_graph.editing import loaders, methods, nets, replay, training

METHODS = {
    "gd": methods.gradient_descent,
    "gre": methods.gre,
    "gre+5": functools.partial(methods.gre, num_anchors=5),
    "replay": replay.distilled_replay,
}
PROTOCOLS = ("independent", "sequential", "batch")
EVERY = pytest.mark.parametrize("name", METHODS)


@pytest.fixture(scope="module")
def arrays():
    """``(features, labels, edges)``: 40 nodes, 3 classes, the last two nodes isolated.

    Features tell the class roughly, so that some nodes stay wrong.
    """
    rng = np.random.default_rng(5)
    labels = np.arange(40) % 3
    features = rng.normal(size=(40, 6)) + 1.5 * np.eye(6)[labels]
    edges = rng.integers(0, 38, (70, 2))
    keep = (edges[:, 0] != edges[:, 1]) & (rng.random(70) < 0.9)
    return features.astype(np.float32), labels, edges[keep]


@pytest.fixture(scope="module")
def network():
    """One GCN for all graphs, so that programs are compiled once."""
    return nets.split_net(nets.make_net("gcn", 6, 3, hidden=8, key=jax.random.key(0)))


@pytest.fixture
def ready(arrays, network):
    """``(params, graph, parts, wrong)`` of the graph as it is."""
    data, parts = labelled(*arrays), fixed_parts()
    params = trained(network, data, parts)
    return params, data, parts, wrong_nodes(network, params, data)


def labelled(features, labels, edges):
    graph = editing.make_graph(features, edges)
    return loaders.Labelled(graph, np.asarray(labels, np.int32))


def trained(network, data, parts, epochs=20):
    apply_fn, params = network
    settings = {"num_epochs": epochs, "inductive": True}
    key = jax.random.key(1)
    return training.fit(apply_fn, params, *data, parts, key=key, **settings).params


def task_of(data, parts):
    graph, labels = data
    return editing.make_task(
        graph,
        labels,
        parts.train,
        where=labels >= 0,
        training_inputs=editing.subgraph(graph, parts.train),
        training_labels=labels,
        training_where=parts.train,
    )


def fixed_parts(count=40, train=12, valid=12):
    """The first nodes train, and so on, whatever the labels."""
    place = jnp.arange(count)
    valid = train + valid
    return editing.Split(
        place < train, (place >= train) & (place < valid), place >= valid
    )


@functools.lru_cache(maxsize=32)
def program(protocol, name, apply_fn):
    method = METHODS[name](apply_fn, learning_rate=0.05)
    return jax.jit(functools.partial(getattr(editing, protocol), method, max_steps=20))


def edited(protocol, name, network, params, task, targets, test):
    """``(params or None, report)``."""
    call = program(protocol, name, network[0])
    targets = jnp.asarray(targets, jnp.int32)
    out = call(params, task, targets, test, key=jax.random.key(2))
    return (None, out) if protocol == "independent" else out


def assert_sound(params, report):
    """Finite wherever there are nodes to count; no hops were given."""
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    for name, value in report._asdict().items():
        assert name == "hop_drawdown" or jnp.isfinite(value).all(), name
    assert ((report.steps >= 0) & (report.steps <= 20)).all()


def wrong_nodes(network, params, data):
    return np.flatnonzero(network[0](params, data.graph).argmax(1) != data.labels)


@EVERY
def test_isolated_nodes_are_edited(ready, network, name):
    """Beside tied ones: both isolated nodes are asked for another class."""
    params, data, parts, wrong = ready
    np.testing.assert_array_equal(editing.degrees(data.graph)[38:], 0)
    said = network[0](params, data.graph).argmax(1)
    labels = jnp.asarray(data.labels).at[38:].set((said[38:] + 1) % 3)
    asked = dataclasses.replace(task_of(data, parts), labels=labels)
    test = parts.test & (jnp.arange(40) < 38)
    for protocol in PROTOCOLS:
        targets = [38, wrong[0], 39]
        after, report = edited(protocol, name, network, params, asked, targets, test)
        assert_sound(after, report)
        assert report.success[jnp.array([0, 2])].all()
        assert report.steps[0] > 0


@EVERY
def test_self_loops_and_duplicates_change_nothing(arrays, ready, network, name):
    features, labels, edges = arrays
    params, clean, parts, wrong = ready
    loops = np.repeat(np.arange(40), 2).reshape(40, 2)
    many = np.concatenate([loops, edges[::-1], edges[:, ::-1], edges, loops])
    data = labelled(features, labels, many)
    chex.assert_trees_all_equal(data, clean)
    chex.assert_trees_all_equal(trained(network, data, parts), params)
    for protocol in PROTOCOLS:
        found, wanted = (
            edited(protocol, name, network, params, task, wrong[:3], parts.test)
            for task in (task_of(data, parts), task_of(clean, parts))
        )
        chex.assert_trees_all_equal(found, wanted)
        assert_sound(*found)


@EVERY
def test_right_targets_take_no_step(ready, network, name):
    params, data, parts, wrong = ready
    targets = np.setdiff1d(np.arange(12, 40), wrong)[:3]
    for protocol in PROTOCOLS:
        after, report = edited(
            protocol, name, network, params, task_of(data, parts), targets, parts.test
        )
        assert_untouched(params, after, report)


def assert_untouched(params, after, report):
    assert report.success.all() and report.retained.all()
    assert_still(params, after, report)


def assert_still(params, after, report):
    """No step, and no change. A batched product rounds apart from a single one."""
    for value in (report.steps, report.drawdowns, report.drawdown):
        np.testing.assert_array_equal(value, 0)
    np.testing.assert_allclose(report.divergence, 0, atol=1e-6)
    if after is not None:
        chex.assert_trees_all_equal(after, params)


def one_class(arrays, network):
    """``(params, task, valid)``; the best validation is without a mistake."""
    features, labels, edges = arrays
    data = labelled(features, np.zeros_like(labels), edges)
    parts = fixed_parts(valid=28)
    params = trained(network, data, parts, epochs=60)
    assert wrong_nodes(network, params, data).size == 0
    return params, task_of(data, parts), parts.valid


@EVERY
def test_one_class(arrays, network, name):
    params, task, valid = one_class(arrays, network)
    for protocol in PROTOCOLS:
        after, report = edited(
            protocol, name, network, params, task, [1, 20, 39], valid
        )
        assert_untouched(params, after, report)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_logit(arrays, protocol):
    """A network of as many logits as there are classes: nothing can be wrong."""
    net = nets.make_net("gcn", 6, 1, hidden=8, key=jax.random.key(0))
    network = nets.split_net(net)
    params, task, valid = one_class(arrays, network)
    found = edited(protocol, "gre+5", network, params, task, [1, 20, 39], valid)
    assert_untouched(params, *found)


@pytest.mark.parametrize("part", ["train", "valid"])
def test_training_without_nodes(arrays, network, part):
    parts = fixed_parts()._replace(**{part: jnp.zeros(40, bool)})
    with pytest.raises(ValueError, match=rf"split\.{part}: expected at least one"):
        trained(network, labelled(*arrays), parts)


@pytest.mark.parametrize("name", ["gre", "gre+5"])
def test_without_training_nodes_gre_is_gradient_descent(ready, network, name):
    """Anchors are zero; a half of the gradient is the same to Adam, up to epsilon."""
    params, data, parts, wrong = ready
    none = jnp.zeros(40, bool)
    task = task_of(data, editing.Split(none, none, ~none))
    count = {"gre": 1, "gre+5": 5}[name]
    anchors = methods.remember_anchors(network[0], count)(params, task)
    zeros = jax.tree.map(lambda x: jnp.zeros((count, *x.shape)), params)
    chex.assert_trees_all_equal(anchors, zeros)
    for protocol in PROTOCOLS:
        found, wanted = (
            edited(protocol, each, network, params, task, wrong[:3], parts.test)
            for each in (name, "gd")
        )
        assert (found[1].steps > 0).any()
        assert_sound(*found)
        chex.assert_trees_all_close(found, wanted, atol=1e-4)


def test_replay_needs_no_training_nodes(ready, network):
    params, data, parts, wrong = ready
    none = jnp.zeros(40, bool)
    task = task_of(data, editing.Split(none, none, ~none))
    for protocol in PROTOCOLS:
        with_none, with_some = (
            edited(protocol, "replay", network, params, each, wrong[:3], parts.test)
            for each in (task, task_of(data, parts))
        )
        chex.assert_trees_all_equal(with_none, with_some)


@EVERY
def test_a_graph_without_edges(arrays, network, name):
    """Every node is isolated; an edit acts through the parameters alone."""
    features, labels, _ = arrays
    data = labelled(features, labels, [])
    parts = fixed_parts()
    params = trained(network, data, parts)
    targets, task = wrong_nodes(network, params, data)[:2], task_of(data, parts)
    found = edited("sequential", name, network, params, task, targets, parts.test)
    assert_sound(*found)
    assert found[1].success[0] and found[1].steps[0] > 0


@pytest.fixture
def partly(arrays, network):
    """``(params, task, test)``: nodes 3, 30 and 35 have no label."""
    features, labels, edges = arrays
    labels = labels.copy()
    labels[[3, 30, 35]] = -1
    data = labelled(features, labels, edges)
    parts = editing.split(labels, 12, 12, key=jax.random.key(3))
    assert not (parts.train | parts.valid | parts.test)[jnp.array([3, 30, 35])].any()
    return trained(network, data, parts), task_of(data, parts), parts.test


@EVERY
def test_a_target_without_a_label_fails_and_takes_no_step(partly, network, name):
    params, task, test = partly
    for protocol in PROTOCOLS:
        after, report = edited(protocol, name, network, params, task, [3, 30, 35], test)
        assert not report.success.any() and not report.retained.any()
        assert_still(params, after, report)


@EVERY
def test_a_target_without_a_label_beside_others(partly, network, name):
    """It is as if it were not there; so is a target that comes again."""
    params, task, test = partly
    said = network[0](params, task.inputs).argmax(1)
    wrong = np.flatnonzero((said != task.labels) & (task.labels >= 0))[:2].tolist()
    for protocol in ("sequential", "batch"):
        (after, report), (alone, wanted) = (
            edited(protocol, name, network, params, task, [wrong[0], *rest], test)
            for rest in ([30, wrong[1]], wrong)
        )
        assert report.steps[0] > 0
        chex.assert_trees_all_equal(after, alone)
        np.testing.assert_array_equal(report.steps, wanted.steps)
        assert report.success.tolist() == [wanted.success[0], False, wanted.success[2]]


def test_an_editor_asks_for_the_label_that_is_missing(partly, network, unchecked):
    params, task, test = partly
    method = methods.gradient_descent(network[0], learning_rate=0.05)
    task = editing.make_task(task.inputs, task.labels, task.train)
    editor = editing.Editor.start(method, params, task, test, key=jax.random.key(0))
    with pytest.raises(ValueError, match="label: expected a class from 0 to 2, got -1"):
        editor.edit(30)
    said = int(editor.logits()[30].argmax())
    again, outcome = editor.edit(30, (said + 1) % 3)
    assert outcome.success and outcome.steps > 0
    assert int(again.logits()[30].argmax()) == (said + 1) % 3
