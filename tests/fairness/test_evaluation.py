"""Test the evaluation of levels and the choice of a level."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jeff import training
from jeff.fairness import evaluation, yodo

ALPHAS = jnp.linspace(0, 1, 11)


def threshold(params, x):
    """Logit of a score that leans on the group at the start of the line."""
    return x["score"] + params * x["group"] - 0.5


LINE = yodo.Line(jnp.array(1.0), jnp.array(0.0))


def draw(key, people):
    a, b = jax.random.split(key)
    group = jax.random.bernoulli(a, 0.5, (people,)).astype(jnp.int32)
    score = jax.random.normal(b, (people,))
    label = (score + 0.8 * group > 0.5).astype(jnp.int32)
    inputs = {"score": score, "group": group.astype(jnp.float32)}
    return yodo.Examples(inputs, label, group)


@pytest.fixture
def people(key):
    return draw(key, 2000)


def test_every_metric_by_hand():
    prob = jnp.array([[0.9, 0.2, 0.6, 0.4]])
    label, group = jnp.array([1, 0, 0, 1]), jnp.array([1, 1, 0, 0])
    found = evaluation.measure(prob, label, group, jnp.array([0.3]))
    expected = {
        "alpha": 0.3,
        "accuracy": 0.5,
        "auroc": 0.75,
        "demographic_parity": 0.0,
        "equal_opportunity": 1.0,
        "equalized_odds": 2.0,
        "soft_demographic_parity": 0.05,
        "soft_equal_opportunity": 0.5,
        "p_rule": 1.0,
    }
    for name, value in expected.items():
        assert getattr(found, name)[0] == pytest.approx(value, abs=1e-6), name
    np.testing.assert_allclose(found.group_rates[0], [0.5, 0.5])


def test_levels_equal_one_at_a_time(people):
    together = evaluation.evaluate(threshold, LINE, people, ALPHAS)
    for place in (0, 4, 10):
        alone = evaluation.evaluate(threshold, LINE, people, ALPHAS[place : place + 1])
        for name in evaluation.Evaluation._fields:
            np.testing.assert_allclose(
                getattr(together, name)[place], getattr(alone, name)[0], atol=1e-6
            )


def test_one_compilation_for_another_line_and_other_levels(people):
    traces = []

    def counted(params, x):
        traces.append(1)
        return threshold(params, x)

    for start in (1.0, 2.0):
        line = yodo.Line(jnp.array(start), jnp.array(0.0))
        evaluation.evaluate(counted, line, people, ALPHAS**2)
    assert len(traces) == 1


def gridded_volume(found):
    """Share of a fine grid of the box that some level dominates."""
    corners = (np.arange(1000) + 0.5) / 4000
    errors, parity = (
        1 - np.asarray(found.accuracy),
        np.asarray(found.demographic_parity),
    )
    reached = np.zeros((1000, 1000), bool)
    for error, gap in zip(errors, parity, strict=True):
        reached |= (corners[:, None] >= error) & (corners[None] >= gap)
    return reached.mean()


def test_hypervolume_of_an_evaluation(people):
    found = evaluation.evaluate(threshold, LINE, people, ALPHAS)
    small = found.hypervolume(reference=(0.1, 0.1))
    assert 0 <= small < found.hypervolume() < 1
    by_hand = gridded_volume(found)
    assert found.hypervolume() == pytest.approx(by_hand, abs=2e-3)


def test_nan_stays_nan_in_every_metric(people):
    first = jnp.argmax(people.label)
    prob = jnp.full((1, len(people.label)), 0.5).at[0, first].set(jnp.nan)
    found = evaluation.measure(prob, people.label, people.group, ALPHAS[:1])
    for name in set(evaluation.Evaluation._fields) - {"alpha"}:
        value = getattr(found, name)
        assert jnp.isnan(value).any(), name
    assert jnp.isnan(found.hypervolume())


def test_a_cell_without_people_is_unknown_and_not_fair(people):
    prob = jnp.full((1, 2000), 0.5)
    alone = evaluation.measure(prob, people.label, people.group * 0, ALPHAS[:1])
    assert jnp.isnan(alone.group_rates).tolist() == [[False, True]]
    positive = evaluation.measure(
        prob, people.label * people.group, people.group, ALPHAS[:1]
    )
    assert positive.demographic_parity[0] == 0
    unknown = {"demographic_parity", "p_rule", "abcc", "soft_demographic_parity"}
    odds = {"equal_opportunity", "equalized_odds", "soft_equal_opportunity"}
    for name in unknown | odds:
        assert jnp.isnan(getattr(alone, name)).all(), name
        assert jnp.isnan(getattr(positive, name)).all() == (name in odds), name


@pytest.mark.parametrize("field", ["label", "group"])
@pytest.mark.parametrize("codes", [(1, 2), (-1, 1), (0, 2)])
def test_other_codes_are_refused(people, key, field, codes):
    """A group coded 1 and 2 would have no gap, and -1 for missing would be a member."""
    low, high = codes
    recoded = jnp.where(getattr(people, field) == 1, high, low)
    wrong = people._replace(**{field: recoded})
    words = rf"{field}: expected only 0 and 1, got values {low}, {high}"
    optimizer = optax.sgd(0.1)
    for call in (
        lambda: evaluation.evaluate(threshold, LINE, wrong, ALPHAS),
        lambda: evaluation.choose_alpha(
            threshold, LINE, wrong, ALPHAS, key=key, at_most=1.0
        ),
        lambda: evaluation.measure(
            jnp.ones((1, 2000)), wrong.label, wrong.group, ALPHAS[:1]
        ),
        lambda: yodo.loss(threshold, LINE, wrong, 0.5),
        lambda: yodo.train(threshold, LINE, wrong, key=key, optimizer=optimizer),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_levels_must_be_a_vector(people):
    with pytest.raises(ValueError, match="alphas"):
        evaluation._evaluate(threshold, LINE, people, jnp.ones((2, 2)), 1)


def test_fixed_models_of_several_weights_side_by_side(people, key):
    def apply_fn(params, x, key=None):
        return x["score"] * params[0] + x["group"] * params[1] - params[2]

    optimizer = optax.adam(0.05)
    step = evaluation.fixed_step(apply_fn, optimizer)
    weights = jnp.array([0.0, 5.0])
    state = jax.vmap(
        lambda weight: (training.init_state(jnp.ones(3), optimizer, key=key), weight)
    )(weights)
    fit = training.fit(
        jax.vmap(step, in_axes=(0, None)),
        state,
        training.Shuffled(people, 500, key),
        num_steps=200,
        progress=False,
    )
    (inner, kept) = fit.state
    np.testing.assert_array_equal(kept, weights)
    prob = jax.vmap(lambda p: jax.nn.sigmoid(apply_fn(p, people.inputs)))(inner.params)
    found = evaluation.measure(prob, people.label, people.group, weights)
    assert found.soft_demographic_parity[1] < 0.05 < found.soft_demographic_parity[0]
    assert found.accuracy[1] < found.accuracy[0]
