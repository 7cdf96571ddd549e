"""YODO's speed against the same method in plain PyTorch, in one run.

``python -m benchmarks.yodo`` prints ratios and writes
``benchmarks/results/yodo-<device>.json``. The peer is written the way PyTorch's own
tutorials would: one module, `torch.func.functional_call` at the interpolated weights,
batches by indexing tensors (no DataLoader). Both sides alternate, so that a machine
whose speed drifts treats them alike; the medians are compared.
"""

import dataclasses
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from benchmarks import records
from jeff.fairness import nets, tabular, yodo
from train_scripts.running import results


@dataclasses.dataclass(frozen=True)
class Config:
    """What is timed."""

    # Passes over the training part.
    num_epochs: int = 8
    # People a step.
    batch_size: int = 512
    # Levels of the sweep, and models of the comparison.
    num_levels: int = 100
    # People of the sweep.
    num_people: int = 9045
    # Alternating repetitions of each timing.
    repeats: int = 5
    # Seeds trained side by side in the vmapped timing; 0 leaves it out.
    num_seeds: int = 10
    # Time a fresh process too, compilation counted, with an empty and a full cache.
    cold: bool = True


def timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


class Jeff:
    """Our side."""

    def __init__(self, parts: tabular.Splits, config: Config):
        self.parts, self.config = parts, config
        width = parts.train.inputs.shape[1]
        apply_fn, self.line = nets.mlp_line(width, key=jax.random.key(0))
        self.apply_fn = apply_fn
        self.optimizer = optax.adam(1e-3)

        @jax.jit
        def train(line, examples, key):
            return yodo.train(
                apply_fn,
                line,
                examples,
                key=key,
                optimizer=self.optimizer,
                num_epochs=config.num_epochs,
                batch_size=config.batch_size,
            )

        self.train_fn = train
        keys = jax.random.split(jax.random.key(2), max(config.num_seeds, 1))
        self.keys = keys
        self.train_seeds = jax.jit(jax.vmap(train, in_axes=(None, None, 0)))

    def train(self, seed: int = 0) -> None:
        key = jax.random.key(seed)
        self.trained = jax.block_until_ready(
            self.train_fn(self.line, self.parts.train, key)
        )

    def seeds(self) -> None:
        jax.block_until_ready(self.train_seeds(self.line, self.parts.train, self.keys))

    def levels(self, people: jax.Array) -> None:
        alphas = jnp.linspace(0, 1, self.config.num_levels)
        jax.block_until_ready(yodo.predict(self.apply_fn, self.trained, people, alphas))


