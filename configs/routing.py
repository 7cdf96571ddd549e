"""Configuration of `train_scripts.routing`."""

import dataclasses

__all__ = ["PARTS", "PRESETS", "Config"]

PARTS = ("mirage", "cities", "simulated")


@dataclasses.dataclass(frozen=True)
class Config:
    """What a routing run does."""

    # Your own logs, JSON lines: {"confidence" or "token_logprobs", "small_correct",
    # "large_correct", "cost", "dataset"} a query; empty runs the parts below.
    data: str = ""
    # Names of the fields, where your logs have others.
    confidence: str = "confidence"
    token_logprobs: str = "token_logprobs"
    small_correct: str = "small_correct"
    large_correct: str = "large_correct"
    cost: str = "cost"
    dataset: str = "dataset"
    # Accuracy to reach with your logs; 0 takes the large model's.
    accuracy: float = 0.0
    # Largest error rate of the answers that are kept, and the probability with which
    # that may fail.
    max_error: float = 0.1
    delta: float = 0.1
    # Resamples of the queries, for intervals.
    bootstrap: int = 500
    # "mirage": GPT-3.5 and GPT-4 on five medical data sets, of $JEFF_DATA; "cities": a
    # real small model on six continents; "simulated": a grid of settings.
    parts: tuple[str, ...] = ("cities", "simulated")
    # Asset, GGUF file, directory of safetensors, installed package or hub id.
    model: str = "smollm2"
    # Questions of each continent, to learn probes from and to measure with.
    train: int = 60
    test: int = 60
    # Answers drawn a question, for the measures of sampled answers; 0 leaves them out.
    samples: int = 0
    # Settings of the grid: small models, large models, data sets, measures.
    grid: tuple[int, int, int, int] = (8, 2, 14, 8)
    # Queries of a setting.
    queries: int = 2000
    # Draws in which the guarantee is put to the test.
    draws: int = 1000
    # Share of each bin of confidence that calibrates, and bins.
    share: float = 0.1
    bins: int = 30
    # Of all draws.
    seed: int = 0

    def __post_init__(self):
        """Check ranges."""
        if not set(self.parts) <= set(PARTS) or not self.parts:
            raise ValueError(f"parts: expected some of {PARTS}, got {self.parts}")
        for name, least in {
            "bootstrap": 2,
            "train": 8,
            "test": 8,
            "samples": 0,
            "queries": 2,
            "draws": 1,
            "bins": 1,
        }.items():
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name}: expected at least {least}, got {getattr(self, name)}"
                )
        if len(self.grid) != 4 or min(self.grid) < 1:
            raise ValueError(
                f"grid: expected four sizes of at least 1, got {self.grid}"
            )
        for name in ("max_error", "delta"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(
                    f"{name}: expected a share in (0, 1), got {getattr(self, name)}"
                )
        if not 0 <= self.accuracy <= 1:
            raise ValueError(f"accuracy: expected a share, got {self.accuracy}")
        if not 0 < self.share <= 1:
            raise ValueError(f"share: expected a share above 0, got {self.share}")


PRESETS: dict[str, Config] = {
    # A real small model, and a small grid.
    "demo": Config(grid=(4, 2, 5, 4), draws=200),
    # The same job at its smallest, to see that everything runs.
    "smoke": Config(
        parts=("simulated",), grid=(2, 1, 3, 2), queries=200, draws=20, bootstrap=20
    ),
    # The tables of docs/confidence.md; needs $JEFF_DATA.
    "full": Config(parts=PARTS, train=100, test=100),
    # As many settings as in the paper: 8 small models, 2 large ones, 14 data sets, 8
    # measures, all made.
    "paper": Config(parts=("simulated",)),
    # GPT-3.5 and GPT-4 alone; needs $JEFF_DATA.
    "mirage": Config(parts=("mirage",)),
    # Your own logs: --data FILE.
    "file": Config(),
}
