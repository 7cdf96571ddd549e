"""Measure one seed of a run on gene pairs: maps from all cells and from samples."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from configs.wds import Config
from jeff_graph.cells import (
    celluformer,
    evaluation,
    hessian,
    interactions,
)
from jeff_graph.cells.sampling import Sample
from jeff_graph.cells.weights import Weights, diversity_weights
from train_scripts.running.seeds import seed_key
from train_scripts.wds.data import Cells
from train_scripts.wds.maps import (
    TOP,
    judge,
    known_or_correlated,
    pair_map,
    without_network,
)
from train_scripts.wds.network import Network, fit, held_out_accuracy
from train_scripts.wds.samples import at_most, densities, pick

__all__ = ["RARE", "First", "measure", "type_shares"]

# A cell type is rare if at most this share of the cells belongs to it.
RARE = 0.02
# A share of fewer cells of a type than this says nothing of how often it is drawn.
FEWEST = 5


class First(NamedTuple):
    """Data of the first seed for the table of pairs and the plots.

    Attributes:
      cells: the cells.
      network: the network trained on them.
      weights: weights of the sampler.
      density: density of each cell.
      sample: the sample from which the table is made.
      seed: the seed.
    """

    cells: Cells
    network: Network
    weights: Weights
    density: np.ndarray
    sample: Sample
    seed: int


def measure(
    config: Config,
    cells: Cells,
    seed: int,
    workdir: Path,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[dict[str, float], First]:
    """Measure one seed.

    Args:
      config: settings of the run.
      cells: cells of the run.
      seed: the seed.
      workdir: the run's folder; an interrupted training in it is resumed.
      say: called with a description of each stage.

    Returns:
      ``(row, first)``: numbers for the log, and data for the table of pairs.

    Raises:
      ValueError: if there are too few cells for a share.
    """
    say(f"two passes over {cells.prepared.num_cells:,} cells")
    density = densities(config, cells, seed)
    weights = diversity_weights(
        jnp.asarray(density), power=config.power, least_effective=config.least_effective
    )
    say("training")
    network = fit(config, cells, seed, workdir / f"seed{seed}")
    accuracy = held_out_accuracy(network, cells)
    say(f"map of all cells; accuracy on held-out cells {accuracy:.1%}")
    chosen = at_most(cells.prepared.num_cells, config.reference_cells, seed)
    attention = celluformer.make_attention(network.config)
    sums = pair_map(attention, network.params, cells, chosen)
    prior = config.prior_cells
    reference = interactions.pair_scores(sums, prior_cells=prior)
    known = known_or_correlated(cells, chosen)
    row = {
        "loss": network.loss,
        "accuracy": accuracy,
        "power": float(weights.power),
        "effective": float(weights.effective),
        "pairs_lost": float(cells.lost),
        "cells_without_label": float((cells.codes < 0).sum()),
    }
    if cells.types is not None:
        row["cells_without_type"] = float((cells.types < 0).sum())
    row |= {
        f"all_{name}": v for name, v in judge(cells, reference, known, seed).items()
    }
    row |= without_network(cells, chosen, reference, known, seed)
    table: Sample | None = None
    for share in config.shares:
        say(f"samples of {share:.1%}")
        for way in config.samplers:
            found = []
            for draw in range(config.draws):
                key = jax.random.fold_in(seed_key(seed, 4), draw)
                number = max(round(share * cells.prepared.num_cells), 1)
                picked = pick(config, cells, weights, way, number, key)
                if table is None and way == "wds" and share == config.share:
                    table = picked
                found.append(
                    _compare(cells, network, picked, (reference, known), seed, prior)
                )
            row |= _summary(f"{way}_{share:g}", found)
    assert table is not None  # the configuration ensures both
    if config.hessian_points:
        say("integrated Hessians")
        pair_fn = hessian.make_hessian(
            celluformer.make_apply(network.config), config.hessian_points
        )
        sums = pair_map(
            pair_fn,
            network.params,
            cells,
            np.asarray(table.cells),
            weights=table.weights,
            batch_size=8,
        )
        scores = interactions.pair_scores(sums, prior_cells=prior)
        row |= {f"hessian_{k}": v for k, v in judge(cells, scores, known, seed).items()}
    return row, First(cells, network, weights, density, table, seed)


def _compare(
    cells: Cells,
    network: Network,
    picked: Sample,
    targets: tuple[Array, Array],
    seed: int,
    prior: float,
) -> dict[str, float]:
    """Compare the map of a sample with that of all cells, and describe the sample."""
    reference, known = targets
    rows = np.asarray(picked.cells)
    attention = celluformer.make_attention(network.config)
    sums = pair_map(attention, network.params, cells, rows, weights=picked.weights)
    scores = interactions.pair_scores(sums, prior_cells=prior)
    found = judge(cells, scores, known, seed)
    top = min(TOP, len(known))
    found["overlap"] = float(evaluation.overlap_at(scores, reference, top))
    found["agreement"] = float(evaluation.rank_agreement(scores, reference))
    found["effective"] = float(picked.effective) / len(rows)
    if cells.types is not None:
        share, rare = type_shares(cells.types, len(cells.type_names))
        drawn = cells.types[rows]
        drawn = np.bincount(drawn[drawn >= 0], minlength=len(share))
        if rare.any() and drawn.sum():
            multiple = (drawn / drawn.sum())[rare] / share[rare]
            found["rare_multiple"] = float(multiple.min())
    return found


def type_shares(types: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Share of each type among the cells that have one, and which types are rare.

    Args:
      types: number of each cell's type, -1 for none.
      number: how many types there are.

    Returns:
      ``(shares, rare)``. The rarest type counts as rare whatever its share, but no type
      of fewer than 5 cells, and none where there is only one.
    """
    counts = np.bincount(types[types >= 0], minlength=number)
    share = counts / max(counts.sum(), 1)
    enough = counts >= FEWEST
    least = share[enough].min(initial=1.0)
    return share, enough & (share <= max(RARE, least)) & (share < 1)


def _summary(name: str, found: list[dict[str, float]]) -> dict[str, float]:
    row = {}
    for key in sorted(set.intersection(*(set(each) for each in found))):
        each = np.array([one[key] for one in found])
        row[f"{name}_{key}"] = float(each.mean())
        if key == "auroc":
            row[f"{name}_{key}_draws"] = (
                float(each.std(ddof=1)) if len(each) > 1 else 0.0
            )
    return row
