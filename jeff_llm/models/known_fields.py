"""Fields of a model's files that are known, and what becomes of each.

A field is applied by its reader, or must have a value under which the decoder computes
the same numbers, or is listed here as harmless with the reason. Every other field is
refused by name: a file that loads says nothing that was passed over. `without` is the
way around for the user who knows better.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from jeff_llm.models.fields import shown

__all__ = [
    "CONFIG",
    "ENCODER",
    "GENERATION",
    "GGUF",
    "Known",
    "check_known",
    "without",
]


class Known:
    """What is known of the fields of one kind of file."""

    def __init__(
        self,
        applied: Iterable[str],
        neutral: Mapping[str, tuple[Any, ...]],
        harmless: Mapping[str, Iterable[str]],
    ):
        """Gather the three lists.

        Args:
          applied: fields that a reader applies.
          neutral: fields with the values under which the numbers are the decoder's.
          harmless: reason, and the fields that change no numbers for it.
        """
        self.neutral = dict(neutral)
        self.names = {*applied, *neutral}
        self.names.update(name for names in harmless.values() for name in names)


def check_known(values: Mapping[str, Any], known: Known, *, prefix: str = "") -> None:
    """Refuse fields that are unknown, or not neutral.

    Args:
      values: the fields.
      known: what is known of them.
      prefix: put before their names in errors.

    Raises:
      ValueError: naming the first such field.

    >>> check_known({"logit_scale": 0.25}, CONFIG)
    Traceback (most recent call last):
    ValueError: logit_scale: expected 1, got 0.25; this decoder does not support it
    """
    for name, value in values.items():
        if name not in known.names and value is not None:
            raise ValueError(
                f"{prefix}{name}: expected only fields that this decoder knows, got "
                f"this one with {shown(value)}; if it changes no numbers, pass "
                f'ignore=("{prefix}{name}",)'
            )
        supported = known.neutral.get(name)
        if supported is not None and value is not None and value not in supported:
            raise ValueError(
                f"{prefix}{name}: expected {supported[0]!r}, got {shown(value)}; this "
                "decoder does not support it"
            )


def without(values: Mapping[str, Any], ignore: Iterable[str]) -> dict[str, Any]:
    """Fields without those that the user declares harmless.

    Args:
      values: the fields.
      ignore: their names; ``group.name`` for a field within a group.

    Returns:
      The others.

    >>> without({"mup": 1, "rope_scaling": {"type": "x", "seed": 2}},
    ...         ("mup", "rope_scaling.seed"))
    {'rope_scaling': {'type': 'x'}}
    """
    left = {name: value for name, value in values.items() if name not in set(ignore)}
    for name in ignore:
        group, _, inner = name.partition(".")
        if inner and isinstance(left.get(group), Mapping):
            left[group] = {k: v for k, v in left[group].items() if k != inner}
    return left


_SAMPLING = (
    *("max_length", "max_new_tokens", "min_length", "min_new_tokens", "max_time"),
    *("early_stopping", "do_sample", "num_beams", "temperature", "top_k", "top_p"),
    *("min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"),
    *("diversity_penalty", "repetition_penalty", "encoder_repetition_penalty"),
    *("length_penalty", "no_repeat_ngram_size", "num_beam_groups", "penalty_alpha"),
    *("num_return_sequences", "output_scores", "output_logits", "stop_strings"),
    *("return_dict_in_generate", "remove_invalid_values", "renormalize_logits"),
    *(
        "dola_layers",
        "low_memory",
        "prompt_lookup_num_tokens",
        "max_matching_ngram_size",
    ),
    *("num_assistant_tokens", "num_assistant_tokens_schedule", "is_assistant"),
    *("assistant_confidence_threshold", "assistant_early_exit", "prefill_chunk_size"),
    *("assistant_lookbehind", "target_lookbehind", "token_healing", "use_mtp"),
    *("exponential_decay_length_penalty",),
)
_TOKENS = ("bos_token_id", "pad_token_id", "unk_token_id", "sep_token_id", "pad_token")
_SOURCE = (
    *("transformers_version", "_from_model_config", "_name_or_path", "name_or_path"),
    *("_commit_hash", "unsloth_version", "unsloth_fixed", "transformers.js_config"),
    *("is_llama_config", "architectures", "tokenizer_class", "peft_version"),
)
_SPEED = (
    *("use_cache", "cache_implementation", "cache_config", "return_legacy_cache"),
    *("_attn_implementation", "attn_implementation", "_attn_implementation_autoset"),
    *("_flash_attn_2_enabled", "_experts_implementation", "torch_dtype", "dtype"),
    *("disable_compile", "compile_config", "continuous_batching_config"),
)
_RETURNED = (
    *("return_dict", "use_return_dict", "output_attentions", "output_hidden_states"),
)
_TRAINING = (
    *("initializer_range", "attention_dropout", "hidden_dropout"),
    *("classifier_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop"),
    *("gradient_checkpointing", "router_aux_loss_coef", "torchscript"),
    *("attention_probs_dropout_prob", "hidden_dropout_prob"),
)
_LABELS = (
    *("id2label", "label2id", "num_labels", "problem_type"),
    *("finetuning_task", "task_specific_params", "prefix", "is_decoder"),
)
# They keep tokens from answers, or force them, whatever the caller asks for.
_CONSTRAINTS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(
        ("bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "sequence_bias"),
        ([], {}),
    ),
    **dict.fromkeys(
        ("force_words_ids", "constraints", "forced_decoder_ids", "watermarking_config"),
        ([], {}),
    ),
    **dict.fromkeys(("forced_bos_token_id", "forced_eos_token_id"), (None,)),
    **dict.fromkeys(("guidance_scale", "decoder_start_token_id"), (None, 1)),
}

CONFIG = Known(
    applied=(
        *("model_type", "vocab_size", "num_hidden_layers", "hidden_size", "head_dim"),
        *("intermediate_size", "num_attention_heads", "num_key_value_heads"),
        *("max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling"),
        *("rope_parameters", "tie_word_embeddings", "attention_bias", "eos_token_id"),
        *("sliding_window", "use_sliding_window", "max_window_layers", "layer_types"),
    ),
    neutral={
        **_CONSTRAINTS,
        "hidden_act": ("silu", "swish"),
        "hidden_activation": ("silu", "swish"),
        "pretraining_tp": (1,),
        "chunk_size_feed_forward": (0,),
        "is_causal": (True,),
        "tie_last_hidden_states": (True,),
        # Scales of other families, such as Granite's, Cohere's and MiniCPM's.
        **dict.fromkeys(("partial_rotary_factor", "embedding_multiplier"), (1,)),
        **dict.fromkeys(("residual_multiplier", "logits_scaling"), (1,)),
        **dict.fromkeys(("logit_scale", "scale_emb"), (1,)),
        **dict.fromkeys(
            ("mlp_bias", "rope_interleaved", "use_mrope", "is_encoder_decoder"),
            (False,),
        ),
        **dict.fromkeys(
            (
                "add_cross_attention",
                "tie_encoder_decoder",
                "use_bidirectional_attention",
            ),
            (False,),
        ),
        **dict.fromkeys(("attention_multiplier", "query_pre_attn_scalar"), (None,)),
        **dict.fromkeys(("attn_logit_softcapping", "final_logit_softcapping"), (None,)),
        **dict.fromkeys(
            ("quantization_config", "compression_config", "pruned_heads", "auto_map"),
            ({},),
        ),
        "per_layer_config": ({},),
    },
    harmless={
        "where the file comes from": _SOURCE,
        "tokens by role are those of the tokenizer's files": _TOKENS,
        "how a program computes the same numbers": _SPEED,
        "what a call returns": _RETURNED,
        "training alone": _TRAINING,
        "labels of classifiers, which this decoder is not": _LABELS,
        "older names of the context's length, which nobody reads": (
            *("max_sequence_length", "model_max_length"),
        ),
        "the caller's choice: `generate` has `Sampling`": _SAMPLING,
    },
)

GENERATION = Known(
    applied=("eos_token_id",),
    neutral=_CONSTRAINTS,
    harmless={
        "where the file comes from": (*_SOURCE, "model_type"),
        "tokens by role are those of the tokenizer's files": _TOKENS,
        "how a program computes the same numbers": _SPEED,
        "what a call returns": _RETURNED,
        "the caller's choice: `generate` has `Sampling`": _SAMPLING,
        "the first Qwen's chat loop": (
            *("chat_format", "max_window_size", "trust_remote_code"),
        ),
    },
)

# A BERT; what `bert_config` requires of a value, it checks itself.
ENCODER = Known(
    applied=(
        *("model_type", "vocab_size", "num_hidden_layers", "hidden_size"),
        *("num_attention_heads", "intermediate_size", "max_position_embeddings"),
        *("type_vocab_size", "layer_norm_eps", "hidden_act", "is_decoder"),
        "position_embedding_type",
    ),
    neutral={
        "chunk_size_feed_forward": (0,),
        **dict.fromkeys(("add_cross_attention", "is_encoder_decoder"), (False,)),
        "tie_encoder_decoder": (False,),
        **dict.fromkeys(
            ("quantization_config", "pruned_heads", "auto_map", "per_layer_config"),
            ({},),
        ),
    },
    harmless={
        "where the file comes from": _SOURCE,
        "tokens by role are those of the tokenizer's files": (*_TOKENS, "eos_token_id"),
        "how a program computes the same numbers": _SPEED,
        "what a call returns": _RETURNED,
        "training alone": _TRAINING,
        "labels of classifiers, which this encoder is not": _LABELS,
        "heads of language models, which are not read": ("tie_word_embeddings",),
        "settings of generation, which an encoder does not do": _SAMPLING,
        "pooled states, which the mean replaces": (
            *("pooler_fc_size", "pooler_num_attention_heads", "pooler_type"),
            *("pooler_num_fc_layers", "pooler_size_per_head", "directionality"),
        ),
    },
)

_ROPE = (
    *("dimension_count", "freq_base", "scale_linear", "scaling.type"),
    *("scaling.factor", "scaling.original_context_length", "scaling.attn_factor"),
    *("scaling.yarn_attn_factor", "scaling.yarn_beta_fast", "scaling.yarn_beta_slow"),
    *("scaling.yarn_ext_factor", "scaling.yarn_log_multiplier"),
)
# Names without the architecture's prefix; llama.cpp takes 0 for "not set".
GGUF = Known(
    applied=(
        *("vocab_size", "context_length", "embedding_length", "block_count"),
        *("feed_forward_length", "attention.head_count", "attention.head_count_kv"),
        *("attention.key_length", "attention.value_length"),
        *("attention.layer_norm_rms_epsilon", "attention.sliding_window"),
        *(f"rope.{name}" for name in _ROPE),
    ),
    neutral={
        **dict.fromkeys(
            ("attention.scale", "attention.clamp_kqv", "attention.max_alibi_bias"), (0,)
        ),
        **dict.fromkeys(("attn_logit_softcapping", "final_logit_softcapping"), (0,)),
        **dict.fromkeys(("expert_count", "expert_used_count"), (0,)),
        **dict.fromkeys(("leading_dense_block_count", "nextn_predict_layers"), (0,)),
        **dict.fromkeys(("logit_scale", "residual_scale", "embedding_scale"), (1, 0)),
        "attention.causal": (True,),
        "tensor_data_layout": ("Meta AI original pth", "reference"),
    },
    harmless={
        "where the file comes from": ("rope.scaling.finetuned",),
        "how llama.cpp pools states of embedding models": ("pooling_type",),
        # Every layer here is of one kind: nothing runs beside its residual stream.
        "llama.cpp's GPT-NeoX alone": ("use_parallel_residual",),
    },
)