class Torch:
    """The peer's side."""

    def __init__(self, parts: tabular.Splits, config: Config):
        import torch

        self.torch, self.config = torch, config
        people = (parts.train.inputs, parts.train.label, parts.train.group)
        self.x, self.y, self.s = (torch.tensor(np.array(part)) for part in people)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.x, self.y, self.s = (t.to(self.device) for t in (self.x, self.y, self.s))

    def network(self):
        layers = self.torch.nn
        return layers.Sequential(
            layers.Linear(self.x.shape[1], 256),
            layers.ReLU(),
            layers.Dropout(0.5),
            layers.Linear(256, 256),
            layers.ReLU(),
            layers.Dropout(0.5),
            layers.Linear(256, 256),
            layers.Sigmoid(),
            layers.Linear(256, 1),
        ).to(self.device)

    def batches(self):
        for _ in range(self.config.num_epochs):
            order = self.torch.randperm(len(self.x), device=self.device)
            for place in range(len(self.x) // self.config.batch_size):
                start = place * self.config.batch_size
                yield order[start : start + self.config.batch_size]

    def gap(self, prob, rows):
        group = self.s[rows]
        return (prob[group == 0].mean() - prob[group == 1].mean()).abs()

    def error(self, logit, rows):
        loss = self.torch.nn.functional.binary_cross_entropy_with_logits
        return loss(logit, self.y[rows].float())

    def train(self) -> None:
        torch = self.torch
        self.model, end = self.network(), self.network()
        for parameter in end.parameters():
            if parameter.ndim > 1:
                torch.nn.init.xavier_normal_(parameter)
            else:
                torch.nn.init.zeros_(parameter)
        self.start, self.end = list(self.model.parameters()), list(end.parameters())
        self.names = [name for name, _ in self.model.named_parameters()]
        optimizer = torch.optim.Adam([*self.start, *self.end], 1e-3)
        for rows in self.batches():
            alpha = torch.rand((), device=self.device)
            logit = self.at(alpha, self.x[rows])
            gap = self.gap(torch.sigmoid(logit), rows)
            u, v = (
                torch.cat([w.flatten() for w in side if w.ndim > 1])
                for side in (self.start, self.end)
            )
            cosine = (u @ v) ** 2 / ((u @ u) * (v @ v))
            loss = self.error(logit, rows) + alpha * gap + cosine
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.wait()

    def at(self, alpha, x):
        ends = zip(self.names, self.start, self.end, strict=True)
        theta = {name: (1 - alpha) * u + alpha * v for name, u, v in ends}
        return self.torch.func.functional_call(self.model, theta, (x,))[:, 0]

    def train_fixed(self) -> None:
        model = self.network()
        optimizer = self.torch.optim.Adam(model.parameters(), 1e-3)
        for rows in self.batches():
            logit = model(self.x[rows])[:, 0]
            gap = self.gap(self.torch.sigmoid(logit), rows)
            loss = self.error(logit, rows) + 0.5 * gap
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.wait()

    def levels(self, people) -> None:
        self.model.eval()
        with self.torch.no_grad():
            for alpha in self.torch.linspace(0, 1, self.config.num_levels):
                self.torch.sigmoid(self.at(alpha.to(self.device), people))
        self.wait()
        self.model.train()

    def wait(self) -> None:
        if self.device == "cuda":
            self.torch.cuda.synchronize()


def matrix_rate() -> float:
    """Operations a second of a step's own products (512 x 256 x 256)."""
    x, w = jnp.ones((512, 256)) / 256, jnp.ones((256, 256)) / 256
    chain = jax.jit(
        lambda x: jax.lax.fori_loop(0, 1000, lambda _, y: jnp.tanh(y @ w), x)
    )
    jax.block_until_ready(chain(x))
    seconds = min(timed(lambda: jax.block_until_ready(chain(x))) for _ in range(3))
    return 1000 * 2 * 512 * 256 * 256 / seconds


COLD = """
import time; began = time.perf_counter()
import sys, jax
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
from benchmarks import yodo
config = yodo.Config(num_epochs=int(sys.argv[2]))
parts = yodo.load()
side = getattr(yodo, sys.argv[3])(parts, config)
ready = time.perf_counter()
side.train()
print(time.perf_counter() - ready)
"""


def cold(side: str, cache: Path, config: Config) -> float:
    """Seconds of the first training in a fresh process, compilation counted."""
    done = subprocess.run(
        [sys.executable, "-c", COLD, str(cache), str(config.num_epochs), side],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stdout)


def load() -> tabular.Splits:
    return tabular.split(tabular.adult("sex"), key=jax.random.key(0))


def measure(config: Config) -> dict[str, list[float]]:
    """Seconds of every part, a value a repetition."""
    parts = load()
    ours, theirs = Jeff(parts, config), Torch(parts, config)
    people = jnp.tile(parts.test.inputs, (3, 1))[: config.num_people]
    torch_people = theirs.torch.tensor(np.array(people)).to(theirs.device)
    plan: list[tuple[str, Callable[[], None]]] = [
        ("jeff_train", ours.train),
        ("torch_train", theirs.train),
        ("jeff_levels", lambda: ours.levels(people)),
        ("torch_levels", lambda: theirs.levels(torch_people)),
        ("torch_fixed", theirs.train_fixed),
    ]
    if config.num_seeds:
        plan.append(("jeff_seeds", ours.seeds))
    for _, call in plan:
        call()
    seconds: dict[str, list[float]] = {name: [] for name, _ in plan}
    for _ in range(config.repeats):
        for name, call in plan:
            seconds[name].append(timed(call))
    return seconds


def ratios(seconds: dict[str, list[float]], config: Config) -> dict[str, float]:
    """The spec's ratios, from medians."""
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    found = {
        "training: torch / jeff": middle["torch_train"] / middle["jeff_train"],
        f"{config.num_levels} levels: torch / jeff": middle["torch_levels"]
        / middle["jeff_levels"],
        f"{config.num_levels} fixed torch models / jeff's training and levels": (
            config.num_levels * middle["torch_fixed"]
        )
        / (middle["jeff_train"] + middle["jeff_levels"]),
    }
    if config.num_seeds:
        name = f"{config.num_seeds} seeds vmapped / one seed"
        found[name] = middle["jeff_seeds"] / middle["jeff_train"]
    return found


def main(config: Config) -> None:
    """Measure, print, write."""
    import tempfile

    seconds = measure(config)
    found = ratios(seconds, config)
    if config.cold:
        with tempfile.TemporaryDirectory() as cache:
            empty = cold("Jeff", Path(cache), config)
            full = cold("Jeff", Path(cache), config)
            peer = cold("Torch", Path(cache), config)
        found["first training, empty compilation cache: torch / jeff"] = peer / empty
        found["first training, full compilation cache: torch / jeff"] = peer / full
    rate = matrix_rate()
    width = 102
    multiplications = width * 256 + 2 * 256 * 256 + 256
    steps = config.num_epochs * (36177 // config.batch_size)
    # Forward, and twice as much backward but for the first layer's input.
    operations = steps * 2 * config.batch_size * (3 * multiplications - width * 256)
    found["floor of training (its products at the matrix rate) / jeff"] = (
        operations / rate / statistics.median(seconds["jeff_train"])
    )
    device = results.device_name()
    print(f"device: {device}; jax {jax.__version__}; {config.repeats} repetitions")
    for name, values in seconds.items():
        print(
            f"  {name:14} median {statistics.median(values):7.2f} s "
            f"({min(values):.2f} to {max(values):.2f})"
        )
    print(f"  matrix rate {rate / 1e9:.0f} GFLOP/s")
    for name, value in found.items():
        print(f"{value:8.2f}  {name}")
    record = {
        "seconds": seconds,
        "matrix_rate_flops": rate,
        "ratios": found,
    }
    records.write("yodo", record, config)


if __name__ == "__main__":
    main(tyro.cli(Config))
