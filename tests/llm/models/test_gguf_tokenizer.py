"""Test tokenizers from GGUF fields: parity with transformers, invalid fields."""

import heapq
import json
import pydoc_data.topics
from pathlib import Path
from typing import Any

import pytest

from jeff_llm.models import tokenizer
from jeff_llm.models.tensors import open_gguf

pytest.importorskip("tokenizers")

from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, trainers

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
ENGLISH = "\n".join(pydoc_data.topics.topics.values())
TEXTS = [
    "",
    " ",
    "   ",
    "\n\n",
    "I'm sure THEY'LL don't  know\tit",
    "12345 67 8 in  2024, ½ ² ١٢٣",
    "x=[1,2]\r\n\r\n  return {'a': x**2}\n",
    "Ünïcode e\u0301 ﬁ 中文字符 ไทย 😀👩‍👩‍👧\u200b",
    "<s>no <tool> yes</s> <|unknown|>",
    "a" * 300,
    "\x00\x7f",
    *(ENGLISH[at : at + 150] for at in range(0, 60_000, 500)),
]


def fields(**values: Any) -> dict[str, Any]:
    return {f"tokenizer.ggml.{key}": value for key, value in values.items()}


@pytest.fixture(scope="module")
def byte_level() -> dict[str, Any]:
    """A byte-level vocabulary of 1,500 tokens, and some special ones."""
    backend = Tokenizer(models.BPE())
    # Words with punctuation and digits, so that the order of splitting matters.
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    )
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        max_token_length=6,
    )
    lines = [ENGLISH[at : at + 12] for at in range(0, 100_000, 12)]
    backend.train_from_iterator([*lines, *(str(n) for n in range(3000))], trainer)
    model = json.loads(backend.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    special = ["<s>", "</s>", "<tool>"]
    return fields(
        model="gpt2",
        tokens=tokens + special,
        token_type=[1] * len(tokens) + [3, 3, 4],
        merges=[" ".join(merge) for merge in model["merges"]],
        bos_token_id=len(tokens),
        eos_token_id=len(tokens) + 1,
    )


def peer(metadata: dict[str, Any], name: str) -> Any:
    """The class of transformers for a published model family, with our vocabulary."""
    transformers = pytest.importorskip("transformers")
    tokens = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(m.split(" ")) for m in metadata["tokenizer.ggml.merges"]]
    found = getattr(transformers, name)(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=merges,
        **dict.fromkeys(("bos_token", "unk_token"), "<s>"),
        **dict.fromkeys(("eos_token", "pad_token"), "</s>"),
    )
    found.add_tokens([AddedToken("<tool>", special=False, normalized=False)])
    return found


@pytest.mark.parametrize(
    ("pre", "name"), [("gpt-2", "GPT2Tokenizer"), ("qwen2", "Qwen2Tokenizer")]
)
def test_byte_level(pre: str, name: str, byte_level: dict[str, Any]) -> None:
    """GPT-2 and Qwen2 as transformers defines them."""
    ours = tokenizer.from_gguf(byte_level | fields(pre=pre))
    theirs = peer(byte_level, name)
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False), text


def test_llama3(byte_level: dict[str, Any]) -> None:
    """Llama 3's published split, whole words first, and its beginning of text."""
    ours = tokenizer.from_gguf(byte_level | fields(pre="llama-bpe"))
    theirs = peer(byte_level, "GPT2Tokenizer").backend_tokenizer
    theirs.model.ignore_merges = True
    convert = pytest.importorskip("transformers.convert_slow_tokenizer")
    pattern = convert.TikTokenConverter().pattern
    theirs.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    for text in TEXTS:
        want = theirs.encode(text, add_special_tokens=False).ids
        assert ours.encode(text) == [ours.bos_id, *want], text
        assert ours.encode(text, add_special_tokens=False) == want, text


def test_smollm(byte_level: dict[str, Any]) -> None:
    """Digits stand alone, whatever merges there are."""
    ours = tokenizer.from_gguf(byte_level | fields(pre="smollm"))
    gpt2 = tokenizer.from_gguf(byte_level | fields(pre="gpt-2"))
    assert ours.tokens(ours.encode("in 2024")) == ["in", "Ġ", "2", "0", "2", "4"]
    assert gpt2.tokens(gpt2.encode("in 2024")) != ours.tokens(ours.encode("in 2024"))
    assert ours.decode(ours.encode("in 2024")) == "in 2024"


def test_special_tokens(byte_level: dict[str, Any]) -> None:
    """Control tokens are special, user-defined ones are whole but shown."""
    ours = tokenizer.from_gguf(
        byte_level | fields(pre="gpt-2", add_bos_token=True, add_eos_token=True)
    )
    size = ours.vocab_size
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (size - 3, size - 2, None)
    assert ours.encode("<tool>") == [size - 3, size - 1, size - 2]
    assert ours.decode(ours.encode("<tool>")) == "<tool>"
    shown = ours.decode(ours.encode("<tool>"), skip_special_tokens=False)
    assert shown == "<s><tool></s>"


