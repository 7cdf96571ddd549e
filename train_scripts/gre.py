"""GRE on real graphs: networks are trained, then edited, by method and protocol.

Run it with ``python -m train_scripts run gre [PRESET] [--field value]``.
"""

import dataclasses
import functools
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse import BCSR
from jaxtyping import PyTree

from configs.gre import Config
from jeff import runlog
from jeff_graph.editing import loaders, methods, nets, protocols, replay, rivals, train
from jeff_graph.editing.graphs import Graph, hop_distance, subgraph
from jeff_graph.editing.nearby import Nearby, nearby_tasks
from jeff_graph.editing.report import HOPS, EditReport
from jeff_graph.editing.sampled import train_sampled
from jeff_graph.editing.simulate import simulate_graph
from jeff_graph.editing.splits import split
from jeff_graph.editing.task import ApplyFn, EditTask, Method, make_task
from train_scripts import gre_claims, gre_summary, results
from train_scripts.gre_summary import Cell

__all__ = ["run"]


class _Trained(NamedTuple):
    """A trained network of one seed, and what is wrong with it."""

    params: PyTree
    task: EditTask
    wrong: np.ndarray  # validation nodes, in random order
    test: jax.Array
    accuracy: float  # on the test nodes


def run(
    config: Config, workdir: Path, *, preset: str = "custom", progress: bool = True
) -> results.Result:
    """Train and edit every network, by every method and protocol, for every seed.

    Args:
      config: what to do.
      workdir: where everything goes; an interrupted run in it is taken up again.
      preset: name for the result.
      progress: show a progress bar.

    Returns:
      The result that was written.

    Raises:
      ValueError: if the data or a field are not as expected, or a network is wrong on
        no validation node.
      FileNotFoundError: if data are missing; says how to get them.
    """
    began = time.perf_counter()
    graph = _load(config)
    rows = _measure_all(config, graph, workdir, progress)
    report = gre_summary.Report(config, rows)
    result = results.Result(
        system="gre",
        preset=preset,
        seed=config.seeds[0],
        device=results.device_name(),
        seconds=time.perf_counter() - began,
        versions=results.versions(),
        metrics=gre_summary.numbers(report),
        claims=gre_claims.claims(report),
    )
    gre_summary.plot(report, workdir)
    table = json.dumps(gre_summary.table(report), indent=1)
    results.write_text(workdir / "table.json", table + "\n")
    results.write(result, workdir)
    return result


def _load(config: Config) -> Graph:
    load: dict[str, Callable[[], Graph]] = {
        "digits": loaders.load_digits_graph,
        "cora": functools.partial(loaders.load_planetoid, "cora"),
        "citeseer": functools.partial(loaders.load_planetoid, "citeseer"),
        "amazon-photo": loaders.load_amazon_photo,
        "simulated": simulate_graph,
        "npz": functools.partial(loaders.load_npz, config.path),
    }
    return load[config.dataset]()


def _measure_all(
    config: Config, graph: Graph, workdir: Path, progress: bool
) -> dict[Cell, dict[str, float]]:
    """Measure the cells that an interrupted run has not, a row of the log each."""
    cells = [
        Cell(*cell)
        for cell in itertools.product(
            config.networks, config.methods, config.protocols, config.seeds
        )
    ]
    total = len(cells)
    done = len(runlog.RunLog(workdir, total, total, show=False).rows)
    with runlog.RunLog(workdir, total, done, show=progress, title="edits") as log:
        for network in config.networks:
            left = [
                (step, cell)
                for step, cell in enumerate(cells, 1)
                if cell.network == network and step > done
            ]
            if not left:
                continue
            apply_fn, trained = _train_all(config, graph, network)
            edits = min(config.edits, *(len(each.wrong) for each in trained.values()))
            if not edits:
                raise ValueError(
                    f"{network}: expected validation nodes that are wrong, got a seed "
                    "without any; take more valid_nodes"
                )
            for step, cell in left:
                row = _measure(config, graph, apply_fn, cell, trained[cell.seed], edits)
                # The bar shows the loss of accuracy.
                log.write({"step": step, "loss": row["drawdown"], **row})
        rows = log.rows
    return dict(zip(cells, rows, strict=True))


def _train_all(
    config: Config, graph: Graph, network: str
) -> tuple[ApplyFn, dict[int, _Trained]]:
    """The same network for each seed; one function, so that nothing compiles twice."""
    width, classes = graph.features.shape[-1], int(graph.labels.max()) + 1
    pairs = [
        nets.split_net(
            nets.make_net(
                network,
                width,
                classes,
                hidden=config.hidden,
                dropout_rate=config.dropout,
                key=_key(seed, 0),
            )
        )
        for seed in config.seeds
    ]
    apply_fn = pairs[0][0]
    return apply_fn, {
        seed: _train(config, graph, apply_fn, params, seed)
        for seed, (_, params) in zip(config.seeds, pairs, strict=True)
    }


def _train(
    config: Config, dense: Graph, apply_fn: ApplyFn, params: PyTree, seed: int
) -> _Trained:
    graph = _compact(dense)
    parts = split(
        graph.labels, config.train_nodes, config.valid_nodes, key=_key(seed, 1)
    )
    given = (apply_fn, params, graph, parts)
    settings: dict[str, Any] = {"key": _key(seed, 2), "epochs": config.epochs}
    if config.fanouts:
        sizes = {"fanouts": config.fanouts, "batch_size": config.batch_size}
        trained = train_sampled(*given, **sizes, **settings)
    else:
        trained = train.train(*given, **settings)
    logits = jax.jit(apply_fn)(trained.params, graph)
    wrong = np.flatnonzero(parts.valid & (logits.argmax(-1) != graph.labels))
    task = make_task(
        graph,
        graph.labels,
        parts.train,
        where=graph.node_mask & (graph.labels >= 0),
        training_inputs=subgraph(graph, parts.train),
        training_labels=graph.labels,
        training_where=parts.train,
        edges=(graph.senders, graph.receivers, graph.edge_mask),
        features=dense.features,
    )
    order = np.random.default_rng(seed).permutation(len(wrong))
    return _Trained(trained.params, task, wrong[order], parts.test, trained.test)


