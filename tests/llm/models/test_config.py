"""Test model configurations: reading, rejected input, and round trips."""

import dataclasses
import json
from typing import Any

import pytest

from jeff_llm.models.config import (
    DecoderConfig,
    from_gguf,
    from_transformers,
    to_transformers,
)
from jeff_llm.models.rope import RopeScaling

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "num_layers": 3,
    "width": 24,
    "mlp_width": 40,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_width": 8,
}
JSON: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 50,
    "num_hidden_layers": 3,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_attention_heads": 4,
}
GGUF: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 3,
    "llama.embedding_length": 24,
    "llama.feed_forward_length": 40,
    "llama.attention.head_count": 4,
    "llama.attention.layer_norm_rms_epsilon": 1e-6,
    "llama.context_length": 512,
}
SHAPES = {"token_embd.weight": (50, 24)}
LLAMA3 = RopeScaling("llama3", 8.0, 64)
YARN = RopeScaling("yarn", 4.0, 64, low=1.0, high=32.0)


def test_windows_of_layers() -> None:
    """A window counts where a layer has one, and nowhere without one."""
    config = DecoderConfig(**SIZES)
    assert config.windows == (None, None, None)
    config = dataclasses.replace(config, sliding_window=5)
    assert config.windows == (5, 5, 5)
    config = dataclasses.replace(config, sliding_layers=(False, True, False))
    assert config.windows == (None, 5, None)
    assert hash(config) == hash(dataclasses.replace(config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(({name: 0}, f"{name}: expected at least 1, got 0") for name in SIZES),
        ({"max_positions": -1}, "max_positions: .* got -1"),
        ({"num_kv_heads": 3}, "num_kv_heads: .* divisor of num_heads = 4, got 3"),
        ({"head_width": 7}, "head_width: expected an even one, got 7"),
        ({"sliding_window": 0}, "sliding_window: .* got 0"),
        ({"sliding_layers": (True,)}, "sliding_layers: expected 3 entries, got 1"),
    ],
)
def test_sizes_that_make_no_decoder(change: dict[str, Any], message: str) -> None:
    """Each error names the field, what is expected and what came."""
    with pytest.raises(ValueError, match=message):
        DecoderConfig(**{**SIZES, **change})


