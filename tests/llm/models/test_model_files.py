"""Test files of models as untrusted input: each fault is refused by file and field."""

import json
import math
import resource
import shutil
import struct
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest

from jeff_llm.models import adapters, decoder, fields, lora, weights
from jeff_llm.models.config import DecoderConfig, from_gguf, from_transformers
from jeff_llm.models.finite import check_finite
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.models.rope import RopeScaling
from jeff_llm.models.tensors import open_safetensors, save_safetensors
from jeff_llm.models.tokenizer import from_directory
from jeff_llm.models.tokenizer import from_gguf as tokenizer_of_gguf

CONFIG = DecoderConfig(
    vocab_size=20,
    num_layers=2,
    width=8,
    mlp_width=12,
    num_heads=2,
    num_kv_heads=1,
    head_width=4,
    max_positions=32,
)
TOKENS = ["<end>", "Ġ", *"abcdefghijklmnop"]
TOKENIZER = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.merges": [],
    "tokenizer.ggml.eos_token_id": 0,
}


def params() -> Any:
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32),
        decoder.shapes(CONFIG),
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    pytest.importorskip("tokenizers")
    model = LanguageModel(CONFIG, params(), tokenizer_of_gguf(TOKENIZER), "made")
    return weights.save(model, tmp_path_factory.mktemp("made") / "model")


@pytest.fixture
def folder(written, tmp_path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "model"))


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


WRONG_FIELDS = [
    *(("num_hidden_layers", bad) for bad in ("12", None, [2], True, 2.0, 0, -1)),
    *(("num_hidden_layers", bad) for bad in (10**8, 2**31, 10**300)),
    *(("num_attention_heads", bad) for bad in (0, 10**9, 1e39)),
    *(("head_dim", bad) for bad in (10**9, -4, "4")),
    *((name, 10**9) for name in ("vocab_size", "hidden_size", "intermediate_size")),
    *(("max_position_embeddings", bad) for bad in (10**12, 0, "32")),
    *(("rms_norm_eps", bad) for bad in (0, -1e-5, 1, 2.0, 1e39, 5e-324, "1e-5", True)),
    *(("rope_theta", bad) for bad in (0, -1e4, 1e300, [1e4])),
    ("rope_scaling", 3),
    ("tie_word_embeddings", "no"),
    ("attention_bias", 1),
    ("model_type", ["llama"]),
    ("attn_logit_softcapping", -50.0),
    ("query_pre_attn_scalar", -1),
]


@pytest.mark.parametrize(("name", "value"), WRONG_FIELDS)
def test_a_wrong_field_of_config_json_is_named(folder, name, value) -> None:
    """Whatever its value is, before anything of its size is made."""
    change(folder / "config.json", **{name: value})
    with pytest.raises(ValueError, match=rf"config\.json: {name}: expected "):
        weights.load(folder)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1" + "0" * 400, "1e400"])
def test_numbers_that_are_none_in_config_json(folder, text) -> None:
    """JSON has neither NaN nor numbers beyond a float."""
    file = folder / "config.json"
    source = json.dumps(json.loads(file.read_text()) | {"rms_norm_eps": "here"})
    file.write_text(source.replace('"here"', text))
    with pytest.raises(ValueError, match=r"config\.json: expected JSON .*finite"):
        weights.load(folder)


def test_json_without_end(folder) -> None:
    """Nested a hundred thousand times, in each reader."""
    deep = "[" * 10**5 + "]" * 10**5
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        kept = (folder / name).read_bytes()
        (folder / name).write_text(deep)
        with pytest.raises(ValueError, match=f"{name}: expected JSON of a moderate"):
            weights.load(folder)
        (folder / name).write_bytes(kept)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"factor": math.nan}, "rope scaling factor: .* got nan"),
        ({"factor": 2.0, "low": 4.0, "high": 4.0}, "high: expected a number above 4"),
        ({"factor": 2.0, "low": -1.0}, "low: expected a number above 0, got -1"),
        ({"factor": 2.0, "original_positions": 0}, "original_positions: .* got 0"),
        ({"factor": 2.0, "attention_factor": -1.0}, "attention_factor: .* got -1"),
    ],
)
def test_scalings_that_divide_by_zero(values, message) -> None:
    """A ramp without width, no context, a factor that turns signs."""
    with pytest.raises(ValueError, match=message):
        RopeScaling("yarn", **values)


GGUF = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.embedding_length": 8,
    "llama.feed_forward_length": 12,
    "llama.attention.head_count": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-6,
    "llama.context_length": 32,
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("attention.head_count", bad) for bad in (0, "2", 2.0, [2, 2], True)),
        *(("attention.layer_norm_rms_epsilon", bad) for bad in (math.nan, 0.0, 1.0)),
        *(("rope.freq_base", bad) for bad in (math.nan, math.inf, -1.0, 0.0)),
        ("context_length", 2**32 - 1),
        ("attention.sliding_window", -4),
        ("rope.scaling.type", 3),
        ("attention.scale", -1.0),
        ("attn_logit_softcapping", -1.0),
    ],
)
def test_a_wrong_key_of_gguf_is_named(name, value) -> None:
    """By its name, with or without the prefix."""
    shown = name.rpartition("attention.sliding")[2]
    with pytest.raises(ValueError, match=rf"{shown}: expected "):
        from_gguf({**GGUF, f"llama.{name}": value}, {"token_embd.weight": (20, 8)})


def test_a_number_too_long_to_print() -> None:
    """10^5000 is a Python integer that has no text."""
    with pytest.raises(ValueError, match=r"hidden_size: .* number of 16610 bits"):
        from_transformers({"model_type": "llama", "num_attention_heads": 1,
                           "hidden_size": 10**5000})  # fmt: skip
    assert fields.whole({}, "n", 3) == 3


