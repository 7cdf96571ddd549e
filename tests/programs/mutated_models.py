"""Formats of models: weights, configurations, tokenizers, templates, adapters."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from mutate import Format

from jeff import files
from jeff_llm.models import adapters, decoder, encoder, lora, weights
from jeff_llm.models.chat_template import render_chat_template
from jeff_llm.models.config import DecoderConfig
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.models.tokenizer import from_directory, from_gguf

__all__ = ["FORMATS"]

CONFIG = DecoderConfig(
    vocab_size=64,
    num_layers=2,
    width=16,
    mlp_width=24,
    num_heads=4,
    num_kv_heads=2,
    head_width=4,
    max_positions=64,
    tied=False,
)
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def params() -> Any:
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32),
        decoder.shapes(CONFIG),
    )


def tokenizer() -> Any:
    marks = [chr(code) for code in (*range(33, 94),)]
    return from_gguf(
        {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "smollm",
            "tokenizer.ggml.tokens": ["<end>", *marks, "Ġ", "AB"],
            "tokenizer.ggml.token_type": [3, *[1] * (len(marks) + 2)],
            "tokenizer.ggml.merges": ["A B"],
            "tokenizer.ggml.eos_token_id": 0,
            "tokenizer.ggml.bos_token_id": 0,
            "tokenizer.chat_template": TEMPLATE,
        }
    )


def model() -> LanguageModel:
    return LanguageModel(CONFIG, params(), tokenizer(), "tiny")


def model_folder(path: Path) -> Path:
    weights.save(model(), path)
    values = {"eos_token_id": [0, 7], "temperature": 0.6, "bad_words_ids": None}
    files.write_json(path / "generation_config.json", values)
    return path


def sharded_folder(path: Path) -> Path:
    return weights.save(model(), path, max_shard_bytes=4000)


def gguf_file(path: Path) -> Path:
    """A Llama in float32, written by the package gguf."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(16)
    writer.add_feed_forward_length(24)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e4)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    tokens = ["<end>", *(chr(code) for code in range(33, 94)), "Ġ", "AB"]
    writer.add_token_list(tokens)
    writer.add_token_types([3, *[1] * (len(tokens) - 1)])
    writer.add_token_merges(["A B"])
    writer.add_eos_token_id(0)
    rng = np.random.default_rng(0)
    shapes = {"token_embd": (64, 16), "output_norm": (16,), "output": (64, 16)}
    for layer in range(2):
        shapes |= {
            f"blk.{layer}.{name}": shape
            for name, shape in {
                "attn_norm": (16,),
                "attn_q": (16, 16),
                "attn_k": (8, 16),
                "attn_v": (8, 16),
                "attn_output": (16, 16),
                "ffn_norm": (16,),
                "ffn_gate": (24, 16),
                "ffn_up": (24, 16),
                "ffn_down": (16, 24),
            }.items()
        }
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def quantised_file(path: Path) -> Path:
    """The same with kernels in Q8_0, whose scales a mutation may make no numbers."""
    import gguf

    gguf_file(path)
    reader = gguf.GGUFReader(path)
    kind = gguf.GGMLQuantizationType.Q8_0
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path.with_suffix(".new"), "llama")
    for field in reader.fields.values():
        if not field.name.startswith(("GGUF.", "general.architecture")):
            # Twice as wide: a block of Q8_0 has 32 numbers.
            value = field.contents()
            if field.name.endswith(("embedding_length", "feed_forward_length")):
                value = 32
            inner = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(field.name, value, field.types[0], inner)
    for tensor in reader.tensors:
        heads = {"attn_k": 16, "attn_v": 16}.get(tensor.name.split(".")[-2], 32)
        if tensor.name in ("token_embd.weight", "output.weight"):
            heads = 64
        if "norm" in tensor.name:
            writer.add_tensor(tensor.name, np.ones(32, np.float32))
            continue
        array = rng.normal(size=(heads, 32)).astype(np.float32)
        data = gguf.quants.quantize(array, kind)
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    path.with_suffix(".new").replace(path)
    return path


def read_model(path: Path) -> Any:
    found = weights.load(path)
    if found.tokenizer is not None:
        found.tokenizer.decode(found.tokenizer.encode("ab AB"))
    return found.config, found.params


