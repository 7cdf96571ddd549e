"""Configuration of `train_scripts.selfref`."""

import dataclasses
from typing import Literal

__all__ = ["PRESETS", "Config"]


@dataclasses.dataclass(frozen=True)
class Config:
    """What a Self-REF run does."""

    # Your own questions, JSON lines: {"prompt", "answer"}, or with your own marks
    # {"prompt", "response", "correct"}; empty asks about cities, with all baselines.
    data: str = ""
    # Share of your questions that measure and calibrate, and longest answer to them.
    holdout: float = 0.3
    max_new_tokens: int = 32
    # Largest error rate of your model's answers that are kept, and the probability
    # with which that may fail.
    max_error: float = 0.1
    delta: float = 0.1
    # With your questions, write the whole taught model too, as transformers reads it.
    merged: bool = False
    # Asset, GGUF file, directory of safetensors, installed package or hub id.
    model: str = "smollm2"
    # Type of the frozen base; factors are float32.
    dtype: Literal["float32", "bfloat16"] = "float32"
    # Questions are about the largest cities, this many of them.
    largest: int = 8000
    # Questions to learn from, and to measure with, of each seed.
    train: int = 3000
    test: int = 1000
    # Examples ahead of the questions that ask for a confidence.
    shots: int = 4
    # Answers drawn a question, for the measures of sampled answers; 0 leaves them out.
    samples: int = 5
    # Inner size of LoRA's factors.
    rank: int = 8
    # Kernels that get factors in each layer.
    where: Literal["attention", "linear"] = "attention"
    # Factors on the output layer too, as in the paper; not beside first_layer where
    # output and embedding are one table, as in SmolLM2.
    head: bool = False
    # Layers below it stay as they are and are read once; 0 trains all, as the paper;
    # -1 the upper third.
    first_layer: int = -1
    # Passes over the examples.
    num_epochs: int = 6
    # The highest.
    learning_rate: float = 1e-3
    # Packed rows of 64 tokens a step.
    batch_size: int = 8
    # Share of the wrong answers that are learned from, the paper's alpha.
    unconfident_share: float = 1.0
    # Leave wrong answers' tokens out of the loss, as in the paper.
    mask_wrong: bool = True
    # Weight of the confidence token in the loss; an answer's tokens have 1.
    token_weight: float = 4.0
    # Accuracy to be reached by sending questions on.
    target: float = 0.9
    # Questions, factors and samples are drawn anew for each seed.
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
    # The whole job on few questions.
    "demo": Config(train=800, test=200, samples=2, seeds=(0,)),
    # The same job at its smallest, to see that everything runs.
    "smoke": Config(
        train=32, test=24, samples=1, first_layer=28, num_epochs=1, rank=2, seeds=(0,)
    ),
    # The tables of docs/confidence.md.
    "full": Config(),
    # The paper's LoRA: all layers, and the output layer.
    "paper": _PAPER,
    "published": _PAPER,
    # What the loss mask is for: without it mistakes are learned too.
    "unmasked": Config(mask_wrong=False, samples=0, seeds=(0,)),
    # Your own questions: --data FILE.
    "file": Config(seeds=(0,)),
}
