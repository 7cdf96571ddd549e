"""Configuration of `train_scripts.wds`."""

import dataclasses
from typing import Literal

__all__ = ["PRESETS", "SAMPLERS", "Config"]

SAMPLERS = ("uniform", "wds", "k-centre", "geosketch")


@dataclasses.dataclass(frozen=True)
class Config:
    """What a run on gene pairs does."""

    # Blood cells, or cells with planted pairs.
    dataset: Literal["pbmc", "simulated"] = "pbmc"
    # Your own cells, an .h5ad file or .zarr folder that anndata wrote; they are read
    # instead of the data set.
    data: str = ""
    # Matrix of the file: X, raw, or a name in layers; empty takes X, and raw of pbmc.
    layer: str = ""
    # Column of obs that the network learns.
    label: str = "bulk_labels"
    # Column of obs with cell types, to show which are over-represented; empty for none.
    type: str = ""
    # CSV file with two names of genes a row, pairs that are known; empty for none.
    pairs: str = ""
    # Cells that are simulated.
    cells: int = 30_000
    # Genes that are kept, the most dispersed; the map has all their pairs.
    genes: int = 100
    # Names of genes that are kept in any case.
    keep: tuple[str, ...] = ()
    # Hashes of the sketch.
    hashes: int = 200
    # Exponent of 1 / density in a cell's weight; the paper's is 1.
    power: float = 2.0
    # Floor on the effective size of a sample, as a share of its cells.
    least_effective: float = 0.3
    # What the weighted mean over a sample is to estimate.
    estimand: Literal["population", "diverse", "published"] = "population"
    # Cells at the mean score that are added to every pair, so that pairs seen in a cell
    # or two do not lead the ranking; the paper's is 0.
    prior_cells: float = 3.0
    # Ways to pick cells that are compared.
    samplers: tuple[str, ...] = ("uniform", "wds", "k-centre")
    # Shares of the cells that are picked, to compare.
    shares: tuple[float, ...] = (0.05, 0.1, 0.2, 0.5)
    # The share from which the table of pairs is made; one of the above.
    share: float = 0.1
    # Samples a seed, each share and way.
    draws: int = 3
    # Most cells that the network is trained on, drawn evenly.
    train_cells: int = 50_000
    # Share of them that is held out, for accuracy and for testing pairs.
    holdout: float = 0.2
    # Most cells of the map that samples are compared with, drawn evenly.
    reference_cells: int = 50_000
    # Width of a token, heads, layers, width of the feed-forward layer.
    width: int = 64
    heads: int = 4
    layers: int = 2
    hidden: int = 128
    # Probability of dropping a unit in training.
    dropout_rate: float = 0.1
    # Passes over the training cells.
    num_epochs: int = 30
    # Cells a step.
    batch_size: int = 64
    # The highest.
    learning_rate: float = 1e-3
    # Networks that are trained on permuted labels, for p-values; of the first seed.
    permutations: int = 5
    # Resamples of the cells, for intervals.
    bootstrap: int = 100
    # Pairs in the table that are tested for a product term on held-out cells.
    tested: int = 100
    # Points of the integrated Hessian of the sampled cells; 0 leaves it out.
    hessian_points: int = 2
    # Simulation, network and draws are new for each seed.
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self):
        """Check names and ranges."""
        if not set(self.samplers) <= set(SAMPLERS) or "wds" not in self.samplers:
            raise ValueError(
                f"samplers: expected some of {SAMPLERS}, wds among them, got "
                f"{self.samplers}"
            )
        for name, least in {
            "cells": 10,
            "genes": 2,
            "hashes": 1,
            "draws": 1,
            "train_cells": 10,
            "reference_cells": 10,
            "num_epochs": 1,
            "batch_size": 1,
            "permutations": 0,
            "bootstrap": 0,
            "tested": 1,
            "hessian_points": 0,
        }.items():
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name}: expected at least {least}, got {getattr(self, name)}"
                )
        if self.permutations in (1, 2):
            raise ValueError(
                f"permutations: expected 0 or at least 3, got {self.permutations}"
            )
        if self.share not in self.shares or not all(0 < s <= 1 for s in self.shares):
            raise ValueError(
                "share, shares: expected shares in (0, 1] with share among them, got "
                f"{self.share} and {self.shares}"
            )
        if self.prior_cells < 0 or self.power < 0:
            raise ValueError(
                "prior_cells, power: expected at least 0 each, got "
                f"{self.prior_cells} and {self.power}"
            )
        for name in ("holdout", "dropout_rate", "least_effective"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name}: expected a share below 1, got {getattr(self, name)}"
                )
        if not self.holdout:
            raise ValueError("holdout: expected a share above 0, got 0")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: expected distinct numbers, got {self.seeds}")


_SIMULATED = Config(
    dataset="simulated",
    label="label",
    type="type",
    genes=200,
    samplers=SAMPLERS,
    shares=(0.005, 0.01, 0.02, 0.05, 0.1),
    share=0.01,
    draws=3,
    holdout=0.1,
    num_epochs=6,
    seeds=(0, 1, 2, 3, 4),
)

_PAPER = dataclasses.replace(
    _SIMULATED,
    power=1.0,
    least_effective=0.0,
    estimand="published",
    prior_cells=0.0,
    permutations=0,
    hessian_points=0,
)

PRESETS: dict[str, Config] = {
    # Blood cells, their types as labels.
    "demo": Config(
        type="bulk_labels", num_epochs=20, permutations=3, shares=(0.05, 0.1, 0.3)
    ),
    # The same job at its smallest, to see that everything runs.
    "smoke": Config(
        genes=20,
        hashes=20,
        shares=(0.2,),
        share=0.2,
        draws=1,
        width=16,
        hidden=16,
        layers=1,
        num_epochs=2,
        permutations=0,
        bootstrap=10,
        tested=10,
        hessian_points=1,
        samplers=("uniform", "wds"),
        seeds=(0,),
    ),
    "pbmc": Config(
        type="bulk_labels",
        samplers=SAMPLERS,
        draws=5,
        permutations=10,
        seeds=(0, 1, 2, 3, 4),
    ),
    # Planted pairs, two cell types of 1%.
    "full": _SIMULATED,
    "simulated": _SIMULATED,
    # The same with the paper's weights, 1 / density.
    "paper": _PAPER,
    "published": _PAPER,
    # Your own cells: --data FILE --label COLUMN.
    "file": Config(
        shares=(0.01, 0.02),
        share=0.01,
        num_epochs=6,
        genes=200,
        samplers=("uniform", "wds"),
        seeds=(0,),
    ),
}
