"""Configuration of `train_scripts.kv`."""

import dataclasses
from typing import Literal

__all__ = ["PRESETS", "Config"]


@dataclasses.dataclass(frozen=True)
class Config:
    """What a KV-AdaQuant run does."""

    # Asset, GGUF file, directory of safetensors, installed package or hub id.
    model: str = "smollm2"
    # Your own text file to read; the help texts of Python where it is empty.
    data: str = ""
    # Widths of keys and of values: every pair of them is measured, and full precision.
    bits: tuple[int, ...] = (4, 2)
    # Groups of keys: tokens of a channel (KIVI), channels of a token (the paper).
    key_axes: tuple[Literal["channel", "token"], ...] = ("channel", "token")
    # Values that share a scale.
    group_size: int = 64
    # Last tokens in full precision.
    window: int = 128
    # First tokens in full precision.
    sinks: int = 4
    # Tokens of a text.
    tokens: int = 640
    # Texts a seed.
    texts: int = 1
    # City-to-country questions a seed; 0 leaves them out.
    questions: int = 0
    # Answered questions ahead of each, which the cache holds.
    shots: int = 64
    # Questions are about the largest cities, this many of them.
    largest: int = 1000
    # Mean widths that the allocator divides among layers.
    budgets: tuple[int, ...] = (2, 3, 4)
    # Those of them that the model is run with.
    run_budgets: tuple[int, ...] = (3,)
    # Tokens of greedy decoding that are compared with full precision.
    new_tokens: int = 64
    # Length at which the bytes of a cache are counted.
    counted_tokens: int = 32_768
    # Texts and questions are drawn anew for each seed.
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
    "demo": Config(),
    # The same job at its smallest, to see that everything runs.
    "smoke": Config(
        key_axes=("channel",),
        tokens=512,
        run_budgets=(),
        new_tokens=16,
        seeds=(0,),
    ),
    # The table of docs/kv.md: all widths, more text, and questions (an hour on a CPU).
    "full": Config(
        bits=(16, 8, 4, 2), tokens=1024, texts=2, questions=40, run_budgets=(3, 4)
    ),
    # The paper's layout: groups of channels of a token, nothing in full precision but
    # the block that fills.
    "paper": Config(
        bits=(8, 4, 2), key_axes=("token",), window=0, sinks=0, tokens=1024, texts=2
    ),
    # Your own text: --data FILE.
    "file": Config(),
    # Nothing in full precision but the block that fills.
    "no-window": Config(window=0, sinks=0),
    # Smaller groups, one bit more for scales and zeros.
    "groups-32": Config(group_size=32),
}
