"""Test what the official code does differently: by how much it changes figures."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff import assets, metrics
from jeff_llm.anomaly.conformal import p_values
from jeff_llm.anomaly.official import drop_failures, example_from_test, scale_on_test


def area(scores, label):
    return float(metrics.auroc(jnp.asarray(scores, float), jnp.asarray(label)))


def distances(train, test, *, neighbors=5, own=False):
    """Mean distance to the nearest training texts; ``own`` leaves the first out."""
    squares = ((np.asarray(test)[:, None] - np.asarray(train)[None]) ** 2).sum(-1)
    nearest = np.sort(squares, axis=1)[:, own : neighbors + own]
    return np.sqrt(np.maximum(nearest, 0)).mean(1)


def scaled_on_train(train, test):
    mean, spread = np.mean(train, axis=0), np.std(train, axis=0)
    spread = np.where(spread > 0, spread, 1)
    return (train - mean) / spread, (test - mean) / spread


@pytest.fixture
def embedded():
    """Anomalies are shifted along one of three features; they are half of the test."""
    rng = np.random.default_rng(0)
    label = np.arange(200) < 100
    test = rng.normal(size=(200, 3)).astype(np.float32)
    test[:100, 0] += 4
    return rng.normal(size=(300, 3)).astype(np.float32), test, label


def test_scaling_is_that_of_scikit_learn(embedded):
    peer = pytest.importorskip("sklearn.preprocessing")
    train, test, _ = embedded
    test[:, 2] = 7
    for found, values in zip(scale_on_test(train, test), (train, test), strict=True):
        want = peer.StandardScaler().fit_transform(values)
        np.testing.assert_allclose(found, want, atol=1e-5)


def test_a_scaler_fitted_on_test_hides_anomalies_and_leaks(embedded):
    """It centres the anomalies' shift away, and scores depend on the other texts."""
    train, test, label = embedded
    sound = distances(*scaled_on_train(train, test))
    official = distances(*scale_on_test(train, test))
    assert area(sound, label) > 0.98
    assert area(official, label) < area(sound, label) - 0.2
    few = np.r_[0:10, 100:200]
    np.testing.assert_allclose(
        distances(*scaled_on_train(train, test[few])), sound[few], rtol=1e-4
    )
    changed = np.abs(distances(*scale_on_test(train, test[few])) - official[few])
    assert changed.max() > 0.5 * official.std()


def test_dropping_failures_flatters(key):
    """Answers fail on hard texts: leaving them out raises the AUROC."""
    rng = np.random.default_rng(1)
    label = np.arange(400) < 100
    scores = 1 / (1 + np.exp(-(rng.normal(size=400) + np.where(label, 1, -1))))
    failed = rng.random(400) < 0.8 * np.exp(-(((scores - 0.5) / 0.2) ** 2))
    found = drop_failures(
        jnp.asarray(scores, float), jnp.asarray(label), jnp.asarray(failed)
    )
    kept = area(np.where(failed, 0.5, scores), label)
    assert found.auroc > kept + 0.01
    assert found.auroc == pytest.approx(area(scores[~failed], label[~failed]), abs=1e-6)
    assert found.dropped == pytest.approx(failed.mean()) and found.dropped > 0.2
    # What stood where an answer failed plays no part.
    other = jnp.where(jnp.asarray(failed), jnp.nan, jnp.asarray(scores, float))
    again = drop_failures(other, jnp.asarray(label), jnp.asarray(failed))
    np.testing.assert_allclose(again, found, rtol=1e-6)


def test_an_example_from_test_is_ranked_by_its_own_answer():
    """With 5 anomalies a scorer that compares with the example knows one of them."""
    rng = np.random.default_rng(2)
    points = rng.normal(size=(60, 8))
    classes = ["anomaly"] * 5 + ["normal"] * 55
    texts = [str(place) for place in range(60)]
    gains = []
    for seed in range(20):
        example = example_from_test(texts, classes, key=jax.random.key(seed))
        place = {name: int(text) for name, text in example.items()}
        assert place["anomaly"] < 5 <= place["normal"]
        to_known = -np.linalg.norm(points - points[place["anomaly"]], axis=1)
        label = np.arange(60) < 5
        others = np.arange(60) != place["anomaly"]
        gains.append(area(to_known, label) - area(to_known[others], label[others]))
    assert len({round(gain, 6) for gain in gains}) > 3
    assert np.mean(gains) > 0.05


