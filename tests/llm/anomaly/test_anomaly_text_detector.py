"""Test the detector of texts: what enters a score, p-values, refusals."""

import zlib

import jax
import numpy as np
import pytest
from scipy import stats

from jeff_llm.anomaly import conformal, text_detector
from jeff_llm.anomaly.text_detector import METHODS, fit, score

WORDS = [f"word{number}" for number in range(60)]
STRANGE = ["PRIZE!!! call 0800 now", "\u65e5\u672c\u8a9e" * 5, "$$$ \x00 \u2028 {}"]


def made(count, seed=0):
    """Different normal texts of a few words."""
    rng = np.random.default_rng(seed)
    found = {}
    while len(found) < count:
        found[" ".join(rng.choice(WORDS, rng.integers(2, 12)))] = None
    return list(found)


def hashed(texts, width=32):
    """Random vectors of words, summed; a stand-in for a sentence encoder."""
    found = np.zeros((len(texts), width), np.float32)
    for place, text in enumerate(texts):
        for word in text.split():
            seed = zlib.crc32(word.encode("utf-8", "surrogatepass"))
            found[place] += np.random.default_rng(seed).normal(size=width)
    return found


ENCODERS = {"hashed": hashed}


def capitals(texts):
    """A scorer: share of letters that are capitals."""
    return np.array(
        [sum(c.isupper() for c in text) / (len(text) + 1) for text in texts]
    )


@pytest.fixture(scope="module")
def normal():
    return made(300)


@pytest.fixture(scope="module")
def detector(normal):
    return fit(normal, ENCODERS, key=jax.random.key(0))


def test_what_is_learnt(normal, detector):
    """Training and kept-aside texts are apart, and are drawn by the key."""
    assert detector.views == ("hashed", "characters")
    assert len(detector.texts) == 210 and len(detector.calibration) == 90
    assert set(detector.texts) < set(normal)
    again = fit(normal, ENCODERS, key=jax.random.key(0))
    np.testing.assert_array_equal(detector.calibration, again.calibration)
    other = fit(normal, ENCODERS, key=jax.random.key(1))
    assert other.texts != detector.texts
    aside = [text for text in normal if text not in detector.texts]
    found = score(detector, aside, ENCODERS)
    np.testing.assert_allclose(
        np.sort(found.score), np.sort(detector.calibration), rtol=1e-5
    )
    # Each has itself among those at least as strange.
    assert found.p_value.min() == pytest.approx(2 / 91)


def test_strange_texts_stand_out(detector):
    found = score(detector, [*STRANGE, detector.texts[5]], ENCODERS)
    np.testing.assert_allclose(found.p_value[:3], 1 / 91)
    assert found.p_value[3] > 0.5
    assert found.nearest.shape == found.distance.shape == (4, 3)
    assert found.nearest[3, 0] == 5 and found.distance[3, 0] == 0
    assert np.all(np.diff(found.distance, axis=1) >= 0)
    assert found.by_view.shape == (2, 4)


@pytest.mark.parametrize("method", METHODS)
def test_a_text_has_one_score_whatever_is_scored_with_it(normal, method):
    """P-values repeat exactly, scores to rounding; repeats of kept texts among them."""
    views = ("hashed",) if method == "mahalanobis" else ("hashed", "characters")
    detector = fit(normal, ENCODERS, views=views, method=method, key=jax.random.key(0))
    texts = [*made(60, seed=1), *normal[:40], *STRANGE, "", STRANGE[0]]
    whole = score(detector, texts, ENCODERS)
    assert whole.p_value[-1] == whole.p_value[100]
    rng = np.random.default_rng(0)
    for chosen in (rng.permutation(len(texts)), np.arange(0, len(texts), 2), [7]):
        found = score(detector, [texts[place] for place in chosen], ENCODERS)
        np.testing.assert_array_equal(found.p_value, whole.p_value[chosen])
        np.testing.assert_allclose(found.score, whole.score[chosen], rtol=1e-5)
        np.testing.assert_array_equal(found.nearest, whole.nearest[chosen])