def check_model(path: Path, found: Any) -> None:
    config, leaves = found
    for leaf in jax.tree.leaves(leaves):
        assert np.isfinite(np.asarray(leaf)).all(), "weights that are no numbers"
    assert 0 < config.norm_eps < 1
    assert 0 < config.rope_theta < np.inf


def adapter_folder(path: Path) -> Path:
    factors = lora.init(params(), key=jax.random.key(0), rank=3)
    return adapters.save(path, factors, base="tiny")


def read_adapter(path: Path) -> Any:
    return adapters.load(path, CONFIG)


def check_adapter(path: Path, found: Any) -> None:
    assert np.isfinite(found.scale) and found.scale > 0
    stated = files.read_json(path / "adapter_config.json")["r"]
    for pair in found.factors.values():
        assert pair["a"].shape[-1] == pair["b"].shape[-2] == stated
        assert all(np.isfinite(np.asarray(each)).all() for each in pair.values())


def encoder_folder(path: Path) -> Path:
    from jeff_llm.models import bert
    from jeff_llm.models.bert_config import RULES, EncoderConfig
    from jeff_llm.models.mapping import to_tensors
    from jeff_llm.models.tensors import save_safetensors

    config = EncoderConfig(
        vocab_size=64,
        num_layers=1,
        width=16,
        mlp_width=24,
        num_heads=4,
        max_positions=32,
    )
    rng = np.random.default_rng(0)
    leaves = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), bert.shapes(config)
    )
    path.mkdir()
    tokenizer().save(path)
    save_safetensors(path / "model.safetensors", to_tensors(RULES, leaves))
    values = {
        "model_type": "bert",
        "vocab_size": 64,
        "num_hidden_layers": 1,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_attention_heads": 4,
        "max_position_embeddings": 32,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
    }
    files.write_json(path / "config.json", values)
    files.write_json(path / "sentence_bert_config.json", {"max_seq_length": 16})
    return path


def read_encoder(path: Path) -> Any:
    found = encoder.load(path)
    return found.config, found.params, found.max_tokens


def check_encoder(path: Path, found: Any) -> None:
    config, leaves, limit = found
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(leaves))
    assert 0 < config.norm_eps < 1 and 2 <= limit <= config.max_positions


def tokenizer_folder(path: Path) -> Path:
    path.mkdir()
    tokenizer().save(path)
    return path


def read_tokenizer(path: Path) -> Any:
    found = from_directory(path)
    ids = found.encode("ab AB, e.g. \u00e9\n")
    return ids, found.decode(ids)


def template(path: Path) -> Path:
    path.write_text(TEMPLATE)
    return path


def read_template(path: Path) -> Any:
    chat = [{"role": "user", "content": "Hi " * 50}]
    try:
        source = path.read_bytes().decode()
        return render_chat_template(source, chat, {"add_generation_prompt": True})
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: {error}") from error
    except ValueError as error:
        # A template has no file; its errors say what it is.
        named = str(error).startswith("chat template")
        raise ValueError(f"{path if named else '?'}: {error}") from error


def check_template(path: Path, found: str) -> None:
    assert len(found) < 1 << 26


def chat_folder(path: Path) -> Path:
    tokenizer_folder(path)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if not (path / name).exists():
            (path / name).write_text(json.dumps({"eos_token": "<end>"}))
    return path


def read_chat(path: Path) -> Any:
    found = from_directory(path)
    try:
        return found.apply_chat_template([{"role": "user", "content": "AB"}])
    except ValueError as error:
        named = "chat template" in str(error)
        raise ValueError(f"{path if named else '?'}: {error}") from error


FORMATS = [
    Format(
        "weights, safetensors", "model", model_folder, read_model, check_model, weight=3
    ),
    Format("weights, shards", "model", sharded_folder, read_model, check_model),
    Format("weights, GGUF", "a.gguf", gguf_file, read_model, check_model, weight=3),
    Format("weights, Q8_0", "a.gguf", quantised_file, read_model, check_model),
    Format(
        "adapters", "adapters", adapter_folder, read_adapter, check_adapter, weight=2
    ),
    Format("encoder", "encoder", encoder_folder, read_encoder, check_encoder, weight=2),
    Format("tokenizer", "tokenizer", tokenizer_folder, read_tokenizer, weight=2),
    Format("chat template", "a.jinja", template, read_template, check_template),
    Format("chat", "chat", chat_folder, read_chat),
]
