"""Sizes of a BERT, and the names of its tensors in the files of transformers."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jeff_llm.models import fields, known_fields
from jeff_llm.models.mapping import Rule

__all__ = ["IGNORED", "RULES", "EncoderConfig", "from_transformers"]


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Sizes of an encoder; those of all-MiniLM-L6-v2 by default.

    Attributes:
      vocab_size: rows of the embedding.
      num_layers: blocks.
      width: width of the residual stream, and of the result.
      num_heads: heads of the attention.
      mlp_width: hidden width of the MLP.
      max_positions: longest text, in tokens.
      num_types: rows of the embedding of token types; the first is added everywhere.
      norm_eps: epsilon of LayerNorm.
    """

    vocab_size: int = 30522
    num_layers: int = 6
    width: int = 384
    num_heads: int = 12
    mlp_width: int = 1536
    max_positions: int = 512
    num_types: int = 2
    norm_eps: float = 1e-12


# Required values in ``config.json`` beside sizes, with BERT's defaults.
_HONOURED = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
}
_SIZES = {
    "vocab_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "width": "hidden_size",
    "num_heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "num_types": "type_vocab_size",
    "norm_eps": "layer_norm_eps",
}


def from_transformers(values: Mapping[str, Any]) -> EncoderConfig:
    """Read the ``config.json`` of a BERT.

    Args:
      values: its content.

    Returns:
      The configuration.

    Raises:
      ValueError: if a size is missing, or the model is not a BERT of this kind.
    """
    known_fields.check_known(values, known_fields.ENCODER)
    for name, wanted in _HONOURED.items():
        if values.get(name, wanted) != wanted:
            raise ValueError(f"{name}: expected {wanted!r}, got {values[name]!r:.100}")
    if missing := [name for name in _SIZES.values() if name not in values]:
        raise ValueError(f"{missing[0]}: expected the size, the configuration has none")
    sizes: dict[str, Any] = {
        ours: fields.whole(values, name)
        for ours, name in _SIZES.items()
        if ours != "norm_eps"
    }
    epsilon = fields.real(values, _SIZES["norm_eps"], below=1.0)
    config = EncoderConfig(**sizes, norm_eps=epsilon)
    if config.width % config.num_heads:
        raise ValueError(
            f"num_attention_heads: expected a divisor of hidden_size {config.width}, "
            f"got {config.num_heads}"
        )
    return config


_BLOCK = (
    ("attention/query", "attention.self.query"),
    ("attention/key", "attention.self.key"),
    ("attention/value", "attention.self.value"),
    ("attention/output", "attention.output.dense"),
    ("attention_norm", "attention.output.LayerNorm"),
    ("up", "intermediate.dense"),
    ("down", "output.dense"),
    ("mlp_norm", "output.LayerNorm"),
)


def _pair(theirs: str, ours: str) -> tuple[Rule, Rule]:
    """Weight and bias of a layer norm or of a linear layer."""
    weight = Rule(f"{theirs}.weight", f"{ours}/kernel", "transpose")
    if "norm" in ours:
        weight = Rule(f"{theirs}.weight", f"{ours}/scale")
    return weight, Rule(f"{theirs}.bias", f"{ours}/bias")


RULES: tuple[Rule, ...] = (
    Rule("embeddings.word_embeddings.weight", "embedding/tokens"),
    Rule("embeddings.position_embeddings.weight", "embedding/positions"),
    Rule("embeddings.token_type_embeddings.weight", "embedding/types"),
    *_pair("embeddings.LayerNorm", "embedding/norm"),
    *(
        rule
        for ours, theirs in _BLOCK
        for rule in _pair(f"encoder.layer.{{layer}}.{theirs}", f"layers/{ours}")
    ),
)
# A table that follows from the sizes, and the pooler, which is not used.
IGNORED = (r"^embeddings\.position_ids$", r"^pooler\.")
