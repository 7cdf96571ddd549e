"""Test single edits of one model: the protocol's numbers, budget and undo."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jeff_graph.editing import Editor, evaluation, methods, replay, rivals
from jeff_graph.editing.log import BudgetExceededError


@pytest.fixture
def start(linear, edit_data):
    """``start(**options) -> (editor, targets)``."""
    params, task, targets, test, _ = edit_data

    def make(make_method=replay.distilled_replay, **options):
        method = make_method(linear, learning_rate=0.05)
        editor = Editor.start(
            method, params, task, test, key=jax.random.key(0), **options
        )
        return editor, [int(node) for node in targets]

    return make


def test_edits_are_those_of_the_protocol(start, linear, edit_data):
    """The method begins every edit with a fresh optimiser, as the editor does."""
    params, task, targets, test, _ = edit_data
    editor, nodes = start(max_steps=40, bisections=3)
    outcomes = []
    for node in nodes:
        editor, outcome = editor.edit(node)
        outcomes.append(outcome)
    run = functools.partial(
        evaluation.sequential, editor.method, max_steps=40, bisections=3
    )
    final, report = jax.jit(run)(params, task, targets, test, key=jax.random.key(0))
    assert all(outcome.success for outcome in outcomes)
    assert [outcome.steps for outcome in outcomes] == report.steps.tolist()
    drawdowns = [outcome.drawdown for outcome in outcomes]
    np.testing.assert_allclose(drawdowns, report.drawdowns, atol=1e-5)
    assert outcomes[-1].retained == pytest.approx(report.retained[:-1].mean())
    chex.assert_trees_all_close(editor.params, final, rtol=1e-4, atol=1e-6)
    assert editor.targets == tuple(nodes)


def test_a_class_that_was_asked_for(start):
    editor, (node, *_) = start(methods.gradient_descent, max_steps=200)
    for label in (0, 2, 1):
        changed, outcome = editor.edit(node, label)
        assert outcome.success and changed.logits()[node].argmax() == label
        assert changed.task.labels[node] == label
    again, outcome = changed.edit(node)
    assert outcome == (True, 0, outcome.drawdown, 1.0)
    chex.assert_trees_all_equal(again.params, changed.params)


def test_a_way_back(start):
    first, nodes = start(max_steps=100)
    second, _ = first.edit(nodes[0])
    third, _ = second.edit(nodes[1])
    assert third.undo(0).params is third.params
    assert third.undo().params is second.params
    assert third.undo(2).params is first.params and not third.undo(2).targets
    with pytest.raises(IndexError, match="count: expected 0 to 2 edits, got 3"):
        third.undo(3)


def test_an_edit_that_fails_or_costs_too_much_is_not_taken_in(start):
    editor, (node, *_) = start(max_steps=1)
    wrong = int(editor.logits()[node].argmin())
    same, outcome = editor.edit(node, wrong)
    assert same is editor and not outcome.success and outcome.steps == 1
    free, nodes = start(methods.gradient_descent, max_steps=500)
    wrong = [int(label) for label in free.logits()[jnp.asarray(nodes)].argmin(1)]
    costs = [free.edit(*pair)[1].drawdown for pair in zip(nodes, wrong, strict=True)]
    worst = int(np.argmax(costs))
    assert costs[worst] > 0
    budget = costs[worst] - 0.5
    editor, _ = start(methods.gradient_descent, max_steps=500, budget=budget)
    with pytest.raises(BudgetExceededError, match=f"the edit of {nodes[worst]} would"):
        editor.edit(nodes[worst], wrong[worst])
    assert editor.targets == ()


def test_one_program_for_all_nodes(start):
    """Also for numbers of numpy, and with the test and the step in one pass."""
    chex.clear_trace_counter()
    counted = chex.assert_max_traces(methods.target_loss, n=1)

    def method(linear, **options):
        return methods.from_logit_loss(linear, counted, lambda _: optax.adam(0.01))

    editor, nodes = start(method)
    for number, node in enumerate(nodes):
        editor, _ = editor.edit(np.int64(node) if number else node, 1)


def test_a_method_that_edits_a_part_beside_the_model(start, edit_data):
    editor, (node, *_) = start(rivals.egnn, max_steps=100)
    changed, outcome = editor.edit(node)
    assert outcome.success
    chex.assert_trees_all_equal(changed.params["net"], edit_data[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.edit(40), "node: expected .* real node below 40, got 40"),
        (lambda e: e.edit(-1), "node: expected .* got -1"),
        (lambda e: e.edit(0, 3), "label: expected a class from 0 to 2, got 3"),
        (lambda e: e.edit(0, -1), "label: expected a class from 0 to 2, got -1"),
    ],
)
def test_nodes_and_classes_that_do_not_exist(unchecked, start, call, message):
    with pytest.raises(ValueError, match=message):
        call(start()[0])


def test_other_mistakes(unchecked, start, linear, edit_data):
    with pytest.raises(ValueError, match="max_steps: expected at least 1, got 0"):
        start(max_steps=0)
    with pytest.raises(ValueError, match="bisections: expected at least 0, got -1"):
        start(bisections=-1)
    with pytest.raises(ValueError, match="budget: expected points of at least 0"):
        start(budget=-1)
    params, task, *_ = edit_data
    method = methods.gradient_descent(linear)
    for test in (jnp.ones(3, bool), jnp.ones(40)):
        with pytest.raises(
            ValueError, match=r"test: expected (shape \(40,\)|a bool mask)"
        ):
            Editor.start(method, params, task, test, key=jax.random.key(0))