def _compact(graph: Graph) -> Graph:
    """Sparse features where that is faster: on a CPU, for bags of words."""
    density = float((graph.features != 0).mean())
    if jax.default_backend() != "cpu" or density > 0.05:
        return graph
    return dataclasses.replace(graph, features=BCSR.fromdense(graph.features))


def _key(seed: int, purpose: int) -> jax.Array:
    """Keys of one seed: 0 the network, 1 the split, 2 its training, 3 its edits."""
    return jax.random.fold_in(jax.random.key(seed), purpose)


def _measure(
    config: Config,
    graph: Graph,
    apply_fn: ApplyFn,
    cell: Cell,
    trained: _Trained,
    edits: int,
) -> dict[str, float]:
    targets = jnp.asarray(trained.wrong[:edits], jnp.int32)
    most = max(HOPS) + 1
    hops = jax.vmap(lambda node: hop_distance(graph, node, most))(targets)
    near = None
    alone = cell.protocol == "independent" and cell.method in _TARGET_ALONE
    if alone and cell.network in _TWO_HOPS:
        near = _nearby(graph, trained.wrong[:edits])
    arguments = (trained.params, trained.task, targets, trained.test, hops, near)
    key = _key(cell.seed, 3)
    call = _protocol(config, apply_fn, cell.method, cell.protocol)
    report, seconds = call(*arguments, key)
    row = {
        "accuracy": 100 * trained.accuracy,
        "edits": edits,
        # In float64: .96 in float32 is less than 96%.
        "success": 100 * float(np.mean(np.asarray(report.success))),
        "retention": 100 * float(np.mean(np.asarray(report.retained))),
        "drawdown": float(report.drawdown),
        "divergence": float(report.divergence),
        "steps": float(report.steps.mean()),
        "milliseconds": 1000 * seconds / edits,
    }
    for hop, lost in zip(HOPS, report.hop_drawdown, strict=True):
        if np.isfinite(lost):
            row[f"hop{hop}"] = float(lost)
    if cell.protocol == "sequential":
        row |= {f"kept_{i}": float(x) for i, x in enumerate(report.retained)}
    return row


# Networks that read two hops, and methods whose steps look at the target alone.
_TWO_HOPS = ("gcn", "sage", "gat", "gin")
_TARGET_ALONE = ("gd", "gre", "gre+2", "gre+3", "gre+5", "gre+5-update")


def _nearby(graph: Graph, targets: np.ndarray) -> Nearby | None:
    """Small tasks, where the neighbourhoods are small."""
    near = nearby_tasks(graph, targets, 2)
    largest = max(task.labels.shape[1] for task in near.tasks)
    return near if 4 * largest <= graph.num_nodes else None


@functools.lru_cache(maxsize=1)
def _protocol(
    config: Config, apply_fn: ApplyFn, method_name: str, protocol_name: str
) -> Callable[..., tuple[EditReport, float]]:
    """A protocol, compiled beforehand; gives its report and its seconds."""
    method = _method(method_name, apply_fn)
    compiled: dict[str, Callable[..., EditReport]] = {}

    def call(
        params: PyTree,
        task: EditTask,
        targets: Any,
        test: Any,
        hops: Any,
        near: Any,
        key: Any,
    ) -> EditReport:
        settings = {"key": key, "hops": hops}
        given = (method, params, task, targets, test)
        if protocol_name == "independent":
            return protocols.independent(
                *given,
                max_steps=config.max_steps,
                edits_at_once=config.edits_at_once or _at_once(),
                near=near,
                **settings,
            )
        if protocol_name == "sequential":
            protocol, steps = protocols.sequential, config.max_steps
        else:
            protocol, steps = protocols.batch, config.batch_steps
        return protocol(*given, max_steps=steps, **settings)[1]

    def timed(*arguments: Any) -> tuple[EditReport, float]:
        # The neighbourhoods of another seed may have other sizes.
        sizes = str(jax.tree.map(jnp.shape, arguments))
        if sizes not in compiled:
            compiled[sizes] = jax.jit(call).lower(*arguments).compile()
        began = time.perf_counter()
        report = jax.block_until_ready(compiled[sizes](*arguments))
        return report, time.perf_counter() - began

    return timed


def _at_once() -> int | None:
    """Edits side by side: all on an accelerator; on a CPU one is faster."""
    return 1 if jax.default_backend() == "cpu" else None


def _method(name: str, apply_fn: ApplyFn) -> Method:
    if name.startswith("gre"):
        count, _, update = name.removeprefix("gre").removeprefix("+").partition("-")
        return methods.gre(
            apply_fn,
            num_anchors=int(count or 1),
            project="update" if update else "gradient",
        )
    make = {
        "gd": methods.gradient_descent,
        "enn": rivals.enn,
        "egnn": rivals.egnn,
        "seed": rivals.seed,
        "rehearsal": replay.rehearsal,
        "memory-rewiring": replay.memory_rewiring,
        "distilled-replay": replay.distilled_replay,
    }
    return make[name](apply_fn)
