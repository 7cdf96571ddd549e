"""Test what a model's files say: applied as transformers does, or refused by name."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm import generate
from jeff_llm.models import decoder, weights
from jeff_llm.models.config import from_gguf, from_transformers
from jeff_llm.models.rope import RopeScaling
from jeff_llm.models.tensors import open_safetensors, save_safetensors

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
TOKENS = np.random.default_rng(0).integers(0, 61, (1, 24))


def opened(folder: Path) -> Any:
    with contextlib.redirect_stderr(io.StringIO()):
        return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


def logits(model: Any) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(TOKENS)).logits.numpy()


def change(folder: Path, name: str = "config.json", **values: Any) -> None:
    file = folder / name
    old = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(old | values))


def save(folder: Path, family: str = "Qwen2", **options: Any) -> Path:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**SIZES, **options})
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    with contextlib.redirect_stderr(io.StringIO()):
        model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


def rewrite(folder: Path, change: Any) -> None:
    """Store the tensors that ``change`` gives for the folder's."""
    file = folder / "model.safetensors"
    tensors = {name: np.array(t.read()) for name, t in open_safetensors(file).items()}
    save_safetensors(file, change(tensors), metadata={"format": "pt"})


def untied(tensors: dict[str, Any]) -> dict[str, Any]:
    other = np.random.default_rng(1).normal(size=(61, 64)).astype(np.float32)
    return tensors | {"lm_head.weight": other}


def bare(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("model."): array for name, array in tensors.items()}


def head_alone(tensors: dict[str, Any]) -> dict[str, Any]:
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    return tensors


def doubled(tensors: dict[str, Any]) -> dict[str, Any]:
    return tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]}


LAYOUTS = {
    "another head": (True, untied, False),
    "the same head": (True, doubled, True),
    "the head alone": (True, head_alone, True),
    "no prefix, tied": (True, bare, True),
    "no prefix, another head": (True, lambda tensors: bare(untied(tensors)), False),
    "no prefix, untied": (False, bare, False),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_tied_heads_and_bare_names(name, tmp_path) -> None:
    """Whatever the names are, and whatever config.json calls tied."""
    says, layout, is_tied = LAYOUTS[name]
    folder = save(tmp_path / "model", tie_word_embeddings=says)
    rewrite(folder, layout)
    apart = says and not is_tied
    with (
        pytest.warns(UserWarning, match="tie_word_embeddings is true")
        if apart
        else contextlib.nullcontext()
    ):
        model = weights.load(folder)
    assert model.config.tied is is_tied
    found = decoder.apply(model.config, model.params, jnp.array(TOKENS)).logits
    np.testing.assert_allclose(found, logits(opened(folder)), atol=2e-4)
    # Written again it says what it is.
    again = weights.load(weights.save(model, tmp_path / "again"))
    assert again.config == model.config


def test_a_missing_head_is_refused(tmp_path) -> None:
    """transformers makes a random one."""
    folder = save(tmp_path / "model", tie_word_embeddings=True)
    change(folder, tie_word_embeddings=False)
    with pytest.raises(ValueError, match=r"missing are lm_head\.weight"):
        weights.load(folder)


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_every_end_token_ends_an_answer(file, tmp_path) -> None:
    """The list of one file, as transformers stops."""
    folder = save(tmp_path / "model")
    prompt = TOKENS[0, :8].tolist()
    free = generate.generate(weights.load(folder), [prompt], max_new_tokens=12)
    answer = np.asarray(free.tokens)[0].tolist()
    second = next(token for token in answer[3:] if token not in answer[:3])
    change(folder, eos_token_id=0)
    change(folder, file, eos_token_id=[60, second])
    model = weights.load(folder)
    assert model.stop_ids == (60, second)
    out = generate.generate(model, [prompt], max_new_tokens=12)
    theirs = opened(folder).generate(
        torch.tensor([prompt]), max_new_tokens=12, do_sample=False, pad_token_id=0
    )
    expected = theirs[0, len(prompt) :].tolist()
    length = int(out.lengths[0])
    assert bool(out.finished[0])
    assert np.asarray(out.tokens)[0, :length].tolist() == expected[:length]
    assert expected[-1] == second and len(expected) - length in (0, 1)
    assert weights.load(weights.save(model, tmp_path / "again")).stop_ids == (
        60,
        second,
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"eos_token_id": [1, "2"]}, "eos_token_id: expected a token, or a list"),
        ({"eos_token_id": -1}, r"generation_config\.json: eos_token_id: .* got -1"),
        ({"suppress_tokens": [3]}, r"suppress_tokens: expected \[\], got \[3\]"),
        ({"forced_bos_token_id": 3}, "forced_bos_token_id: expected None, got 3"),
        ({"tomorrow": 1}, 'tomorrow: expected only fields .* ignore=."tomorrow",'),
    ],
)
def test_a_generation_config_that_is_refused(values, message, tmp_path) -> None:
    """By file and field; settings of sampling are the caller's."""
    folder = save(tmp_path / "model")
    sampling = {"temperature": 0.6, "top_p": 0.95, "repetition_penalty": 1.1}
    change(folder, "generation_config.json", do_sample=True, **sampling)
    assert weights.load(folder).stop_ids == ()
    change(folder, "generation_config.json", **values)
    with pytest.raises(ValueError, match=message):
        weights.load(folder)
    assert weights.load(folder, ignore=tuple(values))


