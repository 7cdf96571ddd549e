"""Test ENN, EGNN and SEED: which parameters each trains and which it leaves."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_graph.editing import evaluation, methods, rivals
from jeff_graph.editing import task as tasks
from jeff_graph.editing.task import Edit


@pytest.fixture(scope="module")
def edit(edit_data):
    _, _, targets, *_ = edit_data
    nodes = jnp.arange(40)
    return Edit(nodes == targets[0], nodes == targets[1])


def test_enn_makes_edits_easier(linear, edit_data, key):
    """After it, one inner edit moves other nodes less for what it does to its own."""
    params, task, *_ = edit_data

    def inner(params, node, label):
        labels = task.labels.at[node].set(label)
        where = jnp.arange(40) == node

        def loss(p):
            return tasks.mean_error(linear(p, task.inputs), labels, where)

        slope = jax.grad(loss)(params)
        edited = jax.tree.map(lambda p, g: p - 0.5 * g, params, slope)
        before, after = linear(params, task.inputs), linear(edited, task.inputs)
        moved = tasks.divergence(before, after, task.training_where & ~where)
        return loss(edited), moved

    @jax.jit
    def objective(params):
        nodes = jnp.flatnonzero(task.train, size=12)
        pairs = jnp.stack(jnp.meshgrid(nodes, jnp.arange(3)), -1).reshape(-1, 2)
        error, moved = jax.vmap(lambda pair: inner(params, *pair))(pairs)
        base = tasks.training_error(linear, params, task)
        return base + error.mean() + moved.mean()

    method = rivals.enn(linear, meta_steps=200, meta_rate=1e-2)
    trained = jax.jit(method.prepare)(params, task, key)
    assert objective(trained) < 0.9 * objective(params)
    same = rivals.enn(linear, meta_steps=0).prepare(params, task, key)
    chex.assert_trees_all_equal(same, params)


def test_enn_edits_as_gradient_descent(linear, edit_data, edit, key):
    params, task, *_ = edit_data
    results = [
        method.step(params, method.init(params, task, key), task, edit)[0]
        for method in (rivals.enn(linear), methods.gradient_descent(linear))
    ]
    chex.assert_trees_all_equal(*results)


def test_egnn_edits_only_the_mlp(linear, edit_data, edit, key):
    """The network stays bit for bit; the first training holds to its logits."""
    params, task, *_ = edit_data
    method = rivals.egnn(linear, hidden=8, warmup_steps=30)
    start = jax.jit(method.prepare)(params, task, key)
    chex.assert_trees_all_equal(start["net"], params)
    fresh = rivals.egnn(linear, hidden=8, warmup_steps=0).prepare(params, task, key)
    np.testing.assert_allclose(
        method.logits(fresh, task), linear(params, task.inputs), atol=1e-6
    )
    assert tasks.mean_error(method.logits(start, task), task.labels, task.train) < (
        tasks.training_error(linear, params, task)
    )
    state = method.init(start, task, key)
    after, _ = jax.jit(method.step)(start, state, task, edit)
    chex.assert_trees_all_equal(after["net"], params)

    def error(editable):
        return tasks.mean_error(method.logits(editable, task), task.labels, edit.target)

    assert error(after) < error(start)
    gradient = jax.grad(error)(start)
    moved = jax.tree.map(jnp.subtract, start["mlp"], after["mlp"])
    for slope, step in zip(
        jax.tree.leaves(gradient["mlp"]), jax.tree.leaves(moved), strict=True
    ):
        expected = 0.01 * np.sign(slope) * (np.abs(slope) > 1e-5)
        np.testing.assert_allclose(
            np.where(np.abs(slope) > 1e-5, step, 0), expected, atol=2e-5
        )


def test_seed_trains_on_the_batch(linear, edit_data, edit, key):
    """Target, earlier target, neighbours in training, and so many drawn nodes."""
    params, task, *_ = edit_data
    target = int(np.argmax(edit.target))
    near = jnp.arange(40) == (target + 1) % 40
    train = task.train | near
    task = tasks.make_task(task.inputs, task.labels, train, edges=task.edges)
    seen = []

    def spy(logits, labels, where):
        seen.append(np.asarray(where))
        return tasks.mean_error(logits, labels, where)

    method = rivals.seed(linear, num_random=4)
    state = method.init(params, task, key)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rivals, "mean_error", spy)
        for _ in range(6):
            _, state = method.step(params, state, task, edit)
    certain = np.asarray(edit.target | edit.earlier | near)
    drawn = []
    for where in seen:
        assert where[certain].all()
        assert np.asarray(train)[where & ~certain].all()
        drawn.append(where & ~certain)
        assert 3 <= drawn[-1].sum() <= 4
    assert len({tuple(row) for row in drawn}) > 3
    # More than there are: all training nodes, and no other.
    method = rivals.seed(linear, num_random=99)
    after, _ = method.step(params, method.init(params, task, key), task, edit)

    def whole(p):
        where = edit.target | edit.earlier | train
        return tasks.mean_error(linear(p, task.inputs), task.labels, where)

    slope = jax.grad(whole)(params)
    np.testing.assert_allclose(
        after["w"], params["w"] - 0.01 * np.sign(slope["w"]), atol=1e-5
    )


@pytest.mark.parametrize("make", [rivals.enn, rivals.egnn, rivals.seed])
def test_rivals_run_all_protocols(linear, edit_data, make, key):
    """The same key, the same result; another key, another."""
    few = {
        "enn": {"meta_steps": 5},
        "egnn": {"warmup_steps": 5},
        "seed": {"num_random": 3},
    }
    method = make(linear, **few[make.__name__])
    params, task, targets, test, hops = edit_data

    @jax.jit
    def run(key):
        _, one = evaluation.sequential(
            method, params, task, targets, test, key=key, hops=hops
        )
        _, all_at_once = evaluation.batch(method, params, task, targets, test, key=key)
        each = evaluation.independent(method, params, task, targets, test, key=key)
        return one, all_at_once, each

    first, again, other = run(key), run(key), run(jax.random.key(9))
    chex.assert_trees_all_equal(first, again)
    assert first[0].divergence != other[0].divergence
    assert first[2].success.sum() >= 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: rivals.enn(f, meta_steps=-1), r"meta_steps: .* got -1"),
        (lambda f: rivals.egnn(f, hidden=0), r"hidden, .* got 0"),
        (lambda f: rivals.seed(f, num_random=-1), r"num_random: .* got -1"),
    ],
)
def test_bad_arguments(unchecked, linear, call, message):
    with pytest.raises(ValueError, match=message):
        call(linear)


def test_tasks_without_edges_or_features(linear, edit_data, edit, key):
    params, task, *_ = edit_data
    bare = tasks.make_task(task.inputs, task.labels, task.train)
    with pytest.raises(ValueError, match="features: expected a task with"):
        rivals.egnn(linear).prepare(params, bare, key)
    method = rivals.seed(linear)
    with pytest.raises(ValueError, match="edges: expected a task with"):
        method.step(params, method.init(params, bare, key), bare, edit)
