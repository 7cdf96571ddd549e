"""Test conversations as examples: only the assistant's turns and their ends count."""

import copy

import pytest

from jeff_llm.models.language_model import LanguageModel
from jeff_llm.models.tokenizer import Tokenizer, from_gguf
from jeff_llm.tuning.finetune import encode_examples
from jeff_llm.tuning.turns import split_turns

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "It  hurts.\n"},
    {"role": "assistant", "content": " Where?"},
    {"role": "user", "content": "Here: \u80f8 <b>"},
    {"role": "assistant", "content": "My answer:\n\nAngina"},
]
THINKING = (
    "{% for m in messages %}{{ m.role }}: "
    "{% if m.role == 'assistant' and loop.last %}<think></think>{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture(scope="module")
def model(smollm2_path, tiny) -> LanguageModel:
    """SmolLM2's tokenizer alone; nothing here runs a network."""
    from jeff_llm.models.tensors import open_gguf

    return tiny._replace(tokenizer=from_gguf(open_gguf(smollm2_path).metadata))


@pytest.fixture(scope="module")
def tokenizer(model) -> Tokenizer:
    return model.tokenizer


def learned_texts(tokenizer, example):
    """Decoded runs of learned tokens."""
    runs, before = [], 0.0
    for token, weight in zip(*example, strict=True):
        if weight and not before:
            runs.append([])
        if weight:
            runs[-1].append(token)
        before = weight
    return [tokenizer.decode(run, skip_special_tokens=False) for run in runs]


def test_only_the_doctors_turns_are_learned(model, tokenizer):
    [example] = encode_examples(
        model, [{"messages": CHAT, "id": "one"}], max_tokens=128
    )
    assert learned_texts(tokenizer, example) == [
        " Where?<|im_end|>",
        "My answer:\n\nAngina<|im_end|>",
    ]
    assert set(example.learned) == {0.0, 1.0}
    whole = tokenizer.apply_chat_template(CHAT, add_generation_prompt=False)
    assert tokenizer.decode(example.tokens, False) == whole.rstrip()


def test_a_single_turn_is_that_of_prompt_and_answer(model):
    """Both forms of one example are equal, token by token."""
    for prompt in ("Hi", [CHAT[0], CHAT[1]]):
        asked = [{"role": "user", "content": prompt}] if prompt == "Hi" else prompt
        said = {"role": "assistant", "content": "4.\n"}
        rows = [
            {"prompt": prompt, "answer": "4.\n"},
            {"messages": [*asked, said]},
        ]
        first, second = encode_examples(model, rows, max_tokens=64)
        assert first == second


def test_the_text_is_that_of_transformers(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    peer = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    turns = split_turns(tokenizer, CHAT)
    assert [said for _, said in turns] == [
        " Where?<|im_end|>",
        "My answer:\n\nAngina<|im_end|>",
    ]
    text = "".join(read + said for read, said in turns)
    assert text == peer.apply_chat_template(CHAT, tokenize=False).rstrip()
    reading = peer.apply_chat_template(
        CHAT[:-1], tokenize=False, add_generation_prompt=True
    )
    assert text.startswith(reading)


def test_a_template_that_rewrites_earlier_turns(model, tokenizer):
    other = copy.copy(tokenizer)
    other.chat_template = THINKING
    with pytest.raises(ValueError, match=r"row 1: .* rewrites text before message 4"):
        encode_examples(
            model._replace(tokenizer=other),
            [{"prompt": "a", "answer": "b"}, {"messages": CHAT}],
            max_tokens=128,
        )


USER, DOCTOR = CHAT[1], CHAT[2]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"messages": CHAT, "prompt": "a"},
            "messages' alone, .* got 'messages' and 'prompt'",
        ),
        (
            {"messages": CHAT, "answer": "a"},
            "messages' alone, .* got 'messages' and 'answer'",
        ),
        ({"messages": []}, r"an assistant's turn, got \[\]"),
        ({"messages": [USER]}, r"an assistant's turn, got \['user'\]"),
        ({"messages": [USER, DOCTOR, USER]}, "assistant's turn last, got 'user'"),
        ({"messages": [DOCTOR]}, "message 0: expected what the assistant answers"),
        ({"messages": "Hi"}, "messages: expected a list, got 'Hi'"),
        ({"messages": ["Hi"]}, "message 0: expected role and content alone, got 'Hi'"),
        (
            {"messages": [USER, {**DOCTOR, "weight": 0}]},
            "message 1: expected role and content alone",
        ),
        (
            {"messages": [{"role": "tool", "content": "1"}, DOCTOR]},
            "message 0: expected a role of .* got 'tool'",
        ),
        (
            {"messages": [{"role": "user", "content": None}, DOCTOR]},
            "message 0: expected content as text, got None",
        ),
        (
            {"messages": [USER, {"role": "assistant", "content": " "}]},
            "message 1: expected an answer, got ' '",
        ),
        ({"messages": CHAT * 9}, "row 1: expected at most 40 tokens, got"),
    ],
)
def test_conversations_that_are_refused(unchecked, model, row, message):
    rows = [{"messages": [USER, DOCTOR]}, row]
    with pytest.raises(ValueError, match=f"row 1: .*{message.removeprefix('row 1: ')}"):
        encode_examples(model, rows, max_tokens=40)
