"""Test the detectors against PyOD, and that each text is scored by itself."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm.anomaly.covariance import ledoit_wolf_shrinkage, mahalanobis
from jeff_llm.anomaly.detectors import Detector, knn, neighbor_score
from jeff_llm.anomaly.local_outlier import lof


def texts(rows, *, seed=0, width=24):
    x = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


TRAIN, TEST = texts(300), texts(50, seed=1)
MAKERS = {"knn": knn, "lof": lof, "mahalanobis": mahalanobis}


@pytest.mark.parametrize("method", ["largest", "mean", "median"])
@pytest.mark.parametrize("neighbors", [4, 5])
def test_knn_as_pyod(method, neighbors):
    pyod = pytest.importorskip("pyod.models.knn")
    peer = pyod.KNN(n_neighbors=neighbors, method=method).fit(TRAIN.astype(float))
    detector = knn(TRAIN, neighbors=neighbors, method=method)
    expected = peer.decision_function(TEST.astype(float))
    np.testing.assert_allclose(detector.score(TEST), expected, rtol=1e-5)
    np.testing.assert_allclose(detector.reference, peer.decision_scores_, rtol=1e-5)


def test_lof_as_pyod():
    pyod = pytest.importorskip("pyod.models.lof")
    peer = pyod.LOF(n_neighbors=20, novelty=True).fit(TRAIN.astype(float))
    detector = lof(TRAIN)
    expected = peer.decision_function(TEST.astype(float))
    np.testing.assert_allclose(detector.score(TEST), expected, rtol=1e-5)
    np.testing.assert_allclose(detector.reference, peer.decision_scores_, rtol=1e-5)


def test_lof_of_copies_as_pyod():
    """More equal texts than neighbours; PyOD by a tree, whose distances are exact."""
    pyod = pytest.importorskip("pyod.models.lof")
    copied = texts(2, seed=5)
    beside = copied + 0.01 * TRAIN[-2:]
    train = np.concatenate([np.repeat(copied, 9, axis=0), beside, TRAIN[:80]])
    test = np.concatenate([train[:10], TEST])
    peer = pyod.LOF(n_neighbors=5, algorithm="ball_tree", novelty=True)
    # scikit-learn may warn that equal texts mislead; that is what is tested.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        peer.fit(train.astype(float))
    detector = lof(train, neighbors=5)
    expected = peer.decision_function(test.astype(float))
    np.testing.assert_allclose(detector.score(test), expected, rtol=1e-5)
    np.testing.assert_allclose(detector.reference, peer.decision_scores_, rtol=1e-5)
    assert np.isfinite(detector.reference).all()
    assert (detector.reference[18:20] > 1e7).all()


def test_lof_by_hand():
    """On a line, the density beside three evenly spaced texts."""
    detector = lof(jnp.array([[0.0], [1.0], [2.0]]), neighbors=1)
    np.testing.assert_allclose(detector.radius, 1)
    np.testing.assert_allclose(detector.score(jnp.array([[6.0]])), 4, rtol=1e-6)


def test_median_by_hand():
    distance = jnp.array([[1.0, 2.0, 4.0, 9.0]])
    assert neighbor_score(distance, method="median") == 3
    assert neighbor_score(distance[:, :3], method="median") == 2
    assert neighbor_score(distance, method="largest") == 9


@pytest.mark.parametrize("rows", [200, 10])
def test_ledoit_wolf_as_scikit_learn(rows):
    covariance = pytest.importorskip("sklearn.covariance")
    spread = np.linspace(0.2, 3, 24, dtype=np.float32)
    train, test = texts(rows, seed=2) * spread + 5, texts(7, seed=3) + 5
    peer = covariance.LedoitWolf().fit(train.astype(float))
    detector = mahalanobis(train)
    np.testing.assert_allclose(detector.shrinkage, peer.shrinkage_, rtol=1e-4)
    expected = np.sqrt(peer.mahalanobis(test.astype(float)))
    np.testing.assert_allclose(detector.score(test), expected, rtol=2e-4)
    assert np.isfinite(detector.reference).all()


@pytest.mark.parametrize("rows", [40, 12])
def test_mahalanobis_of_a_text_without_itself(rows):
    """What a loop over the texts gives, with the same part of the identity."""
    train = texts(rows, seed=4).astype(np.float64)
    share = 0.3
    ridge = share * np.trace(np.cov(train.T, bias=True)) / train.shape[1]
    expected = []
    for row in range(rows):
        others = np.delete(train, row, axis=0)
        spread = (1 - share) * np.cov(others.T, bias=True) + ridge * np.eye(24)
        away = train[row] - others.mean(axis=0)
        expected.append(np.sqrt(away @ np.linalg.solve(spread, away)))
    detector = mahalanobis(train.astype(np.float32), shrinkage=share)
    np.testing.assert_allclose(detector.reference, expected, rtol=1e-4)


def test_no_shrinkage_is_needed_where_there_is_nothing_to_shrink():
    corners = jnp.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert ledoit_wolf_shrinkage(corners) == 1


@pytest.mark.parametrize("name", MAKERS)
def test_other_texts_change_no_score(name):
    """Shuffled or in part, the texts keep their scores; so no test set leaks."""
    detector = MAKERS[name](TRAIN)
    assert isinstance(detector, Detector)
    whole = np.asarray(detector.score(TEST))
    order = np.random.default_rng(0).permutation(len(TEST))
    np.testing.assert_allclose(detector.score(TEST[order]), whole[order], rtol=2e-6)
    np.testing.assert_allclose(detector.score(TEST[:1]), whole[:1], rtol=2e-6)
    assert detector.score(TEST[:0]).shape == (0,)


@pytest.mark.parametrize("name", MAKERS)
def test_a_detector_is_a_pytree(name):
    detector = MAKERS[name](TRAIN)
    jitted = jax.jit(lambda d, x: d.score(x))(detector, TEST)
    np.testing.assert_allclose(jitted, detector.score(TEST), rtol=2e-6)
    leaves, tree = jax.tree.flatten(detector)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    again = jax.tree.unflatten(tree, leaves)
    np.testing.assert_array_equal(again.score(TEST), detector.score(TEST))


@pytest.mark.parametrize("name", MAKERS)
def test_a_text_far_away_scores_highest(name):
    detector = MAKERS[name](TRAIN)
    scores = detector.score(np.concatenate([TEST, 3 * TEST[:1]]))
    assert scores.argmax() == len(TEST)
    assert detector.reference.shape == (len(TRAIN),)


BAD = TRAIN.copy()
BAD[7, 3] = np.nan


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: knn(TRAIN[:5]), ValueError, "at least 6 texts, got 5"),
        (lambda: lof(TRAIN[:20]), ValueError, "at least 21 texts, got 20"),
        (lambda: mahalanobis(TRAIN[:1]), ValueError, "at least 2 texts, got 1"),
        (lambda: knn(BAD), ValueError, "embeddings.*1 of 300 rows.*is 7"),
        (lambda: knn(jnp.asarray(BAD)), ValueError, "embeddings.*1 of 300 rows"),
        (lambda: lof(TRAIN.astype(int)), TypeError, "embeddings.*floating.*int64"),
        (lambda: mahalanobis(TRAIN[:3] * 0), ValueError, "texts that differ"),
        (lambda: mahalanobis(TRAIN, shrinkage=0), ValueError, r"\(0, 1\], got 0"),
        (lambda: knn(TRAIN, method="max"), ValueError, "method.*median.*got 'max'"),
        (lambda: knn(TRAIN, neighbors=0), ValueError, "neighbors.*got 0"),
        (lambda: knn(TRAIN).score(TEST[:, :5]), ValueError, r"24\], got \(50, 5\)"),
        (lambda: mahalanobis(TRAIN).score(BAD), ValueError, "NaN"),
        (lambda: lof(TRAIN).score(TEST[0]), ValueError, r"got \(24,\)"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
