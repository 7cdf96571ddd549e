"""Test single steps of GD, GRE and jeff's own methods against numpy and optax."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jeff_graph.editing import gre, methods, replay
from jeff_graph.editing import task as tasks
from jeff_graph.editing.task import Edit


@pytest.fixture(scope="module")
def edit(edit_data):
    """The first target after the next two."""
    targets = edit_data[2]
    nodes = jnp.arange(40)
    return Edit(nodes == targets[0], (nodes == targets[1]) | (nodes == targets[2]))


def error_gradient(params, task, where):
    """Gradient of the mean cross-entropy of a linear model, by hand."""
    x, labels = np.asarray(task.inputs, float), np.asarray(task.labels)
    logits = x @ np.asarray(params["w"], float) + np.asarray(params["b"])
    prob = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    slope = (
        (prob - np.eye(3)[labels]) * np.asarray(where)[:, None] / max(where.sum(), 1)
    )
    return {"w": x.T @ slope, "b": slope.sum(0)}


def plus(first, second, weight=1.0):
    return {name: first[name] + weight * second[name] for name in first}


def one_step(method, params, task, edit):
    """``(gradient, update)`` of the first step: Adam's mean holds a tenth of it."""
    state = method.init(params, task, jax.random.key(0))
    after, state = jax.jit(method.step)(params, method.begin(params, state), task, edit)
    mean = optax.tree.get(state.optimizer, "mu")
    return (
        {name: np.asarray(mean[name], float) / 0.1 for name in params},
        {name: np.asarray(after[name] - params[name], float) for name in params},
    )


def assert_steps(method, params, task, edit, gradient, rate):
    """The gradient is the one by hand, and the step Adam's: its sign."""
    found, update = one_step(method, params, task, edit)
    assert_close(found, gradient)
    for name in gradient:
        step = -rate * found[name] / (np.abs(found[name]) + 1e-8)
        np.testing.assert_allclose(update[name], step, atol=2e-6)


def assert_close(found, expected):
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=3e-6)


def rewired(gradient, rows):
    """By `rewire_gradient`, which has tests of its own; with the multipliers."""
    anchors = {name: np.stack([row[name] for row in rows]) for name in gradient}
    narrow = [jax.tree.map(jnp.float32, each) for each in (gradient, anchors)]
    g, v = gre.rewire_gradient(*narrow)
    return {name: np.asarray(g[name], float) for name in g}, v


def chunk_gradients(params, task, count):
    """Gradients of equal chunks of the training nodes, in their order."""
    chunks = np.array_split(np.flatnonzero(task.train), count)
    return [
        error_gradient(params, task, np.isin(np.arange(40), chunk)) for chunk in chunks
    ]


def test_training_chunks_are_equal_and_disjoint():
    where = jnp.array([True, False, True, True, True, False, True, True, True])
    for count in (1, 2, 3, 7):
        chunks = np.asarray(tasks.training_chunks(where, count))
        np.testing.assert_array_equal(chunks.sum(0), where)
        assert np.ptp(chunks.sum(1)) <= 1
        assert (np.diff(chunks.argmax(0)[np.asarray(where)]) >= 0).all()


def test_errors_and_divergence_by_hand(edit_data):
    params, task, *_ = edit_data
    logits = task.inputs @ params["w"]
    rows = np.asarray(logits, float)
    log = rows - np.log(np.exp(rows).sum(1, keepdims=True))
    each = -log[np.arange(40), np.asarray(task.labels)]
    some = jnp.arange(40) % 3 == 0
    np.testing.assert_allclose(
        tasks.mean_error(logits, task.labels, some), each[::3].mean(), rtol=1e-5
    )
    none = jnp.zeros(40, bool)
    assert tasks.mean_error(logits, task.labels, none) == 0
    unknown = jnp.where(some, task.labels, -1)
    np.testing.assert_allclose(
        tasks.mean_error(logits, unknown, some), each[::3].mean(), rtol=1e-5
    )
    other = rows[::-1]
    other_log = other - np.log(np.exp(other).sum(1, keepdims=True))
    expected = (np.exp(log) * (log - other_log)).sum(1)[::3].mean()
    np.testing.assert_allclose(
        tasks.divergence(logits, logits[::-1], some), expected, rtol=1e-5
    )
    assert tasks.divergence(logits, logits[::-1], none) == 0
    slope = jax.grad(lambda x: tasks.divergence(logits, x, some))(logits)
    np.testing.assert_allclose(slope, 0, atol=1e-7)


