"""Test a simplex with several fair ends from one training."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jeff import training
from jeff.fairness import gaps, simplex, yodo


def linear(params, x, key=None):
    return x @ params


@pytest.fixture(scope="module")
def people():
    """Two attributes that both leak into the features and the label."""
    a, b, c = jax.random.split(jax.random.key(0), 3)
    group = jax.random.bernoulli(a, 0.5, (1024, 2)).astype(jnp.int32)
    skill = jax.random.normal(b, (1024,))
    noise = jax.random.normal(c, (1024, 2))
    inputs = jnp.column_stack([skill, group + 0.1 * noise, jnp.ones(1024)])
    label = skill + 1.5 * group[:, 0] + 1.5 * group[:, 1] > 1.5
    return yodo.Examples(inputs, label.astype(jnp.int32), group)


def test_with_one_fair_end_it_is_the_line(people):
    batch = people._replace(group=people.group[:, 0])
    line = yodo.Line(jnp.array([1.0, 0, 0, 0]), jnp.array([0.0, 1, 0, 0]))
    ours, _ = simplex.loss(
        linear,
        simplex.stack(list(line)),
        batch,
        jnp.array([0.7, 0.3]),
        strengths=[2.0],
        gaps=["demographic_parity"],
    )
    theirs, _ = yodo.loss(linear, line, batch, 0.3, strength=2.0, ramp=1.0)
    assert ours == pytest.approx(float(theirs), rel=1e-6)


@pytest.mark.parametrize("end_mass", [0.0, 0.5, 1.0])
def test_weights_lie_in_the_simplex(end_mass):
    keys = jax.random.split(jax.random.key(0), 2000)
    weights = jax.vmap(
        lambda key: simplex.sample_weights(3, key=key, end_mass=end_mass)
    )(keys)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
    assert weights.min() >= 0
    at_vertex = (weights == 1).any(axis=1).mean()
    assert abs(at_vertex - end_mass) < 0.06
    np.testing.assert_allclose(weights.mean(0), 1 / 3, atol=0.05)


def test_each_end_closes_its_own_gap(people):
    optimizer = optax.adam(0.02)
    options = {
        "strengths": [4.0, 4.0],
        "gaps": ["demographic_parity", "demographic_parity"],
    }
    points = simplex.stack(
        [0.1 * jax.random.normal(jax.random.key(k), (4,)) for k in range(3)]
    )
    fit = training.fit(
        simplex.train_step(linear, optimizer, **options),
        training.init_state(points, optimizer, key=jax.random.key(0)),
        training.Shuffled(people, 256, jax.random.key(1)),
        num_steps=1200,
        progress=False,
    )
    corners = jnp.concatenate([jnp.eye(3), jnp.array([[0, 0.5, 0.5]])])
    prob = simplex.predict(linear, fit.state.params, people.inputs, corners)
    found = np.array(
        [
            [gaps.demographic_parity_gap(row, people.group[:, k]) for k in range(2)]
            for row in prob
        ]
    )
    accuracy = jnp.mean((prob > 0.5) == people.label, axis=1)
    assert found[0].min() > 0.12  # the accurate vertex is unfair to both
    assert found[1, 0] < 0.06 < found[1, 1]
    assert found[2, 1] < 0.06 < found[2, 0]
    assert found[3].max() < found[0].min()  # between the two, better for both
    assert accuracy[0] == accuracy.max()


def test_predict_equals_a_loop(people):
    points = simplex.stack([jnp.ones(4), jnp.zeros(4)])
    weights = jnp.array([[1.0, 0.0], [0.25, 0.75]])
    found = simplex.predict(linear, points, people.inputs, weights)
    for row, share in zip(found, (1.0, 0.25), strict=True):
        expected = jax.nn.sigmoid(people.inputs @ (share * jnp.ones(4)))
        chex.assert_trees_all_close(row, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: simplex.stack([jnp.ones(2)]), "at least two vertices, got 1"),
        (lambda p: simplex.stack([jnp.ones(2), jnp.ones(3)]), "as at the start"),
        (
            lambda p: simplex.loss(
                linear,
                jnp.ones((3, 4)),
                p,
                jnp.ones(3) / 3,
                strengths=[1.0],
                gaps=["demographic_parity"],
            ),
            "got 1 strengths, 1 gaps and 2 attributes",
        ),
        (
            lambda p: simplex.predict(linear, jnp.ones((3, 4)), p.inputs, jnp.ones(3)),
            "weights",
        ),
        (
            lambda p: simplex.sample_weights(3, key=jax.random.key(0), end_mass=-1.0),
            "end",
        ),
    ],
)
def test_bad_arguments(people, call, words):
    # Under the suite's shape checks a wrong rank is a TypeError before it is ours.
    with pytest.raises((ValueError, TypeError), match=words):
        call(people)
