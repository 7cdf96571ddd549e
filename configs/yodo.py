"""Configuration of `train_scripts.yodo`."""

import dataclasses
from typing import Literal

__all__ = ["PRESETS", "Config"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a YODO run."""

    # Data set: adult and german are fetched with `assets`, digits comes with
    # scikit-learn. acs and celeba need the `data` extra and a network connection.
    # utkface and csv need a file or folder in data.
    dataset: Literal["adult", "german", "digits", "acs", "celeba", "utkface", "csv"] = (
        "adult"
    )
    # Sensitive attribute: sex or race (adult, acs), sex or age (german), the name of an
    # attribute (celeba) or of a column (csv). The others have only one.
    sensitive: str = "sex"
    # Outcome to predict: the name of an attribute (celeba) or of a column (csv).
    outcome: str = ""
    # Which of the outcome's two values is favourable, such as "yes" (csv only); 1 if
    # empty.
    favourable: str = ""
    # Column with the weights of people, such as those of a survey (csv only); empty for
    # people who count alike.
    weight: str = ""
    # File or folder of the data; with dataset "csv", your own table: a CSV, or a
    # Hugging Face data set, hf:NAME, hf:NAME:CONFIG@SPLIT or a folder that its
    # save_to_disk wrote. The other data sets are located automatically if this is
    # empty.
    data: str = ""
    # Fairness gap to minimise.
    gap: Literal["demographic_parity", "equal_opportunity", "equalized_odds"] = (
        "demographic_parity"
    )
    # Weight of the gap at the fair end; at least 0.
    strength: float = 1.0
    # Exponent of alpha in the weight of the gap: 1 as in the paper, 2 for a large
    # strength.
    ramp: float = 1.0
    # Share of the steps taken at one of the two ends, in [0, 1]; 0 is the uniform draw
    # of the paper.
    end_mass: float = 0.5
    # Passes over the training part.
    num_epochs: int = 8
    # People per step.
    batch_size: int = 512
    # Peak learning rate of Adam.
    learning_rate: float = 4e-3
    # Learning rate schedule: cosine decay to 0, or constant (the paper).
    schedule: Literal["cosine", "constant"] = "cosine"
    # Widths of the hidden layers of the MLP; images use a small CNN.
    hidden: tuple[int, ...] = (256, 256, 256)
    # Dropout probability in training.
    dropout_rate: float = 0.5
    # Number of evenly spaced levels at which the line is measured; at least 2.
    num_levels: int = 101
    # Number of separately trained models for comparison, at evenly spaced levels and
    # with the line's weights of the gap; at least 2.
    num_fixed: int = 11
    # Random seeds; each draws a new split, initial parameters and data order.
    seeds: tuple[int, ...] = (0, 1, 2)
    # Limit on the gap for the level chosen on the validation part, in (0, 1].
    gap_limit: float = 0.08
    # Confidence with which the chosen level keeps the limit, in (0, 1).
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
        for name in ("weight", "favourable"):
            if (value := getattr(self, name)) and self.dataset != "csv":
                raise ValueError(
                    f"{name}: expected your own table (dataset csv) with it, got "
                    f"{value!r} with dataset {self.dataset}"
                )
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: expected distinct numbers, got {self.seeds}")


_ADULT = Config()

PRESETS: dict[str, Config] = {
    # Adult by sex, with three seeds, against 11 fixed models.
    "demo": _ADULT,
    # The smallest run, to check that everything works.
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
    # A large strength, which would lower the accuracy of the accurate end ...
    "adult-strong": dataclasses.replace(_ADULT, strength=5.0, ramp=2.0),
    # ... as it does with the uniform draw and linear weight of the paper.
    "adult-strong-uniform": dataclasses.replace(_ADULT, strength=5.0, end_mass=0.0),
    # The settings of the paper.
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
        # Colour and label are correlated in training, so demographic parity would
        # penalise correct predictions.
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
