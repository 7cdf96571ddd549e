"""Test lines and simplexes in weight space."""

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jeff import line

START = {"w": jnp.array([[1.0, 2.0]]), "b": jnp.array([5.0])}
END = {"w": jnp.array([[3.0, -2.0]]), "b": jnp.array([-1.0])}


@pytest.mark.parametrize(("t", "expected"), [(0.0, START), (1.0, END)])
def test_ends_are_exact(t, expected):
    awkward = jax.tree.map(lambda x: x / 3, START), jax.tree.map(lambda x: x / 7, END)
    chex.assert_trees_all_equal(
        line.interpolate(*awkward, t), awkward[int(t)], strict=True
    )
    chex.assert_trees_all_equal(line.interpolate(START, END, t), expected)


def test_quarter_by_hand():
    point = line.interpolate(START, END, 0.25)
    np.testing.assert_allclose(point["w"], [[1.5, 1.0]])
    np.testing.assert_allclose(point["b"], [3.5])


def test_gradients_of_the_ends_are_multiples_of_the_gradient_at_the_point():
    def value(params):
        return jnp.sum(jnp.sin(params["w"])) + jnp.sum(params["b"] ** 2)

    at_ends = jax.grad(lambda s, e: value(line.interpolate(s, e, 0.3)), (0, 1))
    start, end = at_ends(START, END)
    at_point = jax.grad(value)(line.interpolate(START, END, 0.3))
    for name in at_point:
        np.testing.assert_allclose(start[name], 0.7 * at_point[name], rtol=1e-6)
        np.testing.assert_allclose(end[name], 0.3 * at_point[name], rtol=1e-6)


def test_grid_equals_a_loop():
    ts = jnp.linspace(0, 1, 5)
    stacked = line.grid(START, END, ts)
    for place, t in enumerate(ts):
        chex.assert_trees_all_close(
            jax.tree.map(lambda leaf, place=place: leaf[place], stacked),
            line.interpolate(START, END, t),
        )


def test_cosine_by_hand_leaves_biases_out():
    # <(1, 2), (3, -2)> = -1, norms 5 and 13; the biases would change it.
    assert line.cosine_squared(START, END) == pytest.approx(1 / 65, rel=1e-6)


def test_cosine_where_counts_what_it_is_told():
    both = line.cosine_squared(START, END, where=lambda leaf: True)
    assert both == pytest.approx((-1 - 5) ** 2 / ((5 + 25) * (13 + 1)), rel=1e-6)


def test_cosine_of_nothing_is_zero_with_finite_gradient():
    zero = jax.tree.map(jnp.zeros_like, START)
    value, gradient = jax.value_and_grad(line.cosine_squared)(zero, END)
    assert value == 0
    chex.assert_tree_all_finite(gradient)


def test_cosine_gradient():
    check_grads(line.cosine_squared, (START, END), order=1, modes=["rev"])


SCALES = st.one_of(st.floats(-10, -0.01), st.floats(0.01, 10))


@hypothesis.given(SCALES, SCALES)
@hypothesis.settings(deadline=None, max_examples=25)
def test_cosine_ignores_scale(a, b):
    scaled = line.cosine_squared(
        jax.tree.map(lambda x: a * x, START), jax.tree.map(lambda x: b * x, END)
    )
    np.testing.assert_allclose(scaled, 1 / 65, rtol=1e-4)


def test_simplex_of_two_is_the_line():
    points = jax.tree.map(lambda s, e: jnp.stack([s, e]), START, END)
    chex.assert_trees_all_close(
        line.simplex(points, jnp.array([0.7, 0.3])), line.interpolate(START, END, 0.3)
    )


def test_bfloat16_stays_bfloat16():
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (START, END))
    leaves = jax.tree.leaves(line.interpolate(*low, jnp.float32(0.5)))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.bfloat16)}


def test_counters_and_keys_that_agree_are_left_alone():
    state = {"count": jnp.int32(7), "key": jax.random.key(1), "on": np.array([True])}
    ends = [end | state for end in (START, END)]
    cosine = line.cosine_squared(*ends, where=lambda leaf: True)
    assert cosine == line.cosine_squared(START, END, where=lambda leaf: True)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *ends)
    for point in (
        line.interpolate(*ends, 0.25),
        line.simplex(stacked, jnp.array([0.75, 0.25])),
        jax.tree.map(lambda leaf: leaf[1], line.grid(*ends, jnp.array([0.0, 0.25]))),
    ):
        np.testing.assert_allclose(point["w"], [[1.5, 1.0]])
        assert (point["count"], point["on"]) == (7, True)
        assert point["key"] == state["key"]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: line.interpolate(START, {"w": START["w"]}, 0.5),
            ValueError,
            "one stru",
        ),
        (
            lambda: line.interpolate({"w": jnp.ones(2)}, {"w": jnp.ones(3)}, 0.5),
            ValueError,
            r"\['w'\].*\(2,\).*\(3,\)",
        ),
        (
            lambda: line.interpolate(
                {"n": jnp.ones(2, int)}, {"n": jnp.zeros(2, int)}, 0.0
            ),
            ValueError,
            r"end\['n'\]: expected int32 values as at the start.*floating-point",
        ),
        (
            lambda: line.interpolate(jax.random.key(0), jax.random.key(1), 0.0),
            ValueError,
            "same counters and keys",
        ),
        (
            lambda: line.interpolate(jnp.ones(2, complex), jnp.ones(2, complex), 0.0),
            TypeError,
            "expected real parameters, got complex",
        ),
        (
            lambda: line.simplex({"n": jnp.arange(2)}, jnp.ones(2)),
            ValueError,
            r"points\['n'\]: expected int32",
        ),
        (
            lambda: line.simplex(jnp.ones((2, 3)), jnp.ones(3)),
            ValueError,
            "leading axis",
        ),
    ],
)
def test_bad_ends(call, error, words):
    with pytest.raises(error, match=words):
        call()
