"""Test the adapter: PyOD's scores, seeds, scalers, and no look at other texts."""

import sys

import numpy as np
import pytest

from jeff_llm.anomaly.detectors import Detector
from jeff_llm.anomaly.pyod_detectors import PYOD_DETECTORS, fit_pyod

# Fast settings of what trains a network.
OPTIONS = {
    "AutoEncoder": {"epoch_num": 1, "hidden_neuron_list": [4]},
    "DeepSVDD": {"epochs": 1, "hidden_neurons": [8, 4]},
    "IForest": {"n_estimators": 10},
    "LUNAR": {"n_epochs": 1},
    "VAE": {
        "epoch_num": 1,
        "encoder_neuron_list": [4],
        "decoder_neuron_list": [4],
    },
}


def texts(rows, seed, width=8):
    drawn = np.random.default_rng(seed).gamma(2, size=(rows, width))
    return drawn.astype(np.float32)


TRAIN, TEST = texts(120, 0), texts(9, 1)


@pytest.fixture(params=sorted(PYOD_DETECTORS))
def name(request):
    pytest.importorskip("pyod")
    if request.param in {"AutoEncoder", "DeepSVDD", "LUNAR", "VAE"}:
        pytest.importorskip("torch")
    return request.param


@pytest.mark.filterwarnings("ignore")
def test_a_text_is_scored_by_itself_and_by_the_seed(name, capsys):
    """Alone, in part, shuffled: the same score; again with the seed: the same."""
    before = np.random.get_state()[1].copy()
    options = OPTIONS.get(name, {})
    detector = fit_pyod(name, TRAIN, seed=3, **options)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    assert isinstance(detector, Detector)
    assert detector.reference.shape == (len(TRAIN),)
    whole = detector.score(TEST)
    assert whole.shape == (len(TEST),) and np.isfinite(whole).all()
    order = np.random.default_rng(0).permutation(len(TEST))
    np.testing.assert_allclose(detector.score(TEST[order]), whole[order], rtol=1e-5)
    np.testing.assert_allclose(detector.score(TEST[2:3]), whole[2:3], rtol=1e-5)
    assert detector.score(TEST[:0]).shape == (0,)
    again = fit_pyod(name, TRAIN, seed=3, **options)
    np.testing.assert_allclose(again.score(TEST), whole, rtol=1e-6)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kind", ["COPOD", "ECOD", "HBOS", "LOF", "OCSVM"])
def test_as_pyod_on_one_text_at_a_time(kind):
    pytest.importorskip("pyod")
    detector = fit_pyod(kind, TRAIN, seed=0)
    alone = [detector.model.decision_function(text[None])[0] for text in TEST]
    np.testing.assert_allclose(detector.score(TEST), alone, rtol=1e-7)
    np.testing.assert_array_equal(detector.reference, detector.model.decision_scores_)


def test_the_third_moment_may_change_its_sign():
    """A column whose skewness hangs on the text that is scored."""
    pytest.importorskip("pyod")
    train = np.array([[-1.0], [0.0], [1.0], [0.5], [-0.5]])
    detector = fit_pyod("ECOD", train, seed=0)
    test = np.array([[9.0], [-9.0], [0.0]])
    alone = [detector.model.decision_function(text[None])[0] for text in test]
    np.testing.assert_allclose(detector.score(test), alone, rtol=1e-9)


def test_the_scaler_sees_training_texts_alone():
    pytest.importorskip("pyod")
    spread = np.geomspace(0.01, 100, 8, dtype=np.float32)
    detector = fit_pyod("KNN", TRAIN * spread, seed=0, standardize=True)
    np.testing.assert_allclose(
        detector.scaler.mean_, (TRAIN * spread).mean(axis=0), rtol=1e-5
    )
    scaled = (TRAIN - TRAIN.mean(axis=0)) / TRAIN.std(axis=0)
    asked = (TEST - TRAIN.mean(axis=0)) / TRAIN.std(axis=0)
    expected = fit_pyod("KNN", scaled, seed=0).score(asked)
    np.testing.assert_allclose(detector.score(TEST * spread), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fit_pyod("Nope", TRAIN, seed=0), ValueError, "ECOD.*got 'Nope'"),
        (lambda: fit_pyod("LOF", TRAIN * np.nan, seed=0), ValueError, "NaN"),
        (lambda: fit_pyod("LOF", TRAIN.astype(int), seed=0), TypeError, "floating"),
        (lambda: fit_pyod("LOF", TRAIN, seed=0, k=3), TypeError, "n_neighbors.*got k"),
        (
            lambda: fit_pyod("HBOS", TRAIN, seed=0).score(TEST[:, :3]),
            ValueError,
            r"8\], got \(9, 3\)",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_errors(call, error, message):
    pytest.importorskip("pyod")
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("kind", "missing", "line"),
    [("LOF", "pyod.models.lof", "pip install pyod"), ("VAE", "torch", "pyod torch")],
)
def test_a_missing_package_is_named(monkeypatch, kind, missing, line):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=f"{kind} needs pyod.*{line}"):
        fit_pyod(kind, TRAIN, seed=0)
