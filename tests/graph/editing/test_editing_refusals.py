"""Test what edits refuse by name, and that arrays of any kind are taken."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jeff import frozen
from jeff_graph.editing import (
    Editor,
    as_graph,
    evaluation,
    k_hop,
    make_graph,
    make_task,
    methods,
    nearby_tasks,
    newton,
    replay,
    rivals,
    split,
    training,
)
from jeff_graph.editing.log import BudgetExceededError
from jeff_graph.editing.nets import make_net, split_net
from jeff_graph.editing.report import at
from jeff_graph.editing.rows import right_rows
from jeff_graph.editing.sampled import fit_sampled
from jeff_graph.editing.task import Edit

PROTOCOLS = (evaluation.independent, evaluation.sequential, evaluation.batch)
METHODS = {
    "gd": methods.gradient_descent,
    "gre": methods.gre,
    "rehearsal": replay.rehearsal,
    "memory": replay.memory_rewiring,
    "replay": replay.distilled_replay,
    "minimal": newton.minimal_edit,
    "enn": rivals.enn,
    "seed": rivals.seed,
}


def run(protocol, linear, edit_data, **changes):
    params, task, targets, test, _ = edit_data
    given = {"task": task, "targets": targets, "test": test} | changes
    method = given.pop("method", methods.gradient_descent(linear, learning_rate=0.05))
    out = protocol(method, params, *given.values(), key=jax.random.key(0))
    return out if protocol is evaluation.independent else out[1]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_target_outside_the_graph(linear, edit_data, protocol):
    """Refused by its number; under jit it fails and moves nothing."""
    params, task, _, test, _ = edit_data
    for wrong in (40, 99, -1):
        with pytest.raises(ValueError, match=f"targets: .* 0 to 39, got {wrong}"):
            run(protocol, linear, edit_data, targets=np.array([0, wrong]))

    @jax.jit
    def inside(targets):
        method = methods.gradient_descent(linear)
        return protocol(method, params, task, targets, test, key=jax.random.key(0))

    out = inside(jnp.array([40, -1, 99]))
    report = out if protocol is evaluation.independent else out[1]
    assert not report.success.any() and not report.retained.any()
    assert not report.steps.any()
    np.testing.assert_allclose(report.divergence, 0, atol=1e-6)


def test_numbers_under_jit_are_of_no_other_node():
    right = jnp.array([True, True, True])
    outside = jnp.array([-1, 3, -3, 1])
    assert jax.jit(at)(right, outside).tolist() == [False, False, False, True]
    graph = make_graph(np.ones((3, 1)), [[0, 1]])
    for node in (-1, 3):
        assert not jax.jit(lambda node: k_hop(graph, node, 2))(node).any()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_empty_test_masks(linear, edit_data, protocol):
    with pytest.raises(ValueError, match="test: expected at least one node, got none"):
        run(protocol, linear, edit_data, test=np.zeros(40, bool))
    params, task, *_ = edit_data
    with pytest.raises(
        ValueError, match=r"test: .* at least one node, got bool with 0"
    ):
        Editor.start(
            methods.gradient_descent(linear),
            params,
            task,
            np.zeros(40, bool),
            key=jax.random.key(0),
        )


@pytest.mark.parametrize("part", ["labels", "training_labels"])
def test_labels_without_a_logit(linear, edit_data, part):
    """In every protocol and in an editor, whichever of the two labels it is."""
    params, task, _, test, _ = edit_data
    labels = {"labels": task.labels, "training_labels": task.labels}
    labels[part] = task.labels + 1
    one_more = make_task(task.inputs, train=task.train, **labels)
    words = rf"task.{part}: expected classes from 0 to 2, .* 3 logits, got 3; .* from 1"
    for protocol in PROTOCOLS:
        with pytest.raises(ValueError, match=words):
            run(protocol, linear, edit_data, task=one_more)
    with pytest.raises(ValueError, match=words):
        Editor.start(
            methods.gradient_descent(linear),
            params,
            one_more,
            test,
            key=jax.random.key(0),
        )


@pytest.fixture(scope="module")
def trained():
    """``(apply_fn, params, graph, labels, parts)`` of an untrained GCN."""
    rng = np.random.default_rng(4)
    graph = make_graph(rng.normal(size=(30, 4)), rng.integers(0, 30, (50, 2)))
    labels = rng.integers(0, 3, 30)
    labels[:3] = 0, 1, 2
    net = make_net("gcn", 4, 3, hidden=4, key=jax.random.key(0))
    return *split_net(net), graph, labels, split(labels, 10, 10, key=jax.random.key(0))


@pytest.mark.parametrize("train", [training.fit, fit_sampled])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda y: y + 1, "from 0 to 2, as the network has 3 logits, got 3; .* from 1"),
        (lambda y: y * 500, "from 0 to 2, as the network has 3 logits, got 1000"),
        (lambda y: y + 2**32, "labels: expected classes from 0, .* got 429496729"),
        (lambda y: y - 2, "labels: expected classes from 0, or -1 for none, got -2"),
    ],
)
def test_labels_that_cannot_be_trained_on(trained, train, change, words, key):
    apply_fn, params, graph, labels, parts = trained
    with pytest.raises(ValueError, match=words):
        train(apply_fn, params, graph, change(labels), parts, key=key)


def test_labels_of_neighbourhoods(trained, key):
    apply_fn, params, graph, labels, parts = trained
    targets = np.array([1, 2])
    task = make_task(graph, labels, parts.train)
    near = nearby_tasks(graph, labels + 1, targets, 2)
    method = methods.gradient_descent(apply_fn)
    given = method, params, task, targets, parts.test
    with pytest.raises(ValueError, match=r"near.labels: .* 0 to 2, .* got 3"):
        evaluation.independent(*given, key=key, near=near)


def test_under_jit_a_label_without_a_logit_gives_nan(linear, edit_data):
    """And never the loss of another class."""
    params, task, *_ = edit_data

    @jax.jit
    def loss(labels):
        other = make_task(task.inputs, labels, task.train)
        edit = Edit(jnp.ones(40, bool), jnp.zeros(40, bool))
        logits = linear(params, other.inputs)
        return methods.target_loss(logits, other, edit, None)

    assert jnp.isfinite(loss(task.labels))
    assert jnp.isnan(loss(task.labels.at[3].set(3)))


class Normed(nn.Module):
    """Linen, with running statistics among its variables."""

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=True)(nn.Dense(8)(x))
        return nn.Dense(3)(nn.relu(x))


@pytest.mark.parametrize("name", METHODS)
def test_running_statistics_and_counters_are_no_parameters(edit_data, name, key):
    """Refused by name before a step; apart from the rest, edits leave them alone."""
    _, task, targets, test, _ = edit_data
    module = Normed()
    variables = module.init(key, task.inputs)
    method = METHODS[name](module.apply)
    for protocol in PROTOCOLS:
        with pytest.raises(ValueError, match=r"params: batch_stats/.*frozen.split"):
            protocol(method, variables, task, targets, test, key=key)
    counted = {"model": variables["params"], "count": jnp.zeros((), jnp.int32)}
    method = METHODS[name](
        lambda p, x: module.apply(variables | {"params": p["model"]}, x)
    )
    with pytest.raises(TypeError, match=r"params: count: expected floating point"):
        evaluation.sequential(method, counted, task, targets, test, key=key)
    if name != "minimal":
        return
    # What the message tells to do.
    trained, rest = frozen.split(variables, "batch_stats")
    method = METHODS[name](lambda p, x: module.apply(frozen.join(p, rest), x))
    editor = Editor.start(method, trained, task, test, key=key)
    said = int(editor.logits()[0].argmax())
    editor, outcome = editor.edit(0, (said + 1) % 3)
    assert outcome.success and outcome.steps > 0
    joined = frozen.join(editor.params, rest)
    assert (module.apply(joined, task.inputs)[0].argmax()) == (said + 1) % 3


def test_arrays_of_any_kind(trained, key):
    """numpy and pandas, and lists, give what JAX's arrays give."""
    pandas = pytest.importorskip("pandas")
    apply_fn, params, graph, labels, _ = trained
    frame = pandas.DataFrame({"label": labels})
    parts = split(frame["label"], 10, 10, key=key)
    for name, part in parts._asdict().items():
        frame[name] = np.asarray(part)
    column = split(labels, 10, 10, key=key)._replace(
        train=frame["train"], valid=frame["valid"], test=frame["test"]
    )
    settings = {"key": key, "num_epochs": 3}
    found = training.fit(apply_fn, params, graph, frame["label"], column, **settings)
    wanted = training.fit(apply_fn, params, graph, labels, parts, **settings)
    assert found[1:] == wanted[1:]
    task = make_task(graph, frame["label"], frame["train"])
    method = methods.gradient_descent(apply_fn, learning_rate=0.1)
    editor = Editor.start(method, params, task, frame["test"], key=key)
    target = np.flatnonzero(editor.logits().argmax(1) != labels)[0]
    for node in (target, int(target), jnp.asarray(target), np.int16(target)):
        changed, outcome = editor.edit(node)
        assert outcome.success and changed.targets == (int(target),)
    with pytest.raises(TypeError, match=r"float|node"):
        editor.edit(1.0)
    for targets in ([target], np.array([target], np.uint8), pandas.Series([target])):
        report = evaluation.independent(
            method, params, task, targets, frame["test"], key=key, max_steps=50
        )
        assert report.success.all()
    near = nearby_tasks(graph, frame["label"], pandas.Series([target]), 2)
    assert near.tasks[0].labels[0, 0] == labels[target]


