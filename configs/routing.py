"""Configuration of `train_scripts.routing`."""

import dataclasses

__all__ = ["PARTS", "PRESETS", "Config"]

PARTS = ("mirage", "cities", "simulated")


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a routing run."""

    # Your own logs, one JSON line per query: {"confidence" or "token_logprobs",
    # "small_correct", "large_correct", "cost", "dataset"}; or a Hugging Face data set
    # with these columns, hf:NAME, hf:NAME:CONFIG@SPLIT or a saved folder. Empty runs
    # the parts below.
    data: str = ""
    # Name of your logs' field with the small model's confidence.
    confidence: str = "confidence"
    # Name of your logs' field with the log-probabilities of the answer's tokens.
    token_logprobs: str = "token_logprobs"
    # Name of your logs' field that says whether the small model is right.
    small_correct: str = "small_correct"
    # Name of your logs' field that says whether the large model is right.
    large_correct: str = "large_correct"
    # Name of your logs' field with the large model's cost.
    cost: str = "cost"
    # Name of your logs' field with the data set.
    dataset: str = "dataset"
    # Target accuracy on your logs, in [0, 1]; 0 uses the large model's accuracy.
    accuracy: float = 0.0
    # Maximum error rate of the answers that the small model keeps, in (0, 1).
    max_error: float = 0.1
    # Probability with which the bound on the error rate may fail, in (0, 1).
    delta: float = 0.1
    # Bootstrap resamples of the queries for the 95% intervals.
    bootstrap: int = 500
    # Parts to run. "mirage": GPT-3.5 and GPT-4 on five medical data sets in $JEFF_DATA;
    # "cities": a real small model on six continents; "simulated": a grid of settings.
    parts: tuple[str, ...] = ("cities", "simulated")
    # Model: asset, GGUF file, directory of safetensors, installed package or hub id.
    model: str = "smollm2"
    # Questions per continent on which probes are trained.
    train: int = 60
    # Questions per continent for testing.
    test: int = 60
    # Sampled answers per question for the sampling-based measures; 0 leaves them out.
    samples: int = 0
    # Size of the simulated grid: small models, large models, data sets, measures.
    grid: tuple[int, int, int, int] = (8, 2, 14, 8)
    # Queries per setting of the grid.
    queries: int = 2000
    # Simulated logs on which the guarantee is tested.
    draws: int = 1000
    # Share of each confidence bin used for calibration, in (0, 1].
    share: float = 0.1
    # Number of confidence bins.
    bins: int = 30
    # Random seed of the whole run.
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
    # A real small model and a small grid.
    "demo": Config(train=20, test=20, grid=(4, 2, 5, 4), draws=200),
    # The smallest run, to check that everything works.
    "smoke": Config(
        parts=("simulated",), grid=(2, 1, 3, 2), queries=200, draws=20, bootstrap=20
    ),
    # The tables in docs/confidence.md; needs $JEFF_DATA.
    "full": Config(parts=PARTS, train=100, test=100),
    # As many settings as in the paper, all simulated: 8 small models, 2 large ones, 14
    # data sets, 8 measures.
    "paper": Config(parts=("simulated",)),
    # Only GPT-3.5 and GPT-4; needs $JEFF_DATA.
    "mirage": Config(parts=("mirage",)),
    # Your own logs: --data FILE.
    "file": Config(),
}