def test_gradient_descent(linear, edit_data, edit):
    params, task, *_ = edit_data
    gradient = error_gradient(params, task, edit.target)
    assert_steps(methods.gradient_descent(linear), params, task, edit, gradient, 0.01)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
def test_gre_rewires_before_adam(linear, edit_data, count):
    """Every target. The 12 training nodes divide equally by each K."""
    params, task, targets, *_ = edit_data
    rows = chunk_gradients(params, task, count)
    method = methods.gre(linear, num_anchors=count, gamma=3.0, learning_rate=0.02)
    conflicts = 0
    for target in targets:
        edit = Edit(jnp.arange(40) == target, jnp.zeros(40, bool))
        gradient, v = rewired(error_gradient(params, task, edit.target), rows)
        half = {name: g / 2 for name, g in gradient.items()}
        assert_steps(method, params, task, edit, half, 0.02)
        conflicts += bool(v.max() > 0)
    assert conflicts


@pytest.mark.parametrize("project", ["update", "adam"])
def test_gre_holds_the_constraint_behind_adam(linear, edit_data, edit, project):
    """No chunk's loss rises to first order; the plain step raises one."""
    params, task, *_ = edit_data
    rows = chunk_gradients(params, task, 3)

    def slopes(method):
        _, update = one_step(method, params, task, edit)
        return [sum((row[n] * update[n]).sum() for n in row) for row in rows]

    assert max(slopes(methods.gradient_descent(linear))) > 1e-4
    assert max(slopes(methods.gre(linear, num_anchors=3, project=project))) < 1e-6


def test_rehearsal_adds_the_training_loss(linear, edit_data, edit):
    params, task, *_ = edit_data
    gradient = plus(
        error_gradient(params, task, edit.target),
        error_gradient(params, task, task.train),
        3.0,
    )
    method = replay.rehearsal(linear, weight=3.0)
    assert_steps(method, params, task, edit, gradient, 0.01)


def test_memory_rewiring_spares_the_earlier_targets(linear, edit_data, edit):
    """With them as an anchor; without any, it is GRE."""
    params, task, *_ = edit_data
    method = replay.memory_rewiring(linear, num_anchors=2)
    rows = chunk_gradients(params, task, 2)
    gradient = error_gradient(params, task, edit.target)
    nothing = edit._replace(earlier=jnp.zeros(40, bool))
    plain, _ = rewired(gradient, rows)
    assert_steps(method, params, task, nothing, plain, 0.01)
    conflicts = 0
    for node in range(40):
        after = edit._replace(earlier=(jnp.arange(40) == node) & ~edit.target)
        expected, v = rewired(
            gradient, [*rows, error_gradient(params, task, after.earlier)]
        )
        if v[2] > 0:
            conflicts += 1
            assert_steps(method, params, task, after, expected, 0.01)
        if conflicts == 3:
            return
    raise AssertionError("no node is in conflict with the target")