def test_in_batches(detector, monkeypatch):
    """The batch in memory changes nothing; progress is told."""
    texts = made(25, seed=2)
    whole = score(detector, texts, ENCODERS)
    monkeypatch.setattr(text_detector, "_BATCH", 10)
    told = []
    found = score(detector, texts, ENCODERS, progress=lambda *at: told.append(at))
    assert told == [(10, 25), (20, 25), (25, 25)]
    for one, other in zip(found, whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_p_values_are_uniform_on_normal_texts():
    """Over new normal texts and several partings; at most a level is flagged."""
    pool, found, flagged = made(4000, seed=3), [], []
    for seed in range(8):
        part = pool[500 * seed : 500 * (seed + 1)]
        detector = fit(part[:300], ENCODERS, key=jax.random.key(seed))
        p_value = score(detector, part[300:], ENCODERS).p_value
        found.append(p_value)
        flagged.append(np.mean(p_value <= 0.1))
    # Ties of the discrete p-values and the eight calibration sets widen the test.
    distance = stats.kstest(np.concatenate(found), "uniform").statistic
    assert distance < 0.06
    assert np.mean(flagged) < 0.1 + 3 * np.sqrt(0.09 * (1 / 90 + 1 / 200) / 8)


def test_a_score_within_rounding_of_a_kept_one_counts_as_equal():
    """And p-values never fall below those without rounding."""
    kept = np.linspace(1, 2, 9, dtype=np.float32)
    value = np.nextafter(kept, np.float32(9))
    exact = np.asarray(conformal.p_values(kept, kept))
    np.testing.assert_array_equal(text_detector._p_values(kept, value), exact)
    np.testing.assert_array_equal(text_detector._p_values(kept, kept), exact)
    clear = kept + np.float32(0.01)
    np.testing.assert_array_equal(
        text_detector._p_values(kept, clear), conformal.p_values(kept, clear)
    )


def test_views_and_scorers(normal):
    """One view needs no fusion; a scorer is one more row."""
    one = fit(normal, ENCODERS, views=("hashed",), key=jax.random.key(0))
    found = score(one, STRANGE, ENCODERS)
    np.testing.assert_array_equal(found.score, found.by_view[0])
    assert one.characters is None
    none = fit(normal, {}, key=jax.random.key(0))
    assert none.views == ("characters",)
    scorers = {"capitals": capitals}
    mixed = [text.title() if i % 3 else text for i, text in enumerate(normal)]
    both = fit(mixed, {}, scorers=scorers, key=jax.random.key(0))
    found = score(both, STRANGE, {}, scorers=scorers)
    np.testing.assert_allclose(found.by_view[1], capitals(STRANGE), rtol=1e-6)
    with pytest.raises(
        ValueError, match=r"scorers: expected one named 'capitals', got"
    ):
        score(both, STRANGE, {})


def test_nothing_to_score(detector):
    found = score(detector, [], ENCODERS, num_nearest=2)
    shapes = [each.shape for each in found]
    assert shapes == [(0,), (0,), (2, 0), (0, 2), (0, 2)]


def test_repeated_and_odd_normal_texts():
    """Repeats, an empty text and half a surrogate pair among the normal ones."""
    texts = [*made(20), "same", "same", "same", "", "half \ud83d", "x" * 100_000]
    detector = fit(texts, ENCODERS, key=jax.random.key(0))
    found = score(detector, ["same", "", "half \ud83d"], ENCODERS)
    assert np.all(np.isfinite(found.score)) and np.all(found.p_value > 1 / 20)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "forest"}, "method: expected .*knn.* got 'forest'"),
        ({"views": ("other",)}, "views: expected .* got 'other'"),
        ({"views": ()}, "views: expected different names"),
        ({"views": ("hashed", "hashed")}, "views: expected different names"),
        ({"encoders": {"characters": hashed}}, "encoders: expected no 'characters'"),
        ({"holdout": 1.0}, r"holdout: expected a share in \(0, 1\), got 1.0"),
        ({"texts": made(11)}, "texts: expected at least 12 normal texts, got 11"),
        ({"texts": []}, "texts: expected at least 12 normal texts, got 0"),
        ({"scorers": {"hashed": capitals}}, "scorers: expected other names .*hashed"),
        ({"scorers": {"s": lambda texts: np.full(len(texts), np.nan)}},
         "scorers: expected a finite score .* from 's', .* with NaN or infinity"),
        ({"scorers": {"s": lambda texts: np.zeros(3)}}, r"from 's', got shape \(3,\)"),
        ({"scorers": {"s": lambda texts: np.ones(len(texts))}},
         "scorers: expected at least two different scores .* from 's'"),
        ({"encoders": {"e": lambda texts: np.ones((len(texts), 4))}},
         "views: expected texts that differ in 'e'"),
        ({"encoders": {"e": lambda texts: np.ones(len(texts))}},
         r"encoders: expected a vector for each .* from 'e', got shape \(14,\)"),
        ({"encoders": {"e": lambda texts: np.full((len(texts), 2), np.nan)}},
         "encoders: expected finite .* from 'e'"),
    ],
)  # fmt: skip
def test_arguments_that_are_refused(unchecked, changes, message):
    given = {"texts": made(20), "encoders": ENCODERS, "key": jax.random.key(0)}
    with pytest.raises(ValueError, match=message):
        fit(**given | changes)


def test_the_fewest_texts():
    """The number that the message asks for is enough."""
    assert len(fit(made(13), {}, key=jax.random.key(0)).texts) >= 8


def test_encoders_that_do_not_fit(detector):
    with pytest.raises(ValueError, match=r"encoders: expected one named 'hashed', got"):
        score(detector, ["a"], {"other": hashed})
    narrow = {"hashed": lambda texts: hashed(texts, width=3)}
    with pytest.raises(ValueError, match=r"width 32 from 'hashed', got shape \(1, 3\)"):
        score(detector, ["a"], narrow)
    with pytest.raises(ValueError, match="num_nearest: expected 1 to 210, got 0"):
        score(detector, ["a"], ENCODERS, num_nearest=0)


def test_minilm(normal):
    """The real encoder: another batch rounds otherwise, but no p-value changes."""
    from jeff_llm.models import encoder

    try:
        encoders = {"minilm": encoder.load("minilm").encode}
    except FileNotFoundError as error:
        pytest.skip(f"MiniLM is not here: {error}")
    detector = fit(normal[:100], encoders, views=("minilm",), key=jax.random.key(0))
    texts = normal[:60]
    whole = score(detector, texts, encoders)
    order = np.random.default_rng(0).permutation(60)[:31]
    found = score(detector, [texts[place] for place in order], encoders)
    np.testing.assert_array_equal(found.p_value, whole.p_value[order])
    np.testing.assert_allclose(found.score, whole.score[order], rtol=1e-5, atol=1e-6)
