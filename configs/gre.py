"""Configuration of `train_scripts.gre`."""

import dataclasses
from typing import Literal

__all__ = ["DATASETS", "METHODS", "NETWORKS", "PRESETS", "PROTOCOLS", "Config"]

DATASETS = ("digits", "cora", "citeseer", "amazon-photo", "simulated")
METHODS = (
    "gd",
    "gre",
    "gre+2",
    "gre+3",
    "gre+5",
    "gre+5-update",
    "enn",
    "egnn",
    "seed",
    "rehearsal",
    "memory-rewiring",
    "distilled-replay",
)
PROTOCOLS = ("independent", "sequential", "batch")
NETWORKS = ("gcn", "sage", "gat", "gin", "sgc", "appnp", "mlp")


@dataclasses.dataclass(frozen=True)
class Config:
    """What a GRE run does."""

    # Graph: digits is made of scikit-learn's images, "simulated" has the size of
    # ogbn-arxiv, the named others are in $JEFF_DATA.
    dataset: Literal["digits", "cora", "citeseer", "amazon-photo", "simulated"] = (
        "digits"
    )
    # Your own graph, an .npz file; it is read instead of the data set.
    data: str = ""
    # Networks that are trained and edited.
    networks: tuple[str, ...] = ("gcn",)
    # Ways to edit; the last three are jeff's own.
    methods: tuple[str, ...] = ("gd", "gre", "gre+5", "distilled-replay")
    # Each edit by itself, one after the other, all at once.
    protocols: tuple[str, ...] = PROTOCOLS
    # Nodes that are wrong in validation, and are put right.
    edits: int = 50
    # Most steps of an edit.
    max_steps: int = 10
    # Most steps of a batch of edits.
    batch_steps: int = 20
    # Halvings of an edit's last step, down to the smallest that still puts the target
    # right; the published protocol has none.
    bisections: int = 0
    # Width of the hidden layers.
    hidden: int = 32
    # Probability of dropping a hidden unit in training.
    dropout_rate: float = 0.1
    # Passes over the training nodes; without fanouts, each is one step.
    num_epochs: int = 200
    # Neighbours sampled for each layer of the network; empty trains on whole graphs.
    fanouts: tuple[int, ...] = ()
    # Training nodes a step, with fanouts.
    batch_size: int = 512
    # Nodes of the training and of the validation part; the rest is the test.
    train_nodes: int = 500
    valid_nodes: int = 500
    # Independent edits computed side by side; 0 for all, and for one on a CPU.
    edits_at_once: int = 0
    # Split, network and order of edits are drawn anew for each seed.
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self):
        """Check names and ranges."""
        for name, known in (
            ("networks", NETWORKS),
            ("methods", METHODS),
            ("protocols", PROTOCOLS),
        ):
            given = getattr(self, name)
            if not given or not set(given) <= set(known):
                raise ValueError(f"{name}: expected some of {known}, got {given}")
        for name, least in {
            "edits": 1,
            "max_steps": 1,
            "batch_steps": 1,
            "hidden": 1,
            "num_epochs": 1,
            "batch_size": 1,
            "bisections": 0,
            "train_nodes": 1,
            "valid_nodes": 1,
            "edits_at_once": 0,
        }.items():
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name}: expected at least {least}, got {getattr(self, name)}"
                )
        if any(fanout < 1 for fanout in self.fanouts):
            raise ValueError(f"fanouts: expected at least 1 each, got {self.fanouts}")
        if not 0 <= self.dropout_rate < 1:
            raise ValueError(
                f"dropout_rate: expected a share below 1, got {self.dropout_rate}"
            )
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: expected distinct numbers, got {self.seeds}")


_TABLE = Config(methods=METHODS, seeds=(0, 1, 2, 3, 4))
# Few training nodes: with 500, five digits are wrong in all.
_DIGITS = Config(train_nodes=50, valid_nodes=1000)

PRESETS: dict[str, Config] = {
    # The digits graph, which needs no data.
    "demo": _DIGITS,
    # The same job at its smallest, to see that everything runs.
    "smoke": Config(
        methods=("gd", "gre"),
        edits=5,
        num_epochs=20,
        seeds=(0,),
        protocols=("sequential",),
    ),
    # All methods, on the graphs of the paper.
    "digits": dataclasses.replace(_TABLE, train_nodes=50, valid_nodes=1000),
    "cora": dataclasses.replace(_TABLE, dataset="cora"),
    "citeseer": dataclasses.replace(_TABLE, dataset="citeseer"),
    "amazon-photo": dataclasses.replace(_TABLE, dataset="amazon-photo"),
    # A graph of 170,000 nodes, its network trained on sampled neighbourhoods.
    "large": Config(
        dataset="simulated",
        fanouts=(10, 5),
        num_epochs=3,
        hidden=64,
        train_nodes=90_000,
        valid_nodes=30_000,
        edits=10,
        protocols=("independent", "sequential"),
    ),
    # The table of docs/results.md: all methods, on Cora.
    "full": dataclasses.replace(_TABLE, dataset="cora"),
    # The paper's own methods alone.
    "paper": Config(
        dataset="cora",
        methods=("gd", "gre", "gre+2", "gre+3", "gre+5"),
        protocols=("independent", "sequential"),
        seeds=(0, 1, 2, 3, 4),
    ),
    # Your own graph: --data FILE.
    "file": Config(methods=("gd", "gre", "gre+5", "distilled-replay")),
    # All networks, on Cora.
    "networks": Config(
        dataset="cora",
        networks=NETWORKS,
        methods=("gd", "gre", "gre+5", "distilled-replay"),
        seeds=(0, 1, 2, 3, 4),
    ),
}
