"""One seed of a run on gene pairs: what is measured of maps from all and few cells."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from configs.wds import Config
from jeff_graph.cells import (
    baselines,
    celluformer,
    confirm,
    enrichment,
    fidelity,
    hessian,
    interactions,
    nid,
    preprocess,
)
from jeff_graph.cells.sampling import Sample, Weights, diversity_weights
from train_scripts.wds.cells import (
    Cells,
    Network,
    at_most,
    densities,
    fit,
    held_out_accuracy,
    pair_map,
    pick,
    seed_key,
)

__all__ = ["RARE", "TOP", "First", "measure"]

# Pairs whose overlap between two maps is counted.
TOP = 100
# A cell type with at most this share of the cells is called rare.
RARE = 0.02
# Random sets of an enrichment score.
_SETS = 200


class First(NamedTuple):
    """What the first seed keeps for the table of pairs and the plots.

    Attributes:
      cells: the cells.
      network: trained on them.
      weights: of the sampler.
      density: of each cell.
      sample: that the table is made from.
      seed: its number.
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
      config: the run.
      cells: its cells.
      seed: number of the seed.
      workdir: of the run; training resumes there.
      say: told what is being done.

    Returns:
      ``(row, first)``: numbers for the log, and what the table of pairs needs.

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
    known = _known_or_correlated(cells, chosen)
    row = {
        "loss": network.loss,
        "accuracy": accuracy,
        "power": float(weights.power),
        "effective": float(weights.effective),
        "pairs_lost": float(cells.lost),
    }
    row |= {
        f"all_{name}": v for name, v in judge(cells, reference, known, seed).items()
    }
    row |= _baselines(cells, chosen, reference, known, seed)
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
    assert table is not None  # the configuration has the share and the sampler
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


def judge(cells: Cells, scores: Array, known: Array, seed: int) -> dict[str, float]:
    """What a map is worth by itself.

    Args:
      cells: the cells.
      scores: a map of pairs.
      known: pairs that interact, or stand for them.
      seed: of the random sets.

    Returns:
      The share of pairs seen and the enrichment of the known ones; where the truth is
      known, AUROC over all pairs, and over those of markers of one type.
    """
    values = fidelity.pair_values(scores)
    seen = ~jnp.isnan(values)
    found = {"seen": float(seen.mean())}
    if 0 < int((known & seen).sum()) < int(seen.sum()):
        enriched = enrichment.prerank(
            values, known, key=seed_key(seed, 7), where=seen, num_permutations=_SETS
        )
        found["nes"] = float(jnp.nan_to_num(enriched.normalised))
    if cells.known is not None:
        found["auroc"] = float(fidelity.planted_auroc(scores, cells.known))
    if cells.within is not None:
        found["auroc_within"] = float(
            fidelity.planted_auroc(scores, known, where=cells.within)
        )
    return found


def _known_or_correlated(cells: Cells, chosen: np.ndarray) -> Array:
    """Known pairs; without any, the most rank-correlated ones stand for them."""
    if cells.known is not None:
        return cells.known
    x = jnp.asarray(cells.prepared.take(chosen).toarray())
    values = fidelity.pair_values(jnp.abs(baselines.spearman(x)))
    number = min(TOP, len(values) // 10)
    return jnp.zeros(len(values), bool).at[jnp.argsort(-values)[:number]].set(True)


def _compare(
    cells: Cells,
    network: Network,
    picked: Sample,
    targets: tuple[Array, Array],
    seed: int,
    prior: float,
) -> dict[str, float]:
    """The map of a sample against that of all cells, and the sample's cells."""
    reference, known = targets
    rows = np.asarray(picked.cells)
    attention = celluformer.make_attention(network.config)
    sums = pair_map(attention, network.params, cells, rows, weights=picked.weights)
    scores = interactions.pair_scores(sums, prior_cells=prior)
    found = judge(cells, scores, known, seed)
    top = min(TOP, len(known))
    found["overlap"] = float(fidelity.overlap_at(scores, reference, top))
    found["agreement"] = float(fidelity.rank_agreement(scores, reference))
    found["effective"] = float(picked.effective) / len(rows)
    if cells.types is not None:
        names, counts = np.unique(cells.types, return_counts=True)
        share = counts / counts.sum()
        drawn = np.array([(cells.types[rows] == name).mean() for name in names])
        rare = share <= max(RARE, share.min())
        found["rare_multiple"] = float((drawn / share)[rare].min())
    return found


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


def _baselines(
    cells: Cells, chosen: np.ndarray, reference: Array, known: Array, seed: int
) -> dict[str, float]:
    """Scores of pairs that need no Transformer, on all cells."""
    x = jnp.asarray(cells.prepared.take(chosen).toarray())
    labels = cells.codes[chosen]
    maps = {
        "pearson": jnp.abs(baselines.pearson(x)),
        "spearman": jnp.abs(baselines.spearman(x)),
    }
    counts: Any = preprocess.Recipe(genes=cells.recipe.genes)
    if cells.recipe.log:
        raw = cells.source.take(chosen)
        depth = np.asarray(raw.sum(axis=1), np.float32).ravel()
        rows = preprocess.apply_recipe(counts, raw).toarray()
        held = depth > 0
        found = baselines.cs_core(jnp.asarray(rows[held]), jnp.asarray(depth[held]))
        maps["cs_core"] = jnp.abs(found.correlation)
    real = labels >= 0
    kernels = jax.jit(
        lambda x, y: nid.fit_mlp(
            x, y, key=seed_key(seed, 7), num_classes=len(cells.classes)
        )
    )(x[real], jnp.asarray(labels[real]))
    maps["nid"] = nid.nid_scores(kernels)
    if len(cells.classes) == 2:
        pairs = jnp.stack(jnp.triu_indices(x.shape[1], 1), 1)
        test = confirm.product_test(x[real], jnp.asarray(labels[real] == 1), pairs)
        flat = jnp.zeros((x.shape[1], x.shape[1])).at[pairs[:, 0], pairs[:, 1]]
        upper = flat.set(jnp.abs(test.statistic))
        maps["product"] = upper + upper.T
    row = {}
    for name, scores in maps.items():
        row |= {f"{name}_{k}": v for k, v in judge(cells, scores, known, seed).items()}
        row[f"{name}_agreement"] = float(fidelity.rank_agreement(scores, reference))
    return row
