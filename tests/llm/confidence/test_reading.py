"""Test the reading of answers against the decoder, for any padding and prefix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm import generate
from jeff_llm.confidence import probes, reading, uncertainty
from jeff_llm.models import decoder

SHARED = list(range(1, 21))
PROMPTS = [[3, 4, 5], [6], [7, 8, 9, 10, 11]]
ANSWERS = [[12, 13], [14], [15, 16, 17, 18, 19]]


@pytest.mark.parametrize("prefix", [[], SHARED])
def test_each_answer_by_itself(tiny, prefix) -> None:
    prompts = [prefix + prompt for prompt in PROMPTS]
    found = reading.read(
        tiny, prompts, ANSWERS, layer=2, next_tokens=[0, 5], batch_size=2
    )
    for row, (prompt, answer) in enumerate(zip(prompts, ANSWERS, strict=True)):
        tokens = jnp.array([prompt + answer])
        out = decoder.apply(tiny.config, tiny.params, tokens, hidden_layers=(2,))
        begin, count = len(prompt), len(answer)
        logits = out.logits[0, begin - 1 : begin + count - 1]
        log_probs = jax.nn.log_softmax(logits)[jnp.arange(count), jnp.array(answer)]
        assert found.where[row].sum() == count
        np.testing.assert_allclose(found.log_probs[row, :count], log_probs, atol=2e-4)
        entropy = uncertainty.entropy_confidence(logits)
        np.testing.assert_allclose(found.entropy[row, :count], entropy, atol=2e-4)
        margin = uncertainty.margin(logits)
        np.testing.assert_allclose(found.margin[row, :count], margin, atol=2e-4)
        np.testing.assert_allclose(found.hidden[row], out.hidden[0, 0, -1], atol=2e-3)
        before = out.hidden[0, 0, begin - 1]
        np.testing.assert_allclose(found.before[row], before, atol=2e-3)
        after = out.logits[0, -1, jnp.array([0, 5])]
        np.testing.assert_allclose(found.next_logits[row], after, atol=2e-3)
        assert not found.log_probs[row, count:].any()


def test_generation_with_a_shared_prefix(tiny) -> None:
    """The same tokens, hidden states and lengths, with the prefix read once."""
    prompts = [SHARED + prompt for prompt in PROMPTS]
    one, other = (
        generate.generate(
            tiny,
            prompts,
            max_new_tokens=6,
            stop_ids=[],
            hidden_layers=(1,),
            share_prefix=share,
        )
        for share in (False, True)
    )
    np.testing.assert_array_equal(one.tokens, other.tokens)
    np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-4)
    np.testing.assert_allclose(one.hidden, other.hidden, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": [[1]]}, "expected one for each of 3 prompts, got 1"),
        ({"answers": [[1], [], [2]]}, "answer 1: expected at least one token"),
        ({"answers": [[1], [99], [2]]}, "answer 1: expected tokens below 61, got 99"),
        ({"batch_size": 0}, "batch_size: expected at least 1"),
        ({"next_tokens": [61]}, "next_tokens: expected tokens below 61"),
    ],
)
def test_bad_answers(tiny, change, message) -> None:
    with pytest.raises(ValueError, match=message):
        reading.read(tiny, PROMPTS, **({"answers": ANSWERS} | change))


def states(seed: int, rows: int = 160):
    """Features of which one direction tells right from wrong."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, rows, 6)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(x[..., 0] > 0)


def test_probes_learn_all_settings_at_once(key) -> None:
    x, y = states(0)
    new, truth = states(1)
    sure = probes.trained_probe(x, y, new, key=key)
    assert sure.shape == truth.shape and ((sure >= 0) & (sure <= 1)).all()
    assert float(((sure > 0.5) == truth).mean()) > 0.9
    # A setting does not hang on the others, or on what padding holds.
    where = jnp.ones(y.shape, bool).at[:, 150:].set(False)
    spoiled = x.at[:, 150:].set(1e3)
    one, other = (
        probes.train(z, y, keys=jax.random.split(key), where=where)
        for z in (x, spoiled)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, other)


def test_a_probe_of_other_sets_has_not_seen_its_own(key) -> None:
    """What its own data set says does not change it."""
    x, y = states(0)
    new, truth = states(1)
    sure = probes.ood_probe(x, y, new, key=key)
    assert float(((sure > 0.5) == truth).mean()) > 0.8
    flipped = probes.ood_probe(x, y.at[0].set(~y[0]), new, key=key)
    np.testing.assert_allclose(sure[0], flipped[0], atol=1e-5)
    assert not np.allclose(sure[1], flipped[1], atol=0.1)


def test_bad_probes(key, unchecked) -> None:
    x, y = states(0)
    with pytest.raises(ValueError, match="at least 2 data sets, got 1"):
        probes.ood_probe(x[:1], y[:1], x[:1], key=key)
    with pytest.raises(ValueError, match=r"\[settings, queries, width\]"):
        probes.train(x[0], y[0], keys=jax.random.split(key))
    with pytest.raises(ValueError, match="expected at least 1 each"):
        probes.init(0, key=key)
