"""Test sentence vectors: parity with sentence-transformers, buckets, bad files."""

import json
import pydoc_data.topics
import random
import shutil
from pathlib import Path
from typing import Any

import chex
import jax
import numpy as np
import pytest

from jeff import assets
from jeff_llm.models import bert, encoder
from jeff_llm.models.bert_config import RULES, EncoderConfig
from jeff_llm.models.encoder import SentenceEncoder
from jeff_llm.models.mapping import to_tensors
from jeff_llm.models.tensors import save_safetensors
from jeff_llm.models.tokenizer import Tokenizer

pytest.importorskip("tokenizers")

from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors

SMALL = EncoderConfig(
    vocab_size=12, num_layers=2, width=8, num_heads=2, mlp_width=16, max_positions=64
)
VALUES = {
    "model_type": "bert",
    "vocab_size": 12,
    "num_hidden_layers": 2,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}


def words() -> Tokenizer:
    """Ten words, a token before a text and one behind it."""
    vocab = {word: number for number, word in enumerate("[]abcdefgh")}
    backend = Backend(models.WordLevel(vocab, unk_token="h"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single="[ $A ]", special_tokens=[("[", 0), ("]", 1)]
    )
    return Tokenizer(backend, {})


@pytest.fixture(scope="module")
def small() -> SentenceEncoder:
    draw = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jax.numpy.asarray(draw.normal(0, 0.4, leaf.shape), leaf.dtype),
        bert.shapes(SMALL),
    )
    return SentenceEncoder(SMALL, params, words(), max_tokens=64)


def some_texts(count: int, most: int) -> list[str]:
    draw = random.Random(0)
    return [
        " ".join(draw.choices("abcdefg", k=draw.randint(0, most))) for _ in range(count)
    ]


