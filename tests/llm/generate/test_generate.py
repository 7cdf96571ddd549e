"""Test `generate`: ragged batches, ends, draws, processors, compilations, errors."""

import string
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm.generate import Sampling, batching, generate, sampling, stream
from jeff_llm.generate import generation as module
from jeff_llm.models import decoder, lora

PROMPTS = [[5, 9, 2, 60, 7], [3], [44, 0, 9]]
NEW = 6
# 2 e-6 was measured; logits lie within 20.
ROUNDING = 6e-6
DRAWN = Sampling(temperature=1.5, top_k=20, top_p=0.95)


@partial(jax.jit, static_argnames="config")
def passes(config: Any, params: Any, tokens: Any, mask: Any) -> Any:
    return decoder.apply(config, params, tokens, mask=mask, hidden_layers=(1, -1))


def whole_passes(model: Any, prompts: Any, tokens: np.ndarray) -> tuple[Any, Any]:
    """Log-probabilities of all tokens, and hidden states, from prompt and answer."""
    width, new = 16, tokens.shape[1]
    rows, mask = np.zeros((2, len(prompts), width), np.int32)
    for row, prompt in enumerate(prompts):
        rows[row, : len(prompt) + new] = [*prompt, *tokens[row]]
        mask[row, : len(prompt) + new] = True
    out = passes(model.config, model.params, jnp.array(rows), jnp.array(mask, bool))
    places = [len(prompt) - 1 + np.arange(new) for prompt in prompts]
    log_probs = jax.nn.log_softmax(out.logits)
    return (
        np.stack([log_probs[row, place] for row, place in enumerate(places)]),
        np.stack([out.hidden[:, row, place] for row, place in enumerate(places)], 1),
    )


@pytest.fixture(scope="module")
def greedy(tiny):
    return generate(tiny, PROMPTS, max_new_tokens=NEW, hidden_layers=(1, -1))