@pytest.fixture(scope="module")
def sentencepiece() -> dict[str, Any]:
    """A SentencePiece vocabulary of 1,500 pieces with a score for each."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    trainer = trainers.BpeTrainer(vocab_size=1000, show_progress=False)
    backend.train_from_iterator([ENGLISH[:200_000]], trainer)
    pieces = backend.get_vocab()
    # sentencepiece numbers pieces by merge and puts the letters behind them.
    merged = sorted((p for p in pieces if len(p) > 1), key=pieces.__getitem__)
    letters = sorted(p for p in pieces if len(p) == 1)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    normal = merged + letters
    return fields(
        model="llama",
        tokens=[*tokens, *normal, "<tool>"],
        scores=[0.0] * 259 + [-float(rank) for rank in range(len(normal))] + [0.0],
        token_type=[2, 3, 3] + [6] * 256 + [1] * len(normal) + [4],
        bos_token_id=1,
        eos_token_id=2,
        unknown_token_id=0,
    )


def reference(text: str, metadata: dict[str, Any]) -> list[int]:
    """SentencePiece's algorithm: join the neighbours with the best score, leftmost."""
    tokens = metadata["tokenizer.ggml.tokens"]
    ids = {t: n for n, t in enumerate(tokens) if n > 258 and t != "<tool>"}
    scores = metadata["tokenizer.ggml.scores"]
    symbols = list((SPACE + text.replace(" ", SPACE)) if text else "")

    def pair(at: int) -> tuple[float, int, str] | None:
        after = [n for n in range(at + 1, len(symbols)) if symbols[n]][:1]
        joined = symbols[at] + symbols[after[0]] if symbols[at] and after else ""
        return (-scores[ids[joined]], at, joined) if joined in ids else None

    queue = [found for at in range(len(symbols)) if (found := pair(at))]
    heapq.heapify(queue)
    while queue:
        best = heapq.heappop(queue)
        at = best[1]
        if pair(at) != best:
            continue
        after = next(n for n in range(at + 1, len(symbols)) if symbols[n])
        symbols[at], symbols[after] = best[2], ""
        before = [n for n in range(at) if symbols[n]][-1:]
        for start in [*before, at]:
            if found := pair(start):
                heapq.heappush(queue, found)
    pieces = [symbol for symbol in symbols if symbol]
    return [
        number
        for piece in pieces
        for number in (
            [ids[piece]] if piece in ids else [3 + b for b in piece.encode()]
        )
    ]


def test_sentencepiece(sentencepiece: dict[str, Any]) -> None:
    """Ids of SentencePiece's own algorithm, bytes for what has no piece."""
    ours = tokenizer.from_gguf(sentencepiece)
    for text in TEXTS:
        if "<" in text:
            continue
        want = reference(text, sentencepiece)
        assert ours.encode(text, add_special_tokens=False) == want, text
        assert ours.encode(text) == [1, *want]
        assert ours.decode(ours.encode(text)) == text


def test_prefix_space(sentencepiece: dict[str, Any]) -> None:
    """As in llama.cpp, a space before each stretch of text, unless the file says no."""
    ours = tokenizer.from_gguf(sentencepiece)
    bare = tokenizer.from_gguf(sentencepiece | fields(add_space_prefix=False))
    spaced = ours.encode("the", add_special_tokens=False)
    assert spaced == reference("the", sentencepiece)
    assert bare.encode(" the", add_special_tokens=False) == spaced
    assert bare.decode(bare.encode(" the")) == " the"
    tool = ours.vocab_size - 1
    assert ours.encode("the</s>the<tool>") == [1, *spaced, 2, *spaced, tool]
    assert ours.decode(ours.encode("the</s>the")) == "the the"


