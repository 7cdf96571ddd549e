"""Table of pairs from a sample of the first seed: scores, intervals and p-values."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from configs.wds import Config
from jeff import files
from jeff_graph.cells import celluformer, confirm, evaluation, interactions
from jeff_graph.cells.null import Null, false_discovery_rate, permutation_null
from jeff_graph.cells.weights import diversity_weights
from train_scripts.running.seeds import seed_key
from train_scripts.wds.data import Cells
from train_scripts.wds.maps import judge, pair_map
from train_scripts.wds.measure import First, type_shares
from train_scripts.wds.network import fit

__all__ = ["Table", "read", "write"]

# Number of genes in the heat map.
_GENES = 30
_POWERS = np.linspace(0.0, 4.0, 17)
_LEVEL = 0.1


class Table(NamedTuple):
    """Data of the first seed for the plots.

    Attributes:
      genes: names of the genes in the strongest pairs.
      scores: scores of their pairs; NaN if no cell expresses both genes.
      pairs: the strongest pairs: two names, score, and ends of the interval.
      powers: exponents of 1 / density.
      effective: effective size of a sample at each power, as a share.
      multiples: for each cell type, its share of the draws at each power, relative to
        its share of the cells.
      rare: names of the rare cell types.
    """

    genes: list[str]
    scores: np.ndarray
    pairs: list[list[Any]]
    powers: np.ndarray
    effective: np.ndarray
    multiples: dict[str, np.ndarray]
    rare: list[str]


def write(
    config: Config,
    first: First,
    workdir: Path,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, float]:
    """Write the table ``pairs.csv``, and the data for the plots.

    Args:
      config: settings of the run.
      first: data of the first seed.
      workdir: output folder.
      say: called with a description of each stage.

    Returns:
      Numbers for the log.
    """
    cells, network = first.cells, first.network
    attention = celluformer.make_attention(network.config)
    rows = np.asarray(first.sample.cells)
    sums = pair_map(
        attention,
        network.params,
        cells,
        rows,
        weights=first.sample.weights,
        num_bootstrap=config.bootstrap,
        key=seed_key(first.seed, 7),
    )
    prior = config.prior_cells
    scores = interactions.pair_scores(sums, prior_cells=prior)
    columns = {"score": scores, "cells": sums.cells}
    if config.bootstrap:
        columns["low"], columns["high"] = interactions.pair_interval(
            sums, prior_cells=prior
        )
    row: dict[str, float] = {}
    if config.permutations:
        null = _null(config, first, scores, workdir, say)
        columns |= dict(zip(("lift", "p_value", "q_value"), null, strict=True))
        row |= _found("null", evaluation.pair_values(null.q_value), cells.known)
        if cells.known is not None:
            lift = judge(cells, null.lift, cells.known, first.seed)
            row |= {f"lift_{name}": lift[name] for name in lift if "auroc" in name}
    ranked = evaluation.rank_pairs(scores)
    tested = _test(config, first, ranked)
    known = _ranked_known(cells, ranked)
    row |= _found(
        "product", tested[1], None if known is None else known[: len(tested[1])]
    )
    files.write_text(workdir / "pairs.csv", _csv(cells, ranked, columns, tested))
    files.write_text(workdir / "table.json", _plots(first, scores, columns, ranked))
    return row


def read(workdir: Path) -> Table:
    """Read the data for the plots.

    Args:
      workdir: the run's folder.

    Returns:
      The `Table`.
    """
    kept = files.read_json(workdir / "table.json")
    # JSON has no NaN: the file holds null, which numpy reads as NaN.
    kept["scores"] = np.array(kept["scores"], float)
    for name in ("powers", "effective"):
        kept[name] = np.array(kept[name])
    kept["multiples"] = {k: np.array(v) for k, v in kept["multiples"].items()}
    return Table(**kept)


def _null(
    config: Config,
    first: First,
    scores: Array,
    workdir: Path,
    say: Callable[[str], None],
) -> Null:
    maps = []
    for number in range(config.permutations):
        say(f"training on permuted labels, {number + 1} of {config.permutations}")
        folder = workdir / f"seed{first.seed}" / f"permutation{number}"
        network = fit(config, first.cells, first.seed, folder, permutation=number)
        sums = pair_map(
            celluformer.make_attention(network.config),
            network.params,
            first.cells,
            np.asarray(first.sample.cells),
            weights=first.sample.weights,
        )
        maps.append(interactions.pair_scores(sums, prior_cells=config.prior_cells))
    return permutation_null(scores, jnp.stack(maps))


def _test(
    config: Config, first: First, ranked: evaluation.RankedPairs
) -> tuple[np.ndarray, np.ndarray]:
    """P and q values of the product term of the top pairs, on held-out cells.

    With more than two classes, each class is tested against the others, and the
    smallest p value is multiplied by the number of classes (Bonferroni).
    """
    cells = first.cells
    number = min(config.tested, int((~jnp.isnan(ranked.score)).sum()))
    pairs = jnp.stack([ranked.first, ranked.second], 1)[:number]
    unseen = first.network.held_out
    if not number or not len(unseen):
        return np.zeros(0), np.zeros(0)
    x = jnp.asarray(cells.prepared.take(unseen).toarray())
    labels = cells.codes[unseen]
    classes = range(1, 2) if len(cells.classes) == 2 else range(len(cells.classes))
    p = jnp.stack(
        [
            confirm.product_test(x, jnp.asarray(labels == k), pairs).p_value
            for k in classes
        ]
    )
    # Bonferroni over the classes, then false discovery rate over the pairs.
    least = jnp.minimum(p.min(0) * len(classes), 1.0)
    return np.asarray(least), np.asarray(false_discovery_rate(least))


def _ranked_known(cells: Cells, ranked: evaluation.RankedPairs) -> np.ndarray | None:
    if cells.known is None:
        return None
    number = len(cells.prepared.genes)
    known = np.zeros((number, number), bool)
    known[np.triu_indices(number, 1)] = cells.known
    return known[ranked.first, ranked.second]


def _found(name: str, q_value: Any, known: Any) -> dict[str, float]:
    below = np.asarray(q_value) < _LEVEL
    row = {f"{name}_found": float(below.sum())}
    if known is not None:
        row[f"{name}_found_known"] = float((below & np.asarray(known)).sum())
    return row


def _csv(
    cells: Cells,
    ranked: evaluation.RankedPairs,
    columns: dict[str, Array],
    tested: tuple[np.ndarray, np.ndarray],
) -> str:
    names, known = cells.prepared.genes, _ranked_known(cells, ranked)
    place = (np.asarray(ranked.first), np.asarray(ranked.second))
    values = {name: np.asarray(column)[place] for name, column in columns.items()}
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    extra = ["product_p", "product_q"] + ([] if known is None else ["known"])
    out.writerow(["rank", "gene_a", "gene_b", *values, *extra])
    for i, (a, b) in enumerate(zip(*place, strict=True)):
        row = [i + 1, names[a], names[b]]
        row += ["" if np.isnan(v[i]) else f"{v[i]:.6g}" for v in values.values()]
        row += [f"{part[i]:.3g}" if i < len(part) else "" for part in tested]
        out.writerow(row if known is None else [*row, int(known[i])])
    return text.getvalue()


def _plots(
    first: First,
    scores: Array,
    columns: dict[str, Array],
    ranked: evaluation.RankedPairs,
) -> str:
    cells = first.cells
    names = cells.prepared.genes
    order = np.stack([ranked.first, ranked.second], 1).ravel()
    top = np.asarray(list(dict.fromkeys(order.tolist()))[:_GENES])
    ends = [np.asarray(columns.get(name, scores)) for name in ("low", "high")]
    pairs = [
        [
            str(names[a]),
            str(names[b]),
            float(scores[a, b]),
            *(None if np.isnan(e[a, b]) else float(e[a, b]) for e in ends),
        ]
        for a, b in zip(
            ranked.first[:40].tolist(), ranked.second[:40].tolist(), strict=True
        )
        if not np.isnan(float(scores[a, b]))
    ]
    effective, multiples, rare = _sweep(first)
    shown = np.asarray(scores)[np.ix_(top, top)]
    return json.dumps(
        {
            "genes": names[top].tolist(),
            "scores": [
                [None if np.isnan(v) else float(v) for v in row] for row in shown
            ],
            "pairs": pairs,
            "powers": _POWERS.tolist(),
            "effective": effective,
            "multiples": multiples,
            "rare": rare,
        }
    )


def _sweep(first: First) -> tuple[list[float], dict[str, list[float]], list[str]]:
    """Effective size, and over-representation of every cell type, at each power."""
    density, types = jnp.asarray(first.density), first.cells.types
    effective, multiples = [], {}
    names = first.cells.type_names
    typed = np.zeros(0, bool) if types is None else types >= 0
    share, rare = np.zeros(0), np.zeros(0, bool)
    if types is not None:
        share, rare = type_shares(types, len(names))
    for power in _POWERS.tolist():
        weights = diversity_weights(density, power=power)
        effective.append(float(weights.effective))
        chance = np.asarray(jax.nn.softmax(weights.log_weight))
        for code, (name, part) in enumerate(zip(names, share, strict=True)):
            multiples.setdefault(name, []).append(
                float(chance[types == code].sum() / chance[typed].sum() / part)
            )
    shown = [name for name, few in zip(names, rare, strict=True) if few]
    return effective, multiples, shown
