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


def test_bootstrap_leaves_undefined_resamples_out() -> None:
    """A rare class is missing from some resamples; the ends are finite all the same."""
    score, label = jnp.arange(8.0), jnp.arange(8) == 6
    estimate, low, high = jax.jit(
        lambda s, y: bootstrap.bootstrap_interval(
            metrics.auroc, (s, y), key=jax.random.key(0), num_samples=200
        )
    )(score, label)
    assert jnp.isfinite(high - low)
    assert low <= estimate <= high


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
