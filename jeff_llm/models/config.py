"""Configuration of a decoder: one frozen dataclass, read from and written to files.

It covers the Llama family: SmolLM2, Llama 2 and 3, Mistral, Qwen2, Qwen2.5 and Qwen3.
`from_transformers` and `to_transformers` read and write ``config.json``; `from_gguf`
reads the key-value fields of a GGUF file. A field that the decoder cannot honour
(another activation, an unknown kind of RoPE scaling), or does not know
(`jeff_llm.models.known_fields`), is an error, so a model that loads computes the right
numbers.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from jeff_llm.models import fields, known_fields
from jeff_llm.models.rope import RopeScaling
from jeff_llm.models.sliding import read_sliding

__all__ = ["DecoderConfig", "from_gguf", "from_transformers", "to_transformers"]

_ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Sizes and options of a decoder; hashable, so it may be static under jit.

    Attributes:
      vocab_size: rows of the embedding.
      num_layers: blocks.
      width: width of the residual stream.
      mlp_width: hidden width of the SwiGLU.
      num_heads: query heads.
      num_kv_heads: key and value heads; divides ``num_heads``.
      head_width: width of a head.
      max_positions: longest context that the model was trained for, in tokens.
      norm_eps: epsilon of RMSNorm.
      rope_theta: base of the rotary frequencies.
      rope_scaling: how the frequencies are stretched, or None.
      tied: the head is the embedding.
      attention_bias: query, key and value have a bias.
      output_bias: the attention's output has a bias.
      qk_norm: RMSNorm over each head's query and key, before RoPE.
      sliding_window: tokens that a token sees, itself counted; None for all.
      sliding_layers: for each layer whether the window applies; None for all layers.
      architecture: family under which transformers knows it.
    """

    vocab_size: int
    num_layers: int
    width: int
    mlp_width: int
    num_heads: int
    num_kv_heads: int
    head_width: int
    max_positions: int = 2048
    norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    tied: bool = False
    attention_bias: bool = False
    output_bias: bool = False
    qk_norm: bool = False
    sliding_window: int | None = None
    sliding_layers: tuple[bool, ...] | None = None
    architecture: Literal["llama", "mistral", "qwen2", "qwen3"] = "llama"

    def __post_init__(self):
        """Check sizes."""
        sizes = (
            "vocab_size",
            "num_layers",
            "width",
            "mlp_width",
            "num_heads",
            "num_kv_heads",
            "head_width",
            "max_positions",
        )
        for name in sizes:
            fields.check_whole(name, getattr(self, name))
        # Files may not state 0, but the formula by hand has no epsilon.
        if self.norm_eps != 0:
            fields.check_real("norm_eps", self.norm_eps, below=1.0)
        fields.check_real("rope_theta", self.rope_theta, above=1.0)
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_kv_heads: expected a divisor of num_heads = {self.num_heads}, "
                f"got {self.num_kv_heads}"
            )
        if self.head_width % 2:
            raise ValueError(f"head_width: expected an even one, got {self.head_width}")
        if self.sliding_window is not None:
            fields.check_whole("sliding_window", self.sliding_window)
        layers = self.sliding_layers
        if layers is not None and len(layers) != self.num_layers:
            raise ValueError(
                f"sliding_layers: expected {self.num_layers} entries, got {len(layers)}"
            )
        if self.architecture not in _ARCHITECTURES:
            raise ValueError(
                f"architecture: expected one of {sorted(_ARCHITECTURES)}, got "
                f"{self.architecture!r}"
            )

    @property
    def windows(self) -> tuple[int | None, ...]:
        """The sliding window of each layer."""
        layers = self.sliding_layers or (True,) * self.num_layers
        return tuple(self.sliding_window if sliding else None for sliding in layers)


