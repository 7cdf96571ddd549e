"""Configuration of `train_scripts.wds`."""

import dataclasses
from typing import Literal

__all__ = ["PRESETS", "SAMPLERS", "Config"]

SAMPLERS = ("uniform", "wds", "k-centre", "geosketch")


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a run on gene pairs."""

    # Data set: blood cells, or simulated cells with planted pairs.
    dataset: Literal["pbmc", "simulated"] = "pbmc"
    # Your own cells, an .h5ad file or .zarr folder written by anndata; replaces the
    # data set.
    data: str = ""
    # Matrix of the file: X, raw, or a name in layers; empty takes X, and raw of pbmc.
    layer: str = ""
    # Column of var with symbols of genes, where the index has ids; empty for the index.
    symbols: str = ""
    # What the values are: counts (raw or normalised), log, or auto to tell by them,
    # with a warning where they leave a doubt.
    values: Literal["auto", "counts", "log"] = "auto"
    # Column of obs that the network learns to predict.
    label: str = "bulk_labels"
    # Column of obs with cell types, to show which are over-represented; empty for none.
    # Cells without a type, as without a label, are left out and counted.
    type: str = ""
    # CSV file of known pairs, two gene names per row; empty for none.
    pairs: str = ""
    # Number of simulated cells.
    cells: int = 30_000
    # Number of genes to keep, the most dispersed first; the map has all their pairs.
    genes: int = 100
    # Names of genes to keep in any case.
    keep: tuple[str, ...] = ()
    # Number of hashes in the sketch.
    hashes: int = 200
    # Exponent of 1 / density in a cell's weight; the paper uses 1.
    power: float = 2.0
    # Minimum effective size of a sample, as a share of its cells, in [0, 1).
    least_effective: float = 0.3
    # Target of the weighted mean over a sample.
    estimand: Literal["population", "diverse", "published"] = "population"
    # Pseudo-cells at the mean score added to every pair, so that pairs seen in only one
    # or two cells do not lead the ranking; the paper uses 0.
    prior_cells: float = 3.0
    # Sampling methods to compare: uniform, wds, k-centre, geosketch; wds is required.
    samplers: tuple[str, ...] = ("uniform", "wds", "k-centre")
    # Sample sizes to compare, as shares of the cells, in (0, 1].
    shares: tuple[float, ...] = (0.05, 0.1, 0.2, 0.5)
    # Sample size for the table of pairs; one of shares.
    share: float = 0.1
    # Samples per seed, share and method.
    draws: int = 3
    # Maximum number of cells for training and validation, drawn uniformly.
    train_cells: int = 50_000
    # Share of these cells held out for accuracy and for testing pairs, in (0, 1).
    holdout: float = 0.2
    # Maximum number of cells in the reference map, drawn uniformly.
    reference_cells: int = 50_000
    # Width of a token.
    width: int = 64
    # Number of attention heads.
    heads: int = 4
    # Number of Transformer layers.
    layers: int = 2
    # Width of the feed-forward layer.
    hidden: int = 128
    # Dropout probability in training, in [0, 1).
    dropout_rate: float = 0.1
    # Passes over the training cells.
    num_epochs: int = 30
    # Cells per step.
    batch_size: int = 64
    # Peak learning rate.
    learning_rate: float = 1e-3
    # Networks trained on permuted labels for p-values, in the first seed: 0 for none,
    # otherwise at least 3.
    permutations: int = 5
    # Bootstrap resamples of the cells for intervals; 0 for none.
    bootstrap: int = 100
    # Number of top pairs tested for a product term on held-out cells.
    tested: int = 100
    # Integration points of the integrated Hessian; 0 leaves it out.
    hessian_points: int = 2
    # Random seeds; each draws a new simulation, initial network and samples.
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self):
        """Check names and ranges."""
        # An iterator would be empty at its second reading.
        for name in ("keep", "samplers", "shares", "seeds"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
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
    # Blood cells with their types as labels.
    "demo": Config(type="bulk_labels", num_epochs=15, permutations=3, shares=(0.1,)),
    # The smallest run, to check that everything works.
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
    # Simulated cells with planted pairs and two cell types of 1% each.
    "full": _SIMULATED,
    "simulated": _SIMULATED,
    # The same cells with the paper's weights, 1 / density.
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