def minilm_directory(folder: Path) -> Path:
    """all-MiniLM-L6-v2 as sentence-transformers lays it out."""
    try:
        weights, tokens = assets.find("minilm"), assets.find("minilm_tokenizer")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "model.safetensors").symlink_to(weights)
    shutil.copy(tokens, folder / "tokenizer.json")
    sizes = {
        "vocab_size": 30522,
        "num_hidden_layers": 6,
        "hidden_size": 384,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
        "max_position_embeddings": 512,
    }
    roles = ("pad", "unk", "cls", "sep", "mask")
    special = {f"{role}_token": f"[{role.upper()}]" for role in roles}
    kinds = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")
    files = {
        "config.json": VALUES | sizes | {"architectures": ["BertModel"]},
        "tokenizer_config.json": special | {"tokenizer_class": "BertTokenizer"},
        "sentence_bert_config.json": {"max_seq_length": 256, "do_lower_case": False},
        "modules.json": [
            {
                "idx": number,
                "name": str(number),
                "path": path,
                "type": f"sentence_transformers.models.{kind}",
            }
            for number, (kind, path) in enumerate(kinds)
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": 384,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_cls_token": False,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_peer(tmp_path: Path) -> None:
    """sentence-transformers on the same weights: 200 texts of 0 to 400 tokens."""
    peer_library = pytest.importorskip("sentence_transformers")
    folder = minilm_directory(tmp_path / "model")
    peer = peer_library.SentenceTransformer(str(folder), device="cpu")
    english = "\n".join(pydoc_data.topics.topics.values())
    draw = random.Random(0)
    lengths = [*(draw.randint(1, 300) for _ in range(180)), *range(900, 1700, 50)]
    starts = [draw.randrange(len(english)) for _ in lengths]
    texts = [english[at : at + n] for at, n in zip(starts, lengths, strict=True)]
    texts += ["", "  ", "é 中文 😀", "[CLS] [MASK]"]
    assert len(texts) == 200
    ours, again = encoder.load(), encoder.load(folder)
    assert (ours.config, ours.max_tokens) == (again.config, again.max_tokens)
    got, want = ours.encode(texts), peer.encode(texts)
    np.testing.assert_allclose(got, want, atol=1e-6)  # 3e-7 were measured
    means = peer_library.SentenceTransformer(modules=[peer[0], peer[1]], device="cpu")
    got = ours.encode(texts[-20:], normalize=False)
    np.testing.assert_allclose(got, means.encode(texts[-20:]), atol=5e-6)
    got, want = ours.encode(texts[:3]), again.encode(texts[:3])
    np.testing.assert_array_equal(got, want)


def test_meaning() -> None:
    """A real encoder puts sentences of one meaning together."""
    try:
        real = encoder.load("minilm")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    capital, city, cake = real.encode(
        ["The capital of France", "Paris is the French capital", "I baked a cake"]
    )
    assert capital @ city > 0.7 > 0.2 > capital @ cake


def test_order_and_batches(small: SentenceEncoder) -> None:
    """Each text alone gives what all together give, whatever the batch size."""
    texts = some_texts(40, 60)
    whole = small.encode(texts)
    assert (whole.shape, whole.dtype) == ((40, 8), np.float32)
    alone = np.concatenate([small.encode([text]) for text in texts])
    np.testing.assert_allclose(whole, alone, atol=2e-6)
    np.testing.assert_allclose(whole, small.encode(texts, batch_size=3), atol=2e-6)


def test_nothing_and_empty_texts(small: SentenceEncoder) -> None:
    assert small.encode([]).shape == (0, 8)
    empty = small.encode(["", "a", ""])
    np.testing.assert_array_equal(empty[0], empty[2])
    np.testing.assert_allclose(np.linalg.norm(empty, axis=1), 1, atol=1e-6)


def test_cut(small: SentenceEncoder) -> None:
    """Of a long text the first tokens count, and the one that closes it."""
    texts = [*some_texts(1, 0), "a b c " * 40]
    got = small.encode(texts)
    np.testing.assert_array_equal(got, small.encode([texts[0], "a b c " * 30]))
    kept = ("a b c " * 40).split()[:62]
    np.testing.assert_array_equal(got[1], small.encode([" ".join(kept)])[0])


def test_few_compilations(
    small: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three lengths, 16, 32 and 64 tokens, of at most three numbers of rows each."""
    chex.clear_trace_counter()
    counted = chex.assert_max_traces(bert.embed, n=9)
    jitted = jax.jit(counted, static_argnames=("config", "normalize"))
    monkeypatch.setattr(encoder, "_embed", jitted)
    texts = some_texts(300, 90)
    for count in (1, 2, 7, 30, 64, 130, 200, 300, 1):
        small.encode(texts[:count])
        small.encode(texts[-count:])


def test_refuses(small: SentenceEncoder) -> None:
    with pytest.raises(TypeError, match="texts: expected a sequence of texts, got 'a'"):
        small.encode("a")
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got 0"):
        small.encode(["a"], batch_size=0)


@pytest.fixture
def directory(tmp_path: Path, small: SentenceEncoder) -> Path:
    """The small model as a directory."""
    (tmp_path / "config.json").write_text(json.dumps(VALUES))
    save_safetensors(tmp_path, to_tensors(RULES, small.params))
    small.tokenizer.save(tmp_path)
    return tmp_path


def write(file: Path, content: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content))


def test_directory(directory: Path, small: SentenceEncoder) -> None:
    """Without settings texts are cut at the last position; the settings go before."""
    texts = some_texts(10, 70)
    loaded = encoder.load(directory)
    assert loaded.max_tokens == 64
    np.testing.assert_array_equal(loaded.encode(texts), small.encode(texts))
    write(directory / "tokenizer_config.json", {"model_max_length": 20})
    assert encoder.load(str(directory)).max_tokens == 20
    write(directory / "sentence_bert_config.json", {"max_seq_length": 30})
    limited = encoder.load(directory)
    assert limited.max_tokens == 30
    assert limited.encode(texts).shape == (10, 8)
    write(directory / "sentence_bert_config.json", {"max_seq_length": 999})
    assert encoder.load(directory).max_tokens == 64


MODULE = "sentence_transformers.sentence_transformer.modules"


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        ("config.json", VALUES | {"hidden_act": "relu"}, "hidden_act: expected 'gelu'"),
        ("config.json", VALUES | {"alibi": 8}, "alibi: expected only fields that"),
        (
            "config.json",
            VALUES | {"auto_map": {"A": "b"}},
            "auto_map: expected {}, got",
        ),
        ("config.json", [], "expected a JSON dict"),
        ("config.json", VALUES | {"hidden_size": 16}, "expected shape"),
        ("config.json", VALUES | {"num_hidden_layers": 3}, "missing"),
        ("config.json", VALUES | {"vocab_size": 9}, "expected shape"),
        ("1_Pooling/config.json", {"pooling_mode": "cls"}, r"the mean .* \['cls'\]"),
        (
            "1_Pooling/config.json",
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            r"the mean as pooling, got \['cls_token', 'mean'\]",
        ),
        ("modules.json", [{"type": "x.Dense", "path": "d"}], "alone, got Dense"),
        ("modules.json", [{"path": "d"}], "alone, got None"),
        ("modules.json", 3, "expected a JSON list, got 3"),
        (
            "sentence_bert_config.json",
            {"do_lower_case": True},
            "lowers the case by itself",
        ),
    ],
)
def test_other_models(file: str, content: Any, match: str, directory: Path) -> None:
    """What we would get wrong is refused, with the name of the file."""
    pooling = {"type": f"{MODULE}.pooling.Pooling", "path": "1_Pooling"}
    write(directory / "modules.json", [pooling])
    write(directory / "1_Pooling" / "config.json", {"pooling_mode": "mean"})
    encoder.load(directory)
    write(directory / file, content)
    with pytest.raises(ValueError, match=rf"^{directory}.*{match}"):
        encoder.load(directory)


def test_missing_files(directory: Path) -> None:
    for name in ("tokenizer.json", "model.safetensors", "config.json"):
        (directory / name).unlink()
        with pytest.raises(FileNotFoundError, match=rf"^{directory}.*{name}"):
            encoder.load(directory)


def test_tokenizer_of_another_model(directory: Path, small: SentenceEncoder) -> None:
    small.tokenizer.with_tokens(["x", "y", "z"]).save(directory)
    with pytest.raises(ValueError, match="at most 12 tokens, got 13; the two belong"):
        encoder.load(directory)