def test_an_end_without_a_row(tmp_path) -> None:
    """A tiny copy of a large model keeps its large numbers."""
    folder = save(tmp_path / "model")
    change(folder, eos_token_id=[7, 151645])
    with pytest.warns(UserWarning, match="eos_token_id: expected tokens below 61"):
        assert weights.load(folder).stop_ids == (7,)


def test_yarn_as_qwen_documents_it(tmp_path) -> None:
    """Four times the context, though max_position_embeddings says the old one."""
    folder = save(tmp_path / "model", "Qwen3", head_dim=16)
    scaling = {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    file = folder / "config.json"
    values = json.loads(file.read_text())
    del values["rope_parameters"]
    change(folder, **values, rope_theta=1e4, rope_scaling=scaling)
    file.write_text(json.dumps(values | {"rope_theta": 1e4, "rope_scaling": scaling}))
    model = weights.load(folder)
    assert model.config.max_positions == 256
    prompt = np.random.default_rng(2).integers(0, 61, 120).tolist()
    out = generate.generate(model, [prompt], max_new_tokens=16)
    theirs = opened(folder).generate(
        torch.tensor([prompt]), max_new_tokens=16, do_sample=False, pad_token_id=0
    )
    assert np.asarray(out.tokens)[0].tolist() == theirs[0, 120:].tolist()
    with pytest.raises(ValueError, match="the model's context of 256"):
        generate.generate(model, [prompt * 2], max_new_tokens=17)


CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 50,
    "num_hidden_layers": 2,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_attention_heads": 4,
}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"residual_multiplier": 0.22}, "residual_multiplier: expected 1, got 0.22"),
        ({"embedding_multiplier": 12}, "embedding_multiplier: expected 1, got 12"),
        ({"attention_multiplier": 0.01}, "attention_multiplier: expected None"),
        ({"quantization_config": {"bits": 4}}, "quantization_config: expected {}"),
        ({"auto_map": {"AutoModel": "x.Y"}}, "auto_map: expected {}, got"),
        ({"is_causal": False}, "is_causal: expected True, got False"),
        ({"num_local_experts": 8}, "num_local_experts: expected only fields"),
        ({"per_layer_config": {"1": {"head_dim": 2}}}, "per_layer_config: expected"),
        ({"layer_types": ["full_attention", "sliding_attention"]},
         "layer_types: expected full_attention in every layer"),
        ({"layer_types": ["full_attention"]}, "layer_types: expected a list of 2 kin"),
        ({"model_type": "mistral", "use_sliding_window": False},
         "use_sliding_window: expected true beside a sliding_window"),
        ({"rope_scaling": {"factor": 2.0}}, "rope_scaling.factor: expected only"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "beta_fast": 32}},
         "rope_scaling.beta_fast: expected only"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}},
         "rope_scaling.full_attention: expected only"),
        ({"rope_scaling": {"type": "default", "mrope_section": [1, 2]}},
         r'pass ignore=\("rope_scaling.mrope_section",\)'),
    ],
)  # fmt: skip
def test_fields_of_config_json_by_name(values, message) -> None:
    """Those of other families, and those that nobody knows."""
    with pytest.raises(ValueError, match=message):
        from_transformers({**CONFIG, **values})


