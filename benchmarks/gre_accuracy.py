"""Accuracy of jeff's GCN against a plain PyTorch GCN, on the same splits, in one run.

``python -m benchmarks.gre_accuracy`` trains both with 500 training nodes and keeps the
best of 500 validation nodes, for five seeds and four graphs. jeff's is the one that
``python -m train_scripts.gre`` edits: 32 hidden units, features of norm one, 200 steps
of Adam at .01, on the whole graph and, as published, on the training nodes' subgraph.
PyTorch's sees the whole graph and has Kipf and Welling's settings, with 32 hidden units
as well: the features of the file, dropout of .5 before each layer, weight decay of 5e-4
on the first, 200 steps of Adam at .01. Results are written to
``benchmarks/results/gre_accuracy-<device>.json``.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks import records
from configs.gre import PRESETS
from jeff_graph.editing import loaders
from jeff_graph.editing.splits import split
from train_scripts.gre import run
from train_scripts.running.seeds import seed_key


@dataclasses.dataclass(frozen=True)
class Config:
    """What is trained."""

    # Graphs.
    datasets: tuple[str, ...] = ("cora", "citeseer", "amazon-photo", "amazon-computers")
    # Seeds, each with its own split.
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


def torch_gcn(data: loaders.Labelled, parts: Any, seed: int) -> float:
    """Test accuracy of the plain PyTorch GCN."""
    import torch

    torch.manual_seed(seed)
    graph: Any = data.graph
    nodes, width = graph.nodes.shape
    loops = np.arange(nodes)
    pairs = np.stack(
        [np.append(graph.receivers, loops), np.append(graph.senders, loops)]
    )
    degree = np.bincount(pairs[0], minlength=nodes)
    weight = torch.tensor((degree[pairs[0]] * degree[pairs[1]]) ** -0.5).float()
    adjacency = torch.sparse_coo_tensor(torch.tensor(pairs), weight, (nodes, nodes))
    adjacency = adjacency.coalesce().to_sparse_csr()
    x, y = torch.tensor(graph.nodes), torch.tensor(data.labels).long()
    train, valid, test = (torch.tensor(np.asarray(part)) for part in parts)
    first = torch.nn.Linear(width, 32, bias=False)
    last = torch.nn.Linear(32, int(y.max()) + 1, bias=False)
    biases = [torch.nn.Parameter(torch.zeros(size)) for size in (32, len(last.weight))]
    for layer in (first, last):
        torch.nn.init.xavier_uniform_(layer.weight)
    adam = torch.optim.Adam(
        [
            {"params": [first.weight, biases[0]], "weight_decay": 5e-4},
            {"params": [last.weight, biases[1]]},
        ],
        lr=0.01,
    )

    def logits(training: bool) -> Any:
        drop = torch.nn.functional.dropout
        hidden = adjacency @ first(drop(x, 0.5, training)) + biases[0]
        return adjacency @ last(drop(hidden.relu(), 0.5, training)) + biases[1]

    best, kept = -1.0, 0.0
    for _ in range(200):
        adam.zero_grad()
        torch.nn.functional.cross_entropy(logits(True)[train], y[train]).backward()
        adam.step()
        with torch.no_grad():
            right = logits(False).argmax(1) == y
        if (found := float(right[valid].float().mean())) > best:
            best, kept = found, float(right[test].float().mean())
    return kept


def measured(dataset: str, seeds: tuple[int, ...]) -> dict[str, list[float]]:
    """Test accuracies, by side."""
    base = dataclasses.replace(PRESETS["cora"], dataset=dataset, seeds=seeds)
    sides = {
        "jeff": base,
        "jeff, inductive, features that sum to one": dataclasses.replace(
            base, features="sum", inductive=True
        ),
    }
    found = {
        name: [
            each.accuracy for each in run.train_all(c, run.load(c), "gcn")[1].values()
        ]
        for name, c in sides.items()
    }
    graph, classes = run.load(dataclasses.replace(base, features="as-is"))
    # The loaders scale the rows; the entries of these four files are all 0 or 1.
    features = (np.asarray(graph.nodes) > 0).astype(np.float32)
    plain = loaders.Labelled(graph._replace(nodes=features), classes)
    labels = jnp.asarray(plain.labels)
    found["torch"] = [
        torch_gcn(plain, split(labels, 500, 500, key=seed_key(seed, 1)), seed)
        for seed in seeds
    ]
    return found


def main(config: Config) -> None:
    """Measure, print, write."""
    found = {}
    for dataset in config.datasets:
        found[dataset] = measured(dataset, config.seeds)
        for name, each in found[dataset].items():
            mean, std = 100 * np.mean(each), 100 * np.std(each, ddof=1)
            print(f"{mean:6.1f} ± {std:.1f}%  {dataset}, {name}", flush=True)
    records.write("gre_accuracy", {"accuracy": found}, config)


if __name__ == "__main__":
    main(tyro.cli(Config))
