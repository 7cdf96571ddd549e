"""Test fusion of scores: by hand, the tail, one view, leaks, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jeff import metrics
from jeff_llm.anomaly.conformal import p_values
from jeff_llm.anomaly.fusion import fuse, standard_score, tail_surprise

METHODS = ["fisher", "z"]


@pytest.fixture
def views():
    """Two views: an anomaly shows in the first or in the second, on another scale."""
    rng = np.random.default_rng(0)
    references = [rng.normal(size=200), 100 + 10 * rng.exponential(size=150)]
    scores = np.stack([rng.normal(size=300), 100 + 10 * rng.exponential(size=300)])
    scores[0, :20] += 4
    scores[1, 20:40] += 60
    return scores, references, np.arange(300) < 40


def test_at_reference_scores_the_surprise_is_the_p_value():
    reference = np.round(np.random.default_rng(1).normal(size=80), 1)
    np.testing.assert_allclose(
        tail_surprise(reference, reference),
        -np.log(p_values(reference, reference)),
        atol=1e-5,
    )


def test_beyond_the_reference_the_tail_is_exponential():
    """With a reference that is exponential, log of its survival function, about."""
    reference = np.random.default_rng(2).exponential(3.0, size=4000)
    scores = np.array([10.0, 20.0, 40.0, 60.0])
    np.testing.assert_allclose(
        tail_surprise(scores, reference), -stats.expon.logsf(scores, scale=3), rtol=0.1
    )


def test_clear_anomalies_do_not_tie():
    reference = np.random.default_rng(3).normal(size=30)
    scores = np.sort(np.random.default_rng(4).normal(size=100) * 20)
    found = np.diff(tail_surprise(scores, reference))
    above = scores[:-1] >= reference.min()
    assert above.sum() > 40 and (scores > reference.max()).sum() > 20
    assert np.all(found[above] > 0) and np.all(found >= 0)
    assert tail_surprise(np.array([-1e9]), reference)[0] == 0


def test_a_reference_whose_top_is_tied_has_a_tail():
    """As zero-shot scores are, which take few values."""
    reference = np.repeat([0.0, 0.5, 1.0], [20, 20, 20])
    found = tail_surprise(np.array([1.0, 1.1, 1.2]), reference)
    slope = 1 / np.sqrt(1 / 6)
    np.testing.assert_allclose(np.diff(found), 0.1 * slope, rtol=1e-4)


def test_standard_score_is_scipys_and_keeps_digits():
    rng = np.random.default_rng(5)
    reference, scores = rng.normal(size=50), rng.normal(size=9)
    want = (scores - reference.mean()) / reference.std()
    np.testing.assert_allclose(standard_score(scores, reference), want, rtol=1e-4)
    far = np.float32(1e6) + np.arange(4, dtype=np.float32) / 4
    np.testing.assert_allclose(
        standard_score(far, far), stats.zscore(np.arange(4)), rtol=1e-5
    )


@pytest.mark.parametrize("method", METHODS)
def test_two_views_find_what_neither_finds(views, method):
    scores, references, label = views
    fused = metrics.auroc(fuse(scores, references, method=method), jnp.asarray(label))
    for view in scores:
        assert fused > metrics.auroc(jnp.asarray(view, float), jnp.asarray(label)) + 0.1
    assert fused > 0.95


@pytest.mark.parametrize("method", METHODS)
def test_a_fused_score_depends_on_no_other_text(views, method):
    scores, references, _ = views
    every = np.asarray(fuse(scores, references, method=method))
    order = np.random.default_rng(6).permutation(300)
    for some in (order, order[:7], order[:1]):
        np.testing.assert_array_equal(
            fuse(scores[:, some], references, method=method), every[some]
        )


@pytest.mark.parametrize("method", METHODS)
def test_one_view_weights_and_jit(views, method):
    scores, references, _ = views
    one = fuse(scores[:1], references[:1], method=method)
    scale = {"fisher": tail_surprise, "z": standard_score}[method]
    np.testing.assert_array_equal(one, scale(scores[0], references[0]))
    first = fuse(scores, references, method=method, weights=[2.0, 0.0])
    np.testing.assert_allclose(first, (2 if method == "fisher" else 1) * one, rtol=1e-6)
    run = jax.jit(lambda s, r: fuse(s, r, method=method))
    np.testing.assert_allclose(
        run(jnp.asarray(scores), [jnp.asarray(r) for r in references]),
        fuse(scores, references, method=method),
        rtol=1e-5,
        atol=1e-5,
    )


def nan(view):
    return view.at[..., 1].set(jnp.nan)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s, r: fuse(s, [r]), ValueError, "each of 2 views, got 1"),
        (lambda s, r: fuse(s[0], [r]), ValueError, r"\[views, texts\], got \(4,\)"),
        (lambda s, r: fuse(s[:0], []), ValueError, r"got \(0, 4\)"),
        (lambda s, r: fuse(nan(s), [r, r]), ValueError, "scores: .*nan for text 1"),
        (lambda s, r: fuse(s, [r, nan(r)]), ValueError, r"references\[1\]: .*nan"),
        (lambda s, r: fuse(s / 0, [r, r]), ValueError, "scores: expected finite"),
        (lambda s, r: fuse(s, [r, r * 0]), ValueError, r"references\[1\].*5 times 0"),
        (lambda s, r: fuse(s, [r[:1], r]), ValueError, r"references\[0\].*least 2.*1"),
        (lambda s, r: fuse(s, [r, r.astype(int)]), TypeError, "got int32"),
        (lambda s, r: fuse(s, [r, r], method="x"), ValueError, "method: "),
        (lambda s, r: fuse(s, [r, r], weights=[1.0]), ValueError, "weights: .*got 1"),
        (lambda s, r: fuse(s, [r, r], weights=[0, 0]), ValueError, "weights: .*0.0"),
        (lambda s, r: fuse(s, [r, r], weights=[1, -1]), ValueError, "weights: .*-1"),
        (tail_surprise, ValueError, "scores: .*one number"),
        (lambda s, r: standard_score(s[0], r * 0), ValueError, "leave the view out"),
    ],
)
def test_bad_input(unchecked, call, error, message):
    with pytest.raises(error, match=message):
        call(jnp.ones((2, 4)), jnp.arange(5.0))
