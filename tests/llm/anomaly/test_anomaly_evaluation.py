"""Test figures and intervals: scikit-learn, coverage, pairs of scorers, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm.anomaly.evaluation import evaluate, paired_difference


@pytest.fixture
def made():
    """Three scorers with ties, the last of them useless; 40 anomalies in 240 texts."""
    rng = np.random.default_rng(0)
    label = np.arange(240) < 40
    common = rng.normal(size=240)
    scores = np.stack([common + 2 * label, common + label, rng.normal(size=240)])
    return np.round(scores, 1), label


def test_figures_are_scikit_learns_ties_included(made, key):
    peer = pytest.importorskip("sklearn.metrics")
    scores, label = made
    found = evaluate(scores, label, key=key, resamples=50)
    for place, row in enumerate(scores):
        want = peer.roc_auc_score(label, row), peer.average_precision_score(label, row)
        got = [float(figure.estimate[place]) for figure in found]
        assert got == pytest.approx(want, abs=1e-6)


def test_scorers_side_by_side_are_scorers_alone(made, key):
    scores, label = made
    every = evaluate(scores, label, key=key, resamples=100)
    one = evaluate(scores[1], label.astype(int), key=key, resamples=100)
    for many, single in zip(jax.tree.leaves(every), jax.tree.leaves(one), strict=True):
        assert many.shape == (3,) and single.shape == ()
        np.testing.assert_allclose(many[1], single, rtol=1e-6)
    square = evaluate(scores[None, :2], label, key=key, resamples=100)
    np.testing.assert_allclose(square.auroc.low, every.auroc.low[None, :2], rtol=1e-6)
    for figure in every:
        assert np.all(figure.low <= figure.estimate)
        assert np.all(figure.estimate <= figure.high)


def test_intervals_cover_the_true_area():
    """Of two normal distributions one deviation apart, in about 95% of 200 sets."""
    label = np.arange(120) < 40
    scores = np.random.default_rng(1).normal(size=(200, 120)) + label
    covered = 0
    for place in range(2):
        rows = scores[place * 100 : (place + 1) * 100]
        found = evaluate(rows, label, key=jax.random.key(place), resamples=200).auroc
        covered += np.sum((found.low <= 0.7602) & (found.high >= 0.7602))
    assert 0.88 <= covered / 200 <= 0.99


def test_order_of_texts_changes_no_figure(made, key):
    scores, label = made
    order = np.random.default_rng(2).permutation(240)
    one = evaluate(scores, label, key=key, resamples=5)
    other = evaluate(scores[:, order], label[order], key=key, resamples=5)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a.estimate, b.estimate, rtol=1e-6)


def test_a_paired_interval_is_narrower(made, key):
    scores, label = made
    apart = evaluate(scores, label, key=key).auroc
    found = paired_difference(scores[0], scores[1], label, key=key).auroc
    assert found.estimate == pytest.approx(
        float(apart.estimate[0] - apart.estimate[1]), abs=1e-6
    )
    width = float(found.high - found.low)
    assert width < float(np.hypot(*(apart.high - apart.low)[:2])) * 0.8
    assert found.low > 0
    # Against itself nothing remains; against a useless scorer both signs are told.
    zero = paired_difference(scores, scores, label, key=key, resamples=50)
    for leaf in jax.tree.leaves(zero):
        np.testing.assert_array_equal(leaf, np.zeros(3))
    worse = paired_difference(scores[2], scores[0], label, key=key, resamples=50)
    assert worse.auroc.high < 0 and worse.average_precision.high < 0


def test_one_program_for_all_scorers_of_a_shape(made, key):
    from jeff_llm.anomaly import evaluation

    scores, label = made
    before = evaluation._figures._cache_size()
    for row in scores:
        evaluate(row, label, key=key, resamples=7)
    assert evaluation._figures._cache_size() == before + 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s, y, k: evaluate(s, y < 9, key=k), ValueError, "4 anomalies of 4"),
        (lambda s, y, k: evaluate(s, y > 9, key=k), ValueError, "0 anomalies of 4"),
        (lambda s, y, k: evaluate(s[:3], y, key=k), ValueError, "label: .*text"),
        (lambda s, y, k: evaluate(s[0], y, key=k), ValueError, "label: .*text"),
        (lambda s, y, k: evaluate(s, y + 1, key=k), ValueError, "label: .*0 and 1"),
        (lambda s, y, k: evaluate(s, y + 0.5, key=k), TypeError, "label: "),
        (lambda s, y, k: evaluate(s / 0 * 0, y, key=k), ValueError, "scores: .*nan"),
        (lambda s, y, k: evaluate(y, y, key=k), TypeError, "scores: .*int32"),
        (lambda s, y, k: evaluate(s, y, key=k, resamples=0), ValueError, "got 0"),
        (lambda s, y, k: evaluate(s, y, key=k, confidence=1), ValueError, "conf"),
        (
            lambda s, y, k: paired_difference(s, s[None], y, key=k),
            ValueError,
            r"others: expected shape \(4,\) as of scores, got \(1, 4\)",
        ),
        (
            lambda s, y, k: paired_difference(s, s * jnp.nan, y, key=k),
            ValueError,
            "others: .*nan",
        ),
    ],
)
def test_bad_input(unchecked, call, error, message, key):
    with pytest.raises(error, match=message):
        call(jnp.array([0.1, 0.2, 0.3, 0.4]), jnp.array([0, 1, 0, 1]), key)
