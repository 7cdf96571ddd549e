"""Test every model family: files from transformers, read, and written back.

All parameters are random, biases and the scales of norms included, and texts are longer
than the windows. The logits have a standard deviation near 2; `ROUNDING` is three times
the largest difference measured.
"""

import contextlib
import io
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm.models import architectures, decoder, weights
from jeff_llm.models.config import DecoderConfig
from jeff_llm.models.mapping import Transform

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

ROUNDING = 3e-5
apply = jax.jit(decoder.apply, static_argnames=("config", "hidden_layers"))

SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
SOME = {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}


class Case(NamedTuple):
    """A family's configuration in transformers."""

    family: str
    options: dict[str, Any]


CASES = {
    "llama": Case("Llama", {}),
    "llama tied, one key head": Case(
        "Llama", {"tie_word_embeddings": True, "num_key_value_heads": 1}
    ),
    "llama biases, all key heads": Case(
        "Llama", {"attention_bias": True, "num_key_value_heads": 4}
    ),
    "llama wide heads, linear": Case(
        "Llama", {"head_dim": 16, "rope_parameters": LINEAR}
    ),
    "llama llama3": Case("Llama", {"head_dim": 16, "rope_parameters": LLAMA3}),
    "llama yarn": Case("Llama", {"head_dim": 16, "rope_parameters": YARN}),
    "mistral window": Case("Mistral", {"sliding_window": 7}),
    "mistral yarn": Case(
        "Mistral", {"sliding_window": None, "rope_parameters": YARN, "head_dim": 12}
    ),
    "qwen2": Case("Qwen2", {"tie_word_embeddings": True}),
    "qwen2 windows": Case("Qwen2", SOME),
    "qwen3": Case("Qwen3", {"head_dim": 12, "tie_word_embeddings": True}),
    "qwen3 windows, biases, yarn": Case(
        "Qwen3",
        {**SOME, "head_dim": 16, "attention_bias": True, "rope_parameters": YARN},
    ),
}
TOKENS = np.random.default_rng(0).integers(0, 61, (2, 40))


def make(case: Case) -> Any:
    """A model of transformers with every parameter random."""
    config = getattr(transformers, f"{case.family}Config")(**{**SIZES, **case.options})
    torch.manual_seed(0)
    model = getattr(transformers, f"{case.family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.copy_(1 + 0.3 * torch.randn_like(parameter))
            elif name.endswith("bias"):
                parameter.copy_(0.5 * torch.randn_like(parameter))
            else:
                scale = 0.5 if "embed" in name else parameter.shape[1] ** -0.5
                parameter.copy_(scale * torch.randn_like(parameter))
    return model


def answer(model: Any) -> Any:
    with torch.no_grad():
        return model(torch.from_numpy(TOKENS), output_hidden_states=True)


@pytest.fixture(params=CASES, scope="module")
def written(request, tmp_path_factory) -> tuple[Any, Path]:
    """A model of transformers and the directory that it was saved to."""
    model = make(CASES[request.param])
    folder = tmp_path_factory.mktemp("model")
    with contextlib.redirect_stderr(io.StringIO()):
        model.save_pretrained(folder)
    return model, folder


def test_read(written) -> None:
    """Logits and every hidden state are those of transformers."""
    theirs, folder = written
    model = weights.load(folder)
    assert model.tokenizer is None and model.stop_ids == (2,)
    layers = (0, 1, 2, 3, -1, -2, -3, -4)
    out = apply(model.config, model.params, jnp.array(TOKENS), hidden_layers=layers)
    expected = answer(theirs)
    np.testing.assert_allclose(out.logits, expected.logits.numpy(), atol=ROUNDING)
    for place, layer in enumerate(layers):
        np.testing.assert_allclose(
            out.hidden[place], expected.hidden_states[layer].numpy(), atol=ROUNDING
        )


def test_written_back(written, tmp_path) -> None:
    """transformers opens what we write, and finds exactly its own tensors in it."""
    theirs, folder = written
    weights.save(weights.load(folder), tmp_path / "ours")
    with contextlib.redirect_stderr(io.StringIO()):
        again, info = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path / "ours", output_loading_info=True
        )
    assert not any(info.values()), info
    assert type(again) is type(theirs)
    np.testing.assert_array_equal(
        answer(again).logits.numpy(), answer(theirs).logits.numpy()
    )


def interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """As llama.cpp stores queries and keys: row i of a head beside row i + H/2."""
    half = len(rows) // heads // 2
    order = [
        head * 2 * half + index + side * half
        for head in range(heads)
        for index in range(half)
        for side in (0, 1)
    ]
    return rows[order]


GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers.": "blk.",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_tensors(model: Any, permuted: bool) -> dict[str, np.ndarray]:
    """Tensors by llama.cpp's names, in its order of rows."""
    tensors = {}
    for name, parameter in model.named_parameters():
        array = parameter.detach().numpy()
        if permuted and "q_proj" in name:
            array = interleaved(array, model.config.num_attention_heads)
        if permuted and "k_proj" in name:
            array = interleaved(array, model.config.num_key_value_heads)
        renamed = name
        for theirs, ours in GGUF_NAMES.items():
            renamed = renamed.replace(theirs, ours)
        tensors[renamed] = array
    return tensors


def gguf_fields(model: Any, family: str) -> dict[str, Any]:
    config = model.config
    values = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": config.rope_parameters["rope_theta"],
    }
    named = {f"{family}.{name}": value for name, value in values.items()}
    return {"general.architecture": family, "general.name": "made", **named}


@pytest.mark.parametrize("case", ["llama wide heads, linear", "qwen3"])
def test_gguf(case, tmp_path, write_gguf) -> None:
    """Llama's rows are put back in order, Qwen's are in order already."""
    theirs = make(CASES[case])
    family = theirs.config.model_type
    fields = gguf_fields(theirs, family)
    if theirs.config.rope_parameters["rope_type"] == "linear":
        fields[f"{family}.rope.scaling.type"] = "linear"
        fields[f"{family}.rope.scaling.factor"] = 2.0
    path = write_gguf(
        tmp_path / "made.gguf", fields, gguf_tensors(theirs, family == "llama")
    )
    model = weights.load(path)
    assert model.name == "made" and model.stop_ids == (0,)
    logits = apply(model.config, model.params, jnp.array(TOKENS)).logits
    expected = answer(theirs).logits.numpy()
    np.testing.assert_allclose(logits, expected, atol=ROUNDING)


def test_gguf_with_the_divisors_of_llama3(tmp_path, write_gguf) -> None:
    """llama.cpp stores what Llama 3 divides its frequencies by as a tensor."""
    rope = {**LLAMA3, "original_max_position_embeddings": 8192, "rope_theta": 5e5}
    options = {"head_dim": 64, "rope_parameters": rope}
    theirs = make(Case("Llama", {**options, "max_position_embeddings": 16384}))
    factors = []
    for index in range(32):
        turns = 8192 / (2 * np.pi) * 5e5 ** (-index / 32)
        kept = min(max((turns - 1) / (4 - 1), 0), 1)
        factors.append(1 / ((1 - kept) / 8 + kept))
    assert factors[0] == 1 and factors[-1] == 8
    tensors = gguf_tensors(theirs, permuted=True)
    tensors["rope_freqs.weight"] = np.array(factors, np.float32)
    path = write_gguf(tmp_path / "made.gguf", gguf_fields(theirs, "llama"), tensors)
    model = weights.load(path)
    assert model.config.rope_scaling.factor == 8
    tokens = torch.from_numpy(TOKENS)
    # Far out, where the divided frequencies have turned by more than a whole turn.
    positions = torch.arange(9000, 9040)[None].expand(2, -1)
    with torch.no_grad():
        expected = theirs(tokens, position_ids=positions).logits.numpy()
    logits = apply(
        model.config,
        model.params,
        jnp.array(TOKENS),
        positions=jnp.asarray(positions.numpy()),
    ).logits
    # 9,000 radians in float32 are known to 5e-4.
    np.testing.assert_allclose(logits, expected, atol=1e-3)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_tables_undo_themselves(family) -> None:
    """What a rule reads, it writes back."""
    config = DecoderConfig(61, 2, 32, 48, 4, 2, 8, architecture=family)
    rules = architectures.gguf_rules(config)
    special = [
        rule.transform for rule in rules if isinstance(rule.transform, Transform)
    ]
    for transform in special:
        for shape in ((16, 32), (16,)):
            array = np.random.default_rng(0).normal(size=shape)
            back = transform.write(transform.read(array))
            np.testing.assert_array_equal(back, array)
    assert len(special) == (4 if family == "llama" else 0)
