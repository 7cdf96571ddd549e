"""The sweep against a loop over settings in numpy and scikit-learn.

``python -m benchmarks.routing [settings] [queries]``. Both give the curve over 21
rates, its normalised area, the rate to match and the AUROC of every setting; the peer
is timed on a part of the settings and scaled up. Writes a record to benchmarks/results.
"""

import json
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks import records
from jeff_llm.confidence import routing

_RATES = np.linspace(0, 1, 21)
_REPEATS = 5


def main(settings: int = 1536, queries: int = 2000) -> None:
    """Time both, check that they agree, and write the record."""
    rng = np.random.default_rng(0)
    shape = (settings, queries)
    sure = rng.random(shape).astype(np.float32)
    small, large = rng.random(shape) < sure, rng.random(shape) < 0.85
    arrays = [jnp.asarray(x) for x in (sure, small, large, _RATES.astype(np.float32))]
    began = time.perf_counter()
    found = jax.block_until_ready(routing.sweep(*arrays))
    compiled = time.perf_counter() - began
    seconds = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(routing.sweep(*arrays))
        seconds.append(time.perf_counter() - began)
    part = min(settings, 100)
    began = time.perf_counter()
    theirs = [_peer(sure[i], small[i], large[i]) for i in range(part)]
    peer = (time.perf_counter() - began) * settings / part
    for name, place in (("accuracy", 0), ("area", 1), ("alignment", 2)):
        mine = np.asarray(getattr(found, name))[:part]
        other = np.array([each[place] for each in theirs])
        np.testing.assert_allclose(mine, other, atol=2e-3)
    middle = statistics.median(seconds)
    record = {
        "settings": settings,
        "queries": queries,
        "seconds": {"median": middle, "min": min(seconds), "max": max(seconds)},
        "seconds_with_compilation": compiled,
        "peer": "numpy and scikit-learn, a setting at a time",
        "peer_seconds": peer,
        "ratio": peer / middle,
    }
    print(json.dumps(record, indent=1))
    records.write("routing", record)


def _peer(
    sure: np.ndarray, small: np.ndarray, large: np.ndarray
) -> tuple[np.ndarray, float, float]:
    """What a script would do: sort, cumulate, interpolate; ties are not treated."""
    count = len(sure)

    def curve(order: np.ndarray) -> np.ndarray:
        gain = np.cumsum((large.astype(float) - small)[order])
        return small.mean() + np.append(0, gain) / count

    steps = np.arange(count + 1) / count
    mine = curve(np.argsort(sure))
    best = curve(np.argsort(small.astype(float) - large))
    even = (small.mean() + large.mean()) / 2
    area, most = np.trapezoid(mine, steps), np.trapezoid(best, steps)
    normalised = (area - even) / (most - even)
    int(np.argmax(mine >= large.mean()))
    return np.interp(_RATES, steps, mine), normalised, roc_auc_score(small, sure)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
