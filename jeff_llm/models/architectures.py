"""Tables of names for the decoders: transformers' safetensors, and GGUF files."""

import numpy as np

from jeff_llm.models.config import DecoderConfig
from jeff_llm.models.mapping import Rule, Transform

__all__ = ["GGUF_IGNORED", "SAFETENSORS_IGNORED", "SAFETENSORS_RULES", "gguf_rules"]

# Tables that follow from the configuration; some files contain them anyway.
SAFETENSORS_IGNORED = (r"rotary_emb\.inv_freq$",)
GGUF_IGNORED = (r"^rope_freqs\.weight$",)

# (leaf, transformers, GGUF); the configuration determines which leaves a model has.
_LAYER = (
    ("attention_norm/scale", "input_layernorm.weight", "attn_norm.weight"),
    ("mlp_norm/scale", "post_attention_layernorm.weight", "ffn_norm.weight"),
    ("attention/query/kernel", "self_attn.q_proj.weight", "attn_q.weight"),
    ("attention/key/kernel", "self_attn.k_proj.weight", "attn_k.weight"),
    ("attention/value/kernel", "self_attn.v_proj.weight", "attn_v.weight"),
    ("attention/output/kernel", "self_attn.o_proj.weight", "attn_output.weight"),
    ("attention/query/bias", "self_attn.q_proj.bias", "attn_q.bias"),
    ("attention/key/bias", "self_attn.k_proj.bias", "attn_k.bias"),
    ("attention/value/bias", "self_attn.v_proj.bias", "attn_v.bias"),
    ("attention/output/bias", "self_attn.o_proj.bias", "attn_output.bias"),
    ("attention/query_norm/scale", "self_attn.q_norm.weight", "attn_q_norm.weight"),
    ("attention/key_norm/scale", "self_attn.k_norm.weight", "attn_k_norm.weight"),
    ("gate/kernel", "mlp.gate_proj.weight", "ffn_gate.weight"),
    ("up/kernel", "mlp.up_proj.weight", "ffn_up.weight"),
    ("down/kernel", "mlp.down_proj.weight", "ffn_down.weight"),
)
_WHOLE = (
    ("embedding", "model.embed_tokens.weight", "token_embd.weight"),
    ("norm/scale", "model.norm.weight", "output_norm.weight"),
    ("head/kernel", "lm_head.weight", "output.weight"),
)


def _kind(path: str) -> str:
    return "transpose" if path.endswith("kernel") else "none"


SAFETENSORS_RULES: tuple[Rule, ...] = (
    *(Rule(theirs, path, _kind(path)) for path, theirs, _ in _WHOLE),
    *(
        Rule(f"model.layers.{{layer}}.{theirs}", f"layers/{path}", _kind(path))
        for path, theirs, _ in _LAYER
    ),
)


def gguf_rules(config: DecoderConfig) -> list[Rule]:
    """The table of names of llama.cpp.

    Its Llama models rotate neighbouring pairs of a head where transformers rotates its
    halves, and their query and key rows are stored in that order; it is undone here.

    Args:
      config: the decoder's configuration.

    Returns:
      The rules.
    """
    rules = [Rule(theirs, path, _kind(path)) for path, _, theirs in _WHOLE]
    interleaved = config.architecture in {"llama", "mistral"}
    for path, _, theirs in _LAYER:
        transform: str | Transform = _kind(path)
        if interleaved and path.startswith(("attention/query/", "attention/key/")):
            transform = _halves(config.head_width)
        rules.append(Rule(f"blk.{{layer}}.{theirs}", f"layers/{path}", transform))
    return rules


def _halves(head_width: int) -> Transform:
    """Rows of each head from pairs (0, H/2, 1, ...) to halves (0, 1, ...)."""

    def read(x: np.ndarray) -> np.ndarray:
        pairs = x.reshape(-1, head_width // 2, 2, *x.shape[1:])
        return pairs.swapaxes(1, 2).reshape(x.shape).T

    def write(x: np.ndarray) -> np.ndarray:
        halves = x.T.reshape(-1, 2, head_width // 2, *x.T.shape[1:])
        return halves.swapaxes(1, 2).reshape(x.T.shape)

    return Transform(read, write)