@pytest.mark.parametrize("dtype", ["<f4", "<f2", "<f8", ml_dtypes.bfloat16])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers(folder, dtype, bad) -> None:
    """File, tensor and place are named, in each type of a file."""
    file = folder / "model.safetensors"
    tensors = {name: np.array(t.read()) for name, t in open_safetensors(file).items()}
    name = "model.layers.1.mlp.up_proj.weight"
    tensors = {key: array.astype(dtype) for key, array in tensors.items()}
    tensors[name][3, 5] = bad
    save_safetensors(file, tensors)
    message = rf"model\.safetensors: tensor {name}: expected finite .* place \(3, 5\)"
    with pytest.raises(ValueError, match=message):
        weights.load(folder)


def test_a_number_that_its_new_type_cannot_hold(folder) -> None:
    """1e300 is a number of a file in float64, and infinite in float32."""
    file = folder / "model.safetensors"
    tensors = {
        name: np.array(t.read(), "f8") for name, t in open_safetensors(file).items()
    }
    tensors["model.norm.weight"][2] = 1e300
    save_safetensors(file, tensors)
    with pytest.raises(ValueError, match=r"model\.norm\.weight as float32: expected"):
        weights.load(folder)


def test_weights_that_are_integers(folder) -> None:
    """The bytes of floating-point numbers under another type."""
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data.replace(b'"F32"', b'"I32"', 1))
    with pytest.raises(ValueError, match="expected floating-point numbers, got int32"):
        weights.load(folder)


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0"])
def test_quantised_scales_that_are_no_numbers(tmp_path, kind) -> None:
    """A NaN scale makes a block of 32 numbers NaN."""
    gguf = pytest.importorskip("gguf")
    from jeff_llm.models.tensors import open_gguf

    quant = gguf.GGMLQuantizationType[kind]
    data = gguf.quants.quantize(np.ones((2, 64), np.float32), quant)
    data[1, :2] = np.frombuffer(struct.pack("<e", np.nan), np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_tensor("w", data, raw_dtype=quant)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    array = open_gguf(tmp_path / "a.gguf")["w"].read()
    with pytest.raises(ValueError, match=r"w: expected finite numbers, got nan .*1, 0"):
        check_finite(array, "w")


@pytest.fixture
def adapter(tmp_path) -> Path:
    factors = lora.init(params(), key=jax.random.key(0), rank=3)
    return adapters.save(tmp_path / "adapters", factors)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        *(("r", bad, "and the rank r of adapter_config") for bad in (8, 2)),
        *(("r", bad, r"_config\.json: r: expected") for bad in (-2, 0, "3", 1.5)),
        *(("lora_alpha", bad, r"_config\.json: lora_alpha: expected")
          for bad in (0, -6, "6", None, 1e39, True)),
    ],
)  # fmt: skip
def test_adapters_whose_scale_is_wrong(adapter, name, value, message) -> None:
    """A rank that is not its tensors', and scales that are none."""
    change(adapter / "adapter_config.json", **{name: value})
    with pytest.raises(ValueError, match=message):
        adapters.load(adapter, CONFIG)


def test_adapters_with_nan(adapter) -> None:
    """In the configuration, and in a factor."""
    file = adapter / "adapter_config.json"
    kept = file.read_text()
    file.write_text(kept.replace('"lora_alpha": 6.0', '"lora_alpha": NaN'))
    with pytest.raises(ValueError, match=r"adapter_config\.json: expected JSON .*NaN"):
        adapters.load(adapter, CONFIG)
    file.write_text(kept)
    file = adapter / "adapter_model.safetensors"
    tensors = {name: np.array(t.read()) for name, t in open_safetensors(file).items()}
    name = min(tensors)
    tensors[name][0, 1] = np.nan
    save_safetensors(file, tensors)
    with pytest.raises(ValueError, match=rf"{name}': expected finite .* \(0, 1\)"):
        adapters.load(adapter, CONFIG)


def test_adapters_of_two_ranks(tmp_path) -> None:
    """The format has a pattern for the second."""
    one = lora.init(params(), key=jax.random.key(0), rank=3, where=("query/kernel$",))
    two = lora.init(params(), key=jax.random.key(0), rank=2, where=("value/kernel$",))
    mixed = lora.Lora({**one.factors, **two.factors}, None, (), 2.0)
    found = adapters.load(adapters.save(tmp_path, mixed), CONFIG)
    assert found.scale == mixed.scale
    jax.tree.map(np.testing.assert_array_equal, found.factors, mixed.factors)


def test_a_template_that_is_not_text(folder) -> None:
    """Bytes that are no UTF-8."""
    (folder / "chat_template.jinja").write_bytes(b"caf\xe9 {{ messages }}")
    with pytest.raises(ValueError, match=r"chat_template\.jinja: expected .*UTF-8"):
        from_directory(folder)


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        '{"a": 1, "a": 2}',
        '{"version": "1.0", "model": {"type": "BPE", "vocab": 3}}',
        '{"version": "9.0", "added_tokens": [], "model": {"type": "X"}}',
    ],
)
def test_a_tokenizer_that_is_none(folder, content) -> None:
    """Whatever the library raises over it."""
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json: expected "):
        from_directory(folder)


def test_a_full_disk_keeps_the_old_weights(tmp_path) -> None:
    """The error names the file; what was there can be read, nothing else is left."""
    pytest.importorskip("safetensors")
    file = save_safetensors(tmp_path / "a.safetensors", {"w": np.ones(4, np.float32)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match=r"a\.safetensors: could not be written \("):
            save_safetensors(file, {"w": np.ones(1 << 16, np.float32)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    np.testing.assert_array_equal(open_safetensors(file)["w"].read(), np.ones(4))
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
