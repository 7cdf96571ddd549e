"""Test scores against whole forward passes, with and without shared prefixes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm.generate import prefix
from jeff_llm.generate import scoring as module
from jeff_llm.generate.scoring import option_logits, score
from jeff_llm.models import decoder

ROUNDING = 1e-5
SHARED = [9, 2, 60, 7, 31, 8, 8, 1, 12, 40, 41, 42, 43, 44, 45, 46, 47, 48]
HEADS = [[5, 9], [3], [44, 0, 9], [10, 11, 12, 13]]
TAILS = [[[1, 2, 3], [4]], [[5, 6]], [], [[1, 2, 3], [7, 8, 9, 10, 11], [60]]]


@functools.partial(jax.jit, static_argnames="config")
def logits_of(config: Any, params: Any, row: Any) -> Any:
    mask = jnp.arange(row.shape[0])[None] >= 0
    return decoder.apply(config, params, row[None], mask=mask).logits[0]


def whole(model: Any, prompt: list[int], tail: list[int]) -> tuple[Any, Any]:
    """Log-probability of each token of a continuation, and the likeliest ones."""
    row = (
        jnp.zeros(32, jnp.int32)
        .at[: len(prompt) + len(tail)]
        .set(jnp.array(prompt + tail))
    )
    logits = logits_of(model.config, model.params, row)
    places = len(prompt) - 1 + np.arange(len(tail))
    log_probs = jax.nn.log_softmax(logits[places])
    return log_probs[np.arange(len(tail)), np.array(tail)], log_probs.argmax(-1)


@pytest.mark.parametrize(
    ("shared", "batch_size"),
    [([], 8), (SHARED, 8), (SHARED, 3)],
    ids=["apart", "shared", "two batches"],
)
def test_score(tiny, shared, batch_size) -> None:
    """Sums and means of log softmax, for any number of continuations a prompt."""
    prompts = [shared + head for head in HEADS]
    found = score(tiny, prompts, TAILS, batch_size=batch_size)
    assert [len(each) for each in found] == [2, 1, 0, 3]
    for prompt, tails, scores in zip(prompts, TAILS, found, strict=True):
        for tail, each in zip(tails, scores, strict=True):
            expected, likeliest = whole(tiny, prompt, tail)
            np.testing.assert_allclose(each.log_probs, expected, atol=ROUNDING)
            assert each.total == pytest.approx(float(expected.sum()), abs=ROUNDING)
            assert each.mean == pytest.approx(each.total / len(tail), abs=1e-6)
            assert each.greedy == (likeliest.tolist() == tail)


def test_long_lists_are_cut(tiny, monkeypatch) -> None:
    """Scores do not depend on how many continuations share a program."""
    prompts, tails = HEADS[:2], [[[7, 8, 9] * 7, [1], [2, 3], [4] * 3] * 3, [[5], [6]]]
    together = score(tiny, prompts, tails)
    monkeypatch.setattr(module, "_CHUNK_TOKENS", 48)
    apart = score(tiny, prompts, tails)
    for one, other in zip(together, apart, strict=True):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a.log_probs, b.log_probs, atol=ROUNDING)
            assert a.greedy == b.greedy
    lengths = [21, 1, 2, 3, 21]
    assert sorted(i for part in module._chunks(lengths, 64) for i in part) == [
        *range(5)
    ]
    assert module._chunks(lengths, 64)[0] == [0, 4]
    # Each copies its prompt's cache, so long prompts leave room for few.
    assert max(map(len, module._chunks([1] * 9, module._CHUNK_SLOTS // 2))) == 2


def test_greedy_continuations(tiny) -> None:
    """What greedy decoding would write is marked so."""
    _, likeliest = whole(tiny, HEADS[0], [0])
    first = int(likeliest[0])
    _, likeliest = whole(tiny, HEADS[0], [first, 0])
    second, other = int(likeliest[1]), (first + 1) % 61
    tails = [[first, second], [first, (second + 1) % 61], [other, second], [first]]
    [found] = score(tiny, [HEADS[0]], [tails])
    assert [each.greedy for each in found] == [True, False, False, True]


def test_shared_or_not(tiny, monkeypatch) -> None:
    """Reading the common beginning once changes the work, not the numbers."""
    prompts = [SHARED + head for head in HEADS]
    read = []
    reader = prefix._read

    def noted(*args, **options):
        read.append(args[2].shape)
        return reader(*args, **options)

    monkeypatch.setattr(prefix, "_read", noted)
    once = score(tiny, prompts, TAILS)
    assert read == [(1, 24)]
    monkeypatch.setattr(prefix, "_LEAST_SHARED", 10**6)
    apart = score(tiny, prompts, TAILS)
    assert len(read) == 1
    for mine, theirs in zip(once, apart, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(one.log_probs, other.log_probs, atol=ROUNDING)


def test_same_prompts(tiny) -> None:
    """A prompt that is the beginning of all others keeps a token of its own."""
    prompts = [SHARED, SHARED, [*SHARED, 5]]
    found = score(tiny, prompts, [[[1, 2]]] * 3)
    for prompt, [each] in zip(prompts, found, strict=True):
        expected, _ = whole(tiny, prompt, [1, 2])
        np.testing.assert_allclose(each.log_probs, expected, atol=ROUNDING)


def test_same_bucket_compiles_nothing(tiny) -> None:
    """Other prompts, continuations and numbers of them in the same bucket."""
    score(tiny, HEADS, TAILS)
    compiled = module._tail_log_probs._cache_size()
    score(tiny, HEADS[::-1], [[[1] * 9], [[2], [3], [4]], [[5]], [[6]]])
    assert module._tail_log_probs._cache_size() == compiled


@pytest.mark.parametrize("shared", [[], SHARED], ids=["apart", "shared"])
def test_option_logits(tiny, shared) -> None:
    """Those of whole passes, and a softmax over them is a choice."""
    prompts = [shared + head for head in HEADS]
    options = [7, 60, 0]
    found = option_logits(tiny, prompts, options, batch_size=3)
    assert found.shape == (4, 3)
    for prompt, row in zip(prompts, found, strict=True):
        padded = jnp.zeros(32, jnp.int32).at[: len(prompt)].set(jnp.array(prompt))
        logits = logits_of(tiny.config, tiny.params, padded)[len(prompt) - 1]
        np.testing.assert_allclose(row, logits[jnp.array(options)], atol=ROUNDING)


@pytest.mark.parametrize(
    ("prompts", "tails", "error", "message"),
    [
        ([[1], [2]], [[[1]]], ValueError, "continuations: .* of 2 prompts, got 1"),
        ([[1]], ["text"], TypeError, "continuations: .* for each prompt, got a text"),
        ([], [], ValueError, "prompts: expected at least one"),
        ([[1], []], [[[1]], [[1]]], ValueError, "prompt 1: .* empty prompt"),
        ([[1], [2]], [[[1]], [[3], []]], ValueError, "continuation 1 of prompt 1"),
        ([[1]], [[[61]]], ValueError, "continuation 0 .* below 61, got 61"),
        ([[1] * 120], [[[1] * 9]], ValueError, "prompt 0: .* 119 tokens, .* got 120"),
        ([[1]], [["text"]], ValueError, "no tokenizer, got 'text'"),
    ],
)  # fmt: skip
def test_mistakes(tiny, prompts, tails, error, message) -> None:
    """The prompt and the continuation are named by their numbers."""
    with pytest.raises(error, match=message):
        score(tiny, prompts, tails)


def test_long_prompts_beside_long_continuations(tiny) -> None:
    """Each prompt must fit with its own continuations, not with those of others."""
    prompts, tails = [[1] * 120, [2]], [[[3] * 8], [[4] * 60]]
    found = score(tiny, prompts, tails)
    assert [len(each.log_probs) for [each] in found] == [8, 60]
    with pytest.raises(ValueError, match="prompt 1: expected at most 68 tokens"):
        score(tiny, [[1], [2] * 69], tails)


@pytest.mark.parametrize("function", [score, option_logits])
def test_batch_size(tiny, function) -> None:
    """A batch of none scores nothing, so it is refused."""
    options = [[[1]]] if function is score else [1]
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got -1"):
        function(tiny, [[1]], options, batch_size=-1)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("function", [score, option_logits])
def test_one_text_for_several(tiny, function) -> None:
    """It is told before anything else is counted."""
    with pytest.raises(TypeError, match="prompts: expected several, got one text"):
        function(tiny, "text", [["a"]] if function is score else [1])


@pytest.mark.slow
def test_smollm2(smollm2) -> None:
    """Texts: the true capital is likelier, also among single letters of a choice."""
    prompts = [f"The capital of {name} is" for name in ("France", "Italy")]
    towns = [" Paris", " Rome", " Washington D.C."]
    found = score(smollm2, prompts, [towns, towns])
    totals = np.array([[each.total for each in row] for row in found])
    assert totals.argmax(axis=1).tolist() == [0, 1]
    assert found[0][0].greedy and len(found[0][2].log_probs) > 1
    logits = option_logits(smollm2, prompts, [" Paris", " Rome"])
    assert logits.argmax(axis=1).tolist() == [0, 1]
    log_odds = totals[:, 0] - totals[:, 1]
    np.testing.assert_allclose(logits[:, 0] - logits[:, 1], log_odds, atol=1e-5)
    message = "option ' Washington D.C.': expected one token, got [2-9]; use score"
    with pytest.raises(ValueError, match=message):
        option_logits(smollm2, prompts, towns)
    with pytest.raises(ValueError, match="option 49152: expected tokens below 49152"):
        option_logits(smollm2, prompts, [49152])
