"""Test the scores of a confidence, and rejection."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from jeff_llm import confidence


def test_scores_against_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    sure = rng.random(400).astype(np.float32)
    right = rng.random(400) < sure
    found = confidence.evaluate(
        jnp.asarray(sure), jnp.asarray(right), jnp.ones(400, bool), accuracy=0.9
    )
    assert found.alignment == pytest.approx(roc_auc_score(right, sure), abs=1e-4)
    assert found.area == pytest.approx(2 * found.alignment - 1, abs=1e-3)
    assert found.brier == pytest.approx(brier_score_loss(right, sure), abs=1e-5)
    assert found.cross_entropy == pytest.approx(log_loss(right, sure), abs=1e-4)
    assert found.ece < 0.1
    assert 0 < found.match < 1


def test_certain_and_wrong_costs_a_finite_amount() -> None:
    found = confidence.evaluate(
        jnp.array([1.0, 0.0]), jnp.array([False, True]), jnp.ones(2, bool)
    )
    assert found.cross_entropy == pytest.approx(13.8, abs=0.1)
    assert found.area == pytest.approx(-1)


def test_rejection_by_hand() -> None:
    """Declined first the unanswerable at .1, then by turns."""
    sure = jnp.array([0.1, 0.3, 0.5, 0.9])
    there = jnp.array([False, True, False, True])
    area, false, true = confidence.rejection(sure, there)
    assert area == 0.75
    assert false.tolist() == [0, 0, 0.5, 0.5, 1]
    assert true.tolist() == [0, 0.5, 0.5, 1, 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: confidence.rejection(jnp.array([0.1]), jnp.array([True])),
            "with and without a right option, got 1 with, of 1",
        ),
        (
            lambda: confidence.evaluate(
                jnp.array([1.5]), jnp.array([True]), jnp.array([True])
            ),
            r"confidence: expected numbers in \[0, 1\], got 1.5",
        ),
        (
            lambda: confidence.evaluate(
                jnp.array([jnp.nan]), jnp.array([True]), jnp.array([True])
            ),
            "expected finite numbers, got nan",
        ),
    ],
)
def test_bad_scores(call, message, unchecked) -> None:
    with pytest.raises(ValueError, match=message):
        call()