def test_from_transformers_defaults() -> None:
    """What config.json leaves out is what transformers puts there."""
    config = from_transformers(JSON)
    assert config == DecoderConfig(
        **{**SIZES, "num_kv_heads": 4, "head_width": 6},
        norm_eps=1e-6,
        max_positions=2048,
    )
    assert from_transformers({**JSON, "num_key_value_heads": 2}).num_kv_heads == 2
    assert from_transformers({**JSON, "head_dim": 16}).head_width == 16


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"attention_bias": True}, {"attention_bias": True, "output_bias": True}),
        ({"tie_word_embeddings": True}, {"tied": True}),
        ({"rope_theta": 5e5}, {"rope_theta": 5e5}),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}},
         {"rope_theta": 7.0, "rope_scaling": None}),
        ({"rope_scaling": {"type": "linear", "factor": 2}},
         {"rope_scaling": RopeScaling("linear", 2.0, 2048)}),
        ({"model_type": "mistral"}, {"sliding_window": 4096}),
        ({"model_type": "mistral", "sliding_window": None}, {"sliding_window": None}),
        ({"model_type": "mistral", "sliding_window": 5}, {"sliding_window": 5}),
        ({"model_type": "qwen2"},
         {"attention_bias": True, "output_bias": False, "sliding_window": None}),
        ({"model_type": "qwen2", "sliding_window": 5}, {"sliding_window": None}),
        ({"model_type": "qwen2", "sliding_window": 5, "use_sliding_window": True},
         {"sliding_window": None}),
        ({"model_type": "qwen2", "sliding_window": 5, "use_sliding_window": True,
          "max_window_layers": 2},
         {"sliding_window": 5, "sliding_layers": (False, False, True)}),
        ({"model_type": "qwen3"}, {"qk_norm": True, "attention_bias": False}),
        ({"model_type": "qwen3", "use_sliding_window": True, "sliding_window": 5,
          "layer_types": ["sliding_attention"] * 3},
         {"sliding_window": 5, "sliding_layers": None}),
    ],
)  # fmt: skip
def test_from_transformers(values: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each family's own fields."""
    config = from_transformers({**JSON, **values})
    assert {name: getattr(config, name) for name in expected} == expected


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_defaults_are_those_of_transformers(family: str) -> None:
    """A hand-written config.json means the same in both."""
    transformers = pytest.importorskip("transformers")
    values = {
        **JSON,
        "model_type": family,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "use_sliding_window": True,
        "num_hidden_layers": 30,
    }
    theirs = transformers.AutoConfig.for_model(**values).to_dict()
    ours = from_transformers(values)
    assert ours == from_transformers(theirs)
    sliding = theirs.get("layer_types")
    if sliding is not None:
        expected = [kind == "sliding_attention" for kind in sliding]
        assert [window is not None for window in ours.windows] == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "gpt2"}, "model_type: .*llama.*qwen3.* got 'gpt2'"),
        ({"model_type": None}, "model_type: .* got None"),
        ({"hidden_act": "gelu"}, "hidden_act: expected 'silu', got 'gelu'"),
        ({"mlp_bias": True}, "mlp_bias: expected False, got True"),
        ({"pretraining_tp": 2}, "pretraining_tp: expected 1, got 2"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor: .* got 0.5"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0,
                              "partial_rotary_factor": 0.25}},
         "partial_rotary_factor: expected 1, got 0.25"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "rope scaling: .*'longrope'"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "'dynamic'"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0.5}},
         "factor: expected at least 1, got 0.5"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "mscale": 1.0}},
         "without mscale"),
        ({"sliding_window": 5}, "sliding_window: expected none in a llama model"),
        ({"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 5,
          "layer_types": ["full_attention", "chunked_attention", "full_attention"]},
         "layer_types: .* got 'chunked_attention'"),
        ({"vocab_size": "50"}, "vocab_size: expected a whole number .* got '50'"),
        ({"hidden_size": None}, "hidden_size: .* got None"),
    ],
)  # fmt: skip
def test_what_the_decoder_cannot_honour(values: dict[str, Any], message: str) -> None:
    """A model that loads is right; the rest is refused by the field's name."""
    with pytest.raises(ValueError, match=message):
        from_transformers({**JSON, **values})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tied": True, "rope_theta": 1e6, "norm_eps": 1e-6, "max_positions": 99},
        {"attention_bias": True, "output_bias": True, "rope_scaling": LLAMA3},
        {"architecture": "mistral", "sliding_window": 7, "rope_scaling": YARN},
        {"architecture": "qwen2", "attention_bias": True},
        {"architecture": "qwen2", "attention_bias": True, "sliding_window": 7,
         "sliding_layers": (False, True, True)},
        {"architecture": "qwen3", "qk_norm": True,
         "rope_scaling": dataclasses.replace(YARN, attention_factor=1.5)},
    ],
)  # fmt: skip
def test_to_transformers_and_back(options: dict[str, Any]) -> None:
    """Through JSON and back nothing is lost."""
    config = DecoderConfig(**SIZES, **options)
    values = json.loads(json.dumps(to_transformers(config)))
    assert from_transformers(values) == config


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"attention_bias": True}, "output_bias: expected True in a llama"),
        ({"qk_norm": True}, "qk_norm: expected False in a llama model"),
        ({"sliding_window": 4}, "sliding_window: expected None in a llama"),
        ({"architecture": "mistral", "attention_bias": True}, "attention_bias: .* mis"),
        ({"architecture": "mistral", "sliding_window": 4,
          "sliding_layers": (True, False, True)}, "sliding_layers: .* mistral"),
        ({"architecture": "qwen2"}, "attention_bias: expected True in a qwen2"),
        ({"architecture": "qwen3"}, "qk_norm: expected True in a qwen3"),
    ],
)  # fmt: skip
def test_options_that_transformers_lacks(options: dict[str, Any], name: str) -> None:
    """A directory that transformers would read as another model is not written."""
    with pytest.raises(ValueError, match=name):
        to_transformers(DecoderConfig(**SIZES, **options))


def test_from_gguf() -> None:
    """Fields of the file; some options show in its tensors alone."""
    plain = DecoderConfig(
        **{**SIZES, "num_kv_heads": 4, "head_width": 6},
        norm_eps=1e-6,
        max_positions=512,
        tied=True,
    )
    assert from_gguf(GGUF, SHAPES) == plain
    shapes = dict.fromkeys(
        ("output.weight", "blk.0.attn_q.bias", "blk.0.attn_q_norm.weight"), (1,)
    )
    more = {
        "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 8,
        "llama.rope.freq_base": 5e5,
        "llama.rope.scaling.type": "yarn",
        "llama.rope.scaling.factor": 4.0,
        "llama.rope.scaling.original_context_length": 128,
        "llama.rope.dimension_count": 8,
        "llama.attention.sliding_window": 9,
    }
    assert from_gguf({**GGUF, **more}, {**SHAPES, **shapes}) == DecoderConfig(
        **SIZES,
        norm_eps=1e-6,
        max_positions=512,
        rope_theta=5e5,
        rope_scaling=dataclasses.replace(YARN, original_positions=128),
        attention_bias=True,
        qk_norm=True,
        sliding_window=9,
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"general.architecture": "bert"}, "general.architecture: .* got 'bert'"),
        ({"llama.block_count": None}, "llama.block_count: .* number, got None"),
        (
            {"llama.attention.head_count_kv": [2, 1, 2]},
            r"head_count_kv: .* \[2, 1, 2\]",
        ),
        ({"llama.rope.scaling.type": "longrope"}, "rope scaling: .*'longrope'"),
        ({"llama.rope.dimension_count": 4}, "rope.dimension_count: expected 6, .* 4"),
    ],
)
def test_gguf_that_the_decoder_cannot_honour(
    fields: dict[str, Any], message: str
) -> None:
    """The field is named, with its prefix."""
    values = {k: v for k, v in {**GGUF, **fields}.items() if v is not None}
    with pytest.raises(ValueError, match=message):
        from_gguf(values, SHAPES)