def test_distilled_replay_by_hand(linear, edit_data, edit):
    """At the trained model the divergence has no slope; a step away it has one."""
    params, task, *_ = edit_data
    method = replay.distilled_replay(linear, replay=2.0, locality=5.0)

    def errors(params):
        return plus(
            error_gradient(params, task, edit.target),
            error_gradient(params, task, edit.earlier),
            2.0,
        )

    assert_steps(method, params, task, edit, errors(params), 0.01)
    state = method.init(params, task, jax.random.key(0))
    moved = {"w": params["w"] + 0.3, "b": params["b"].at[0].add(1.0)}
    _, state = method.step(moved, state, task, edit)
    x = np.asarray(task.inputs, float)
    before, after = (
        np.exp(z) / np.exp(z).sum(1, keepdims=True)
        for z in (np.asarray(linear(p, task.inputs), float) for p in (params, moved))
    )
    rest = ~np.asarray(edit.target | edit.earlier)
    slope = (after - before) * rest[:, None] / rest.sum()
    gradient = plus(errors(moved), {"w": x.T @ slope, "b": slope.sum(0)}, 5.0)
    mean = optax.tree.get(state.optimizer, "mu")
    assert_close({name: mean[name] / 0.1 for name in mean}, gradient)


def test_only_replay_starts_adam_afresh(linear, edit_data, edit):
    params, task, *_ = edit_data
    for method, count in (
        (methods.gradient_descent(linear), 1),
        (replay.distilled_replay(linear), 0),
    ):
        state = method.init(params, task, jax.random.key(0))
        _, state = method.step(params, state, task, edit)
        begun = method.begin(params, state)
        assert optax.tree.get(begun.optimizer, "count") == count


def test_a_task_has_defaults(edit_data):
    _, task, *_ = edit_data
    assert task.where.all()
    assert task.training_inputs is task.inputs
    np.testing.assert_array_equal(task.training_where, task.train)
    cut = tasks.make_task(
        task.inputs,
        task.labels,
        task.train,
        training_inputs=task.inputs[:9],
        training_labels=task.labels[:9],
    )
    np.testing.assert_array_equal(cut.training_where, np.ones(9, bool))
    chex.assert_trees_all_equal(cut.training_labels, task.labels[:9])


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"train": jnp.ones(40)}, TypeError, "train: expected a bool mask, got float"),
        ({"train": jnp.ones(9, bool)}, ValueError, r"train: .* \(40,\), got \(9,\)"),
        ({"where": jnp.ones(9, bool)}, ValueError, r"where: .* \(40,\), got \(9,\)"),
        (
            {"training_where": jnp.ones(9, bool)},
            ValueError,
            r"training_where: .* got \(9,\)",
        ),
        ({"labels": jnp.ones(40)}, TypeError, "labels: expected integers, got float"),
        ({"edges": (jnp.ones(3), jnp.ones(4))}, ValueError, r"edges: .* \(4,\)"),
        ({"features": jnp.ones((9, 2))}, ValueError, r"features: .* got \(9, 2\)"),
    ],
)
def test_tasks_that_are_refused(unchecked, edit_data, change, kind, message):
    _, task, *_ = edit_data
    given = {"labels": task.labels, "train": task.train} | change
    with pytest.raises(kind, match=message):
        tasks.make_task(task.inputs, **given)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: methods.gradient_descent(f, learning_rate=0.0), "learning_rate: "),
        (lambda f: methods.gre(f, num_anchors=0), "num_anchors: .* positive .* got 0"),
        (lambda f: methods.gre(f, project="both"), "project: expected one of"),
        (lambda f: methods.gre(f, gamma=-1.0), "gamma: .* got -1.0"),
        (lambda f: replay.rehearsal(f, weight=-1.0), "weight: .* got -1.0"),
        (lambda f: replay.memory_rewiring(f, num_anchors=0), "num_anchors: "),
        (lambda f: replay.distilled_replay(f, replay=-1.0), "replay: .* got -1.0"),
        (lambda f: replay.distilled_replay(f, locality=-2.0), "locality: .* -2.0"),
        (lambda f: tasks.training_chunks(jnp.ones(3, bool), 0), "count: .* got 0"),
    ],
)
def test_bad_arguments(unchecked, linear, call, message):
    with pytest.raises(ValueError, match=message):
        call(linear)