def test_small_types(key):
    """Halves, bytes and few bits come through as numbers."""
    features = np.eye(4, dtype=np.float16)
    edges = np.array([[0, 1], [2, 3]], np.uint8)
    graph = make_graph(features, edges)
    assert graph.nodes.dtype == np.float32 and graph.senders.dtype == np.int32
    apply_fn, params = split_net(make_net("gcn", 4, 2, hidden=4, key=key))
    expected = apply_fn(params, graph)
    for dtype in (np.float16, jnp.bfloat16, np.int8, bool):
        small = graph._replace(nodes=graph.nodes.astype(dtype))
        np.testing.assert_allclose(apply_fn(params, small), expected, rtol=1e-6)
        ends = {n: getattr(graph, n).astype(np.int8) for n in ("senders", "receivers")}
        np.testing.assert_allclose(apply_fn(params, small._replace(**ends)), expected)
    labels = np.array([0, 1, 1, 0], np.int8)
    assert make_task(graph, labels, labels > 0).labels.dtype == jnp.int32
    with pytest.raises(TypeError, match="labels: expected integers, got bool"):
        make_task(graph, labels > 0, labels > 0)


def test_a_model_that_breaks_is_no_success(linear, edit_data, key):
    """NaN is the greatest to argmax: every node would be of class 0."""
    logits = jnp.array([[jnp.nan, 0.0], [1.0, jnp.nan], [1.0, -jnp.inf]])
    assert right_rows(logits, jnp.zeros(3, int)).tolist() == [False, False, True]
    params, task, _, test, _ = edit_data
    method = methods.from_loss(
        linear,
        lambda p, task, edit, memory, key: jnp.nan * p["b"].sum(),
        lambda _: optax.sgd(1.0),
    )
    editor = Editor.start(method, params, task, test, key=key)
    node = int(jnp.argmax(editor.logits().argmax(1) != 0))
    same, outcome = editor.edit(node, 0)
    assert same is editor and not outcome.success
    assert outcome.drawdown > 0
    asked = make_task(task.inputs, task.labels.at[node].set(0), task.train)
    targets = np.array([node])
    _, report = evaluation.sequential(method, params, asked, targets, test, key=key)
    assert report.steps[0] > 0 and not report.success.any()
    accuracy = training.accuracy(jnp.full((40, 3), jnp.nan), task.labels, test)
    assert accuracy == 0


def test_a_drawdown_that_is_no_number_is_not_accepted(linear, edit_data, key):
    """Whatever the budget, infinite too."""
    params, task, _, test, _ = edit_data
    method = methods.gradient_descent(linear, learning_rate=0.1)
    editor = Editor.start(method, params, task, test, key=key)
    assert not editor.log.accepts(float("nan"))
    with pytest.raises(BudgetExceededError, match="would leave nan"):
        editor.log.add(params, 0, float("nan"))


def test_known_arrays_inside_jit(trained, key):
    """Checks read the values of what a jitted function closes over."""
    apply_fn, params, graph, labels, parts = trained
    method = methods.gradient_descent(apply_fn)
    targets = jnp.array([1, 2])

    def inside(params, form, targets):
        task = make_task(form, labels, parts.train)
        given = method, params, task, targets, parts.test
        return evaluation.independent(*given, key=key).steps

    for form in (graph, as_graph(graph)):
        known = functools.partial(inside, form=form, targets=targets)
        assert jax.jit(known)(params).shape == (2,)
        known = functools.partial(inside, form=form, targets=jnp.array([30]))
        with pytest.raises(ValueError, match=r"targets: .* got 30"):
            jax.jit(known)(params)