def test_examples_are_drawn_by_the_key():
    texts, classes = [str(n) for n in range(40)], ["b", "a"] * 20
    draws = [
        example_from_test(texts, classes, key=jax.random.key(n)) for n in (0, 0, 1)
    ]
    assert draws[0] == draws[1] != draws[2]
    assert list(draws[0]) == ["a", "b"] and int(draws[0]["a"]) % 2 == 1


@pytest.fixture(scope="module")
def banking():
    """300 questions in MiniLM: those on exchange are anomalies; train has none."""
    pytest.importorskip("tokenizers")
    if any(assets.status(name) is None for name in ("minilm", "minilm_tokenizer")):
        pytest.skip("MiniLM is not here; python -m train_scripts assets brings it")
    try:
        path = assets.shared_file("banking77/banking77_train.jsonl")
    except FileNotFoundError as error:
        pytest.skip(f"banking77 is not here: {error}")
    from jeff_llm.models import encoder

    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rng = np.random.default_rng(0)
    exchange = np.array(["exchange" in row["label"] for row in rows])
    normal = rng.permutation(np.flatnonzero(~exchange))[:240]
    chosen = [*normal, *rng.permutation(np.flatnonzero(exchange))[:60]]
    texts = [rows[place]["text"] for place in chosen]
    embeddings = np.asarray(encoder.load("minilm").encode(texts))
    return embeddings[:150], embeddings[150:], np.arange(150) >= 90


def test_on_banking77_dropping_failures_flatters(banking, key):
    """Stand-in failures: the nearer a score to .5, the likelier its answer fails."""
    train, test, label = banking
    reference = distances(train, train, own=True)
    scores = 1 - np.asarray(p_values(reference, distances(train, test)))
    failed = np.asarray(
        jax.random.uniform(key, (150,)) < 0.9 * (1 - np.abs(2 * scores - 1))
    )
    found = drop_failures(
        jnp.asarray(scores, float), jnp.asarray(label), jnp.asarray(failed)
    )
    assert 0.1 < found.dropped < 0.6
    assert found.auroc > area(np.where(failed, 0.5, scores), label) + 0.05


def test_on_banking77_a_scaler_fitted_on_test_leaks(banking):
    train, test, label = banking
    few = np.arange(150) % 2 == 0
    sound, official = (
        [np.asarray(distances(*scale(train, t))) for t in (test, test[few])]
        for scale in (scaled_on_train, scale_on_test)
    )
    np.testing.assert_allclose(sound[0][few], sound[1], rtol=1e-4)
    change = np.abs(official[0][few] - official[1])
    assert change.max() > 0.2 * official[0].std()
    assert area(official[0], label) < area(sound[0], label) - 0.1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: scale_on_test(x, x[:, :1]), ValueError, "test: expected width 2"),
        (lambda x: scale_on_test(x[0], x), ValueError, r"train: .*got \(2,\)"),
        (lambda x: scale_on_test(x, x[:0]), ValueError, r"test: .*got \(0, 2\)"),
        (
            lambda x: drop_failures(x[:, 0], x[:2, 0] > 0, x[:, 0] > 0),
            ValueError,
            "label: expected 3 elements",
        ),
        (
            lambda x: drop_failures(x[:, 0], x[:, 0] > 0, x[:, 0]),
            TypeError,
            "failed: expected a bool array",
        ),
        (
            lambda x: example_from_test([], [], key=jax.random.key(0)),
            ValueError,
            "0 texts, at least one, got 0",
        ),
        (
            lambda x: example_from_test(["a"], ["x", "y"], key=jax.random.key(0)),
            ValueError,
            "each of 1 texts, at least one, got 2",
        ),
    ],
)
def test_bad_input(unchecked, call, error, message):
    with pytest.raises(error, match=message):
        call(jnp.ones((3, 2)))
