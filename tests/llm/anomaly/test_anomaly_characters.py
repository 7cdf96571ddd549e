"""Test the vectors of characters against a loop, and on texts of any kind."""

import math
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from jeff_llm.anomaly import characters
from jeff_llm.anomaly.characters import character_encoder

TRAIN = ["see you at 5", "ok, at 6", "Call me", "call me now", "ok"]
# So many buckets that the runs of these texts do not meet.
WIDE = 1 << 20


def runs(text, lengths=(1, 2, 3)):
    return Counter(text[i : i + n] for n in lengths for i in range(len(text) - n + 1))


def weight(run):
    holding = sum(run in runs(text) for text in TRAIN)
    return math.log((1 + len(TRAIN)) / (1 + holding)) + 1


def test_as_a_loop_over_the_runs():
    encoder = character_encoder(TRAIN, buckets=WIDE)
    text = "Call me at 66, call"
    expected = sorted(math.log1p(n) * weight(run) for run, n in runs(text).items())
    found = encoder.encode([text])[0]
    nonzero = np.sort(found[found > 0])
    np.testing.assert_allclose(nonzero, expected / np.linalg.norm(expected), rtol=1e-5)


def test_case_is_kept_and_order_counts():
    encoder = character_encoder(TRAIN, lengths=(1, 2), buckets=WIDE)
    upper, lower, turned = encoder.encode(["AB", "ab", "ba"])
    assert upper @ lower == 0
    assert 0 < lower @ turned < 0.9
    one = character_encoder(TRAIN, lengths=(1,), buckets=WIDE)
    lower, turned = one.encode(["ab", "ba"])
    np.testing.assert_array_equal(lower, turned)


def test_texts_of_any_kind():
    texts = ["", "a", "\x00", "日本語🙂", "é" * 100_000, "\ud800", "{}\n\t"]
    found = character_encoder(texts).encode(texts)
    assert found.shape == (7, 8192) and found.dtype == np.float32
    np.testing.assert_array_equal(found[0], 0)
    np.testing.assert_allclose(np.linalg.norm(found[1:], axis=1), 1, rtol=1e-5)
    assert character_encoder(TRAIN).encode([]).shape == (0, 8192)
    assert not character_encoder(TRAIN, lengths=(3,)).encode(["ab"]).any()


def test_some_texts_at_a_time(monkeypatch):
    """What is hashed at once changes nothing; no run crosses from text to text."""
    whole = character_encoder(TRAIN)
    monkeypatch.setattr(characters, "_AT_ONCE", 3)
    parts = character_encoder(TRAIN)
    np.testing.assert_array_equal(parts.weights, whole.weights)
    np.testing.assert_array_equal(parts.encode(TRAIN), whole.encode(TRAIN))
    np.testing.assert_array_equal(parts.encode(TRAIN[2:3])[0], whole.encode(TRAIN)[2])


def test_the_same_in_every_process():
    program = (
        "from jeff_llm.anomaly.characters import character_encoder as c;"
        "print(c(['see you']).encode(['you see'])[0].nonzero()[0].tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    here = character_encoder(["see you"]).encode(["you see"])[0].nonzero()[0]
    assert done.stdout.strip() == str(here.tolist())


@pytest.mark.parametrize(
    ("texts", "options", "error", "message"),
    [
        ("one text", {}, TypeError, "train_texts.*sequence.*'one text'"),
        ([], {}, ValueError, "train_texts.*at least 1 text, got none"),
        (["a", None], {}, TypeError, "train_texts.*got None at 1"),
        (["a"], {"lengths": ()}, ValueError, r"lengths.*got \(\)"),
        (["a"], {"lengths": (1, 1)}, ValueError, r"lengths.*got \(1, 1\)"),
        (["a"], {"lengths": (0,)}, ValueError, r"lengths.*got \(0,\)"),
        (["a"], {"buckets": 0}, ValueError, "buckets.*got 0"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_errors(texts, options, error, message):
    with pytest.raises(error, match=message):
        character_encoder(texts, **options)
