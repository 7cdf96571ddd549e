"""Test the real model against transformers on the same file, and streaming."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm.generate import Sampling, generate, stream
from jeff_llm.generate import session as module
from jeff_llm.models import decoder

pytestmark = pytest.mark.slow
apply = jax.jit(decoder.apply, static_argnames=("config", "hidden_layers"))

TEXTS = [
    "The capital of France is Paris, and the capital of Italy is",
    "def mean(values):\n    return sum(values) / len(values)\n",
    "Was hilft's? 1,234.5 naïve café tokens ✓ 😀 — and so on.",
    "a",
    "One fine day the sea was calm. Nobody knew what the morning would bring. " * 8,
]
LAYERS = (0, 1, 15, 30, -2)


def centred(logits: np.ndarray) -> np.ndarray:
    return logits - logits.mean(axis=-1, keepdims=True)


def test_logits_and_hidden_states(smollm2, smollm2_transformers) -> None:
    """Of all texts in one batch, padded on both sides. 9e-5 and 9e-6 were measured."""
    import torch

    rows = [smollm2.encode(text) for text in TEXTS]
    tokens = np.full((len(rows), max(map(len, rows)) + 3), 13, np.int32)
    mask = np.zeros(tokens.shape, bool)
    for number, row in enumerate(rows):
        tokens[number, 1 : 1 + len(row)] = row
        mask[number, 1 : 1 + len(row)] = True
    out = apply(
        smollm2.config,
        smollm2.params,
        jnp.asarray(tokens),
        mask=jnp.asarray(mask),
        hidden_layers=LAYERS,
    )
    logits, hidden = np.asarray(out.logits), np.asarray(out.hidden)
    for number, row in enumerate(rows):
        with torch.no_grad():
            theirs = smollm2_transformers(
                torch.tensor([row]), output_hidden_states=True
            )
        np.testing.assert_allclose(
            centred(logits[number, mask[number]]),
            centred(theirs.logits[0].numpy()),
            atol=2e-4,
        )
        for place, layer in enumerate(LAYERS):
            state = theirs.hidden_states[layer][0].numpy()
            error = np.linalg.norm(hidden[place, number, mask[number]] - state, axis=-1)
            assert (error < 3e-5 * np.linalg.norm(state, axis=-1)).all()


def test_thirty_layers_compile_as_one(smollm2) -> None:
    """Thirty layers are one loop: seconds to compile, and as many lines as for two."""
    traced = apply.trace(
        smollm2.config, smollm2.params, jax.ShapeDtypeStruct((1, 24), jnp.int32)
    )
    assert str(traced.jaxpr).count("dot_general") == 10
    began = time.perf_counter()
    traced.lower().compile()
    print(f"compiled in {time.perf_counter() - began:.1f} s")


QUESTIONS = [
    "What is the capital of France?",
    "Name ten fruits and their colours.",
    "Write a story about the sea.",
    "What is 2 + 2?",
    "Who wrote Hamlet, and when? Tell me about him.",
    "Explain photosynthesis in detail.",
    "Translate 'good morning' into five languages.",
    "Hi",
    "How do I bake bread? Give every step.",
    "Why is the sky blue? Answer as a poet would, in many short lines that rhyme.",
]


def chat(model: Any, question: str) -> list[int]:
    text = model.tokenizer.apply_chat_template([{"role": "user", "content": question}])
    return model.tokenizer.encode(text, add_special_tokens=False)


def test_answers_are_those_of_transformers(smollm2, smollm2_transformers) -> None:
    """Greedy, ten prompts of 64 tokens in one ragged batch.

    By induction over the tokens: transformers reads prompt and answer at once and must
    think each token of the answer the likeliest after those before it, which takes a
    tenth of the time; for the short answers its own `generate` is asked too.
    """
    import torch

    prompts = [chat(smollm2, question) for question in QUESTIONS]
    ours = generate(smollm2, prompts, max_new_tokens=64)
    answers = [
        tokens[:length].tolist()
        for tokens, length in zip(ours.tokens, ours.lengths, strict=True)
    ]
    assert sorted(map(len, answers))[-5:] == [64] * 5
    for prompt, answer, ended in zip(prompts, answers, ours.finished, strict=True):
        row = torch.tensor([prompt + answer])
        with torch.no_grad():
            likeliest = smollm2_transformers(row).logits[0].argmax(-1).tolist()
        assert likeliest[len(prompt) - 1 : -1] == answer
        assert (2 in answer) == ended == (answer[-1] == 2)
        if len(answer) < 12:
            mask = torch.ones_like(row[:, : len(prompt)])
            said = smollm2_transformers.generate(
                row[:, : len(prompt)],
                attention_mask=mask,
                max_new_tokens=64,
                do_sample=False,
                eos_token_id=2,
                pad_token_id=2,
            )
            assert said[0, len(prompt) :].tolist() == answer
    assert ours.texts[0] == "The capital of France is Paris."


@pytest.mark.parametrize(
    "options",
    [
        {},
        # Hot enough for bytes that are no text, and for characters of several tokens.
        {"sampling": Sampling(temperature=4.0), "key": jax.random.key(1)},
        {"stop_ids": [30]},  # a full stop, which is a token of the text
    ],
    ids=["greedy", "hot", "ordinary end"],
)
def test_stream(smollm2, options) -> None:
    """The text of `generate`, in pieces."""
    prompt = chat(smollm2, "What is the capital of France?")
    pieces = list(stream(smollm2, prompt, max_new_tokens=24, **options))
    assert all(pieces) and len(pieces) > 3
    options = {("keys" if k == "key" else k): v for k, v in options.items()}
    whole = generate(smollm2, [prompt], max_new_tokens=24, **options)
    assert "".join(pieces) == whole.texts[0]
    if "stop_ids" in options:
        assert whole.finished[0] and "." not in whole.texts[0]


def test_another_stream_compiles_nothing(smollm2) -> None:
    """Neither do the later tokens of one."""
    prompt = chat(smollm2, "What is the capital of France?")
    list(stream(smollm2, prompt, max_new_tokens=24))
    compiled = module._start._cache_size(), module._advance._cache_size()
    list(stream(smollm2, prompt[1:], max_new_tokens=17, stop_ids=[30, 31]))
    assert (module._start._cache_size(), module._advance._cache_size()) == compiled
