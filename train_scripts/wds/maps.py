"""Maps of gene pairs, with and without a network, and measures of a map's quality."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jeff_graph.cells import (
    baselines,
    confirm,
    enrichment,
    evaluation,
    interactions,
    nid,
    preprocess,
)
from jeff_graph.cells.scales import is_counts
from train_scripts.running.seeds import seed_key
from train_scripts.wds.data import Cells
from train_scripts.wds.network import tokens_of

__all__ = ["TOP", "judge", "known_or_correlated", "pair_map", "without_network"]

# Number of top pairs for the overlap between two maps.
TOP = 100
# Number of random sets for an enrichment score.
_SETS = 200


def pair_map(
    pair_fn: interactions.AttentionFn,
    params: PyTree,
    cells: Cells,
    chosen: np.ndarray,
    **options: Any,
) -> interactions.PairSums:
    """Sum the scores of pairs over some cells.

    Args:
      pair_fn: scores the pairs of one cell.
      params: parameters of ``pair_fn``.
      cells: the cells.
      chosen: indices of the cells to sum over.
      **options: options of `jeff_graph.cells.interactions.pair_sums`.

    Returns:
      The sums.
    """
    tokens = tokens_of(cells.prepared.take(np.asarray(chosen)))
    number = len(cells.prepared.genes)
    return interactions.pair_sums(pair_fn, params, tokens, number, **options)


def judge(cells: Cells, scores: Array, known: Array, seed: int) -> dict[str, float]:
    """Measure the quality of a map without reference to another map.

    Args:
      cells: the cells.
      scores: a map of pairs.
      known: pairs that interact, or substitutes for them.
      seed: seed of the random sets.

    Returns:
      The share of pairs seen, and the enrichment of the known pairs. If the truth is
      known, also the AUROC over all pairs, and over pairs of markers of one type. A
      number that cannot be computed is left out.
    """
    values = evaluation.pair_values(scores)
    seen = ~jnp.isnan(values)
    found = {"seen": float(seen.mean())}
    if 0 < int((known & seen).sum()) < int(seen.sum()):
        enriched = enrichment.prerank(
            values, known, key=seed_key(seed, 7), where=seen, num_permutations=_SETS
        )
        found["nes"] = float(enriched.normalised)
    if cells.known is not None:
        found["auroc"] = float(evaluation.planted_auroc(scores, cells.known))
    if cells.within is not None:
        found["auroc_within"] = float(
            evaluation.planted_auroc(scores, known, where=cells.within)
        )
    return {name: value for name, value in found.items() if np.isfinite(value)}


def known_or_correlated(cells: Cells, chosen: np.ndarray) -> Array:
    """Known pairs; if there are none, the pairs with the largest rank correlation."""
    if cells.known is not None:
        return cells.known
    x = jnp.asarray(cells.prepared.take(chosen).toarray())
    values = evaluation.pair_values(jnp.abs(baselines.spearman(x)))
    number = min(TOP, len(values) // 10)
    return jnp.zeros(len(values), bool).at[jnp.argsort(-values)[:number]].set(True)


def without_network(
    cells: Cells, chosen: np.ndarray, reference: Array, known: Array, seed: int
) -> dict[str, float]:
    """Measure the baselines, which need no Transformer, on the given cells."""
    x = jnp.asarray(cells.prepared.take(chosen).toarray())
    labels = cells.codes[chosen]
    maps = {
        "pearson": jnp.abs(baselines.pearson(x)),
        "spearman": jnp.abs(baselines.spearman(x)),
    }
    counts: Any = preprocess.Recipe(genes=cells.recipe.genes)
    raw = cells.source.take(chosen)
    # CS-CORE models raw counts: neither logarithms nor normalised counts will do.
    if cells.recipe.log and is_counts(raw):
        depth = np.asarray(raw.sum(axis=1), np.float32).ravel()
        rows = preprocess.apply_recipe(counts, raw).toarray()
        held = depth > 0
        found = baselines.cs_core(jnp.asarray(rows[held]), jnp.asarray(depth[held]))
        maps["cs_core"] = jnp.abs(found.correlation)
    real = labels >= 0
    kernels = jax.jit(
        lambda x, y: nid.train_mlp(
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
        row[f"{name}_agreement"] = float(evaluation.rank_agreement(scores, reference))
    return row
