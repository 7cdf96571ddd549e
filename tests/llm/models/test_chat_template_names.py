"""Test chat templates by name and their arguments, beside transformers."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from jeff_llm.models import tokenizer, weights
from jeff_llm.models.language_model import LanguageModel

pytest.importorskip("tokenizers")
pytest.importorskip("jinja2")

from tokenizers import Tokenizer, models, pre_tokenizers

TURNS = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content{TRIM} }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
PLAIN = TURNS.replace("{TRIM}", "")
NAMED = {"default": PLAIN, "tool_use": "{{ tools | tojson }}" + PLAIN, "rag": "R"}
CHAT = [
    {"role": "user", "content": "a b"},
    {"role": "assistant", "content": "b, and "},
]
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def write(folder: Path, **config: Any) -> Path:
    words = ["<unk>", "a", "b", ",", "and", "</s>"]
    backend = Tokenizer(
        models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    folder.mkdir(exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | config))
    return folder


def listed(folder: Path) -> Path:
    """The list that transformers 4 wrote."""
    entries = [{"name": name, "template": text} for name, text in NAMED.items()]
    return write(folder, chat_template=entries)


def filed(folder: Path) -> Path:
    """The files that transformers 5 writes, beside an older list."""
    write(folder, chat_template=[{"name": "default", "template": "old"}])
    (folder / "chat_template.jinja").write_text(NAMED["default"])
    (folder / "additional_chat_templates").mkdir()
    for name in ("tool_use", "rag"):
        file = folder / "additional_chat_templates" / f"{name}.jinja"
        file.write_text(NAMED[name])
    return folder


@pytest.mark.parametrize("make", [listed, filed])
def test_templates_by_name(make, tmp_path) -> None:
    """Tools choose ``tool_use``; a name may be given; all are written again."""
    transformers = pytest.importorskip("transformers")
    folder = make(tmp_path / "first")
    ours = tokenizer.from_directory(folder)
    ours.save(tmp_path / "again")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    grown = ours.with_tokens(["<new>"])
    for options in ({}, {"tools": TOOLS}, {"tools": []}, {"chat_template": "rag"}):
        expected = theirs.apply_chat_template(
            CHAT, tokenize=False, add_generation_prompt=True, **options
        )
        for found in (ours, grown, tokenizer.from_directory(tmp_path / "again")):
            assert found.apply_chat_template(CHAT, **options) == expected
        text = again.apply_chat_template(
            CHAT, tokenize=False, add_generation_prompt=True, **options
        )
        assert text == expected


def test_templates_without_a_default(tmp_path) -> None:
    """A name must be given; wrong lists are refused."""
    entries = [{"name": "rag", "template": "R"}]
    found = tokenizer.from_directory(write(tmp_path, chat_template=entries))
    assert found.apply_chat_template(CHAT, chat_template="rag") == "R"
    with pytest.raises(ValueError, match=r"no default; pass one of \['rag'\]"):
        found.apply_chat_template(CHAT)
    for wrong in ([*entries, *entries], [{"name": "../x", "template": "R"}], ["R"], 3):
        write(tmp_path, chat_template=wrong)
        with pytest.raises(ValueError, match="chat_template: expected a text, or a li"):
            tokenizer.from_directory(tmp_path)


@pytest.mark.parametrize("trim", ["", " | trim"])
@pytest.mark.parametrize("text", ["b, and ", "b", [{"type": "text", "text": "b "}]])
def test_an_answer_that_goes_on(trim, text, tmp_path) -> None:
    """``continue_final_message`` as in transformers, stripped or not."""
    transformers = pytest.importorskip("transformers")
    content = "m.content if m.content is string else m.content[0].text"
    template = TURNS.replace("m.content{TRIM}", f"({content}){trim}")
    folder = write(tmp_path, chat_template=template)
    chat = [CHAT[0], {"role": "assistant", "content": text}]
    theirs = transformers.AutoTokenizer.from_pretrained(folder).apply_chat_template(
        chat, tokenize=False, continue_final_message=True
    )
    ours = tokenizer.from_directory(folder)
    options = {"add_generation_prompt": False, "continue_final_message": True}
    assert ours.apply_chat_template(chat, **options) == theirs
    assert "</s>" not in theirs.rpartition("[assistant]")[2]


def test_arguments_that_are_refused(tmp_path) -> None:
    """None is swallowed."""
    found = tokenizer.from_directory(write(tmp_path, chat_template=PLAIN))
    with pytest.raises(ValueError, match="expected add_generation_prompt=False"):
        found.apply_chat_template(CHAT, continue_final_message=True)
    going = {"add_generation_prompt": False, "continue_final_message": True}
    for chat, template, message in (
        ([], None, "expected text in the last message"),
        ([{"role": "user", "content": []}], None, "expected text in the last message"),
        (CHAT, "{{ messages[0].content }}", "one that changes or drops it"),
        (CHAT, "{{ messages[1].content | upper }}", "one that changes or drops it"),
    ):
        with pytest.raises(ValueError, match=message):
            found.apply_chat_template(chat, chat_template=template, **going)
    for name in ("tokenize", "padding", "max_length", "return_tensors"):
        with pytest.raises(ValueError, match=f"{name}: expected no such option"):
            found.apply_chat_template(CHAT, **{name: 1})
    assert found.apply_chat_template(CHAT, tokenize=False)


def test_templates_of_gguf() -> None:
    """The field without a name is the default."""
    fields = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": ["a", "<end>", "<turn>"],
        "tokenizer.ggml.token_type": [1, 3, 3],
        "tokenizer.ggml.merges": [],
        "tokenizer.chat_templates": ["tool_use"],
        "tokenizer.chat_template": PLAIN,
        "tokenizer.chat_template.tool_use": "T",
    }
    found = tokenizer.from_gguf(fields)
    assert found.apply_chat_template(CHAT[:1]) == "[user]a b</s>\n[assistant]"
    assert found.apply_chat_template(CHAT, tools=TOOLS) == "T"
    with pytest.raises(ValueError, match=r"chat_template\.tool_use: expected a text"):
        tokenizer.from_gguf({**fields, "tokenizer.chat_template.tool_use": 1})


def test_a_pad_token_without_a_row(tiny, tmp_path) -> None:
    """It loads with a warning; a text with the token is refused by the model."""
    from jeff_llm import generate

    saved = weights.save(LanguageModel(tiny.config, tiny.params, None), tmp_path / "a")
    write(saved)
    words = [f"w{n}" for n in range(55)]
    backend = Tokenizer.from_file(str(saved / "tokenizer.json"))
    backend.add_tokens(words)
    backend.add_special_tokens(["[PAD]"])
    backend.save(str(saved / "tokenizer.json"))
    with pytest.warns(
        UserWarning, match=r"62 tokens and the embedding 61 rows.*\[PAD\]"
    ):
        model = weights.load(saved)
    assert generate.generate(model, ["a b"], max_new_tokens=2).texts
    with pytest.raises(ValueError, match="expected tokens below 61, got 61"):
        generate.generate(model, ["a [PAD]"], max_new_tokens=2)


def test_a_tokenizer_in_another_format_is_named(tiny, tmp_path) -> None:
    """The model loads for token ids, and says why it takes no text."""
    saved = weights.save(LanguageModel(tiny.config, tiny.params, None), tmp_path / "a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert weights.load(saved).tokenizer is None
    (saved / "tokenizer.model").write_bytes(b"\n")
    with pytest.warns(UserWarning, match=r"found tokenizer\.model alone, .*save_pretr"):
        assert weights.load(saved).tokenizer is None
