"""Test that an answer ends with its line, whatever the tokens of a line's end are."""

import numpy as np
import pytest

from jeff_llm import generate
from jeff_llm.models.config import DecoderConfig
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.models.tokenizer import Tokenizer
from train_scripts.questions import answering

tokenizers = pytest.importorskip("tokenizers")

TOKENS = ["<s>", "</s>", "\n", ".\n", " \n\n", "<x\n>", "Peru", "Chile", ".", "\r\n"]


def tokenizer_like_llama() -> Tokenizer:
    """Begins every text with a token of its own, and has lines' ends inside tokens."""
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({t: n for n, t in enumerate(TOKENS)}, "<s>")
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Split("|", "removed")
    backend.decoder = tokenizers.decoders.Fuse()
    backend.add_special_tokens(["<s>", "</s>", "<x\n>"])
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    return Tokenizer(backend, {"bos_token": "<s>", "eos_token": "</s>"})


@pytest.fixture
def model() -> LanguageModel:
    config = DecoderConfig(
        vocab_size=len(TOKENS),
        num_layers=1,
        width=8,
        mlp_width=8,
        num_heads=1,
        num_kv_heads=1,
        head_width=8,
        max_positions=32,
        tied=True,
    )
    return LanguageModel(config, {}, tokenizer_like_llama())


def test_every_token_that_ends_a_line(model) -> None:
    assert model.encode("\n")[0] == 0, "the token that begins a text"
    # A special token is no text, so it ends no line; the model's own end comes first.
    assert answering.newlines(model) == [1, 2, 3, 4, 9]


def test_texts_are_cut_at_the_line(model, monkeypatch) -> None:
    said = [[6, 2], [6, 3], [6, 4], [6, 1], [3], [6, 8, 9], [6, 2, 7, 1], [6, 2]]
    finished = np.array([True] * 7 + [False])
    lengths = np.array([len(row) for row in said])
    tokens = np.array([row + [0] * (4 - len(row)) for row in said])
    decode = model.tokenizer.decode
    ends = lengths - finished
    found = generate.Generation(
        tokens=tokens,
        lengths=lengths,
        finished=finished,
        log_probs=np.zeros(tokens.shape, np.float32),
        hidden=np.zeros((0, *tokens.shape, 8), np.float32),
        texts=[decode(row[:end]) for row, end in zip(said, ends, strict=True)],
    )
    monkeypatch.setattr(generate, "generate", lambda *_, **__: found)
    ids, texts = answering.answer(
        model, ["?"] * 8, stop_ids=answering.newlines(model), max_new_tokens=4
    )
    # One that ends with its turn may have several lines.
    line = ["Peru", "Peru.", "Peru", "Peru", ".", "Peru.", "Peru\nChile", "Peru"]
    assert texts == line
    assert ids == [[6], [6], [6], [6], [3], [6, 8], [6, 2, 7], [6, 2]]
