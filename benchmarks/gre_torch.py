"""GRE as a plain PyTorch loop, the peer of `benchmarks.gre`."""

import warnings
from typing import Any

import jax
import numpy as np

from jeff_graph.editing.graphs import Graph
from jeff_graph.editing.task import EditTask

__all__ = ["Torch"]


class Torch:
    """The peer: a network, its graph and its targets as tensors."""

    def __init__(
        self, graph: Graph, params: Any, task: EditTask, test: Any, targets: Any
    ):
        import torch

        warnings.filterwarnings("ignore", "Sparse")

        self.torch = torch
        self.device = "cpu" if jax.default_backend() == "cpu" else "cuda"
        nodes = graph.num_nodes
        pairs = np.stack([graph.receivers, graph.senders])[:, graph.edge_mask]
        loops = np.arange(nodes)
        pairs = np.concatenate([pairs, np.stack([loops, loops])], axis=1)
        degree = np.bincount(pairs[0], minlength=nodes)
        weight = (degree[pairs[0]] * degree[pairs[1]]) ** -0.5
        self.whole = self.matrix(pairs, weight, nodes)
        train = np.asarray(task.train)
        inside = train[pairs[0]] & train[pairs[1]]
        pairs = pairs[:, inside | (pairs[0] == pairs[1])]
        degree = np.bincount(pairs[0], minlength=nodes)
        weight = (degree[pairs[0]] * degree[pairs[1]]) ** -0.5
        self.part = self.matrix(pairs, weight, nodes)
        self.x = torch.tensor(np.asarray(graph.features)).to(self.device)
        labels = torch.tensor(np.asarray(task.labels), dtype=torch.long)
        self.labels = labels.to(self.device)
        self.train = torch.tensor(train).to(self.device)
        self.test = torch.tensor(np.asarray(test)).to(self.device)
        self.targets = np.asarray(targets)
        layers = params["layers"]
        self.start = [
            torch.tensor(np.asarray(layers[i][name])).to(self.device)
            for i in (0, 1)
            for name in ("kernel", "bias")
        ]

    def matrix(self, pairs: np.ndarray, weight: np.ndarray, nodes: int) -> Any:
        torch = self.torch
        values = torch.tensor(weight, dtype=torch.float32)
        made = torch.sparse_coo_tensor(torch.tensor(pairs), values, (nodes, nodes))
        return made.coalesce().to_sparse_csr().to(self.device)

    def logits(self, params: list[Any], adjacency: Any) -> Any:
        first, first_bias, last, last_bias = params
        hidden = adjacency @ (self.x @ first) + first_bias
        return adjacency @ (hidden.relu() @ last) + last_bias

    def edit(self) -> tuple[np.ndarray, float]:
        torch = self.torch
        loss_of = torch.nn.functional.cross_entropy
        params = [p.clone().requires_grad_() for p in self.start]
        logits = self.logits(params, self.part)
        loss = loss_of(logits[self.train], self.labels[self.train])
        anchor = torch.autograd.grad(loss, params)
        square = sum((a * a).sum() for a in anchor)
        with torch.no_grad():
            right = self.logits(params, self.whole).argmax(1) == self.labels
            before = right[self.test].float().mean()
        success, lost = [], []
        for target in self.targets:
            params = [p.clone().requires_grad_() for p in self.start]
            adam = torch.optim.Adam(params, lr=0.01)
            for _ in range(10):
                logits = self.logits(params, self.whole)
                loss = loss_of(logits[target][None], self.labels[target][None])
                gradient = torch.autograd.grad(loss, params)
                inner: Any = sum(
                    (g * a).sum() for g, a in zip(gradient, anchor, strict=True)
                )
                v = torch.clamp(-inner / square, min=0)
                for p, g, a in zip(params, gradient, anchor, strict=True):
                    p.grad = (g + v * a) / 2
                adam.step()
                with torch.no_grad():
                    logits = self.logits(params, self.whole)
                if logits[target].argmax() == self.labels[target]:
                    break
            right = logits.argmax(1) == self.labels
            success.append(bool(right[target]))
            lost.append(float(before - right[self.test].float().mean()))
        return np.array(success), 100 * float(np.mean(lost))
