"""Test the processors of a thought: alone, and in the decoding loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm.generate import Sampling, generate
from jeff_llm.generate.sampling import Progress
from jeff_llm.reasoning import decoding

END, WAIT = 3, 4


def progress(*rows, step=None):
    tokens = np.zeros((len(rows), 8), np.int32)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = row
        tokens[number, len(row) :] = END  # arbitrary from `step` on
    step = len(rows[0]) if step is None else step
    return Progress(jnp.asarray(step), jnp.asarray(tokens), jnp.ones(len(rows), int))


def draw(logits, processor, state):
    """Distribution of the next token after a processor."""
    return np.asarray(jax.nn.softmax(processor(jnp.asarray(logits), state), axis=-1))


def make(**changed):
    settings = {"waits": 2, "max_tokens": 6, "vocab_size": 6} | changed
    return decoding.budget_forcing(END, WAIT, **settings)


def test_the_end_becomes_a_wait():
    """At temperature 1 its probability moves; the other tokens keep theirs."""
    prob = np.array([[0.1, 0.1, 0.2, 0.35, 0.05, 0.2]], np.float32)
    found = draw(np.log(prob), make(), progress([0, WAIT]))
    np.testing.assert_allclose(found, [[0.1, 0.1, 0.2, 0, 0.4, 0.2]], rtol=1e-5)


def test_at_another_temperature_the_drawn_end_becomes_a_wait():
    logits = np.random.default_rng(0).normal(size=(1, 6)).astype(np.float32)
    for temperature in (0.5, 2.0):
        want = np.asarray(jax.nn.softmax(logits / temperature, axis=-1)).copy()
        want[0, WAIT] += want[0, END]
        want[0, END] = 0
        new = make(temperature=temperature)(jnp.asarray(logits), progress([0]))
        found = jax.nn.softmax(new / temperature, axis=-1)
        np.testing.assert_allclose(found, want, rtol=1e-5)


def test_the_greedy_choice_changes_only_where_it_was_the_end():
    """The sum of two probabilities may pass a third; the larger of them may not."""
    prob = np.full((2, 6), 1e-9)
    prob[:, [0, END, WAIT]] = [0.4, 0.3, 0.3], [0.4, 0.5, 0.1]
    logits = np.log(prob)
    found = make(temperature=0)(jnp.asarray(logits), progress([0], [0]))
    assert found.argmax(axis=1).tolist() == [0, WAIT]
    found = make()(jnp.asarray(logits), progress([0], [0]))
    assert found.argmax(axis=1).tolist() == [WAIT, WAIT]


def test_with_enough_waits_and_after_the_end_nothing_changes():
    logits = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
    for rows in (([WAIT, WAIT], [WAIT, WAIT]), ([END, 1], [1, END])):
        found = make()(jnp.asarray(logits), progress(*rows))
        np.testing.assert_array_equal(found, logits)
    # Also at the cap, for a row whose thought has ended.
    found = make(max_tokens=2)(jnp.asarray(logits), progress([END, 1], [1, 1]))
    np.testing.assert_array_equal(found[0], logits[0])
    assert np.isfinite(found[1]).tolist() == [number == END for number in range(6)]


def test_a_forbidden_end_is_forced_all_the_same():
    logits = jnp.zeros((1, 6)).at[0, END].set(-jnp.inf)
    found = draw(logits, make(max_tokens=1), progress([0]))
    np.testing.assert_array_equal(found[0], np.eye(6)[END])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_forced_thoughts_of_a_decoder(tiny, temperature):
    """The cap is exact; no thought ends before its waits."""
    cap, waits = 10, 2
    processor = decoding.budget_forcing(
        END,
        WAIT,
        waits=waits,
        max_tokens=cap,
        vocab_size=tiny.config.vocab_size,
        temperature=temperature,
    )
    found = generate(
        tiny,
        [[5 + row, 9] for row in range(32)],
        max_new_tokens=16,
        sampling=Sampling(temperature=temperature),
        keys=jax.random.key(0),
        stop_ids=[END],
        processors=[processor],
    )
    assert found.finished.all()
    assert found.lengths.max() == cap + 1
    for row, length in zip(found.tokens, found.lengths, strict=True):
        assert row[length - 1] == END
        assert length == cap + 1 or (row[:length] == WAIT).sum() >= waits


def test_reflection_is_suppressed_in_the_thought_alone():
    processor = decoding.no_wait([1, 2], 6, end_id=END)
    found = draw(np.zeros((2, 6), np.float32), processor, progress([0, 5], [0, END]))
    np.testing.assert_allclose(found[0], np.array([1, 0, 0, 1, 1, 1]) / 4, rtol=1e-6)
    np.testing.assert_allclose(found[1], np.ones(6) / 6, rtol=1e-6)
    everywhere = decoding.no_wait([1, 2], 6)
    found = draw(np.zeros((1, 6), np.float32), everywhere, progress([0, END]))
    assert found[0, 1] == found[0, 2] == 0


def test_no_reflection_token_is_drawn(tiny):
    plain = generate(tiny, [[5, 9]], max_new_tokens=16).tokens[0]
    words = sorted(set(plain.tolist()))[:3]
    processor = decoding.no_wait(words, tiny.config.vocab_size)
    found = generate(tiny, [[5, 9]], max_new_tokens=16, processors=[processor])
    assert not set(found.tokens[0].tolist()) & set(words)


def test_reflection_ids_of_a_tokenizer():
    """In any case, with a space before; not words that contain one."""
    pytest.importorskip("tokenizers")
    from jeff_llm.models.tokenizer import from_gguf

    space = "\u0120"
    tokens = ["<end>", "Wait", f"{space}wait", f"{space}WAIT", "waiter", ",but", "Ohio"]
    fields = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": [*tokens, "a", f"{space}oh"],
        "token_type": [3] + [1] * (len(tokens) + 1),
        "merges": [],
        "eos_token_id": 0,
    }
    named = {f"tokenizer.ggml.{key}": value for key, value in fields.items()}
    tokenizer = from_gguf(named)
    assert decoding.reflection_ids(tokenizer) == [1, 2, 3, 5, 8]
    assert decoding.reflection_ids(tokenizer, ["WAIT"]) == [1, 2, 3]
    with pytest.raises(ValueError, match="words: expected at least one"):
        decoding.reflection_ids(tokenizer, ["perhaps"])


def test_new_numbers_compile_nothing(tiny):
    from jeff_llm.generate import generation

    def once(waits, cap):
        size = tiny.config.vocab_size
        each = decoding.budget_forcing(
            END, WAIT, waits=waits, max_tokens=cap, vocab_size=size
        )
        generate(tiny, [[5, 9]], max_new_tokens=16, processors=[each])

    once(1, 5)
    before = generation._generate._cache_size()
    once(3, 9)
    assert generation._generate._cache_size() == before


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="wait_id: expected another token"):
        decoding.budget_forcing(3, 3, waits=1, max_tokens=2, vocab_size=6)
    with pytest.raises(ValueError, match="end_id: expected a token below 6, got 6"):
        decoding.budget_forcing(6, 3, waits=1, max_tokens=2, vocab_size=6)
    with pytest.raises(ValueError, match="waits: expected at least 0, got -1"):
        make(waits=-1)
    with pytest.raises(ValueError, match="temperature: expected at least 0, got nan"):
        make(temperature=np.nan)
    assert make(max_tokens=10**12).args[3] == 2**31 - 1
    with pytest.raises(ValueError, match="ids: expected some of the 6 tokens, got 0"):
        decoding.no_wait([], 6)
    with pytest.raises(ValueError, match="ids: expected a token below 6, got 9"):
        decoding.no_wait([9], 6)
