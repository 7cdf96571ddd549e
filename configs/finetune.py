"""Configuration of `train_scripts.finetune`."""

import dataclasses
from typing import Literal

__all__ = ["Config"]


@dataclasses.dataclass(frozen=True)
class Config:
    """LoRA on prompts and answers."""

    # A row a line: {"prompt": text or messages, "answer": text}.
    data: str
    # Where adapters, merged model, log and checkpoints go; an interrupted run in it
    # goes on when the same command is given again.
    workdir: str = "runs/finetune"
    # Asset, GGUF file, directory of safetensors, installed package or hub id.
    model: str = "smollm2"
    # Inner size of the factors.
    rank: int = 8
    # Numerator of their scale; 2 rank where it is 0.
    alpha: float = 0.0
    # Kernels that get factors.
    where: Literal["attention", "linear"] = "linear"
    # Passes over the training rows.
    num_epochs: int = 3
    # Packed rows a step.
    batch_size: int = 4
    # Tokens of a packed row, and so of the longest example.
    max_tokens: int = 256
    # Peak of AdamW's learning rate, reached after a tenth of the steps, then along a
    # cosine to a tenth of it.
    learning_rate: float = 2e-4
    # Decay of the factors.
    weight_decay: float = 0.0
    # Gradients are scaled down to this norm.
    max_norm: float = 1.0
    # Share of the rows held out, whose loss is shown after each epoch.
    holdout: float = 0.1
    # Type of the frozen base: float32 or bfloat16. Factors are float32.
    dtype: Literal["float32", "bfloat16"] = "float32"
    # Keep only each layer's input for the backward pass: slower, for large models.
    remat: bool = False
    # Devices over which parameters are split; the rest of them split the batch.
    fsdp: int = 1
    tensor: int = 1
    # Write the model with the factors merged in, as transformers reads it.
    merged: bool = True
    # Of factors, split and order.
    seed: int = 0

    def __post_init__(self):
        """Check ranges."""
        for name in (
            "rank",
            "num_epochs",
            "batch_size",
            "max_tokens",
            "fsdp",
            "tensor",
        ):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name}: expected at least 1, got {getattr(self, name)}"
                )
        if not 0 <= self.holdout < 1:
            raise ValueError(f"holdout: expected a share in [0, 1), got {self.holdout}")
        for name in ("learning_rate", "max_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"{name}: expected a positive number, got {getattr(self, name)}"
                )
