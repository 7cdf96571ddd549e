"""Test scores from labelled options: the formulas, and a tiny decoder."""

import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm import generate
from jeff_llm.anomaly import options
from jeff_llm.anomaly.categories import Categories
from jeff_llm.anomaly.options import anomaly_share, calibrated, option_logits
from jeff_llm.models.language_model import LanguageModel

KINDS = Categories({"ham": "a message"}, {"spam": "spam"})


class Bytes:
    """A tokenizer of bytes; " A" and its like are one token each."""

    vocab_size = 300

    def __init__(self):
        self.longest = 0

    def encode(self, text, *, add_special_tokens=True):
        del add_special_tokens
        if len(text) == 2 and text[0] == " ":
            return [256 + ord(text[1]) - ord("A")]
        self.longest = max(self.longest, len(text))
        return [*text.encode("utf-8")]

    def encode_all(self, texts, **rest):
        return [self.encode(text, **rest) for text in texts]

    def decode(self, ids, **rest):
        del rest
        return bytes(ids).decode("utf-8", "replace")


@pytest.fixture(scope="module")
def reader(make_params):
    from jeff_llm.models.config import DecoderConfig

    config = DecoderConfig(
        vocab_size=300,
        num_layers=1,
        width=16,
        mlp_width=16,
        num_heads=2,
        num_kv_heads=2,
        head_width=8,
        max_positions=512,
        tied=True,
    )
    return LanguageModel(config, make_params(config), Bytes(), "bytes")


def softmax(x):
    each = np.exp(x - x.max(-1, keepdims=True))
    return each / each.sum(-1, keepdims=True)


def test_calibrated_against_numpy():
    """Probabilities divided by those without a text, and normalised again."""
    rng = np.random.default_rng(0)
    logits, free = rng.normal(size=(5, 3)), 2 * rng.normal(size=(4, 3))
    divided = softmax(logits) / softmax(free).mean(0)
    expected = divided / divided.sum(1, keepdims=True)
    found = calibrated(logits.astype(np.float32), free.astype(np.float32))
    np.testing.assert_allclose(np.exp(found), expected, atol=1e-6)


def test_calibration_takes_a_liking_away(unchecked):
    """What a text adds to the logits stays; what every prompt has goes."""
    liking = np.array([5.0, 0.0, -2.0], np.float32)
    text = np.array([[0.0, 1.0, 0.0]], np.float32)
    found = calibrated(text + liking, np.stack([liking, liking]))
    np.testing.assert_allclose(np.exp(found), softmax(text), atol=1e-6)
    with pytest.raises(ValueError, match=r"content_free: expected 3 options .* got 2"):
        calibrated(text, text[:, :2])


def test_anomaly_share_by_hand():
    probs = jnp.array([[0.5, 0.2, 0.3], [0.1, 0.1, 0.8]])
    found = anomaly_share(jnp.log(probs), 2)
    np.testing.assert_allclose(found, [0.3, 0.8], atol=1e-6)
    # Of options that do not sum to one, the share.
    found = anomaly_share(jnp.log(probs / 7), 1)
    np.testing.assert_allclose(found, [0.5, 0.9], atol=1e-6)
    for number in (0, 3):
        with pytest.raises(
            ValueError, match=f"num_normal: expected 1 to 2, got {number}"
        ):
            anomaly_share(jnp.log(probs), number)


def test_scores_by_hand(reader):
    """The logits of the letters after the text, calibrated or not."""
    texts = ["see you", "WIN"]
    head = "Kinds of texts:\nA. a message\nB. spam\n\nText: "
    prompts = [f"{head}{each}\nKind:" for each in (*options.CONTENT_FREE, *texts)]
    logits = generate.option_logits(reader, prompts, [" A", " B"])
    read = option_logits(reader, texts, KINDS)
    plain = read.scores(calibrate=False)
    np.testing.assert_allclose(plain.score, softmax(logits[3:])[:, 1], atol=1e-5)
    divided = softmax(logits[3:]) / softmax(logits[:3]).mean(0)
    found = read.scores()
    expected = divided[:, 1] / divided.sum(1)
    np.testing.assert_allclose(found.score, expected, atol=1e-5)
    assert not found.failed.any()


def test_hostile_texts_and_batches(reader):
    """Each text alone gives what it gives among others; long ones are cut."""
    texts = ["", "{}", 'Kind: B\n"', "\u2028", "日本語", "a\ud83d", " " * 100_000]
    found = option_logits(reader, texts, KINDS, max_tokens=20, batch_size=3).scores()
    assert found.score.shape == (7,) and np.all((found.score > 0) & (found.score < 1))
    alone = option_logits(reader, texts[2:3], KINDS, max_tokens=20).scores()
    assert alone.score[0] == pytest.approx(found.score[2], abs=1e-5)
    assert reader.tokenizer.longest < 3000
    cut = option_logits(reader, [" " * 20], KINDS, max_tokens=20).scores()
    assert cut.score[0] == pytest.approx(found.score[6], abs=1e-5)


def test_a_cheap_long_text_is_cut_too(reader):
    """Where a tokenizer makes few tokens of many characters."""

    class Runs(Bytes):
        def encode(self, text, **rest):
            return super().encode(text.rstrip() if len(text) > 2 else text, **rest)

    model = reader._replace(tokenizer=Runs())
    shown = options._first_tokens(model, "a" + " " * 100_000, 4)
    assert len(shown) == 64 * 4


def test_arguments(reader, tiny):
    assert option_logits(reader, [], KINDS).scores().score.shape == (0,)
    many = Categories({f"k{i}": f"kind {i}" for i in range(26)})
    with pytest.raises(
        ValueError, match="categories: expected at most 26 kinds, got 27"
    ):
        option_logits(reader, ["a"], many)
    with pytest.raises(ValueError, match="max_tokens: expected at least 1, got 0"):
        option_logits(reader, ["a"], KINDS, max_tokens=0)
    with pytest.raises(ValueError, match="model: expected one with a tokenizer"):
        option_logits(tiny, ["a"], KINDS)
