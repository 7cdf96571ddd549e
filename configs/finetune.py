"""Configuration of `train_scripts.finetune`."""

import dataclasses
from typing import Literal

__all__ = ["Config"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of LoRA fine-tuning on prompts and answers, or on conversations."""

    # Training data, JSON lines: {"prompt": text or messages, "answer": text}, or
    # {"messages": [{"role", "content"}, ...]}, whose assistant turns are all learned.
    # Or a Hugging Face data set with these columns: hf:NAME, hf:NAME:CONFIG@SPLIT or a
    # saved folder.
    data: str
    # Output folder for adapters, merged model, log and checkpoints. The same command
    # resumes an interrupted run in it.
    workdir: str = "runs/finetune"
    # Model: asset, GGUF file, directory of safetensors, installed package or hub id.
    model: str = "smollm2"
    # Rank of the LoRA factors; at least 1.
    rank: int = 8
    # LoRA alpha: the update is scaled by alpha / rank; 0 sets it to 2 * rank.
    alpha: float = 0.0
    # Layers that get factors: attention projections only, or all linear layers.
    where: Literal["attention", "linear"] = "linear"
    # Passes over the training rows.
    num_epochs: int = 3
    # Packed rows per step, over all devices.
    batch_size: int = 4
    # Length of a packed row, in tokens; also the limit for one example.
    max_tokens: int = 256
    # Peak learning rate of AdamW: linear warm-up over the first 10% of the steps, then
    # cosine decay to 10% of the peak.
    learning_rate: float = 2e-4
    # Weight decay of the factors.
    weight_decay: float = 0.0
    # Gradient clipping: maximum global norm.
    max_norm: float = 1.0
    # Share of the rows held out for validation after each epoch, in [0, 1).
    holdout: float = 0.1
    # Data type of the frozen base model; the factors are always float32.
    dtype: Literal["float32", "bfloat16"] = "float32"
    # Rematerialise: store only each layer's input for the backward pass. Slower, but
    # saves memory on large models.
    remat: bool = False
    # Also write the merged model, in the format of transformers.
    merged: bool = True
    # Random seed of the initial factors, the validation split and the data order.
    seed: int = 0

    def __post_init__(self):
        """Check ranges."""
        for name in (
            "rank",
            "num_epochs",
            "batch_size",
            "max_tokens",
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
