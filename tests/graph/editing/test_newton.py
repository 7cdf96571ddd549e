"""Test minimal edits: curvature, solver and search by themselves, then whole edits."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jeff_graph.editing import (
    as_graph,
    evaluation,
    make_graph,
    make_task,
    newton,
    replay,
)
from jeff_graph.editing.messages import compressed
from jeff_graph.editing.nets import make_net, split_net
from jeff_graph.editing.task import Edit


@pytest.fixture(scope="module")
def tiny():
    """``(logits_fn, params, weights)``: an MLP of 6 rows, 3 classes, 23 numbers."""
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (6, 3))
    params = {
        "first": jax.random.normal(keys[1], (3, 4)) / 2,
        "last": jax.random.normal(keys[2], (4, 2)),
        "bias": jnp.array([0.1, -0.2, 0.3]),
    }
    params["last"] = jax.random.normal(keys[2], (4, 3))

    def logits_fn(params):
        return jnp.tanh(x @ params["first"]) @ params["last"] + params["bias"]

    return logits_fn, params, jax.random.uniform(keys[3], (6,))


def curvature_of(logits_fn, params, weights):
    logits, forward = jax.linearize(logits_fn, params)
    backward = jax.linear_transpose(forward, params)
    return newton._curvature(logits, forward, backward, weights)


def gauss_newton(logits_fn, params, weights):
    """``sum_i w_i J_i' (diag p_i - p_i p_i') J_i`` in float64."""
    flat, unravel = ravel_pytree(params)
    jacobian = np.asarray(jax.jacrev(lambda v: logits_fn(unravel(v)))(flat), float)
    p = np.asarray(jax.nn.softmax(logits_fn(params)), float)
    middle = np.stack([np.diag(row) - np.outer(row, row) for row in p])
    scaled = np.asarray(weights, float)[:, None, None] * middle
    return np.einsum("icp,icd,idq->pq", jacobian, scaled, jacobian), unravel


def test_curvature_is_the_gauss_newton_matrix(tiny):
    logits_fn, params, weights = tiny
    matrix, unravel = gauss_newton(logits_fn, params, weights)
    product = jax.jit(curvature_of(logits_fn, params, weights))
    vectors = jax.random.normal(jax.random.key(1), (4, len(matrix)))
    for vector in vectors:
        found = ravel_pytree(product(unravel(vector)))[0]
        np.testing.assert_allclose(found, matrix @ vector, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("damping", [0.1, 2.0])
def test_the_solver_is_that_of_numpy(tiny, damping):
    """Damping counts in units of the curvature along the gradient."""
    logits_fn, params, weights = tiny
    matrix, unravel = gauss_newton(logits_fn, params, weights)
    gradient = jax.random.normal(jax.random.key(2), (len(matrix),))
    curvature = curvature_of(logits_fn, params, weights)
    solved = newton._solve(curvature, unravel(gradient), damping, 60)
    g = np.asarray(gradient, float)
    damped = matrix + damping * (g @ matrix @ g) / (g @ g) * np.eye(len(g))
    expected = -np.linalg.solve(damped, g)
    found = ravel_pytree(solved)[0]
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())
    # One iteration is a step of steepest descent, with its best length.
    first = ravel_pytree(newton._solve(curvature, unravel(gradient), damping, 1))[0]
    length = (g @ g) / (g @ damped @ g)
    np.testing.assert_allclose(first, -length * g, rtol=1e-4)


def test_a_zero_gradient_gives_no_step(tiny):
    logits_fn, params, weights = tiny
    zeros = jax.tree.map(jnp.zeros_like, params)
    curvature = curvature_of(logits_fn, params, weights)
    chex.assert_trees_all_equal(newton._solve(curvature, zeros, 0.1, 10), zeros)


@pytest.mark.parametrize("least", [0.01, 0.3, 0.77, 1.0])
def test_the_search_finds_the_shortest_success(least):
    found = newton._search(lambda t: t >= least, lambda t: t < 0, 8)
    assert least <= found <= least + 2**-8


@pytest.mark.parametrize(("most", "expected"), [(1.0, 1.0), (0.3, 0.25), (0.0, 2**-8)])
def test_the_search_without_success_goes_on_until_the_loss_falls(most, expected):
    found = newton._search(lambda t: t > 2, lambda t: t <= most, 8)
    assert found == expected


def test_no_halvings_take_the_whole_step():
    assert newton._search(lambda t: t > 0.2, lambda t: t < 0, 0) == 1


def test_weights_are_those_of_the_loss(edit_data):
    """They sum to the weights of the three parts; nodes without a label count 0."""
    _, task, *_ = edit_data
    labels = task.labels.at[jnp.array([5, 6])].set(-1)
    task = make_task(task.inputs, labels, task.train, where=jnp.arange(40) < 30)
    nodes = jnp.arange(40)
    edit = Edit(nodes == 5, (nodes == 7) | (nodes == 6))
    found = newton._weights(task, edit, 3.0, 27.0)
    expected = np.full(40, 1.0) * (np.arange(40) < 30)
    expected[[5, 6, 7]] = 0, 0, 3
    np.testing.assert_allclose(found, expected)


def test_a_step_is_the_shortest_that_succeeds(linear, edit_data):
    """Along its direction, to 2^-halvings of the whole step."""
    params, task, targets, *_ = edit_data
    make = functools.partial(
        newton.minimal_edit, linear, locality=10.0, damping=0.1, iterations=30
    )
    for target in np.asarray(targets)[:3]:
        edit = Edit(jnp.arange(40) == target, jnp.zeros(40, bool))
        whole, cut = (
            step_of(make(halvings=count), params, task, edit) for count in (0, 10)
        )
        share = float(cut["w"].ravel() @ whole["w"].ravel() / (whole["w"] ** 2).sum())
        chex.assert_trees_all_close(
            cut, jax.tree.map(lambda d, t=share: t * d, whole), rtol=1e-3, atol=1e-6
        )

        def right(share, whole=whole, target=target):
            moved = jax.tree.map(lambda p, d: p + share * d, params, whole)
            return linear(moved, task.inputs)[target].argmax() == task.labels[target]

        assert 2**-10 < share < 1
        assert right(share + 1e-5) and not right(share - 2**-10 - 1e-5)


def step_of(method, params, task, edit):
    state = method.init(params, task, jax.random.key(0))
    after, _ = jax.jit(method.step)(params, state, task, edit)
    return jax.tree.map(jnp.subtract, after, params)


def test_nothing_to_do(linear, edit_data):
    """A target that is right takes no step, and one without a label none either."""
    params, task, targets, test, _ = edit_data
    method = newton.minimal_edit(linear)
    right = int(targets[3])
    after, report = evaluation.sequential(
        method, params, task, np.array([right]), test, key=jax.random.key(0)
    )
    assert report.success.all() and not report.steps.any()
    chex.assert_trees_all_equal(after, params)
    unlabelled = make_task(task.inputs, task.labels.at[0].set(-1), task.train)
    after, report = evaluation.sequential(
        method, params, unlabelled, np.array([0]), test, key=jax.random.key(0)
    )
    assert not report.success.any() and not report.steps.any()
    chex.assert_trees_all_equal(after, params)


def test_side_by_side_and_one_at_a_time(linear, edit_data):
    params, task, targets, test, _ = edit_data
    method = newton.minimal_edit(linear)
    run = functools.partial(evaluation.independent, method, params, task, targets, test)
    together, apart = (
        run(key=jax.random.key(0), edits_at_once=count) for count in (None, 1)
    )
    assert together.success.all()
    np.testing.assert_array_equal(together.steps, apart.steps)
    np.testing.assert_allclose(together.divergence, apart.divergence, rtol=1e-3)


def test_other_predictions_move_less_than_under_adam(linear, edit_data):
    """At equal success; that is what the curvature is for."""
    params, task, targets, test, _ = edit_data
    found = {}
    for make in (newton.minimal_edit, replay.distilled_replay):
        run = functools.partial(evaluation.independent, make(linear), max_steps=50)
        report = run(params, task, targets, test, key=jax.random.key(0))
        assert report.success.all()
        found[make] = report.divergence
    assert found[newton.minimal_edit] < 0.9 * found[replay.distilled_replay]


def test_graph_networks_of_every_form(key):
    """On a graph of jraph, inside, and compressed, the same edits, also mapped."""
    rng = np.random.default_rng(0)
    graph = make_graph(rng.normal(size=(30, 5)), rng.integers(0, 30, (50, 2)))
    labels = rng.integers(0, 3, 30)
    apply_fn, params = split_net(make_net("gcn", 5, 3, hidden=8, key=key))
    said = np.asarray(apply_fn(params, graph).argmax(1))
    targets = np.flatnonzero(said != labels)[:3]
    method = newton.minimal_edit(apply_fn)
    reports = []
    for form in (graph, as_graph(graph), compressed(graph)):
        task = make_task(form, labels, np.arange(30) < 10)
        run = jax.jit(functools.partial(evaluation.independent, method))
        reports.append(run(params, task, targets, np.arange(30) >= 10, key=key))
    for other in reports[1:]:
        np.testing.assert_array_equal(other.steps, reports[0].steps)
        np.testing.assert_allclose(other.divergence, reports[0].divergence, rtol=1e-3)
    assert reports[0].success.all() and reports[0].steps.min() > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"damping": 0.0}, "damping: expected a positive number, got 0.0"),
        ({"iterations": 0}, "iterations: expected a positive number, got 0"),
        ({"halvings": -1}, "halvings: expected at least 0, got -1"),
        ({"locality": -1.0}, "locality: expected a weight of at least 0, got -1.0"),
    ],
)
def test_options_that_are_refused(linear, options, words):
    with pytest.raises(ValueError, match=words):
        newton.minimal_edit(linear, **options)


def test_locality_is_relaxed_for_an_edit_that_needs_more(linear, edit_data):
    """Held so hard that no step reaches the target, until it is held less."""
    params, task, targets, test, _ = edit_data
    shares = {}
    for patience in (0, 100):
        method = newton.minimal_edit(linear, locality=1e6, patience=patience)
        report = evaluation.independent(
            method, params, task, targets, test, key=jax.random.key(0), max_steps=40
        )
        shares[patience] = float(report.success.mean())
    assert shares[0] == 1
    assert shares[100] < 1
