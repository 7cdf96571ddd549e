"""Configuration of `train_scripts.yodo`."""

import dataclasses
from typing import Literal

__all__ = ["PRESETS", "Config"]


@dataclasses.dataclass(frozen=True)
class Config:
    """What a YODO run does."""

    # Data set: adult and german come with `assets`; digits with scikit-learn; acs and
    # celeba need the `data` extra and a network; utkface and csv need `data`.
    dataset: Literal["adult", "german", "digits", "acs", "celeba", "utkface", "csv"] = (
        "adult"
    )
    # Sensitive attribute: sex or race (adult, acs), sex or age (german), an attribute's
    # name (celeba), the group's column (csv). The others have one attribute.
    sensitive: str = "sex"
    # Outcome: an attribute's name (celeba) or the label's column (csv).
    outcome: str = ""
    # File or folder of the data: your own table with dataset "csv"; of the other data
    # sets it is found by itself where it is empty.
    data: str = ""
    # Gap that the training closes.
    gap: Literal["demographic_parity", "equal_opportunity", "equalized_odds"] = (
        "demographic_parity"
    )
    # Weight of the gap at the fair end.
    strength: float = 1.0
    # Exponent of alpha in the weight of the gap; 1 is the paper's, 2 suits a large
    # strength.
    ramp: float = 1.0
    # Share of steps taken at one of the two ends; 0 is the paper's uniform draw.
    end_mass: float = 0.5
    # Passes over the training part.
    num_epochs: int = 8
    # People a step.
    batch_size: int = 512
    # Peak of Adam's learning rate.
    learning_rate: float = 4e-3
    # Course of the learning rate: to 0 along a cosine, or constant (the paper).
    schedule: Literal["cosine", "constant"] = "cosine"
    # Hidden widths of the MLP; images use the small CNN.
    hidden: tuple[int, ...] = (256, 256, 256)
    # Probability of dropping a unit in training.
    dropout_rate: float = 0.5
    # Levels at which the line is measured, evenly spaced.
    num_levels: int = 101
    # Separately trained models to compare with, at evenly spaced levels and the line's
    # own weights; at least 2.
    num_fixed: int = 11
    # A run a seed; each has its own split, initial parameters and order.
    seeds: tuple[int, ...] = (0, 1, 2)
    # Limit of the gap for the level that is chosen on the validation part.
    gap_limit: float = 0.08
    # Confidence of that choice.
    confidence: float = 0.95

    def __post_init__(self):
        """Check ranges."""
        least = {
            "num_epochs": 1,
            "batch_size": 1,
            "num_levels": 2,
            "num_fixed": 2,
            "strength": 0,
            "ramp": 0,
            "learning_rate": 0,
        }
        for name, bound in least.items():
            value = getattr(self, name)
            if not value >= bound:
                raise ValueError(f"{name}: expected at least {bound}, got {value}")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: expected distinct numbers, got {self.seeds}")


_ADULT = Config()

PRESETS: dict[str, Config] = {
    # Adult by sex, three seeds, against 11 fixed models.
    "demo": _ADULT,
    # The same job at its smallest, to see that everything runs.
    "smoke": dataclasses.replace(
        _ADULT, num_epochs=1, num_levels=11, num_fixed=2, seeds=(0,)
    ),
    # Five seeds.
    "full": dataclasses.replace(_ADULT, seeds=(0, 1, 2, 3, 4)),
    "adult": dataclasses.replace(_ADULT, seeds=(0, 1, 2, 3, 4)),
    # Your own table: --data FILE --outcome COLUMN --sensitive COLUMN.
    "file": dataclasses.replace(_ADULT, dataset="csv", sensitive=""),
    "adult-race": dataclasses.replace(
        _ADULT, sensitive="race", seeds=(0, 1, 2, 3, 4), gap_limit=0.1
    ),
    # A large strength, which would drag the accurate end down ...
    "adult-strong": dataclasses.replace(_ADULT, strength=5.0, ramp=2.0),
    # ... as it does with the paper's draw and weight.
    "adult-strong-uniform": dataclasses.replace(_ADULT, strength=5.0, end_mass=0.0),
    # The paper's own settings.
    "paper": dataclasses.replace(
        _ADULT, end_mass=0.0, learning_rate=1e-3, schedule="constant"
    ),
    "german": dataclasses.replace(
        _ADULT,
        dataset="german",
        batch_size=128,
        num_epochs=30,
        learning_rate=1e-3,
        seeds=(0, 1, 2, 3, 4),
        gap_limit=0.2,
    ),
    "digits": dataclasses.replace(
        _ADULT,
        dataset="digits",
        # Colour and label go together in training, so parity would forbid being right.
        gap="equalized_odds",
        batch_size=128,
        num_epochs=100,
        dropout_rate=0.25,
        gap_limit=0.3,
    ),
    "acs": dataclasses.replace(_ADULT, dataset="acs"),
    "celeba": dataclasses.replace(
        _ADULT, dataset="celeba", outcome="Smiling", sensitive="Male", batch_size=128
    ),
}
