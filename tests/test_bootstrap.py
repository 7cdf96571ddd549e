"""Test the bootstrap: normal interval, grouped rows, chunks, undefined resamples."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff import bootstrap, metrics


def test_bootstrap_covers_the_normal_interval() -> None:
    """For a mean, the interval is close to estimate plus and minus 1.96 errors."""
    values = jnp.asarray(np.random.default_rng(2).normal(size=400), jnp.float32)
    estimate, low, high = bootstrap.bootstrap_interval(
        jnp.mean, (values,), key=jax.random.key(0), num_samples=4000
    )
    half = 1.96 * np.std(values) / 20
    np.testing.assert_allclose(estimate, np.mean(values), rtol=1e-5)
    np.testing.assert_allclose(
        [low, high], [estimate - half, estimate + half], atol=0.01
    )


def test_bootstrap_samples_keep_rows_together() -> None:
    """All arrays get the same rows; samples differ; the key decides."""
    rows = jnp.arange(50.0)
    draw_samples = functools.partial(
        bootstrap.bootstrap_samples,
        lambda a, b: {"difference": jnp.abs(b - 2 * a).max(), "mean": a.mean()},
        (rows, jnp.stack([2 * rows, 2 * rows], axis=1)[:, 0]),
        num_samples=30,
    )
    samples = draw_samples(key=jax.random.key(1))
    assert samples["mean"].shape == (30,)
    assert jnp.all(samples["difference"] == 0)
    assert len(np.unique(samples["mean"])) > 20
    np.testing.assert_array_equal(
        draw_samples(key=jax.random.key(1))["mean"], samples["mean"]
    )
    assert not jnp.array_equal(
        draw_samples(key=jax.random.key(2))["mean"], samples["mean"]
    )


def test_padding_is_never_drawn() -> None:
    """With padding the same resamples, compiled once for two numbers of rows."""
    rng = np.random.default_rng(6)
    compiled = []

    @jax.jit
    def ends(total: jax.Array, count: jax.Array, real: jax.Array):
        compiled.append(real)
        return bootstrap.bootstrap_interval(
            ratio, (total, count), key=jax.random.key(3), num_samples=50, real=real
        )

    def ratio(total: jax.Array, count: jax.Array) -> jax.Array:
        return total.sum(0) / count.sum()

    for real in (5, 31, 1):
        rows = (
            jnp.asarray(rng.normal(size=(real, 2)), jnp.float32),
            jnp.asarray(rng.integers(1, 4, real), jnp.float32),
        )
        padded = [jnp.zeros((32, *r.shape[1:])).at[:real].set(r) for r in rows]
        found = ends(*padded, jnp.asarray(real))
        wanted = bootstrap.bootstrap_interval(
            ratio, rows, key=jax.random.key(3), num_samples=50
        )
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
        assert np.isnan(found[1]).all() == (real == 1)
    assert len(compiled) == 1
    for real in (0, 32):
        with pytest.raises(ValueError, match=r"real: expected 1 to 31 of 32 rows"):
            bootstrap.bootstrap_samples(
                ratio, tuple(padded), key=jax.random.key(0), real=real
            )


def test_bootstrap_batch_size_changes_nothing() -> None:
    """Chunks, with or without a remainder, give the samples of one chunk."""
    rng = np.random.default_rng(4)
    prob = jnp.asarray(rng.integers(0, 41, 60) / 40, jnp.float32)
    label = jnp.asarray(rng.random(60) < 0.2 + 0.6 * np.asarray(prob) ** 2)
    run = functools.partial(
        bootstrap.bootstrap_samples,
        metrics.auroc,
        (prob, label),
        key=jax.random.key(3),
        num_samples=25,
    )
    whole = run(batch_size=25)
    for batch_size in (1, 10, 1000):
        np.testing.assert_allclose(run(batch_size=batch_size), whole, rtol=1e-6)


@pytest.mark.parametrize("positives", [1, 2, 3, 4, 8])
def test_resamples_that_lost_a_class_are_no_evidence(positives) -> None:
    """They could have had any value; few of them leave the ends, many take them."""
    score = jnp.arange(30.0)
    label = jnp.isin(score, jnp.array([20.0, 5, 28, 14, 25, 9, 17, 22])[:positives])
    estimate, low, high = jax.jit(
        lambda s, y: bootstrap.bootstrap_interval(
            metrics.auroc, (s, y), key=jax.random.key(0), num_samples=500
        )
    )(score, label)
    # Without any of k positives is a share of about exp(-k) of the resamples.
    assert jnp.isnan(low) == jnp.isnan(high) == (positives < 4)
    assert positives < 4 or low < estimate < high


def test_no_interval_from_one_row_or_from_nan() -> None:
    for values in ([3.0], [1.0, jnp.nan, 2.0, 5.0, 4.0, 3.0]):
        estimate, low, high = bootstrap.bootstrap_interval(
            lambda x: {"mean": jnp.mean(x), "rows": jnp.float32(x.size)},
            (jnp.array(values),),
            key=jax.random.key(0),
            num_samples=50,
        )
        assert jnp.isnan(low["mean"])
        assert jnp.isnan(high["mean"])
        assert estimate["rows"] == len(values)
        assert bool(jnp.isnan(low["rows"])) == (len(values) == 1)


@pytest.mark.parametrize(("rows", "covered"), [(5, 0.84), (10, 0.9), (30, 0.94)])
def test_coverage_at_few_rows_is_what_the_page_says(rows, covered) -> None:
    values = np.random.default_rng(0).normal(size=(1000, rows))
    _, low, high = jax.jit(
        jax.vmap(
            lambda x, key: bootstrap.bootstrap_interval(
                jnp.mean, (x,), key=key, num_samples=200
            )
        )
    )(jnp.asarray(values, jnp.float32), jax.random.split(jax.random.key(0), 1000))
    found = float(jnp.mean((low <= 0) & (high >= 0)))
    # Four standard deviations of a share of a thousand draws.
    assert abs(found - covered) < 4 * np.sqrt(covered * (1 - covered) / 1000)


PROB, LABEL = jnp.array([0.1, 0.4, 0.3]), jnp.array([0, 1, 1])


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (
            lambda: bootstrap.bootstrap_samples(jnp.mean, (), key=jax.random.key(0)),
            "arrays",
        ),
        (
            lambda: bootstrap.bootstrap_samples(
                jnp.mean, (PROB, LABEL[:2]), key=jax.random.key(0)
            ),
            "arrays",
        ),
        (
            lambda: bootstrap.bootstrap_samples(
                jnp.mean, (PROB,), key=jax.random.key(0), num_samples=0
            ),
            "num_samples",
        ),
        (
            lambda: bootstrap.bootstrap_interval(
                jnp.mean, (PROB,), key=jax.random.key(0), confidence=95.0
            ),
            "confidence",
        ),
    ],
)
def test_bad_input(call: Callable[[], object], name: str) -> None:
    """Arrays without common rows, and counts out of range, are refused by name."""
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        call()
