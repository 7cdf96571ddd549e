"""Configuration of `train_scripts.selfref`."""

import dataclasses
from typing import Literal

__all__ = ["PRESETS", "Config"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a Self-REF run."""

    # Your own questions, JSON lines: {"prompt", "answer"}, or answers that you have
    # marked, {"prompt", "response", "correct"}; or a Hugging Face data set with these
    # columns, hf:NAME, hf:NAME:CONFIG@SPLIT or a saved folder. Empty asks about cities.
    data: str = ""
    # Share of your questions held out for evaluation and calibration, in (0, 1).
    holdout: float = 0.3
    # Maximum length of an answer to your questions, in tokens.
    max_new_tokens: int = 32
    # Maximum error rate of the answers that the model keeps, in (0, 1).
    max_error: float = 0.1
    # Probability with which the bound on the error rate may fail, in (0, 1).
    delta: float = 0.1
    # With your questions, also write the merged model in the format of transformers.
    merged: bool = False
    # Model: asset, GGUF file, directory of safetensors, installed package or hub id.
    model: str = "smollm2"
    # Data type of the frozen base model; the factors are always float32.
    dtype: Literal["float32", "bfloat16"] = "float32"
    # Draw questions from this many of the largest cities.
    largest: int = 8000
    # Training questions per seed.
    train: int = 3000
    # Test questions per seed.
    test: int = 1000
    # Few-shot examples in the prompts that ask the model for its confidence.
    shots: int = 4
    # Sampled answers per question for the sampling-based measures; 0 leaves them out.
    samples: int = 5
    # Rank of the LoRA factors; at least 1.
    rank: int = 8
    # Layers that get factors: attention projections only, or all linear layers.
    where: Literal["attention", "linear"] = "attention"
    # Also train factors on the output layer, as in the paper. Where output and
    # embedding share one table, as in SmolLM2, this needs first_layer 0.
    head: bool = False
    # First layer with factors: the layers below are frozen and computed only once. 0
    # trains all layers, as in the paper; -1 trains the upper third.
    first_layer: int = -1
    # Passes over the examples.
    num_epochs: int = 6
    # Peak learning rate.
    learning_rate: float = 1e-3
    # Packed rows of 64 tokens per step.
    batch_size: int = 8
    # Share of the wrong answers used for training (the paper's alpha), in (0, 1].
    unconfident_share: float = 1.0
    # Exclude the tokens of wrong answers from the loss, as in the paper.
    mask_wrong: bool = True
    # Loss weight of the confidence token, relative to an answer token.
    token_weight: float = 4.0
    # Target accuracy to reach by routing, in (0, 1].
    target: float = 0.9
    # Random seeds; each draws new questions, initial factors and samples.
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self):
        """Check ranges."""
        for name, least in {
            "train": 8,
            "test": 20,
            "shots": 2,
            "samples": 0,
            "rank": 1,
            "first_layer": -1,
            "max_new_tokens": 1,
            "num_epochs": 1,
            "batch_size": 1,
        }.items():
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name}: expected at least {least}, got {getattr(self, name)}"
                )
        for name in ("learning_rate", "token_weight"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"{name}: expected a positive number, got {getattr(self, name)}"
                )
        for name in ("holdout", "max_error", "delta"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(
                    f"{name}: expected a share in (0, 1), got {getattr(self, name)}"
                )
        for name in ("unconfident_share", "target"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(
                    f"{name}: expected a share above 0, got {getattr(self, name)}"
                )
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: expected distinct numbers, got {self.seeds}")


_PAPER = Config(first_layer=0, head=True, token_weight=1.0, num_epochs=2, seeds=(0,))

PRESETS: dict[str, Config] = {
    # The whole experiment on few questions.
    "demo": Config(train=96, test=48, samples=1, seeds=(0,)),
    # The smallest run, to check that everything works.
    "smoke": Config(
        train=32, test=24, samples=1, first_layer=28, num_epochs=1, rank=2, seeds=(0,)
    ),
    # The tables in docs/confidence.md.
    "full": Config(),
    # The paper's LoRA: factors on all layers and on the output layer.
    "paper": _PAPER,
    "published": _PAPER,
    # Ablation of the loss mask: without it the model also learns its wrong answers.
    "unmasked": Config(mask_wrong=False, samples=0, seeds=(0,)),
    # Your own questions: --data FILE.
    "file": Config(seeds=(0,)),
}
