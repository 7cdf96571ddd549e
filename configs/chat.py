"""Configuration of `train_scripts.chat`."""

import dataclasses

__all__ = ["Config"]


@dataclasses.dataclass(frozen=True)
class Config:
    """A conversation with a language model."""

    # A question: it is answered, and that is all. Empty to talk.
    prompt: str = ""
    # Asset, GGUF file, directory of safetensors, installed package or hub id.
    model: str = "smollm2"
    # Folder of adapters that `train_scripts.finetune` wrote, merged into the model.
    adapters: str = ""
    # System message; the template's own where it is empty.
    system: str = ""
    # Longest answer, in tokens.
    max_tokens: int = 256
    # 0 is greedy.
    temperature: float = 0.0
    # Draw from the likeliest tokens that hold this probability.
    top_p: float = 0.95
    # Of the draws.
    seed: int = 0
    # Type of the parameters: float32, bfloat16 or float16.
    dtype: str = "float32"

    def __post_init__(self):
        """Check ranges."""
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens: expected at least 1, got {self.max_tokens}")
        if self.dtype not in ("float32", "bfloat16", "float16"):
            raise ValueError(
                f"dtype: expected float32, bfloat16 or float16, got {self.dtype!r}"
            )
