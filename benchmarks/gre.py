"""GRE's speed against the same protocol as a plain PyTorch loop, in one run.

``python -m benchmarks.gre`` prints ratios and writes
``benchmarks/results/gre-<device>.json``. A GCN (hidden 32) is trained on Cora, or on
the digits graph without ``$JEFF_DATA``; fifty of its mistakes are then put right, each
from the same trained parameters, by GRE with Adam in at most ten steps. All sides begin
with the same parameters and must put right the same nodes. The sides:

  jeff      `evaluation.independent` as this device wants it, one compiled call. On a
            CPU edit by edit: steps on the target's neighbourhood (cut out anew in every
            repetition), and the whole graph, in sparse rows, read once an edit, at the
            end. On an accelerator all edits side by side, on the whole graph
  near      all edits side by side, on their neighbourhoods
  whole     on a CPU, edit by edit on the whole graph, dense
  torch     a loop over edits and steps, sparse adjacency in CSR, Adam, on the whole
            graph as the official code has it; on the GPU where JAX is on one

Sides alternate; medians are compared. A fresh process is timed too, compilation
counted, and so are a step of GRE+ (five anchors) against one of plain Adam, and one
edit of an `Editor`.
"""

import dataclasses
import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks import records
from benchmarks.gre_torch import Torch
from configs.gre import PRESETS
from jeff_graph.editing import Editor, evaluation, methods, replay
from jeff_graph.editing.graphs import as_graph
from jeff_graph.editing.nearby import nearby_tasks
from jeff_graph.editing.task import Edit
from train_scripts.gre import run
from train_scripts.running import results


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
        published = {"features": "sum", "inductive": True}
        wanted = dataclasses.replace(
            PRESETS[config.dataset], seeds=(0,), edits=config.edits, **published
        )
        data = run.load(wanted)
        self.graph, self.labels = as_graph(data.graph), data.labels
        self.apply_fn, trained = run.train_all(wanted, data, "gcn")
        self.trained = trained[0]
        self.targets = jnp.asarray(self.trained.wrong[: config.edits], jnp.int32)


class Jeff:
    """Our side."""

    def __init__(self, setting: Setting, whole: bool = False, at_once: int | None = 1):
        self.setting, self.whole = setting, whole
        method = methods.gre(setting.apply_fn)
        self.task = dense_task(setting)
        if at_once and not whole:
            self.task = setting.trained.task
        self.call = jax.jit(
            functools.partial(evaluation.independent, method, edits_at_once=at_once)
        )

    def edit(self) -> tuple[np.ndarray, float]:
        s = self.setting
        near = None if self.whole else nearby_tasks(s.graph, s.labels, s.targets, 2)
        report = self.call(
            s.trained.params,
            self.task,
            s.targets,
            s.trained.test,
            key=jax.random.key(0),
            near=near,
        )
        return np.asarray(report.success), float(report.drawdown)


def dense_task(setting: Setting) -> Any:
    """The task with dense features and sums over segments."""
    task = setting.trained.task
    plain = {"features": setting.graph.features, "starts": None}
    return dataclasses.replace(
        task,
        inputs=dataclasses.replace(task.inputs, **plain),
        training_inputs=dataclasses.replace(task.training_inputs, **plain),
    )


def torch_side(setting: Setting) -> Torch:
    """The peer, from the same start."""
    trained = setting.trained
    return Torch(
        setting.graph, trained.params, trained.task, trained.test, setting.targets
    )


def step_cost(setting: Setting, repeats: int) -> dict[str, float]:
    """Seconds of a step on the whole graph: plain Adam, GRE, GRE+ with five anchors."""
    task, params = dense_task(setting), setting.trained.params
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


def editor_cost(setting: Setting) -> dict[str, float]:
    """Median seconds of an edit of an `Editor`, one node after the other."""
    found = {}
    for name, make in (("gre", methods.gre), ("replay", replay.distilled_replay)):
        editor = Editor.start(
            make(setting.apply_fn),
            setting.trained.params,
            setting.trained.task,
            setting.trained.test,
            key=jax.random.key(0),
        )
        seconds = []
        for node in np.asarray(setting.targets):
            began = time.perf_counter()
            editor, _ = editor.edit(int(node))
            seconds.append(time.perf_counter() - began)
        found[name] = statistics.median(seconds)
    return found


def cold(side: str, config: Config, cache: str = "") -> float:
    """Seconds of the first edits of a fresh process, imports and training left out.

    With a folder for a cache, JAX takes its compiled programs from there.
    """
    command = [sys.executable, "-m", "benchmarks.gre", "--only", side]
    command += ["--dataset", config.dataset, "--edits", str(config.edits)]
    environment = dict(os.environ)
    if cache:
        environment["JAX_COMPILATION_CACHE_DIR"] = cache
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        raise RuntimeError(f"{side}: {done.stderr[-2000:]}")
    return float(done.stdout.splitlines()[-1])


def main(config: Config) -> None:
    """Measure, print, write."""
    setting = Setting(config)
    on_cpu = jax.default_backend() == "cpu"
    at_once = 1 if on_cpu else None
    make = {
        "jeff": lambda: Jeff(setting, whole=not on_cpu, at_once=at_once),
        "near": lambda: Jeff(setting, at_once=None),
        "whole": lambda: Jeff(setting, whole=True, at_once=at_once),
        "torch": lambda: torch_side(setting),
    }
    if not on_cpu:
        del make["whole"]
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
    editor = editor_cost(setting)
    for name, each in editor.items():
        print(f"{1000 * each:8.2f} ms an edit of an Editor  {name}")
    record = {
        "seconds": seconds,
        "right": {name: success.tolist() for name, (success, _) in found.items()},
        "drawdown": {name: drawdown for name, (_, drawdown) in found.items()},
        "steps": steps,
        "editor": editor,
    }
    if config.cold:
        first = {name: [cold(name, config) for _ in range(3)] for name in sides}
        with tempfile.TemporaryDirectory() as folder:
            again = [cold("jeff", config, folder) for _ in range(4)]
        first["jeff, programs cached on disk"] = again[1:]
        record["cold"] = first
        for name, each in first.items():
            ratio = statistics.median(first["torch"]) / statistics.median(each)
            median = statistics.median(each)
            print(f"{median:8.2f} s cold, torch / it {ratio:6.2f}  {name}")
    records.write("gre", record, config)


if __name__ == "__main__":
    main(tyro.cli(Config))