def test_sentencepiece_peer(sentencepiece: dict[str, Any], tmp_path: Path) -> None:
    """transformers, which puts no second space and none behind special tokens."""
    transformers = pytest.importorskip("transformers")
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "f.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(sentencepiece["tokenizer.ggml.tokens"])
    writer.add_token_scores(sentencepiece["tokenizer.ggml.scores"])
    writer.add_token_types(sentencepiece["tokenizer.ggml.token_type"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    ours = tokenizer.from_gguf(open_gguf(tmp_path / "f.gguf").metadata)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="f.gguf")
    compared = [text for text in TEXTS if "<" not in text and text[:1] != " "]
    assert len(compared) > 100
    for text in compared:
        assert ours.encode(text) == theirs.encode(text), text


BYTES = {"model": "gpt2", "pre": "gpt-2", "merges": ["a b"], "tokens": ["a", "b", "ab"]}
PIECES = {"model": "llama", "unknown_token_id": 0, "tokens": ["u", "a"]}
BAD = {
    "no tokenizer": ({"tokens": ["a"]}, "model: expected 'gpt2' .* got None"),
    "no tokens": ({"model": "gpt2"}, "tokens: expected a list of texts, got None"),
    "model": ({"model": "t5", "tokens": ["a"]}, "expected 'gpt2' .* got 't5'"),
    "pre": (BYTES | {"pre": "bloom"}, "pre: expected one of deepseek.*, got 'bloom'"),
    "pre that is no text": (
        BYTES | {"pre": 2},
        "pre: expected one of .*gpt-2, .*got 2",
    ),
    "spaces": (
        BYTES | {"add_space_prefix": True},
        "add_space_prefix: expected false for byte-level BPE, got True",
    ),
    "extra spaces": (
        PIECES | {"remove_extra_whitespaces": True},
        "remove_extra_whitespaces: expected False, got True",
    ),
    "unknown": (BYTES | {"add_prefix": 1}, "add_prefix: expected only fields that"),
    "merge": (BYTES | {"merges": ["a  b"]}, "merges: expected two tokens .* 'a  b'"),
    "merge of one": (BYTES | {"merges": ["ab"]}, "merges: expected two tokens"),
    "merge of others": (BYTES | {"merges": ["a c"]}, "merges: expected merges of tok"),
    "no merges": (BYTES | {"merges": 3}, "merges: expected a list of texts, got 3"),
    "twice": (BYTES | {"tokens": ["a", "a"]}, "tokens: expected no token twice, got"),
    "types": (BYTES | {"token_type": [1]}, "token_type: expected 3 types, got 1"),
    "id": (BYTES | {"eos_token_id": 3}, "eos_token_id: expected a number below 3"),
    "no bos": (BYTES | {"add_bos_token": True}, "bos_token_id: expected a number bel"),
    "scores": (PIECES | {"scores": [0.0]}, "scores: expected 2 numbers, got"),
    "no unknown": (
        PIECES | {"scores": [0.0, 0.0], "unknown_token_id": None},
        "unknown_token_id: expected a number below 2, got None",
    ),
    "Gemma": (
        PIECES | {"tokens": ["u", "  "], "scores": [0.0, 0.0]},
        f"tokens: expected {SPACE} for a space in each piece, got '  '",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_refused(kind: str) -> None:
    """What cannot be built exactly is named, with the field at fault."""
    values, match = BAD[kind]
    with pytest.raises(ValueError, match=rf"^tokenizer\.ggml\..*{match}"):
        tokenizer.from_gguf(fields(**values))


@pytest.mark.parametrize(
    ("name", "known"),
    [
        *((name, "llama-bpe") for name in ("llama3", "llama-v3", "falcon3")),
        ("deepseek-r1-qwen", "qwen2"),
        ("minerva-7b", "smollm"),
    ],
)
def test_other_names_of_a_rule(name: str, known: str, byte_level: Any) -> None:
    """llama.cpp has several names for one rule."""
    ours, same = (
        tokenizer.from_gguf(byte_level | fields(pre=pre)) for pre in (name, known)
    )
    assert all(ours.encode(text) == same.encode(text) for text in TEXTS)


# Pieces that llama.cpp's own expressions leave, worked out by hand.
PIECES_OF = {
    "default": (
        "I'm 1234567, (x+y)!\n",
        [
            "I",
            "'",
            "m",
            "Ġ",
            "123",
            "456",
            "7",
            ",",
            "Ġ",
            "(",
            "x",
            "+",
            "y",
            ")!",
            "Ċ",
        ],
    ),
    "deepseek-coder": (
        "print x12,\n\n y",
        ["print", "Ġx", "1", "2", ",", "Ċ", "Ċ", "Ġy"],
    ),
    "tekken": (
        "helloWorld HTTPServer a/b 42\n",
        ["hello", "World", "ĠHTTPServer", "Ġa", "/b", "Ġ", "4", "2", "Ċ"],
    ),
    "smaug-bpe": ("it's 12345", ["it", "'s", "Ġ", "123", "45"]),
}


@pytest.mark.parametrize("pre", PIECES_OF)
def test_pieces_before_merging(pre: str) -> None:
    """Where a text is cut, before anything is merged."""
    from jeff_llm.models.gguf_splits import SPLITS, add_split

    backend = Tokenizer(models.BPE())
    add_split(backend, SPLITS[pre])
    text, pieces = PIECES_OF[pre]
    assert [
        piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text)
    ] == pieces


def test_a_file_without_a_rule_has_the_default(byte_level: dict[str, Any]) -> None:
    """It is older than the field; no token is put before the text."""
    ours = tokenizer.from_gguf(byte_level)
    named = tokenizer.from_gguf(byte_level | fields(pre="default"))
    assert all(ours.encode(text) == named.encode(text) for text in TEXTS)
    begins = tokenizer.from_gguf(byte_level | fields(pre="tekken"))
    assert begins.encode("a")[0] == begins.bos_id and ours.encode("a")[0] != ours.bos_id


def test_tokens_that_end_a_turn(byte_level: dict[str, Any]) -> None:
    """llama.cpp's fields for the ends of turns and messages, beside the end of text."""
    from jeff_llm.models.gguf_tokenizer import end_tokens

    eos = byte_level["tokenizer.ggml.eos_token_id"]
    assert end_tokens(byte_level) == (eos,)
    more = fields(eot_token_id=eos - 1, eom_token_id=eos)
    assert end_tokens(byte_level | more) == (eos, eos - 1)
    with pytest.raises(ValueError, match="eot_token_id: expected a number below"):
        end_tokens(byte_level | fields(eot_token_id=10**6))
