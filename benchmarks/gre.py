"""GRE's speed against the same protocol as a plain PyTorch loop, in one run.

``python -m benchmarks.gre`` prints ratios and writes
``benchmarks/results/gre-<device>.json``. A GCN (hidden 32) is trained on Cora, or on
the digits graph without ``$JEFF_DATA``; fifty of its mistakes are then put right, each
from the same trained parameters, by GRE with Adam in at most ten steps. All sides begin
with the same parameters and must put right the same nodes. The sides:

  jeff      `protocols.independent`: one compiled call, edit by edit; steps are taken on
            the target's neighbourhood (cut out anew in every repetition), and the whole
            graph is read once an edit, at the end
  vmap      the same with all edits side by side, as an accelerator wants them
  whole     edit by edit, with steps on the whole graph
  torch     a loop over edits and steps, sparse adjacency in CSR, Adam, on the whole
            graph as the official code has it

Sides alternate; medians are compared. A fresh process is timed too, compilation
counted, and so is a step of GRE+ (five anchors) against one of plain Adam.
"""

import dataclasses
import functools
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.experimental.sparse import BCSR

from configs.gre import Config as RunConfig
from jeff_graph.editing import methods, protocols
from jeff_graph.editing.nearby import nearby_tasks
from jeff_graph.editing.task import Edit
from train_scripts import gre, results


@dataclasses.dataclass(frozen=True)
class Config:
    """What is timed."""

    # Graph.
    dataset: Literal["cora", "digits"] = "cora"
    # Edits, each from the trained model.
    edits: int = 50
    # Alternating repetitions.
    repeats: int = 5
    # Time a fresh process too, compilation counted.
    cold: bool = True
    # Time one first call of this side alone, in this process.
    only: str = ""


def timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


class Setting:
    """A trained network and its mistakes."""

    def __init__(self, config: Config):
        run = RunConfig(dataset=config.dataset, seeds=(0,), edits=config.edits)
        self.graph = gre._load(run)
        self.apply_fn, trained = gre._train_all(run, self.graph, "gcn")
        self.trained = trained[0]
        self.targets = jnp.asarray(self.trained.wrong[: config.edits], jnp.int32)


class Jeff:
    """Our side."""

    def __init__(self, setting: Setting, whole: bool = False, at_once: int | None = 1):
        self.setting, self.whole = setting, whole
        method = methods.gre(setting.apply_fn)
        self.task = setting.trained.task
        if not whole:
            # The whole graph is only read: most of a dense product would be zeros.
            rows = BCSR.fromdense(setting.graph.features)
            inputs = dataclasses.replace(setting.graph, features=rows)
            self.task = dataclasses.replace(self.task, inputs=inputs)
        self.call = jax.jit(
            functools.partial(protocols.independent, method, edits_at_once=at_once)
        )

    def edit(self) -> tuple[np.ndarray, float]:
        s = self.setting
        near = None if self.whole else nearby_tasks(s.graph, s.targets, 2)
        report = self.call(
            s.trained.params,
            self.task,
            s.targets,
            s.trained.test,
            key=jax.random.key(0),
            near=near,
        )
        return np.asarray(report.success), float(report.drawdown)


