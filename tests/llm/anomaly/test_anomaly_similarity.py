"""Test similarity to descriptions: by hand, and with an encoder of hashed words."""

import zlib

import numpy as np
import pytest

from jeff_llm.anomaly.categories import Categories
from jeff_llm.anomaly.similarity import description_similarity, similarity_scores

KINDS = Categories({"ham": "friend dinner"}, {"spam": "prize offer"})


def hashed(texts):
    """Counts of words in 512 buckets."""
    found = np.zeros((len(texts), 512), np.float32)
    for row, text in zip(found, texts, strict=True):
        for word in text.split():
            row[zlib.crc32(word.encode()) % 512] += 1
    return found


def test_by_hand():
    """Of the nearest description on each side, whatever the lengths."""
    texts = np.array([[2.0, 0.0], [0.0, 5.0], [1.0, 1.0]])
    normal = np.array([[3.0, 0.0]])
    anomalous = np.array([[0.0, 1.0], [0.0, -1.0]])
    found = similarity_scores(texts, normal, anomalous, scale=2, normal_weight=0.5)
    half = 2**-0.5
    logits = 2 * np.array([0 - 0.5, 1 - 0, half - 0.5 * half])
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits)), atol=1e-6)


def test_one_side_alone():
    texts, side = np.eye(2), np.array([[1.0, 0.0]])
    none = np.zeros((0, 2))
    only_normal = np.asarray(similarity_scores(texts, side, none))
    only_anomalous = np.asarray(similarity_scores(texts, none, side))
    assert only_normal[0] < only_normal[1] and only_anomalous[0] > only_anomalous[1]
    both = similarity_scores(texts, side, side, normal_weight=0)
    np.testing.assert_allclose(both, only_anomalous)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ((0, 0), {}, "anomalous, normal: expected a description, got none"),
        ((1, 0), {"normal_weight": 0}, "expected a description, got none"),
        ((1, 1), {"normal_weight": 1.5}, r"normal_weight: expected \[0, 1\], got 1.5"),
        ((1, 1), {"scale": 0}, "scale: expected a positive number, got 0"),
    ],
)
def test_arguments_that_are_refused(rows, options, message):
    normal, anomalous = np.ones((rows[0], 2)), np.ones((rows[1], 2))
    with pytest.raises(ValueError, match=message):
        similarity_scores(np.ones((3, 2)), normal, anomalous, **options)


def test_texts_and_descriptions():
    texts = ["dinner with a friend", "a prize and an offer", "", "\ud83d", "{}" * 9]
    found = description_similarity(hashed, texts, KINDS)
    assert found.score[0] < 0.5 < found.score[1]
    # Without a word there is no vector: counted, and scored in the middle.
    assert found.failed.tolist() == [False, False, True, False, False]
    assert found.score[2] == 0.5
    alone = description_similarity(hashed, texts[1:2], KINDS)
    assert alone.score[0] == pytest.approx(found.score[1], abs=1e-6)
    assert description_similarity(hashed, [], KINDS).score.shape == (0,)


def test_an_encoder_of_another_width():
    """Descriptions and texts of other widths are refused in words."""
    with pytest.raises(
        ValueError, match=r"encode: expected .* 2 vectors of width 2, got"
    ):
        description_similarity(
            lambda texts: np.ones((len(texts), len(texts[0]))), ["ab c", "d"],
            Categories({"ab": "ab"}),
        )  # fmt: skip


def test_minilm():
    """The real encoder finds spam among messages without having seen any."""
    from jeff_llm.models import encoder

    try:
        encode = encoder.load("minilm").encode
    except FileNotFoundError as error:
        pytest.skip(f"MiniLM is not here: {error}")
    kinds = Categories(
        {"ham": "a personal message to a friend"}, {"spam": "an advertisement"}
    )
    texts = ["see you at dinner, mum", "Buy now! 50% off all phones, call 0800 123"]
    found = description_similarity(encode, texts, kinds)
    assert found.score[0] < found.score[1] and not found.failed.any()