def chosen(log_probs: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    return np.take_along_axis(log_probs, tokens[..., None], axis=-1)[..., 0]


def test_greedy(tiny, greedy) -> None:
    """The likeliest tokens of whole passes, with their log-probabilities and states."""
    assert greedy.tokens.shape == greedy.log_probs.shape == (3, NEW)
    assert greedy.lengths.tolist() == [NEW] * 3 and not greedy.finished.any()
    assert greedy.texts == [] and isinstance(greedy.tokens, np.ndarray)
    log_probs, hidden = whole_passes(tiny, PROMPTS, greedy.tokens)
    np.testing.assert_array_equal(greedy.tokens, log_probs.argmax(axis=-1))
    np.testing.assert_allclose(
        greedy.log_probs, chosen(log_probs, greedy.tokens), atol=ROUNDING
    )
    np.testing.assert_allclose(greedy.hidden, hidden, atol=ROUNDING)


def test_batch_size_and_bucket(tiny, greedy) -> None:
    """Alone, or in a larger bucket of rows, tokens and room: the same."""
    for row, prompt in enumerate(PROMPTS):
        alone = generate(tiny, [prompt], max_new_tokens=NEW)
        np.testing.assert_array_equal(alone.tokens[0], greedy.tokens[row])
    mates = [*PROMPTS, [1] * 30, [2]]
    large = generate(tiny, mates, max_new_tokens=20, hidden_layers=(1, -1))
    assert large.tokens.shape == (5, 20) and large.lengths.tolist() == [20] * 5
    np.testing.assert_array_equal(large.tokens[:3, :NEW], greedy.tokens)
    for mine, theirs in (
        (large.log_probs[:3, :NEW], greedy.log_probs),
        (large.hidden[:, :3, :NEW], greedy.hidden),
    ):
        np.testing.assert_allclose(mine, theirs, atol=ROUNDING)


def test_same_bucket_compiles_nothing(tiny) -> None:
    """Whatever the prompts, lengths, temperatures, end tokens, processors' arrays."""
    options: dict[str, Any] = {
        "sampling": Sampling(temperature=0.7, top_p=0.9),
        "keys": jax.random.key(0),
        "stop_ids": [4],
        "processors": [sampling.forbid_tokens([1, 2], 61)],
    }
    generate(tiny, PROMPTS, max_new_tokens=3, **options)
    compiled = module._generate._cache_size()
    generate(tiny, [[1] * 16, [2] * 5, [3]], max_new_tokens=16, **options)
    other = {
        "sampling": Sampling(temperature=np.array([0.0, 2.0, 1.0]), top_p=0.5),
        "keys": jax.random.split(jax.random.key(1), 3),
        "stop_ids": [7, 8, 9],
        "processors": [sampling.forbid_tokens([5], 61)],
    }
    generate(tiny, PROMPTS, max_new_tokens=5, **other)
    scaled = tiny._replace(params=jax.tree.map(lambda x: 2 * x, tiny.params))
    generate(scaled, PROMPTS, max_new_tokens=5, **{**other, "stop_ids": []})
    assert module._generate._cache_size() == compiled
    generate(tiny, PROMPTS, max_new_tokens=17, **options)
    assert module._generate._cache_size() == compiled + 1


def test_end_tokens(tiny, greedy) -> None:
    """A row ends behind its own; the others go on to the last token asked for."""
    end = int(greedy.tokens[0, 2])
    found = generate(tiny, PROMPTS, max_new_tokens=NEW, stop_ids=[end])
    for row in range(3):
        place = np.flatnonzero(greedy.tokens[row] == end)
        length = place[0] + 1 if len(place) else NEW
        assert found.lengths[row] == length
        assert found.finished[row] == bool(len(place))
        expected = np.where(np.arange(NEW) < length, greedy.tokens[row], 0)
        np.testing.assert_array_equal(found.tokens[row], expected)
        assert not found.log_probs[row, length:].any()
    assert found.finished[0] and not found.finished.all()


def test_filling_rows_keep_nobody_waiting(tiny) -> None:
    """Five rows in a bucket of six: the loop ends when the five have ended."""
    steps = []

    def watch(logits: Any, progress: sampling.Progress) -> Any:
        jax.debug.callback(lambda step: steps.append(int(step)), progress.step)
        ended = (progress.step == 2) & (progress.lengths > 1)
        return logits.at[:, 7].set(jnp.where(ended, 99.0, -99.0))

    prompts = [[row, row] for row in range(5)]
    found = generate(
        tiny, prompts, max_new_tokens=NEW, stop_ids=[7], processors=[watch]
    )
    jax.effects_barrier()
    assert found.finished.all() and sorted(set(steps)) == [0, 1, 2]


def test_draws_do_not_hang_on_batch_mates(tiny) -> None:
    """A row with its key gives the same alone, elsewhere, and beside others."""
    keys = jax.random.split(jax.random.key(3), 3)
    options: dict[str, Any] = {"max_new_tokens": NEW, "sampling": DRAWN}
    together = generate(tiny, PROMPTS, keys=keys, **options).tokens
    order = np.array([2, 0, 1])
    shuffled = generate(
        tiny, [PROMPTS[row] for row in order], keys=keys[order], **options
    )
    np.testing.assert_array_equal(shuffled.tokens, together[order])
    alone = generate(tiny, PROMPTS[:1], keys=keys[:1], **options)
    np.testing.assert_array_equal(alone.tokens[0], together[0])


def test_one_key(tiny) -> None:
    """It gives each row its own; more rows behind them change nothing."""
    options: dict[str, Any] = {
        "max_new_tokens": NEW, "sampling": DRAWN, "keys": jax.random.key(3)
    }  # fmt: skip
    same = [[5, 6]] * 3
    first = generate(tiny, same, **options).tokens
    assert len({tuple(row) for row in first.tolist()}) == 3
    np.testing.assert_array_equal(generate(tiny, same, **options).tokens, first)
    more = generate(tiny, same * 2, **options).tokens
    np.testing.assert_array_equal(more[:3], first)
    other = generate(tiny, same, **{**options, "keys": jax.random.key(4)}).tokens
    assert (other != first).any()


def test_a_setting_for_each_row(tiny, greedy) -> None:
    """Rows of temperature 0 are greedy beside rows that draw."""
    found = generate(
        tiny,
        PROMPTS,
        max_new_tokens=NEW,
        sampling=Sampling(temperature=np.array([0.0, 9.0, 0.0])),
        keys=jax.random.key(0),
    )
    np.testing.assert_array_equal(found.tokens[[0, 2]], greedy.tokens[[0, 2]])
    assert (found.tokens[1] != greedy.tokens[1]).any()
    log_probs, _ = whole_passes(tiny, PROMPTS, found.tokens)
    np.testing.assert_allclose(
        found.log_probs, chosen(log_probs, found.tokens), atol=ROUNDING
    )


def test_processors(tiny) -> None:
    """Allowed alone, and ends that must wait; probabilities are the model's own."""
    allowed = generate(
        tiny, PROMPTS, max_new_tokens=NEW,
        processors=[sampling.allow_tokens([3, 8, 9], 61)],
    )  # fmt: skip
    assert set(allowed.tokens.ravel()) <= {3, 8, 9}
    log_probs, _ = whole_passes(tiny, PROMPTS, allowed.tokens)
    np.testing.assert_allclose(
        allowed.log_probs, chosen(log_probs, allowed.tokens), atol=ROUNDING
    )
    some = log_probs[..., [3, 8, 9]].argmax(axis=-1)
    np.testing.assert_array_equal(np.array([3, 8, 9])[some], allowed.tokens)
    patient = generate(
        tiny, PROMPTS, max_new_tokens=NEW, stop_ids=[9],
        processors=[
            sampling.allow_tokens([3, 9], 61), sampling.minimum_tokens(4, [9], 61)
        ],
    )  # fmt: skip
    assert (patient.tokens[:, :4] == 3).all() and (patient.lengths >= 5).any()


def test_budget_forcing(tiny) -> None:
    """As in s1: an early end of thought becomes "wait"; at the budget it is forced."""
    wait, end, budget = 11, 7, 5

    def only(token: int) -> jax.Array:
        return jnp.where(jnp.arange(61) == token, 0.0, -jnp.inf)

    def eager(logits: Any, progress: sampling.Progress) -> Any:
        return logits.at[:, end].set(jnp.where(progress.step % 2 == 1, 99.0, -99.0))

    def force(logits: Any, progress: sampling.Progress) -> Any:
        early = jnp.argmax(logits, axis=-1, keepdims=True) == end
        logits = jnp.where(early, only(wait), logits)
        return jnp.where(progress.step == budget, only(end), logits)

    found = generate(
        tiny, PROMPTS, max_new_tokens=12, stop_ids=[end], processors=[eager, force]
    )
    assert found.finished.all() and found.lengths.tolist() == [budget + 1] * 3
    assert (found.tokens[:, [1, 3]] == wait).all()
    assert (found.tokens[:, budget] == end).all()
    assert end not in found.tokens[:, :budget]


def test_adapted_model(tiny) -> None:
    """LoRA's factors beside the kernels say what they say merged."""
    factors = lora.init(
        tiny.params, key=jax.random.key(0), rank=2, where=lora.LINEAR, rows=(2, 9)
    )
    factors = jax.tree.map(lambda x: x + 0.1, factors)
    beside, merged = (
        generate(
            tiny._replace(params=adapt(tiny.params, factors)),
            PROMPTS,
            max_new_tokens=NEW,
        )
        for adapt in (lora.apply, lora.merge)
    )
    np.testing.assert_array_equal(beside.tokens, merged.tokens)
    np.testing.assert_allclose(beside.log_probs, merged.log_probs, atol=ROUNDING)


def test_texts(lettered) -> None:
    """Prompts and answers as text; the model's own end ends; no letter, no draw."""
    hot: dict[str, Any] = {
        "max_new_tokens": 40,
        "sampling": Sampling(temperature=9.0),
        "keys": jax.random.key(0),
    }
    found = generate(lettered, ["abc", "Z"], **hot)
    assert found.tokens.max() < 53 and found.finished.any()
    for row, text in enumerate(found.texts):
        ids = found.tokens[row, : found.lengths[row] - found.finished[row]]
        assert text == "".join(string.ascii_letters[token - 1] for token in ids)
        assert 0 not in ids
    same = generate(lettered, [[1, 2, 3], [52]], **hot)
    np.testing.assert_array_equal(same.tokens, found.tokens)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sampling": Sampling(temperature=9.0), "key": jax.random.key(1)},
        {"stop_ids": [*range(27, 53)]},
    ],
    ids=["greedy", "hot", "ends at a capital"],
)
def test_stream(lettered, options) -> None:
    """The text of `generate`, in pieces; an end token is no part of either."""
    pieces = list(stream(lettered, "abc", max_new_tokens=NEW, **options))
    options = {("keys" if k == "key" else k): v for k, v in options.items()}
    whole = generate(lettered, ["abc"], max_new_tokens=NEW, **options)
    assert "".join(pieces) == whole.texts[0] and all(pieces)
    if "stop_ids" in options:
        assert whole.finished[0] and whole.texts[0] == whole.texts[0].lower()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_new_tokens": 0}, ValueError, "max_new_tokens: .* least 1, got 0"),
        ({"max_new_tokens": 200}, ValueError, "prompt 0: .* context of 128"),
        ({"prompts": []}, ValueError, "prompts: expected at least one"),
        ({"prompts": [[1], []]}, ValueError, "prompt 1: .* empty"),
        ({"prompts": [[61]]}, ValueError, "prompt 0: expected tokens below 61"),
        ({"sampling": DRAWN}, ValueError, r"keys: .*got none; pass jax\.random\.key"),
        ({"sampling": DRAWN, "keys": jax.random.split(jax.random.key(0), 2)},
         ValueError, r"keys: expected one, or 3, got shape \(2,\)"),
        ({"sampling": Sampling(top_k=np.array([1, 2])), "keys": jax.random.key(0)},
         ValueError, "top_k: expected one value, or 3, got 2"),
        ({"stop_ids": [99]}, ValueError, "stop_ids: expected tokens below 61, got 99"),
        ({"hidden_layers": [4]}, ValueError, "hidden_layers: .* got 4"),
    ],
)  # fmt: skip
def test_mistakes(tiny, options, error, message) -> None:
    """Told before anything is compiled."""
    arguments = {"prompts": PROMPTS, "max_new_tokens": NEW, **options}
    with pytest.raises(error, match=message):
        generate(tiny, **arguments)


