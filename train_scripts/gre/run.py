"""GRE on real graphs: train networks, then edit them by every method and protocol.

Run it with ``python -m train_scripts.gre [PRESET] [--field value]``.
"""

import functools
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import optax
from jax.experimental.sparse import BCSR
from jaxtyping import PyTree

from configs.gre import Config
from jeff import files
from jeff_graph.editing import loaders, nets, training
from jeff_graph.editing.features import row_normalise, unit_rows
from jeff_graph.editing.graphs import Graph, as_graph
from jeff_graph.editing.hops import subgraph
from jeff_graph.editing.loaders import Labelled
from jeff_graph.editing.messages import compressed
from jeff_graph.editing.sampled import fit_sampled
from jeff_graph.editing.simulate import simulate_graph
from jeff_graph.editing.splits import split
from jeff_graph.editing.task import ApplyFn, make_task
from train_scripts.gre import claims, summary
from train_scripts.gre.measure import Trained, learning_rate, measure
from train_scripts.gre.summary import Cell
from train_scripts.running import machines, results
from train_scripts.running.rows import measure_rows
from train_scripts.running.seeds import seed_key

__all__ = ["load", "run", "train_all"]


def run(
    config: Config, workdir: Path, *, preset: str = "custom", progress: bool = True
) -> results.Result:
    """Train and edit every network, with every method and protocol, for every seed.

    Args:
      config: settings of the run.
      workdir: output folder; an interrupted run in it is resumed.
      preset: name of the preset in the result.
      progress: show a progress bar.

    Returns:
      The result that was written.

    Raises:
      ValueError: if the data or a field are not as expected, or a network classifies
        every validation node correctly.
      FileNotFoundError: if data are missing; says how to get them.
    """
    began = time.perf_counter()
    rows = _measure_all(config, load(config), workdir, progress)
    report = summary.Report(config, rows)
    summary.plot(report, workdir)
    files.write_json(workdir / "table.json", summary.table(report), indent=1)
    part = results.Part(summary.numbers(report), claims.claims(report))
    return results.finish("gre", preset, config.seeds[0], began, part, workdir)


def load(config: Config) -> Labelled:
    """Load the graph of a run, and scale its features.

    Args:
      config: settings of the run.

    Returns:
      The graph and its labels.

    Raises:
      FileNotFoundError: if its data are missing; says how to get them.
    """
    load: dict[str, Callable[[], Labelled]] = {
        "digits": loaders.load_digits_graph,
        "cora": functools.partial(loaders.load_planetoid, "cora"),
        "citeseer": functools.partial(loaders.load_planetoid, "citeseer"),
        "amazon-photo": loaders.load_amazon_photo,
        "amazon-computers": loaders.load_amazon_computers,
        "simulated": simulate_graph,
    }
    graph, labels = (
        loaders.load_npz(config.data) if config.data else load[config.dataset]()
    )
    scale = {"unit": unit_rows, "sum": row_normalise, "as-is": lambda x: x}
    return Labelled(graph._replace(nodes=scale[config.features](graph.nodes)), labels)


def _measure_all(
    config: Config, data: Labelled, workdir: Path, progress: bool
) -> dict[Cell, dict[str, float]]:
    """Measure all cells that an interrupted run lacks, one row of the log per cell."""
    if "independent" in config.protocols:
        machines.batch_sharding(config.edits, name="edits")  # refused now, if ever
    graph = as_graph(data.graph)
    cells = [
        Cell(*cell)
        for cell in itertools.product(
            config.networks, config.methods, config.protocols, config.seeds
        )
    ]

    # One entry: cells are ordered by network, so older networks are not needed again
    # and their memory is freed.
    @functools.lru_cache(maxsize=1)
    def trained_as(network: str) -> tuple[ApplyFn, dict[int, Trained], int]:
        apply_fn, trained = train_all(config, data, network)
        # The same number for all seeds, so that their shapes and averages agree.
        edits = min(config.edits, *(len(each.wrong) for each in trained.values()))
        if not edits:
            raise ValueError(
                f"{network}: expected validation nodes that are wrong, got a seed "
                "without any; take more valid_nodes"
            )
        return apply_fn, trained, edits

    def measured(cell: Cell) -> dict[str, float]:
        apply_fn, trained, edits = trained_as(cell.network)
        return measure(config, graph, apply_fn, cell, trained[cell.seed], edits)

    rows = measure_rows(
        workdir,
        cells,
        measured,
        progress=progress,
        title="edits",
        shown="drawdown",
        together=lambda cell: cell.network,
    )
    return dict(zip(cells, rows, strict=True))


def train_all(
    config: Config, data: Labelled, network: str
) -> tuple[ApplyFn, dict[int, Trained]]:
    """Train one network for each seed.

    Args:
      config: settings of the run.
      data: the whole graph and its labels.
      network: name of the network.

    Returns:
      ``(apply_fn, trained)``: one function for all seeds, so that it compiles once, and
      the trained network by seed.
    """
    features: Any = data.graph.nodes
    width, classes = features.shape[-1], int(data.labels.max()) + 1
    pairs = [
        nets.split_net(
            nets.make_net(
                network,
                width,
                classes,
                hidden=config.hidden,
                dropout_rate=config.dropout_rate,
                key=seed_key(seed, 0),
            )
        )
        for seed in config.seeds
    ]
    apply_fn = pairs[0][0]
    adam = optax.adam(learning_rate(network))
    return apply_fn, {
        seed: _train(config, data, apply_fn, params, seed, adam)
        for seed, (_, params) in zip(config.seeds, pairs, strict=True)
    }


def _train(
    config: Config,
    data: Labelled,
    apply_fn: ApplyFn,
    params: PyTree,
    seed: int,
    optimizer: optax.GradientTransformation,
) -> Trained:
    graph, labels = _compact(data.graph), jnp.asarray(data.labels)
    parts = split(labels, config.train_nodes, config.valid_nodes, key=seed_key(seed, 1))
    given = (apply_fn, params, graph, labels, parts)
    settings: dict[str, Any] = {
        "key": seed_key(seed, 2),
        "num_epochs": config.num_epochs,
        "optimizer": optimizer,
    }
    if config.fanouts:
        sizes = {"fanouts": config.fanouts, "batch_size": config.batch_size}
        trained = fit_sampled(*given, **sizes, **settings)
    else:
        trained = training.fit(*given, inductive=config.inductive, **settings)
    logits = jax.jit(apply_fn)(trained.params, graph)
    wrong = np.flatnonzero(parts.valid & (logits.argmax(-1) != labels))
    # Sampled training is on the subgraph of the training nodes as well.
    inductive = config.inductive or bool(config.fanouts)
    task = make_task(
        graph,
        labels,
        parts.train,
        where=labels >= 0,
        training_inputs=subgraph(graph, parts.train) if inductive else graph,
        features=data.graph.nodes,
    )
    # Shuffled, since the order of nodes in a file may carry information.
    order = np.random.default_rng(seed).permutation(len(wrong))
    return Trained(trained.params, task, wrong[order], parts.test, trained.test)


def _compact(graph: jraph.GraphsTuple) -> Graph:
    """On a CPU, convert edges and bag-of-words features to faster sparse rows."""
    if jax.default_backend() != "cpu":
        return as_graph(graph)
    features = jnp.asarray(graph.nodes)
    if float((features != 0).mean()) < 0.05:
        graph = graph._replace(nodes=BCSR.fromdense(features))
    return compressed(graph)