# What published models write beside the sizes.
PUBLISHED: dict[str, dict[str, Any]] = {
    "SmolLM2": {
        "is_llama_config": True,
        "rope_interleaved": False,
        "rope_scaling": None,
        "transformers.js_config": {"dtype": "q4"},
        "pretraining_tp": 1,
        "mlp_bias": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
    },
    "Llama 3.2": {
        "rope_scaling": {
            "factor": 32.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "eos_token_id": [128001, 128008, 128009],
        "max_position_embeddings": 131072,
    },
    "Mistral": {"model_type": "mistral", "sliding_window": None, "head_dim": 6},
    "Qwen2.5": {
        "model_type": "qwen2",
        "use_sliding_window": False,
        "sliding_window": 131072,
        "max_window_layers": 28,
        "use_mrope": False,
        "attention_dropout": 0.0,
    },
    "Qwen3": {
        "model_type": "qwen3",
        "attention_bias": False,
        "max_window_layers": 2,
        "layer_types": ["full_attention"] * 2,
        "sliding_window": None,
        "use_sliding_window": False,
    },
    "a fine-tune": {
        "unsloth_version": "2025.1",
        "_name_or_path": "base",
        "architectures": ["LlamaForCausalLM"],
        "temperature": 0.7,
        "max_length": 20,
        "id2label": {"0": "LABEL_0"},
        "_attn_implementation_autoset": True,
        "quantization_config": None,
        "bos_token_id": 1,
        "pad_token_id": -1,
        "max_sequence_length": 2048,
    },
    "Yarn-Llama-2": {
        "rope_scaling": {
            "type": "yarn",
            "factor": 16.0,
            "original_max_position_embeddings": 4096,
            "finetuned": True,
        },
        "max_position_embeddings": 65536,
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations_are_read(name) -> None:
    """None of their fields stands in the way."""
    config = from_transformers({**CONFIG, **PUBLISHED[name]})
    assert config.num_layers == 2


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_every_default_of_transformers_is_known(family) -> None:
    """All that transformers 5 writes by itself, sampling included."""
    sizes = {"num_key_value_heads": 2, "head_dim": 6, "model_type": family}
    config = transformers.AutoConfig.for_model(**{**CONFIG, **sizes})
    sampling = transformers.GenerationConfig().to_dict()
    values = json.loads(json.dumps({**sampling, **config.to_dict()}, default=str))
    assert from_transformers(values).architecture == family


GGUF: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.embedding_length": 24,
    "llama.feed_forward_length": 40,
    "llama.attention.head_count": 4,
    "llama.attention.layer_norm_rms_epsilon": 1e-6,
    "llama.context_length": 64,
}
SHAPES = {"token_embd.weight": (50, 24)}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"rope.scale_linear": 4.0}, RopeScaling("linear", 4.0)),
        ({"rope.scale_linear": 0.0}, None),
        ({"rope.scaling.factor": 4.0}, RopeScaling("linear", 4.0)),
        ({"rope.scaling.factor": 4.0, "rope.scale_linear": 4.0,
          "rope.scaling.type": "linear"}, RopeScaling("linear", 4.0)),
        ({"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, None),
        ({"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0,
          "rope.scaling.yarn_beta_fast": 16.0, "rope.scaling.yarn_beta_slow": 2.0,
          "rope.scaling.original_context_length": 64, "rope.scaling.finetuned": True},
         RopeScaling("yarn", 4.0, 64, low=2.0, high=16.0)),
        ({"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0,
          "rope.scaling.attn_factor": 2.0},
         RopeScaling("yarn", 4.0, 64, high=32.0,
                     attention_factor=2 * (0.1 * np.log(4.0) + 1))),
    ],
)  # fmt: skip
def test_rope_of_gguf(fields, expected) -> None:
    """As llama.cpp reads it: a factor without a type is linear."""
    values = {f"llama.{name}": value for name, value in fields.items()}
    found = from_gguf({**GGUF, **values}, SHAPES)
    scaling = found.rope_scaling
    if expected is None or expected.kind == "linear":
        assert (scaling and scaling.factor) == (expected and expected.factor)
    else:
        assert scaling is not None
        assert scaling.attention_factor == pytest.approx(expected.attention_factor)
        assert (scaling.low, scaling.high) == (expected.low, expected.high)
    stated = "rope.scaling.original_context_length" in fields
    assert found.max_positions == (256 if stated else 64)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rope.freq_base_swa": 1e4}, "llama.rope.freq_base_swa: expected only fields"),
        ({"rope.scaling.alpha": 2.0}, "llama.rope.scaling.alpha: expected only fields"),
        ({"rope.scale_linear": 2.0, "rope.scaling.factor": 4.0},
         "llama.rope.scale_linear: expected the same"),
        ({"rope.scaling.attn_factor": 2.0}, "attn_factor: expected 1 with scaling"),
        ({"rope.scaling.type": "yarn", "rope.scaling.factor": 2.0,
          "rope.scaling.yarn_ext_factor": 0.5}, "yarn_ext_factor: expected 1, got 0.5"),
        ({"rope.scaling.type": "yarn", "rope.scaling.factor": 2.0,
          "rope.scaling.yarn_log_multiplier": 0.1}, "yarn_log_multiplier: expected 0"),
        ({"attention.scale": 0.1}, "llama.attention.scale: expected 0, got 0.1"),
        ({"logit_scale": 0.25}, "llama.logit_scale: expected 1, got 0.25"),
        ({"expert_count": 8}, "llama.expert_count: expected 0, got 8"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping: expected 0"),
        ({"attention.value_length": 8}, "attention.value_length: expected 6"),
        ({"attention.causal": False}, "attention.causal: expected True, got False"),
        ({"vocab_size": 51}, "llama.vocab_size: expected 50, the rows"),
        ({"tomorrow": 2}, r'llama.tomorrow: .* pass ignore=\("llama.tomorrow",\)'),
    ],
)  # fmt: skip
def test_fields_of_gguf_by_name(fields, message) -> None:
    """Those of other architectures, and those that nobody knows."""
    neutral = {"logit_scale": 0.0, "expert_count": 0, "attention.scale": 0.0}
    for values in (neutral, {**neutral, **fields}):
        named = {f"llama.{name}": value for name, value in values.items()}
        if values is neutral:
            assert from_gguf({**GGUF, **named}, SHAPES).vocab_size == 50
            continue
        with pytest.raises(ValueError, match=message):
            from_gguf({**GGUF, **named}, SHAPES)