@pytest.mark.usefixtures("unchecked")
def test_mistakes_of_type(tiny) -> None:
    """One text for several; old keys; a stream without a tokenizer."""
    with pytest.raises(TypeError, match="prompts: expected several, got one text"):
        generate(tiny, "text", max_new_tokens=NEW)
    with pytest.raises(TypeError, match=r"keys: .*jax\.random\.key.* got uint32"):
        generate(
            tiny, PROMPTS[:2], max_new_tokens=NEW, sampling=DRAWN,
            keys=jax.random.PRNGKey(0),
        )  # fmt: skip
    with pytest.raises(ValueError, match="model: expected one with a tokenizer"):
        next(stream(tiny, [1], max_new_tokens=NEW))


def test_a_long_prompt_is_read_alone_and_the_order_is_kept(tiny, monkeypatch) -> None:
    """Rows, draws and hidden states are those of one batch, whatever the groups."""
    prompts = [[5, 9, 2], [7] * 100, [3], [44, 0, 9]]
    keys = jax.random.split(jax.random.key(3), 4)
    temperature = np.array([1.0, 0.5, 0.0, 2.0])
    options: Any = {
        "max_new_tokens": NEW,
        "keys": keys,
        "sampling": Sampling(temperature=temperature),
        "hidden_layers": (-1,),
    }
    together = generate(tiny, prompts, **options)
    shapes = []

    def padded(rows, num_rows, width):
        shapes.append((num_rows, width))
        return pad(rows, num_rows, width)

    pad = batching.pad
    monkeypatch.setattr(batching, "pad", padded)
    monkeypatch.setattr(batching, "_FEW_SCORES", 1 << 13)
    apart = generate(tiny, prompts, **options)
    # The memory of the long prompt alone: no short one is padded to its length.
    assert shapes == [(1, 128), (3, 16)]
    for name in ("tokens", "lengths", "finished"):
        np.testing.assert_array_equal(getattr(apart, name), getattr(together, name))
    np.testing.assert_allclose(apart.log_probs, together.log_probs, atol=ROUNDING)
    np.testing.assert_allclose(apart.hidden, together.hidden, atol=ROUNDING)
