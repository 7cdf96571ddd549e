"""Configuration of `train_scripts.chat`."""

import dataclasses

__all__ = ["Config"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a conversation with a language model."""

    # A single question: answer it and exit. Leave empty for a conversation.
    prompt: str = ""
    # Model: asset, GGUF file, directory of safetensors, installed package or hub id.
    model: str = "smollm2"
    # Folder of adapters from `train_scripts.finetune` to merge in; empty for none.
    adapters: str = ""
    # System message; empty uses the default of the chat template.
    system: str = ""
    # Maximum length of an answer, in tokens; at least 1.
    max_tokens: int = 256
    # Sampling temperature; 0 decodes greedily.
    temperature: float = 0.0
    # Nucleus sampling: draw from the likeliest tokens with this total probability,
    # in (0, 1]; ignored at temperature 0.
    top_p: float = 0.95
    # Bits of keys and values of a packed cache, such as 4,2; empty for a plain one.
    kv: str = ""
    # Random seed of the sampling.
    seed: int = 0
    # Data type of the parameters: float32, bfloat16 or float16.
    dtype: str = "float32"
    # Keep the weights in eight bits: a quarter of the memory, and faster on a CPU.
    packed: bool = False

    def __post_init__(self):
        """Check ranges."""
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens: expected at least 1, got {self.max_tokens}")
        if self.dtype not in ("float32", "bfloat16", "float16"):
            raise ValueError(
                f"dtype: expected float32, bfloat16 or float16, got {self.dtype!r}"
            )