class Torch:
    """The peer."""

    def __init__(self, setting: Setting):
        import torch

        warnings.filterwarnings("ignore", "Sparse")

        self.torch, graph = torch, setting.graph
        nodes = graph.num_nodes
        pairs = np.stack([graph.receivers, graph.senders])[:, graph.edge_mask]
        loops = np.arange(nodes)
        pairs = np.concatenate([pairs, np.stack([loops, loops])], axis=1)
        degree = np.bincount(pairs[0], minlength=nodes)
        weight = (degree[pairs[0]] * degree[pairs[1]]) ** -0.5
        self.whole = self.matrix(pairs, weight, nodes)
        train = np.asarray(setting.trained.task.train)
        inside = train[pairs[0]] & train[pairs[1]]
        pairs = pairs[:, inside | (pairs[0] == pairs[1])]
        degree = np.bincount(pairs[0], minlength=nodes)
        weight = (degree[pairs[0]] * degree[pairs[1]]) ** -0.5
        self.part = self.matrix(pairs, weight, nodes)
        self.x = torch.tensor(np.asarray(graph.features))
        self.labels = torch.tensor(np.asarray(graph.labels), dtype=torch.long)
        self.train = torch.tensor(train)
        self.test = torch.tensor(np.asarray(setting.trained.test))
        self.targets = np.asarray(setting.targets)
        layers = setting.trained.params["layers"]
        self.start = [
            torch.tensor(np.asarray(layers[i][name]))
            for i in (0, 1)
            for name in ("kernel", "bias")
        ]

    def matrix(self, pairs: np.ndarray, weight: np.ndarray, nodes: int) -> Any:
        torch = self.torch
        values = torch.tensor(weight, dtype=torch.float32)
        made = torch.sparse_coo_tensor(torch.tensor(pairs), values, (nodes, nodes))
        return made.coalesce().to_sparse_csr()

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
                inner = sum(
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


def step_cost(setting: Setting, repeats: int) -> dict[str, float]:
    """Seconds of a step on the whole graph: plain Adam, GRE, GRE+ with five anchors."""
    task, params = setting.trained.task, setting.trained.params
    target = jnp.arange(task.labels.shape[0]) == setting.targets[0]
    edit = Edit(target, jnp.zeros_like(target))
    calls = {}
    for name, method in (
        ("adam", methods.gradient_descent(setting.apply_fn)),
        ("gre", methods.gre(setting.apply_fn)),
        ("gre+5", methods.gre(setting.apply_fn, num_anchors=5)),
    ):
        state = method.init(params, task, jax.random.key(0))
        step = jax.jit(method.step)
        calls[name] = functools.partial(step, params, state, task, edit)
        jax.block_until_ready(calls[name]())
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(20 * repeats):
        for name, call in calls.items():
            seconds[name].append(timed(lambda c=call: jax.block_until_ready(c())))
    return {name: statistics.median(each) for name, each in seconds.items()}


def cold(side: str, config: Config) -> float:
    """Seconds of the first edits of a fresh process, imports and training left out."""
    command = [sys.executable, "-m", "benchmarks.gre", "--only", side]
    command += ["--dataset", config.dataset, "--edits", str(config.edits)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{side}: {done.stderr[-2000:]}")
    return float(done.stdout.splitlines()[-1])


def main(config: Config) -> None:
    """Measure, print, write."""
    setting = Setting(config)
    make = {
        "jeff": lambda: Jeff(setting),
        "vmap": lambda: Jeff(setting, at_once=None),
        "whole": lambda: Jeff(setting, whole=True),
        "torch": lambda: Torch(setting),
    }
    if config.only:
        side = make[config.only]()
        print(timed(side.edit))
        return
    sides = {name: build() for name, build in make.items()}
    found = {name: side.edit() for name, side in sides.items()}
    count = len(setting.targets)
    print(f"device: {results.device_name()}; {config.dataset}, {count} edits")
    for name, (success, drawdown) in found.items():
        print(f"{100 * success.mean():6.1f}% right, {drawdown:.2f} points lost  {name}")
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(config.repeats):
        for name, side in sides.items():
            seconds[name].append(timed(side.edit))
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    for name, median in medians.items():
        ratio = medians["torch"] / median
        print(
            f"{1000 * median / count:8.2f} ms an edit, torch / it {ratio:6.2f}  {name}"
        )
    steps = step_cost(setting, config.repeats)
    for name in ("gre", "gre+5"):
        print(f"{steps[name] / steps['adam']:8.2f} x a step of plain Adam  {name}")
    record = {
        "command": "python -m benchmarks.gre",
        "device": results.device_name(),
        "versions": results.versions(),
        "config": dataclasses.asdict(config),
        "seconds": seconds,
        "right": {name: success.tolist() for name, (success, _) in found.items()},
        "drawdown": {name: drawdown for name, (_, drawdown) in found.items()},
        "steps": steps,
    }
    if config.cold:
        first = {name: [cold(name, config) for _ in range(3)] for name in sides}
        record["cold"] = first
        for name, each in first.items():
            ratio = statistics.median(first["torch"]) / statistics.median(each)
            median = statistics.median(each)
            print(f"{median:8.2f} s cold, torch / it {ratio:6.2f}  {name}")
    name = "".join(c if c.isalnum() else "-" for c in results.device_name().lower())
    path = Path(__file__).parent / "results" / f"gre-{name}.json"
    results.write_text(path, json.dumps(record, indent=1) + "\n")
    print(f"written: {path}")


if __name__ == "__main__":
    main(tyro.cli(Config))
