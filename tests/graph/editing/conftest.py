"""A linear model of a few nodes, on which edits can be computed by hand."""

from typing import Any

import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest


@pytest.fixture
def unchecked() -> Any:
    """Without the suite's shape checks, so that a user's messages are seen."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(params=["jraph", "inner"])
def kind(request: pytest.FixtureRequest) -> Any:
    """``graph -> graph``: as `make_graph` gives it, or as networks compute on it."""
    from jeff_graph.editing import as_graph

    return as_graph if request.param == "inner" else lambda graph: graph


@pytest.fixture(scope="session")
def linear() -> Any:
    """``apply_fn(params, x) -> logits``."""
    return lambda params, x: x @ params["w"] + params["b"]


@pytest.fixture(scope="session")
def edit_data() -> Any:
    """``(params, task, targets, test, hops)``: 40 nodes in a ring, 3 classes.

    The model is roughly right; targets are five nodes that it gets wrong, and one that
    it gets right already.
    """
    from jeff_graph.editing.task import make_task

    rng = np.random.default_rng(3)
    x = rng.normal(size=(40, 6)).astype(np.float32)
    truth = rng.normal(size=(6, 3))
    labels = np.argmax(x @ truth + 1.5 * rng.normal(size=(40, 3)), 1)
    params = {"w": jnp.asarray(truth, jnp.float32), "b": jnp.zeros(3)}
    wrong = np.flatnonzero(np.argmax(x @ truth, 1) != labels)
    right = np.flatnonzero(np.argmax(x @ truth, 1) == labels)
    assert len(wrong) > 5
    targets = np.array([*wrong[:3], right[0], *wrong[3:5]], np.int32)
    train, test = np.zeros(40, bool), np.zeros(40, bool)
    train[right[1:13]], test[right[13:]] = True, True
    test[wrong[5:]] = True
    ring = np.arange(40)
    senders = np.concatenate([ring, (ring + 1) % 40])
    receivers = np.concatenate([(ring + 1) % 40, ring])
    task = make_task(
        jnp.asarray(x),
        jnp.asarray(labels, jnp.int32),
        jnp.asarray(train),
        edges=tuple(map(jnp.asarray, (senders, receivers, senders >= 0))),
        features=jnp.asarray(x),
    )
    apart = np.abs(targets[:, None] - ring)
    hops = np.minimum(np.minimum(apart, 40 - apart), 4)
    return params, task, *map(jnp.asarray, (targets, test, hops.astype(np.int32)))
