"""Test every system that takes a model with models of five kinds."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import optax
import pytest

from jeff import fairness, training
from jeff_graph import cells, editing
from jeff_llm import kv

KINDS = ("plain", "nnx", "linen", "equinox", "haiku")


class Dense(NamedTuple):
    """A layer of some library as a function: rows [n, fan_in] to [n, fan_out]."""

    apply_fn: object
    params: object


def plain(fan_in, fan_out, key):
    params = {"kernel": jax.random.normal(key, (fan_in, fan_out)) / fan_in**0.5}
    return Dense(lambda params, x: x @ params["kernel"], params)


def nnx(fan_in, fan_out, key):
    from flax import nnx

    layer = nnx.Linear(fan_in, fan_out, rngs=nnx.Rngs(key))
    graphdef, params = nnx.split(layer)
    return Dense(lambda params, x: nnx.merge(graphdef, params)(x), params)


def linen(fan_in, fan_out, key):
    from flax import linen

    layer = linen.Dense(fan_out)
    params = layer.init(key, jnp.zeros((1, fan_in)))["params"]
    return Dense(lambda params, x: layer.apply({"params": params}, x), params)


def equinox(fan_in, fan_out, key):
    equinox = pytest.importorskip("equinox")
    layer = equinox.nn.Linear(fan_in, fan_out, key=key)
    params, static = equinox.partition(layer, equinox.is_inexact_array)
    return Dense(lambda p, x: jax.vmap(equinox.combine(p, static))(x), params)


def haiku(fan_in, fan_out, key):
    haiku = pytest.importorskip("haiku")

    def network(x):  # a module of Haiku can only be made while it is transformed
        return haiku.Linear(fan_out)(x)

    layer = haiku.without_apply_rng(haiku.transform(network))
    return Dense(layer.apply, layer.init(key, jnp.zeros((1, fan_in))))


@pytest.fixture(params=KINDS)
def dense(request):
    """``dense(fan_in, fan_out, key)`` of one of the five kinds."""
    return globals()[request.param]


def test_yodo(dense, key):
    apply_fn = dense(4, 1, key).apply_fn

    def logit(params, x):
        return apply_fn(params, x)[:, 0]

    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 4)).astype(np.float32)
    group = rng.random(256) < 0.5
    x[:, 1] += 2 * group - 1
    label = x[:, 0] + x[:, 1] > 0
    ends = [dense(4, 1, jax.random.key(seed)).params for seed in (1, 2)]
    people = fairness.Examples(x, label, group)
    line = fairness.Line(start=ends[0], end=ends[1])
    trained = fairness.train(
        logit,
        line,
        people,
        key=key,
        optimizer=optax.adam(0.05),
        num_epochs=40,
        batch_size=64,
    )
    levels = jnp.array([0.0, 0.5, 1.0])
    before, after = (
        fairness.predict(logit, each, x, levels) for each in (line, trained)
    )
    right = [float(jnp.mean((each[0] > 0.5) == label)) for each in (before, after)]
    assert after.shape == (3, 256) and right[1] > max(right[0], 0.8)
    gaps = [
        float(fairness.demographic_parity_gap(each, jnp.asarray(group)))
        for each in (after[0], after[-1])
    ]
    assert gaps[1] < gaps[0] / 2


def test_gre(dense, key):
    layer = dense(3, 3, key)
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 3
    nodes = np.eye(3, dtype=np.float32)[labels] + rng.normal(0, 0.1, (40, 3))
    ring = np.arange(40)
    graph = jraph.GraphsTuple(
        nodes=jnp.asarray(nodes, jnp.float32),
        edges=None,
        receivers=jnp.asarray((ring + 3) % 40),
        senders=jnp.asarray(ring),
        n_node=jnp.array([40]),
        n_edge=jnp.array([40]),
        globals=None,
    )

    def apply_fn(params, graph):
        convolve = jraph.GraphConvolution(
            lambda x: layer.apply_fn(params, x), add_self_edges=True
        )
        return convolve(graph).nodes

    train = np.arange(40) < 25
    task = editing.make_task(graph, labels, train)
    step = training.make_step(
        lambda params, batch, _: (
            optax.softmax_cross_entropy_with_integer_labels(
                apply_fn(params, graph)[:25], batch
            ).mean(),
            {},
        ),
        optax.adam(0.1),
    )
    state = training.init_state(layer.params, optax.adam(0.1), key=key)
    fitted = training.fit(
        step, state, lambda _: labels[:25], num_steps=30, chunk_steps=10, progress=False
    )
    assert fitted.history[-1]["loss"] < fitted.history[0]["loss"]
    method = editing.newton.minimal_edit(apply_fn)
    params = fitted.state.params
    editor = editing.Editor.start(method, params, task, ~train, key=key)
    wanted = int((labels[17] + 1) % 3)
    editor, outcome = editor.edit(17, label=wanted)
    assert outcome.success and editor.logits()[17].argmax() == wanted
    assert jax.tree.structure(editor.params) == jax.tree.structure(params)


def test_gene_pairs(dense, key):
    layer = dense(5, 4, key)

    def attention_fn(params, tokens):
        places = jax.nn.one_hot(tokens.genes, 4)
        rows = jnp.concatenate([places, tokens.values[..., None]], -1)
        seen = layer.apply_fn(params, rows.reshape(-1, 5)).reshape(*rows.shape[:2], 4)
        logits = seen @ seen.mT
        return jax.nn.softmax(jnp.where(tokens.values[:, None] > 0, logits, -1e9), -1)

    counts = np.random.default_rng(0).poisson(2, (20, 4)) + 1
    tokens = cells.make_tokens(counts.astype(np.float32))
    sums = cells.pair_sums(attention_fn, layer.params, tokens, 4)
    scores = cells.pair_scores(sums)
    whole = np.asarray(attention_fn(layer.params, tokens)).mean(0)
    off = ~np.eye(4, dtype=bool)
    assert scores.shape == (4, 4) and np.isfinite(np.asarray(scores)[off]).all()
    # By hand: every gene is in every cell, so a score is the mean attention, both ways.
    expected = (whole + whole.T)[off]
    found = np.asarray(scores)[off]
    np.testing.assert_allclose(
        found / found.sum(), expected / expected.sum(), rtol=1e-4
    )


def test_kv(dense, key):
    """An attention layer of one's own, its cache in 8 bits."""
    keys = jax.random.split(key, 3)
    layers = [dense(32, 64, each) for each in keys]
    x = jax.random.normal(key, (1, 300, 32))

    @jax.jit
    def project(params, x):
        return [
            layer.apply_fn(each, x[0]).reshape(1, -1, 1, 64)
            for layer, each in zip(layers, params, strict=True)
        ]

    query, new, value = project([layer.params for layer in layers], x)
    cache = kv.init_cache(kv.CacheConfig(8, 8), 1, 384, kv_heads=1, head_width=64)
    out, cache = kv.prefill(cache, query, new, value)
    assert int(cache.lengths[0]) == 300
    last = kv.attend(query[:, -1:], cache)
    logits = jnp.einsum("thw,shw->ts", query[0], new[0]) / 8
    exact = jax.nn.softmax(logits[-1]) @ value[0, :, 0]
    np.testing.assert_allclose(last[0, 0, 0], exact, atol=0.02)
    np.testing.assert_allclose(out[0, -1, 0], exact, atol=1e-2)
