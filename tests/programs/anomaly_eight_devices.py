"""Check scores over a mesh of eight devices; failures are assertions.

usage: anomaly_eight_devices.py   with
``XLA_FLAGS=--xla_force_host_platform_device_count=8``.
"""

import jax
import numpy as np

from jeff import sharding
from jeff_llm.anomaly import streaming
from jeff_llm.anomaly.covariance import mahalanobis
from jeff_llm.anomaly.detectors import knn
from jeff_llm.anomaly.local_outlier import lof


def main() -> None:
    """Score on one device and on two meshes, and compare."""
    assert jax.device_count() == 8
    rng = np.random.default_rng(0)
    train, test = (rng.normal(size=(n, 12)).astype(np.float32) for n in (80, 53))
    # Copies, so that a part of the devices searches all rows.
    train[40:] = train[0]
    for detector in (knn(train), lof(train), mahalanobis(train)):
        alone = streaming.score_blocks(detector, test)
        for sizes in ((8, 1, 1), (2, 2, 2)):
            mesh = sharding.make_mesh(*sizes)
            split = streaming.score_blocks(detector, test, block=21, mesh=mesh)
            np.testing.assert_allclose(split, alone, rtol=1e-5)
    mesh = sharding.make_mesh(8)
    placed = sharding.replicate(knn(train), mesh)
    scores = streaming._score(placed, test[:48], mesh)
    assert [part.data.shape for part in scores.addressable_shards] == [(6,)] * 8


if __name__ == "__main__":
    main()
