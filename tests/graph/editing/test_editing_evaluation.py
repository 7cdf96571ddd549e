"""Test the protocols on a linear model against a Python loop and numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jeff_graph.editing import evaluation, methods, replay
from jeff_graph.editing.task import Method, MethodState, make_task

RATE = 0.05


def logits(params, x):
    return np.asarray(x @ params["w"] + params["b"], float)


def edit_by_hand(params, state, task, nodes, max_steps=10):
    """Adam on the mean cross-entropy of the nodes, until all are right."""
    optimizer = optax.adam(RATE)
    nodes = np.asarray(nodes)

    def loss(params):
        rows = task.inputs[nodes] @ params["w"] + params["b"]
        return optax.softmax_cross_entropy_with_integer_labels(
            rows, task.labels[nodes]
        ).mean()

    wanted = np.asarray(task.labels)[nodes]
    steps = 0
    right = logits(params, task.inputs)[nodes].argmax(1) == wanted
    before = params
    while steps < max_steps and not right.all():
        before = params
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        params = optax.apply_updates(params, updates)
        right = logits(params, task.inputs)[nodes].argmax(1) == wanted
        steps += 1
    return params, before, state, right, steps


def measures(start, end, task, test, hops, edited):
    """Drawdown, drawdown by hop, divergence."""
    before, after = (logits(p, task.inputs) for p in (start, end))
    labels = np.asarray(task.labels)
    lost = (before.argmax(1) == labels) * 1.0 - (after.argmax(1) == labels)
    test, hops = np.asarray(test), np.asarray(hops)
    by_hop = [lost[test & (hops == h)] for h in (1, 2, 3)]
    p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (before, after))
    moved = (p * np.log(p / q)).sum(1)
    rest = np.setdiff1d(np.arange(len(labels)), edited)
    return 100 * lost[test].mean(), by_hop, moved[rest].mean()


def run(protocol, linear, edit_data, method=None, **options):
    params, task, targets, test, hops = edit_data
    method = method or methods.gradient_descent(linear, learning_rate=RATE)
    call = jax.jit(functools.partial(protocol, method, **options))
    return call(params, task, targets, test, key=jax.random.key(0), hops=hops)


def test_independent_equals_a_loop(linear, edit_data):
    params, task, targets, test, hops = edit_data
    report = run(evaluation.independent, linear, edit_data)
    drawdowns, by_hop, moved = [], [], []
    for place, target in enumerate(np.asarray(targets)):
        state = optax.adam(RATE).init(params)
        end, _, _, right, steps = edit_by_hand(params, state, task, [target])
        assert report.success[place] == right[0]
        assert report.steps[place] == steps
        found = measures(params, end, task, test, hops[place], [target])
        drawdowns.append(found[0])
        by_hop.append(found[1])
        moved.append(found[2])
    assert 0 < np.mean(report.success) <= 1
    assert report.steps[3] == 0
    assert len(set(np.asarray(report.steps).tolist())) > 2
    np.testing.assert_array_equal(report.retained, report.success)
    np.testing.assert_allclose(report.drawdowns, drawdowns, atol=1e-4)
    assert np.ptp(drawdowns) > 1
    np.testing.assert_allclose(report.drawdown, np.mean(drawdowns), atol=1e-4)
    pooled = [100 * np.concatenate(each).mean() for each in zip(*by_hop, strict=True)]
    np.testing.assert_allclose(report.hop_drawdown, pooled, atol=1e-4)
    np.testing.assert_allclose(report.divergence, np.mean(moved), rtol=1e-3)


def test_few_at_once_equal_all_at_once(linear, edit_data):
    whole = run(evaluation.independent, linear, edit_data)
    parts = run(evaluation.independent, linear, edit_data, edits_at_once=4)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_sequential_equals_a_loop(linear, edit_data):
    params, task, targets, test, hops = edit_data
    end, report = run(evaluation.sequential, linear, edit_data)
    now, state = params, optax.adam(RATE).init(params)
    for place, target in enumerate(np.asarray(targets)):
        now, _, state, right, steps = edit_by_hand(now, state, task, [target])
        assert report.success[place] == right[0]
        assert report.steps[place] == steps
        found = measures(params, now, task, test, hops[place], [])
        np.testing.assert_allclose(report.drawdowns[place], found[0], atol=1e-4)
    np.testing.assert_allclose(end["w"], now["w"], atol=1e-5)
    last = logits(now, task.inputs)[targets].argmax(1)
    np.testing.assert_array_equal(report.retained, last == task.labels[targets])
    found = measures(params, now, task, test, hops.min(0), targets)
    assert report.drawdown == report.drawdowns[-1]
    np.testing.assert_allclose(
        report.hop_drawdown, [100 * x.mean() if len(x) else np.nan for x in found[1]]
    )
    np.testing.assert_allclose(report.divergence, found[2], rtol=1e-3)


@pytest.mark.parametrize("max_steps", [3, 20])
def test_batch_equals_a_loop(linear, edit_data, max_steps):
    params, task, targets, test, hops = edit_data
    end, report = run(evaluation.batch, linear, edit_data, max_steps=max_steps)
    state = optax.adam(RATE).init(params)
    now, _, _, right, steps = edit_by_hand(params, state, task, targets, max_steps)
    np.testing.assert_allclose(end["w"], now["w"], atol=1e-5)
    np.testing.assert_array_equal(report.success, right)
    np.testing.assert_array_equal(report.retained, right)
    np.testing.assert_array_equal(report.steps, steps)
    found = measures(params, now, task, test, hops.min(0), targets)
    np.testing.assert_allclose(report.drawdowns, np.full(6, found[0]), atol=1e-4)
    np.testing.assert_allclose(report.divergence, found[2], rtol=1e-3)


def test_bisections_find_the_smallest_last_step(linear, edit_data):
    """One edit: the least share of its last step, by trying 256 of them."""
    params, task, targets, test, hops = edit_data
    for place in (0, 1):
        one = (params, task, targets[place : place + 1], test, hops[place : place + 1])
        end, report = run(evaluation.sequential, linear, one, bisections=8)
        state = optax.adam(RATE).init(params)
        full, before, *_ = edit_by_hand(params, state, task, [targets[place]])
        assert report.success.all()
        for share in np.arange(1, 257) / 256:
            tried = {n: (1 - share) * before[n] + share * full[n] for n in full}
            row = logits(tried, task.inputs)[targets[place]]
            if row.argmax() == task.labels[targets[place]]:
                break
        assert share < 1
        np.testing.assert_allclose(end["w"], tried["w"], atol=1e-5)


def test_bisections_leave_failures_and_untouched_models_alone(linear, edit_data):
    plain, _ = run(evaluation.sequential, linear, edit_data, max_steps=1)
    params, task, targets, test, hops = edit_data
    right = (params, task, targets[3:4], test, hops[3:4])
    end, report = run(evaluation.sequential, linear, right, bisections=4)
    assert report.steps.tolist() == [0]
    np.testing.assert_array_equal(end["w"], params["w"])
    assert jnp.abs(plain["w"] - params["w"]).max() > 0
    far = (params, task, targets[:1], test, hops[:1])
    options = {"max_steps": 1, "bisections": 4}
    slow = methods.gradient_descent(linear, learning_rate=1e-6)
    moved, report = run(evaluation.sequential, linear, far, slow, **options)
    assert not report.success.any()
    np.testing.assert_allclose(jnp.abs(moved["w"] - params["w"]).max(), 1e-6, rtol=0.2)


@pytest.mark.parametrize(("keeps", "steps"), [(False, [1, 1]), (True, [1, 3])])
def test_an_edit_that_keeps_goes_on_until_earlier_targets_are_right(keeps, steps):
    """Parameters are a clock: node 0 is right at 1 and from 4 on, node 1 from 2 on."""

    def logits(clock, task):
        right = jnp.stack([(clock == 1) | (clock >= 4), clock >= 2])
        return jnp.stack([~right, right], axis=1).astype(jnp.float32)

    method = Method(
        lambda clock, task, key: clock,
        lambda clock, task, key: MethodState((), None, key),
        lambda clock, state: state,
        lambda clock, state, task, edit: (clock + 1, state),
        logits,
        keeps,
    )
    both = jnp.ones(2, bool)
    task = make_task(jnp.zeros(2), jnp.array([1, 1]), both)
    clock, report = evaluation.sequential(
        method, jnp.zeros(()), task, jnp.arange(2), both, key=jax.random.key(0)
    )
    assert clock == sum(steps)
    assert report.steps.tolist() == steps
    assert report.success.all()
    assert report.retained.tolist() == [keeps, True]


def test_no_hops_and_no_test_nodes_at_a_distance(linear, edit_data):
    hops = edit_data[4]
    report = run(evaluation.independent, linear, (*edit_data[:4], None))
    assert np.isnan(report.hop_drawdown).all()
    far = jnp.where(hops == 2, 4, hops)
    report = run(evaluation.independent, linear, (*edit_data[:4], far))
    np.testing.assert_array_equal(np.isnan(report.hop_drawdown), [False, True, False])


def test_padding_changes_nothing(linear, edit_data):
    """Slots without a node, labelled -1: they neither train nor count."""
    params, task, targets, test, hops = edit_data

    def longer(x, fill):
        return jnp.pad(x, [(0, 7)] + [(0, 0)] * (x.ndim - 1), constant_values=fill)

    padded = make_task(
        longer(task.inputs, 9.0),
        longer(task.labels, -1),
        longer(task.train, False),
        where=longer(task.where, False),
    )
    wide = jnp.pad(hops, [(0, 0), (0, 7)], constant_values=4)
    data = params, padded, targets, longer(test, False), wide
    for method in (
        methods.gre(linear, num_anchors=3),
        replay.distilled_replay(linear),
        replay.rehearsal(linear),
    ):
        _, one = run(evaluation.sequential, linear, edit_data, method)
        _, other = run(evaluation.sequential, linear, data, method)
        for mine, theirs in zip(one, other, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": jnp.zeros((0,), int)}, r"targets: .* got \(0,\)"),
        ({"targets": jnp.zeros((2, 1), int)}, r"targets: .* got \(2, 1\)"),
        ({"test": jnp.ones(39, bool)}, r"test: expected shape \(40,\), got \(39,\)"),
        ({"test": jnp.ones(40, int)}, "test: .* got int32"),
        ({"hops": jnp.ones((6, 39), int)}, r"hops: .* \(6, 40\), got \(6, 39\)"),
        ({"max_steps": 0}, "max_steps: expected at least 1, got 0"),
        ({"bisections": -1}, "bisections: expected at least 0, got -1"),
    ],
)
def test_bad_arguments(unchecked, linear, edit_data, change, message):
    params, task, targets, test, hops = edit_data
    given = {"targets": targets, "test": test, "hops": hops} | change
    method = methods.gradient_descent(linear)
    for protocol in (
        evaluation.independent,
        evaluation.sequential,
        evaluation.batch,
    ):
        with pytest.raises(ValueError, match=message):
            protocol(method, params, task, key=jax.random.key(0), **given)


def test_other_bad_arguments(unchecked, linear, edit_data):
    params, task, targets, test, _ = edit_data
    method = methods.gradient_descent(linear)
    key = jax.random.key(0)
    with pytest.raises(TypeError, match="targets: expected node numbers, got float32"):
        evaluation.batch(method, params, task, targets * 1.0, test, key=key)
    with pytest.raises(ValueError, match=r"edits_at_once: .* at least 1, got 0"):
        evaluation.independent(
            method, params, task, targets, test, key=key, edits_at_once=0
        )
