"""Test nearest neighbours against float64 differences and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm.anomaly import neighbors
from jeff_llm.anomaly.neighbors import nearest


def by_differences(train, queries, count, exclude_self=False):
    """Distances in float64, query by query."""
    train = np.asarray(train, np.float64)
    found = []
    for row, query in enumerate(np.asarray(queries, np.float64)):
        distance = np.sqrt(((train - query) ** 2).sum(axis=1))
        if exclude_self:
            distance[row] = np.inf
        found.append(np.sort(distance)[:count])
    return np.array(found)


def texts(rows, *, seed=0, width=24):
    x = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def agree(train, queries, count, *, exclude_self=False, **options):
    """Distances equal float64's, and the indices lead to them."""
    found = nearest(
        train, queries, neighbors=count, exclude_self=exclude_self, **options
    )
    expected = by_differences(train, queries, count, exclude_self)
    np.testing.assert_allclose(found.distance, expected, rtol=1e-5, atol=1e-9)
    at = np.asarray(train, np.float64)[np.asarray(found.index)]
    led_to = np.sqrt(((at - np.asarray(queries, np.float64)[:, None]) ** 2).sum(-1))
    np.testing.assert_allclose(led_to, expected, rtol=1e-5, atol=1e-9)
    for row in np.asarray(found.index):
        assert len(set(row.tolist())) == count
    if exclude_self:
        assert (np.asarray(found.index) != np.arange(len(train))[:, None]).all()


def test_by_hand():
    found = nearest(
        jnp.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]]),
        jnp.array([[0.0, 0.0], [3.0, 3.0]]),
        neighbors=2,
    )
    np.testing.assert_allclose(found.distance, [[0, 1], [1, 13**0.5]], rtol=1e-6)
    np.testing.assert_array_equal(found.index, [[0, 2], [1, 2]])


@pytest.mark.parametrize("exclude_self", [False, True])
def test_random_texts(exclude_self):
    train = texts(400)
    queries = train if exclude_self else texts(70, seed=1)
    agree(train, queries, 5, exclude_self=exclude_self, block=64)


def test_parts_of_the_training_rows(monkeypatch):
    """Several parts, the last of them short, give what one gives."""
    monkeypatch.setattr(neighbors, "_TRAIN_BLOCK", 90)
    agree(texts(401), texts(33, seed=1), 7, block=16)
    agree(texts(401), texts(9, seed=1), 150)


def test_more_copies_than_candidates():
    """Forty equal rows: at most one is the query itself."""
    train = np.concatenate([np.repeat(texts(1), 40, axis=0), texts(160, seed=2)])
    agree(train, train, 12, exclude_self=True)
    found = nearest(train, train, neighbors=12, exclude_self=True)
    np.testing.assert_array_equal(found.distance[:40], 0)


@pytest.mark.parametrize("shift", [0, 30])
def test_near_copies_and_far_from_the_origin(shift):
    """Products could not tell these apart: they are right to about 1e-3."""
    rng = np.random.default_rng(3)
    centres = np.repeat(texts(4), 60, axis=0) + np.float32(shift)
    train = (centres + 1e-4 / 24**0.5 * rng.normal(size=centres.shape)).astype("f4")
    agree(train, train, 5, exclude_self=True, block=128)
    agree(train, train[::7] + np.float32(1e-3), 30)


def test_one_row_far_away():
    """It must not spoil the bound of the others, nor be lost itself."""
    train = np.concatenate([texts(300), 1e4 * texts(2, seed=9)])
    agree(train, train[-5:], 3)


def test_every_row_is_a_neighbour():
    train = texts(40)
    agree(train, texts(3, seed=1), 40)
    agree(train, train, 39, exclude_self=True)


def test_each_query_alone_and_under_jit():
    train, queries = texts(200), texts(9, seed=1)
    together = nearest(train, queries, neighbors=4, block=4)
    alone = [nearest(train, query[None], neighbors=4) for query in queries]
    np.testing.assert_allclose(
        together.distance, np.concatenate([a.distance for a in alone]), rtol=1e-6
    )
    jitted = jax.jit(lambda t, q: nearest(t, q, neighbors=4, block=4))(train, queries)
    np.testing.assert_array_equal(jitted.index, together.index)
    np.testing.assert_allclose(jitted.distance, together.distance, rtol=1e-6)


def test_no_queries():
    found = nearest(texts(20), np.zeros((0, 24), np.float32), neighbors=4)
    assert found.distance.shape == found.index.shape == (0, 4)


def test_unproved_queries_are_few(monkeypatch):
    """The slow way is for copies: without any, no query of a block takes it."""
    seen = []
    is_proved = neighbors._is_proved

    def spy(*arguments):
        proved = is_proved(*arguments)
        jax.debug.callback(lambda value: seen.append(np.asarray(value)), proved)
        return proved

    monkeypatch.setattr(neighbors, "_is_proved", spy)
    jax.clear_caches()
    train = texts(500, width=64)
    jax.block_until_ready(nearest(train, texts(61, seed=1, width=64), neighbors=5))
    jax.effects_barrier()
    assert seen and np.concatenate(seen).all()
    seen.clear()
    copies = np.repeat(texts(20), 25, axis=0)
    jax.block_until_ready(nearest(copies, copies[:31], neighbors=5))
    jax.effects_barrier()
    assert seen and not np.concatenate(seen).any()
    jax.clear_caches()


def test_as_scikit_learn():
    sklearn = pytest.importorskip("sklearn.neighbors")
    train, queries = texts(300), texts(40, seed=1)
    peer = sklearn.NearestNeighbors(n_neighbors=6).fit(train.astype(np.float64))
    for exclude_self in (False, True):
        asked = None if exclude_self else queries.astype(np.float64)
        distance, index = peer.kneighbors(asked)
        found = nearest(
            train,
            train if exclude_self else queries,
            neighbors=6,
            exclude_self=exclude_self,
        )
        np.testing.assert_allclose(found.distance, distance, rtol=1e-5)
        np.testing.assert_array_equal(found.index, index)


GOOD = np.ones((4, 3), np.float32)


@pytest.mark.parametrize(
    ("train", "queries", "options", "error", "message"),
    [
        (GOOD, GOOD, {"neighbors": 0}, ValueError, "neighbors.*at least 1.*got 0"),
        (GOOD, GOOD, {"neighbors": 5}, ValueError, "train.*at least 5 texts, got 4"),
        (
            GOOD,
            GOOD,
            {"neighbors": 4, "exclude_self": True},
            ValueError,
            "train.*at least 5 texts, got 4",
        ),
        (
            GOOD,
            GOOD[:2],
            {"neighbors": 1, "exclude_self": True},
            ValueError,
            r"queries.*\(4, 3\), got \(2, 3\)",
        ),
        (GOOD, GOOD[:, :2], {"neighbors": 1}, ValueError, "queries.*3.*got.*2"),
        (GOOD.astype(int), GOOD, {"neighbors": 1}, TypeError, "train.*floating.*int64"),
        (GOOD * np.nan, GOOD, {"neighbors": 1}, ValueError, "train.*4 of 4 rows.* 0"),
        (GOOD[0], GOOD, {"neighbors": 1}, ValueError, r"train.*got \(3,\)"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_errors(train, queries, options, error, message):
    with pytest.raises(error, match=message):
        nearest(train, queries, **options)
