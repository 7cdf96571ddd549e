"""Test sampling: weights, inclusion probabilities, and estimates of a mean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_graph.cells import sampling
from jeff_graph.cells import weights as weights_


@pytest.fixture(scope="module")
def log_weight() -> jax.Array:
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(0, 0.8, 60), jnp.float32).at[7].set(-jnp.inf)


def draws(log_weight, number, count=2000, **options):
    keys = jax.random.split(jax.random.key(1), count)
    return jax.vmap(
        lambda key: sampling.sample(log_weight, number, key=key, **options)
    )(keys)


def test_frequencies_are_the_inclusion_probabilities(log_weight):
    chance = np.asarray(sampling.inclusion_probabilities(log_weight, 15))
    np.testing.assert_allclose(chance.sum(), 15, rtol=1e-4)
    assert chance[7] == 0
    drawn = np.asarray(draws(log_weight, 15).cells)
    frequency = np.bincount(drawn.ravel(), minlength=60) / 2000
    sigmas = (frequency - chance) / np.sqrt(
        np.maximum(chance * (1 - chance), 1e-4) / 2000
    )
    # The probabilities are those of many cells; at 15 draws they are a percent off.
    assert np.abs(frequency - chance).max() < 0.04
    assert (np.abs(sigmas) > 4).sum() <= 1
    assert all(len(set(row)) == 15 for row in drawn[:50].tolist())


def test_draws_with_replacement_follow_the_weights(log_weight):
    found = draws(log_weight, 10, replace=True)
    frequency = np.bincount(np.asarray(found.cells).ravel(), minlength=60) / 20_000
    np.testing.assert_allclose(frequency, jax.nn.softmax(log_weight), atol=0.006)


def test_the_population_mean_is_met_on_average(log_weight):
    value = np.where(np.isfinite(log_weight), log_weight, 0.0) ** 2
    target = value[np.isfinite(log_weight)].mean()
    found = draws(log_weight, 30)
    estimates = (found.weights * value[found.cells]).sum(1)
    error = estimates.std() / np.sqrt(2000)
    # The ratio's own bias is of the order 1 / draws.
    assert abs(estimates.mean() - target) < 4 * error + 0.02 * target
    sums = (value[found.cells] / found.inclusion).sum(1)
    assert abs(sums.mean() - 59 * target) < 4 * sums.std() / np.sqrt(2000)


def test_the_diverse_mean_is_the_weighted_one(log_weight):
    value = np.where(np.isfinite(log_weight), log_weight, 0.0)
    target = float((jax.nn.softmax(log_weight) * value).sum())
    found = draws(log_weight, 30, estimand="diverse")
    estimates = (found.weights * value[found.cells]).sum(1)
    assert abs(estimates.mean() - target) < 4 * estimates.std() / np.sqrt(2000) + 0.02
    published = draws(log_weight, 30, estimand="published")
    twice = (published.weights * value[published.cells]).sum(1)
    assert twice.mean() > estimates.mean() + 0.1


def test_everything_drawn_is_included_surely():
    found = sampling.sample(jnp.array([0.0, 3.0, -jnp.inf]), 2, key=jax.random.key(0))
    assert sorted(found.cells.tolist()) == [0, 1]
    np.testing.assert_allclose(found.inclusion, 1.0)
    np.testing.assert_allclose(found.weights, 0.5)
    assert float(found.effective) == pytest.approx(2)


def test_strata_are_drawn_by_their_weights():
    strata = jnp.asarray(np.repeat([0, 1, 2], [80, 18, 2]))
    found = sampling.sample(jnp.zeros(100), 10, key=jax.random.key(0), strata=strata)
    assert np.bincount(strata[found.cells], minlength=3).tolist() == [8, 2, 0]
    heavy = jnp.where(strata == 2, 5.0, 0.0)
    found = sampling.sample(heavy, 10, key=jax.random.key(0), strata=strata)
    # The two cells of the heavy kind are all there are; the rest is shared out.
    assert np.bincount(strata[found.cells], minlength=3).tolist() == [6, 2, 2] or (
        np.bincount(strata[found.cells], minlength=3).tolist() == [7, 1, 2]
    )
    np.testing.assert_allclose(found.inclusion[strata[found.cells] == 2], 1.0)


def test_the_floor_lowers_the_power_just_enough():
    density = jnp.asarray(np.random.default_rng(0).beta(1, 20, 2000) + 1e-3)
    free = weights_.diversity_weights(density, power=2.0)
    assert float(free.power) == 2.0
    held = weights_.diversity_weights(density, power=2.0, least_effective=0.5)
    assert 0 < float(held.power) < 2
    assert float(held.effective) == pytest.approx(0.5, abs=1e-3)
    assert float(weights_.effective_size(held.log_weight)) == pytest.approx(
        float(held.effective)
    )


def test_the_softmax_of_the_paper_collapses():
    density = jnp.array([1e-4] + [0.5] * 999)
    kept = weights_.diversity_weights(density)
    lost = weights_.diversity_weights(density, kind="softmax")
    assert jax.nn.softmax(lost.log_weight)[0] > jax.nn.softmax(kept.log_weight)[0] * 0.9
    assert float(lost.effective) < float(kept.effective)


def test_cells_without_density_are_never_drawn():
    density = jnp.array([0.5, jnp.nan, 0.25, 0.1])
    weights = weights_.diversity_weights(
        density, where=jnp.array([True, True, True, False])
    )
    assert np.isneginf(weights.log_weight[jnp.array([1, 3])]).all()
    drawn = sampling.sample(weights.log_weight, 2, key=jax.random.key(0))
    assert set(drawn.cells.tolist()) == {0, 2}


def test_jit_is_no_jit(log_weight):
    key = jax.random.key(3)
    one = sampling.sample(log_weight, 5, key=key)
    other = jax.jit(lambda w: sampling.sample(w, 5, key=key))(log_weight)
    np.testing.assert_array_equal(one.cells, other.cells)
    np.testing.assert_allclose(one.weights, other.weights, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w, k: sampling.sample(w, 4, key=k), "expected 1 to 3, .* got 4"),
        (lambda w, k: sampling.sample(w, 0, key=k), "expected 1 to 3, .* got 0"),
        (lambda w, k: sampling.sample(w - jnp.inf, 1, key=k), "expected 1 to 0"),
        (lambda w, k: sampling.sample(w, 2, key=k, estimand="mean"), "estimand"),
        (
            lambda w, k: sampling.sample(
                w, 2, key=k, strata=jnp.zeros(3, int), replace=True
            ),
            "at most one of them",
        ),
        (
            lambda w, k: sampling.sample(w, 2, key=k, strata=jnp.array([0, -1, 0])),
            "strata: expected codes from 0",
        ),
        (lambda w, k: sampling.sample(w, 2, key=k, strata=jnp.zeros(2, int)), "strata"),
        (lambda w, k: sampling.inclusion_probabilities(w, 4), "expected 1 to 3"),
        (lambda w, k: weights_.diversity_weights(w, kind="odd"), "kind: expected"),
        (
            lambda w, k: weights_.diversity_weights(w, where=jnp.ones(2, bool)),
            "where: expected 3",
        ),
    ],
)
def test_mistakes(unchecked, call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.zeros(3), jax.random.key(0))
