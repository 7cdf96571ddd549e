"""Configuration of `train_scripts.gre`."""

import dataclasses
from typing import Literal

__all__ = ["DATASETS", "METHODS", "NETWORKS", "PRESETS", "PROTOCOLS", "Config"]

DATASETS = (
    "digits",
    "cora",
    "citeseer",
    "amazon-photo",
    "amazon-computers",
    "simulated",
)
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
    "minimal-edit",
)
PROTOCOLS = ("independent", "sequential", "batch")
NETWORKS = ("gcn", "sage", "gat", "gin", "sgc", "appnp", "mlp")


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a GRE run."""

    # Graph data set: "digits" is built from scikit-learn's images, "simulated" has the
    # size of ogbn-arxiv; the others are read from $JEFF_DATA.
    dataset: Literal[
        "digits",
        "cora",
        "citeseer",
        "amazon-photo",
        "amazon-computers",
        "simulated",
    ] = "digits"
    # Your own graph, an .npz file; replaces the data set.
    data: str = ""
    # Networks to train and edit: gcn, sage, gat, gin, sgc, appnp, mlp.
    networks: tuple[str, ...] = ("gcn",)
    # Editing methods; rehearsal, memory-rewiring, distilled-replay and minimal-edit are
    # jeff's own.
    methods: tuple[str, ...] = (
        "gd",
        "gre",
        "gre+5",
        "distilled-replay",
        "minimal-edit",
    )
    # Protocols: each edit on the original model, edits in sequence, all in one batch.
    protocols: tuple[str, ...] = PROTOCOLS
    # Number of edits: misclassified validation nodes to correct.
    edits: int = 50
    # Maximum number of optimiser steps per edit.
    max_steps: int = 10
    # Maximum number of optimiser steps for a batch of edits.
    batch_steps: int = 20
    # Bisections of an edit's last step, to find the smallest step that still corrects
    # the target; the published protocol uses 0.
    bisections: int = 0
    # Width of the hidden layers.
    hidden: int = 32
    # Dropout probability in training, in [0, 1).
    dropout_rate: float = 0.1
    # Scale of each node's features: "unit" for a Euclidean norm of one, "sum" for a sum
    # of absolute values of one, as published, "as-is" for none.
    features: Literal["unit", "sum", "as-is"] = "unit"
    # Train on the subgraph of the training nodes, as published; by default on the whole
    # graph, without the other nodes' labels. Training with fanouts is inductive.
    inductive: bool = False
    # Passes over the training nodes; without fanouts, each is one step.
    num_epochs: int = 200
    # Neighbours sampled per node in each layer; empty trains on the whole graph.
    fanouts: tuple[int, ...] = ()
    # Training nodes per step; used only with fanouts.
    batch_size: int = 512
    # Number of training nodes.
    train_nodes: int = 500
    # Number of validation nodes; the remaining nodes are the test part.
    valid_nodes: int = 500
    # Independent edits computed in parallel; 0 means 1 on a CPU, otherwise all.
    edits_at_once: int = 0
    # Random seeds; each draws a new split, initial network and order of edits.
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
# With 500 training nodes only five validation digits are wrong, too few to edit.
_DIGITS = Config(train_nodes=50, valid_nodes=1000)

PRESETS: dict[str, Config] = {
    # The digits graph, which needs no download.
    "demo": _DIGITS,
    # The smallest run, to check that everything works.
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
    # A dense graph on which no setting was chosen.
    "amazon-computers": Config(
        dataset="amazon-computers", networks=("gcn", "sage"), seeds=(0, 1, 2, 3, 4)
    ),
    # A graph of 170,000 nodes; the network is trained on sampled neighbourhoods.
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
    # The methods and the training of the paper.
    "paper": Config(
        dataset="cora",
        methods=("gd", "gre", "gre+2", "gre+3", "gre+5"),
        protocols=("independent", "sequential"),
        features="sum",
        inductive=True,
        seeds=(0, 1, 2, 3, 4),
    ),
    # Your own graph: --data FILE.
    "file": Config(),
    # All networks, on Cora.
    "networks": Config(
        dataset="cora",
        networks=NETWORKS,
        seeds=(0, 1, 2, 3, 4),
    ),
}
