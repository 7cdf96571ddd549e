"""Test rewiring: by hand, against scipy, constraints, and as optax transformations."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import nnls

from jeff_graph.editing import gre

KS = (1, 2, 3, 5, 8)


def tree(rows):
    """``[..., 40]`` numbers as a pytree of three leaves."""
    rows = jnp.asarray(rows, jnp.float32)
    lead = rows.shape[:-1]
    matrix, bias, scale = jnp.split(rows, [30, 39], axis=-1)
    return {"net": [matrix.reshape(*lead, 5, 6), bias], "scale": scale[..., 0]}


def flat(params, lead=0):
    leaves = [np.asarray(leaf, float) for leaf in jax.tree.leaves(params)]
    return np.concatenate([x.reshape(*x.shape[:lead], -1) for x in leaves], axis=-1)


def draw(count, seed=0):
    """``(gradient, anchors)`` in conflict, as numbers."""
    rng = np.random.default_rng(seed)
    anchors = rng.normal(size=(count, 40)) + rng.normal(size=40)
    return rng.normal(size=40) - anchors.mean(0), anchors


rewire_gradient = jax.jit(gre.rewire_gradient)


def projection(gradient, anchors):
    """The nearest g with ``anchors g >= 0``, by scipy."""
    return gradient + anchors.T @ nnls(anchors.T, -gradient)[0]


def test_by_hand():
    """K = 2 in the plane: g is turned onto the edge of the cone, then halved."""
    anchors = jnp.array([[1.0, 0.0], [1.0, 1.0]])
    g, v = gre.rewire_gradient(jnp.array([-3.0, 1.0]), anchors)
    # (1, 1) g = -2 and (1, 0) g = -3. With only the first: (0, 1), which both allow.
    np.testing.assert_allclose(g, [0, 0.5])
    np.testing.assert_allclose(v, [3, 0])


@pytest.mark.parametrize("gamma", [0.0, 1.0, 4.0])
def test_closed_form_of_one_anchor(gamma):
    for seed in range(5):
        gradient, anchors = draw(1, seed)
        g, v = rewire_gradient(tree(gradient), tree(anchors), gamma)
        expected = max(0, -anchors[0] @ gradient / (anchors[0] @ anchors[0]))
        assert expected > 0
        np.testing.assert_allclose(v, [expected], rtol=1e-5)
        np.testing.assert_allclose(
            flat(g), (gradient + expected * anchors[0]) / (1 + gamma), atol=2e-6
        )


@pytest.mark.parametrize("count", KS)
def test_against_scipy(count):
    """40 problems each, 200 in all: the minimiser, its signs, complementarity."""
    for seed in range(40):
        gradient, anchors = draw(count, seed)
        g, v = rewire_gradient(tree(gradient), tree(anchors), 1.0)
        found = flat(g)
        size = np.linalg.norm(gradient)
        np.testing.assert_allclose(
            2 * found, projection(gradient, anchors), atol=2e-5 * size
        )
        slopes = anchors @ found
        norms = np.linalg.norm(anchors, axis=1)
        assert (slopes / norms).min() > -1e-6 * size
        assert np.abs(np.asarray(v) * slopes).max() < 1e-5 * size**2


@pytest.mark.parametrize("count", KS)
def test_without_conflict_only_gamma_is_left(count):
    gradient, anchors = draw(count)
    gradient = -gradient + 3 * anchors.sum(0)
    assert (anchors @ gradient > 0).all()
    g, v = rewire_gradient(tree(gradient), tree(anchors), 3.0)
    np.testing.assert_array_equal(v, 0)
    chex.assert_trees_all_equal(g, jax.tree.map(lambda x: x / 4, tree(gradient)))


def test_duplicates_zero_anchors_and_a_zero_gradient():
    gradient, anchors = draw(2)
    once, _ = rewire_gradient(tree(gradient), tree(anchors))
    rows = np.stack([anchors[0], 0 * anchors[0], anchors[1], 2 * anchors[0]])
    more, _ = rewire_gradient(tree(gradient), tree(rows))
    np.testing.assert_allclose(flat(more), flat(once), atol=2e-6)
    for count in (3, 7):
        zeros = np.zeros((count, 40))
        g, v = rewire_gradient(tree(gradient), tree(zeros), 0.0)
        chex.assert_trees_all_equal(g, tree(gradient))
        np.testing.assert_array_equal(v, 0)
        anchors = draw(count)[1]
        g, v = rewire_gradient(tree(0 * gradient), tree(anchors))
        np.testing.assert_array_equal(flat(g), 0)
        np.testing.assert_array_equal(v, 0)


def test_bfloat16_is_summed_in_float32():
    """256 + 1/4 would stay 256 in bfloat16; the sum of 1024 such terms is exact."""
    ones = {"w": jnp.ones((1, 1025), jnp.bfloat16)}
    vector = {"w": jnp.full(1025, 0.25, jnp.bfloat16).at[0].set(256)}
    products = gre.inner_products(ones, vector)
    assert products.dtype == jnp.float32
    np.testing.assert_array_equal(products, [512])
    g, _ = rewire_gradient(jax.tree.map(lambda x: -x, vector), ones)
    assert g["w"].dtype == jnp.bfloat16
    assert gre.gram_matrix(ones).dtype == jnp.float32


def test_anchor_gradients_by_hand():
    """Mean of (w x - y)^2 over each subset; always with a leading axis."""
    x, y = jnp.array([1.0, 2.0, 3.0]), jnp.array([0.0, 0.0, 3.0])
    subsets = jnp.array([[True, True, False], [False, False, True]])

    def loss(w, where):
        return jnp.mean((w * x - y) ** 2, where=where)

    for vectorized in (False, True):
        found = gre.anchor_gradients(loss, 2.0, subsets, vectorized=vectorized)
        np.testing.assert_allclose(found, [(2 * 2 + 2 * 8) / 2, 2 * 3 * 3])
        one = gre.anchor_gradients(loss, 2.0, subsets[:1], vectorized=vectorized)
        np.testing.assert_allclose(one, [10])


def step(optimizer, gradient, steps=1):
    """Updates of the last of several steps with one gradient."""
    state = optimizer.init(gradient)
    update = jax.jit(optimizer.update)
    for _ in range(steps):
        updates, state = update(gradient, state)
    return updates


@pytest.mark.parametrize("count", KS)
def test_before_sgd_the_constraint_holds(count):
    gradient, anchors = draw(count)
    chain = optax.chain(gre.rewire(tree(anchors), 0.0), optax.sgd(0.5))
    updates = flat(step(chain, tree(gradient)))
    size = np.linalg.norm(gradient)
    np.testing.assert_allclose(
        updates, -0.5 * projection(gradient, anchors), atol=2e-5 * size
    )


@pytest.mark.parametrize("count", KS)
def test_behind_adam_the_constraint_holds(count):
    """The nearest update; updates are added, so none may go along an anchor."""
    gradient, anchors = draw(count)
    adam = optax.adam(0.01)
    plain = flat(step(adam, tree(gradient)))
    assert (anchors @ plain).max() > 1e-3
    chain = optax.chain(adam, gre.rewire_update(tree(anchors)))
    updates = flat(step(chain, tree(gradient)))
    assert (anchors @ updates).max() < 1e-6
    np.testing.assert_allclose(updates, -projection(-plain, anchors), atol=1e-6)


@pytest.mark.parametrize("count", KS)
def test_inside_adam_the_constraint_holds_in_its_metric(count):
    """At the first step, nu is the squared gradient and the step its sign."""
    gradient, anchors = draw(count)
    updates = flat(step(gre.rewired_adam(0.01, tree(anchors)), tree(gradient)))
    assert (anchors @ updates).max() < 1e-6
    root = np.sqrt(np.abs(gradient))
    scaled = projection(root * np.sign(gradient), anchors / root) / root
    np.testing.assert_allclose(updates, -0.01 * scaled, atol=2e-5)


def test_inside_adam_without_conflict_is_adam():
    """Five steps, with the same moments."""
    gradient, anchors = draw(3)
    mine = gre.rewired_adam(0.01, tree(0 * anchors), b1=0.8, b2=0.95, eps=1e-3)
    adam = optax.adam(0.01, 0.8, 0.95, 1e-3)
    chex.assert_trees_all_close(
        step(mine, tree(gradient), 5), step(adam, tree(gradient), 5), rtol=1e-6
    )


def test_adam_takes_the_rewiring_back():
    """Before Adam, the constraint does not hold for the update."""
    worst = []
    for seed in range(20):
        gradient, anchors = draw(2, seed)
        chain = optax.chain(gre.rewire(tree(anchors)), optax.adam(0.01))
        worst.append((anchors @ flat(step(chain, tree(gradient)))).max())
    assert max(worst) > 1e-2


def test_under_adam_gamma_changes_nothing():
    """But for rounding, with powers of two and without epsilon; else nearly so."""
    gradient, anchors = draw(3)

    def updates(gamma, eps):
        chain = optax.chain(gre.rewire(tree(anchors), gamma), optax.adam(0.01, eps=eps))
        return step(chain, tree(gradient), 6)

    for gamma in (1.0, 3.0, 7.0):
        chex.assert_trees_all_close(updates(gamma, 0.0), updates(0.0, 0.0), rtol=1e-6)
    chex.assert_trees_all_close(updates(2.0, 1e-8), updates(0.0, 1e-8), rtol=1e-4)


@pytest.mark.parametrize("kind", ["rewire", "update", "adam"])
def test_jit_and_vmap_equal_a_loop(kind):
    """Anchors of their own for each of four edits."""
    pairs = [draw(3, seed) for seed in range(4)]
    gradients, anchors = (np.stack(each) for each in zip(*pairs, strict=True))

    def updates(gradient, anchors):
        optimizer = {
            "rewire": lambda: optax.chain(gre.rewire(anchors), optax.adam(0.01)),
            "update": lambda: optax.chain(optax.adam(0.01), gre.rewire_update(anchors)),
            "adam": lambda: gre.rewired_adam(0.01, anchors),
        }[kind]()
        return step(optimizer, gradient, 2)

    together = jax.jit(jax.vmap(updates))(tree(gradients), tree(anchors))
    for place in range(4):
        alone = updates(tree(gradients[place]), tree(anchors[place]))
        np.testing.assert_allclose(
            flat(together, 1)[place], flat(alone), rtol=2e-4, atol=1e-6
        )


def test_a_model_that_is_no_graph_network(key):
    """An MLP: along the rewired gradient no subset's loss rises, unlike before."""
    first, last, inputs = jax.random.split(key, 3)
    params = {
        "first": jax.random.normal(first, (4, 16)) / 2,
        "last": jax.random.normal(last, (16, 3)) / 4,
    }
    x = jax.random.normal(inputs, (60, 4))

    def logits(params, x):
        return jax.nn.relu(x @ params["first"]) @ params["last"]

    labels = logits(params, x).argmax(1)

    def loss(params, rows):
        return optax.softmax_cross_entropy_with_integer_labels(
            logits(params, x[rows]), labels[rows]
        ).mean()

    chunks = jnp.arange(3 * 19).reshape(3, 19)
    wrong = optax.softmax_cross_entropy_with_integer_labels

    def edit_loss(params):
        return wrong(logits(params, x[-1]), (labels[-1] + 1) % 3)

    anchors = gre.anchor_gradients(loss, params, chunks)
    gradient = jax.grad(edit_loss)(params)
    rewired, v = gre.rewire_gradient(gradient, anchors, 0.0)
    assert v.max() > 0

    def change(direction):
        rate = 1e-3
        moved = jax.tree.map(lambda p, g: p - rate * g, params, direction)
        rise = jax.vmap(lambda rows: loss(moved, rows) - loss(params, rows))(chunks)
        return edit_loss(moved) - edit_loss(params), rise.max()

    gain, rise = change(gradient)
    assert gain < 0 < 2e-4 < rise
    gain, rise = change(rewired)
    assert gain < 0
    assert rise < 2e-5, rise


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: gre.rewire(t, -1.0), "gamma: .* at least 0, got -1.0"),
        (lambda t: gre.rewire_gradient(t, t, float("nan")), "gamma: .* got nan"),
        (lambda t: gre.rewire({"w": jnp.ones(())}), r"anchors: .* got shapes \[\(\)\]"),
        (lambda t: gre.rewire_update([jnp.ones(2), jnp.ones(3)]), "anchors: .* axis K"),
        (lambda t: gre.rewire(jnp.ones((0, 3))), "anchors: .* axis K of at least 1"),
        (lambda t: gre.rewired_adam(0.1, {}), "anchors: .* axis K"),
        (lambda t: gre.rewire(t).init([jnp.ones(3)]), "anchors: .* the structure"),
        (
            lambda t: gre.rewire_update(t).init({"w": jnp.ones(3)}),
            r"anchors: .* \[K, \*\(3,\)\], got \(2, 4\)",
        ),
        (lambda t: gre.inner_products(t, t), r"anchors: .* got \(2, 4\)"),
        (lambda t: gre.gram_matrix(jnp.ones(())), "anchors: .* axis K"),
        (
            lambda t: gre.anchor_gradients(lambda p, s: p, 1.0, jnp.ones(())),
            "subsets: .* axis K",
        ),
    ],
)
def test_bad_arguments(unchecked, call, message):
    with pytest.raises(ValueError, match=message):
        call({"w": jnp.ones((2, 4))})
