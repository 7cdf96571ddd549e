"""Configuration of `train_scripts.kv`."""

import dataclasses
from typing import Literal

__all__ = ["PRESETS", "Config"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a KV-AdaQuant run."""

    # Model: asset, GGUF file, directory of safetensors, installed package or hub id.
    model: str = "smollm2"
    # Your own text file, or the column "text" of a Hugging Face data set
    # (hf:NAME, hf:NAME:CONFIG@SPLIT or a saved folder); empty uses the help
    # texts of Python.
    data: str = ""
    # Bit widths from 2, 4, 8 and 16, with 2 and 4 among them. Every pair of a key and
    # a value width is measured, and full precision.
    bits: tuple[int, ...] = (4, 2)
    # Grouping of keys: by channel over tokens (KIVI), or by token over channels (the
    # paper).
    key_axes: tuple[Literal["channel", "token"], ...] = ("channel", "token")
    # Number of elements that share one scale.
    group_size: int = 64
    # Most recent tokens kept in full precision.
    window: int = 128
    # First tokens kept in full precision (attention sinks).
    sinks: int = 4
    # Length of a text, in tokens: a multiple of 128, at least 512.
    tokens: int = 640
    # Texts per seed.
    texts: int = 1
    # City-to-country questions per seed; 0 leaves them out.
    questions: int = 0
    # Answered examples before each question; they fill the cache.
    shots: int = 64
    # Draw questions from this many of the largest cities.
    largest: int = 1000
    # Budgets of the bit allocator: mean bits per element over all layers.
    budgets: tuple[int, ...] = (2, 3, 4)
    # Budgets for which the model is also run; a subset of budgets.
    run_budgets: tuple[int, ...] = (3,)
    # Greedily decoded tokens to compare with full precision.
    new_tokens: int = 64
    # Sequence length at which the bytes of a cache are counted, in tokens.
    counted_tokens: int = 32_768
    # Random seeds; each draws new texts and questions.
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self):
        """Check ranges."""
        for name, least in {
            "texts": 1,
            "questions": 0,
            "shots": 1,
            "largest": 1,
            "new_tokens": 1,
            "counted_tokens": 1,
        }.items():
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name}: expected at least {least}, got {getattr(self, name)}"
                )
        if not {2, 4} <= set(self.bits) <= {2, 4, 8, 16}:
            raise ValueError(
                f"bits: expected 2 and 4 and others of (8, 16), got {self.bits}"
            )
        if not set(self.run_budgets) <= set(self.budgets):
            raise ValueError(
                f"run_budgets: expected some of budgets, {self.budgets}, got "
                f"{self.run_budgets}"
            )
        if self.tokens % 128 or self.tokens < 512:
            raise ValueError(
                f"tokens: expected a multiple of 128, at least 512, got {self.tokens}"
            )
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: expected distinct numbers, got {self.seeds}")
        if self.shots + self.questions * len(self.seeds) > self.largest:
            raise ValueError(
                "largest: expected at least the shots and the questions of all seeds, "
                f"{self.shots + self.questions * len(self.seeds)}, got {self.largest}"
            )


PRESETS: dict[str, Config] = {
    # Both layouts over 4 and 2 bits, three texts.
    "demo": Config(tokens=512, run_budgets=(), new_tokens=32),
    # The smallest run, to check that everything works.
    "smoke": Config(
        key_axes=("channel",),
        tokens=512,
        run_budgets=(),
        new_tokens=16,
        seeds=(0,),
    ),
    # The table in docs/kv.md: all widths, more text, and questions (an hour on a CPU).
    "full": Config(
        bits=(16, 8, 4, 2), tokens=1024, texts=2, questions=40, run_budgets=(3, 4)
    ),
    # The paper's layout: keys grouped by token. Only the block being filled is in full
    # precision.
    "paper": Config(
        bits=(8, 4, 2), key_axes=("token",), window=0, sinks=0, tokens=1024, texts=2
    ),
    # Your own text: --data FILE.
    "file": Config(),
    # Only the block being filled is in full precision.
    "no-window": Config(window=0, sinks=0),
    # Smaller groups: one more bit per element for scales and zero points.
    "groups-32": Config(group_size=32),
}
