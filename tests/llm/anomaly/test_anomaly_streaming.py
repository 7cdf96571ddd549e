"""Test scores in blocks: one program, the scores of one call, eight devices."""

import subprocess
import sys
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

from jeff import sharding
from jeff_llm.anomaly import streaming
from jeff_llm.anomaly.covariance import mahalanobis
from jeff_llm.anomaly.detectors import knn
from jeff_llm.anomaly.local_outlier import lof
from jeff_llm.anomaly.streaming import score_blocks


def texts(rows, seed, width=12):
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


TRAIN, TEST = texts(80, 0), texts(53, 1)


class Plain:
    """A detector that cannot be compiled."""

    reference = np.zeros(1)

    def score(self, embeddings):
        assert isinstance(embeddings, np.ndarray) and len(embeddings) <= 20
        return embeddings.sum(axis=1)


@pytest.mark.parametrize("make", [knn, lof, mahalanobis])
def test_blocks_of_a_mapped_file(make, tmp_path):
    detector = make(TRAIN)
    np.save(tmp_path / "x.npy", TEST)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    expected = np.asarray(detector.score(TEST))
    for block in (20, 53, 100):
        found = score_blocks(detector, mapped, block=block)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=2e-6)
    assert score_blocks(detector, TEST[:0]).shape == (0,)


def test_one_program(monkeypatch):
    counted = jax.jit(
        chex.assert_max_traces(n=1)(lambda detector, rows: detector.score(rows))
    )
    monkeypatch.setattr(streaming, "_score_alone", counted)
    detector = knn(TRAIN)
    score_blocks(detector, TEST, block=20)
    score_blocks(detector, TEST[:7], block=20)


def test_a_detector_that_is_no_pytree():
    np.testing.assert_array_equal(
        score_blocks(Plain(), TEST, block=20), TEST.sum(axis=1)
    )


def test_eight_devices(devices):
    """The mesh's scores are those of one device, and each device has a part."""
    program = Path(__file__).parents[2] / "programs" / "anomaly_eight_devices.py"
    done = subprocess.run(
        [sys.executable, "-W", "error", program],
        check=False,
        capture_output=True,
        text=True,
        env=devices(8),
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def minilm():
    encoder = pytest.importorskip("jeff_llm.models.encoder")
    try:
        return encoder.load()
    except FileNotFoundError as error:
        pytest.skip(f"MiniLM is not here: {error}")


@pytest.mark.usefixtures("unchecked")
def test_errors():
    detector = knn(TRAIN)
    with pytest.raises(ValueError, match=r"block.*got 0"):
        score_blocks(detector, TEST, block=0)
    bad = TEST.copy()
    bad[45] = np.inf
    with pytest.raises(ValueError, match=r"embeddings\[40:53\].*first of which is 5"):
        score_blocks(detector, bad, block=20)
    with pytest.raises(TypeError, match="floating"):
        score_blocks(detector, TEST.astype(int))
    with pytest.raises(ValueError, match=r"12\], got"):
        score_blocks(detector, TEST[:, :4])
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    with pytest.raises(TypeError, match=r"pytree.*got a Plain"):
        score_blocks(Plain(), TEST, mesh=mesh)
