"""Progress of fitting a text detector."""

import jax
import numpy as np

from jeff_llm.anomaly import text_detector


def test_progress_of_fit():
    """Called once a view and once a scorer, with the whole number."""
    told = []
    text_detector.fit(
        [f"a text of number {number}" for number in range(30)],
        {},
        scorers={"length": lambda texts: np.array([len(text) for text in texts])},
        progress=lambda done, total: told.append((done, total)),
        key=jax.random.key(0),
    )
    assert told == [(1, 2), (2, 2)]