def from_transformers(values: Mapping[str, Any]) -> DecoderConfig:
    """Read the fields of a transformers ``config.json``.

    Args:
      values: the parsed file, of transformers 4 or 5.

    Returns:
      The configuration.

    Raises:
      ValueError: naming the field that is missing or that the decoder cannot honour.
    """
    family = _family(values, "model_type")
    # transformers 4 writes rope_scaling, transformers 5 rope_parameters.
    rope = {
        **fields.mapping(values, "rope_scaling"),
        **fields.mapping(values, "rope_parameters"),
    }
    known_fields.check_known(values, known_fields.CONFIG)
    heads = fields.whole(values, "num_attention_heads")
    width = fields.whole(values, "hidden_size")
    bias = fields.flag(values, "attention_bias")
    qwen2 = family == "qwen2"
    num_layers = fields.whole(values, "num_hidden_layers")
    window, sliding_layers = read_sliding(values, num_layers)
    positions = fields.whole(values, "max_position_embeddings", 2048)
    scaling = RopeScaling.from_transformers(rope, positions)
    if "original_max_position_embeddings" in rope and scaling is not None:
        positions = max(positions, scaling.reach)
    theta = fields.real(values, "rope_theta", 1e4, above=1.0)
    return DecoderConfig(
        vocab_size=fields.whole(values, "vocab_size"),
        num_layers=num_layers,
        width=width,
        mlp_width=fields.whole(values, "intermediate_size"),
        num_heads=heads,
        num_kv_heads=fields.whole(values, "num_key_value_heads", heads),
        head_width=fields.whole(values, "head_dim", width // heads),
        max_positions=positions,
        norm_eps=fields.real(values, "rms_norm_eps", 1e-6, below=1.0),
        rope_theta=fields.real(rope, "rope_theta", theta, above=1.0),
        rope_scaling=scaling,
        tied=fields.flag(values, "tie_word_embeddings"),
        # Qwen2 has these biases in its code and not in its configuration.
        attention_bias=qwen2 or bias,
        output_bias=bias and not qwen2,
        qk_norm=family == "qwen3",
        sliding_window=window,
        sliding_layers=sliding_layers,
        architecture=family,
    )


def to_transformers(config: DecoderConfig) -> dict[str, Any]:
    """The ``config.json`` with which transformers opens the same model.

    Args:
      config: the configuration.

    Returns:
      Its fields, in the style that transformers 4 and 5 both read.

    Raises:
      ValueError: if the family's class in transformers lacks an option that is set.
    """
    values: dict[str, Any] = {
        "architectures": [_ARCHITECTURES[config.architecture]],
        "model_type": config.architecture,
        "vocab_size": config.vocab_size,
        "num_hidden_layers": config.num_layers,
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_width,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tied,
        "hidden_act": "silu",
    }
    if config.rope_scaling is not None:
        values["rope_scaling"] = config.rope_scaling.to_transformers()
    # Only fields that the family's class reads: an unknown one would be ignored.
    if config.architecture in {"llama", "qwen3"}:
        values["attention_bias"] = config.attention_bias
    if config.architecture != "llama":
        values["sliding_window"] = config.sliding_window
    if config.architecture in {"qwen2", "qwen3"}:
        values["layer_types"] = [
            "full_attention" if window is None else "sliding_attention"
            for window in config.windows
        ]
        values["use_sliding_window"] = config.sliding_window is not None
    _check_writable(config)
    return values


def from_gguf(metadata: Mapping[str, Any], shapes: Mapping[str, Any]) -> DecoderConfig:
    """Read the key-value fields of a GGUF file.

    Args:
      metadata: the fields.
      shapes: shape of each tensor by name; some options appear only there.

    Returns:
      The configuration; RoPE frequency factors stored as a tensor are read by
      `jeff_llm.models.weights.load`.

    Raises:
      ValueError: naming the field that is missing or that the decoder cannot honour.
    """
    family = _family(metadata, "general.architecture")

    def whole(name: str, default: int | None = None) -> int:
        return fields.whole(metadata, f"{family}.{name}", default)

    stem = f"{family}."
    own = {k.removeprefix(stem): v for k, v in metadata.items() if k.startswith(stem)}
    known_fields.check_known(own, known_fields.GGUF, prefix=stem)
    # A head may be wider or narrower than width / heads.
    heads, width = whole("attention.head_count"), whole("embedding_length")
    head_width = whole("attention.key_length", width // heads)
    rotated = whole("rope.dimension_count", head_width)
    # Partial rotation would load and compute other numbers.
    if rotated != head_width:
        raise ValueError(
            f"{family}.rope.dimension_count: expected {head_width}, the width of a "
            f"head, got {rotated}; this decoder rotates whole heads"
        )
    if (values := whole("attention.value_length", head_width)) != head_width:
        raise ValueError(
            f"{family}.attention.value_length: expected {head_width}, the width of a "
            f"head's keys, got {values}; this decoder has one width"
        )
    rows = shapes["token_embd.weight"][0]
    if (stated := whole("vocab_size", rows)) != rows:
        raise ValueError(
            f"{family}.vocab_size: expected {rows}, the rows of token_embd.weight, got "
            f"{stated}; the file is damaged"
        )
    scaling = RopeScaling.from_gguf(metadata, family)
    positions = whole("context_length")
    if f"{family}.rope.scaling.original_context_length" in metadata and scaling:
        positions = max(positions, scaling.reach)
    # llama.cpp writes 0 for no window.
    window = metadata.get(f"{family}.attention.sliding_window") or None
    return DecoderConfig(
        vocab_size=rows,
        num_layers=whole("block_count"),
        width=width,
        mlp_width=whole("feed_forward_length"),
        num_heads=heads,
        num_kv_heads=whole("attention.head_count_kv", heads),
        head_width=head_width,
        max_positions=positions,
        norm_eps=fields.real(
            metadata, f"{family}.attention.layer_norm_rms_epsilon", below=1.0
        ),
        rope_theta=fields.real(metadata, f"{family}.rope.freq_base", 1e4, above=1.0),
        rope_scaling=scaling,
        # These options have no field in GGUF; the tensors tell.
        tied="output.weight" not in shapes,
        attention_bias="blk.0.attn_q.bias" in shapes,
        output_bias="blk.0.attn_output.bias" in shapes,
        qk_norm="blk.0.attn_q_norm.weight" in shapes,
        sliding_window=window,
        architecture=family,
    )


def _family(values: Mapping[str, Any], name: str) -> Any:
    family = values.get(name)
    if not isinstance(family, str) or family not in _ARCHITECTURES:
        raise ValueError(
            f"{name}: expected one of {sorted(_ARCHITECTURES)}, got {family!r:.100}"
        )
    return family


def _check_writable(config: DecoderConfig) -> None:
    """Refuse options for which the family's class in transformers has no field."""
    family = config.architecture
    expected = {
        "attention_bias": {"mistral": False, "qwen2": True},
        "output_bias": {
            "mistral": False,
            "qwen2": False,
            "llama": config.attention_bias,
            "qwen3": config.attention_bias,
        },
        "qk_norm": {"llama": False, "mistral": False, "qwen2": False, "qwen3": True},
        "sliding_window": {"llama": None},
        "sliding_layers": {"llama": None, "mistral": None},
    }
    for name, by_family in expected.items():
        if family in by_family and getattr(config, name) != by_family[family]:
            raise ValueError(
                f"{name}: expected {by_family[family]} in a {family} model of "
                f"transformers, got {getattr(config, name)}"
            )
