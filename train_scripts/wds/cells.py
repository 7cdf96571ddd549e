"""The steps of a run on gene pairs: cells, density, network, samples, maps."""

import csv
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree
from scipy.sparse import csr_array

from configs.wds import Config
from jeff_graph.cells import (
    celluformer,
    fidelity,
    interactions,
    rivals,
    stream,
    train,
    wds,
)
from jeff_graph.cells.preprocess import Recipe
from jeff_graph.cells.sampling import Sample, Weights, sample
from jeff_graph.cells.simulate import Truth
from jeff_graph.cells.tokens import Tokens, make_tokens

__all__ = [
    "IN_MEMORY",
    "Cells",
    "Network",
    "at_most",
    "densities",
    "fit",
    "held_out_accuracy",
    "known_pairs",
    "pair_map",
    "pick",
    "seed_key",
    "tokens_of",
]

# Up to so many cells, their chosen genes are held in memory.
IN_MEMORY = 300_000
# Principal components that k-centre and geosketch see.
_COMPONENTS = 20


class Cells(NamedTuple):
    """The cells of a run.

    Attributes:
      source: as they come.
      prepared: depth, logarithm and choice of genes applied.
      recipe: what was applied.
      codes: class of each cell, -1 for none.
      classes: names of the classes.
      types: cell type of each, or None.
      known: mask over pairs that are known to interact, or None.
      within: mask over pairs of markers of one type, in a simulation, or None.
      lost: known pairs of which a gene was not chosen.
    """

    source: Any
    prepared: Any
    recipe: Recipe
    codes: np.ndarray
    classes: tuple[str, ...]
    types: np.ndarray | None
    known: Array | None
    within: Array | None
    lost: int


class Network(NamedTuple):
    """A trained network and the cells that it saw and did not see."""

    config: celluformer.Config
    params: PyTree
    loss: float
    trained: np.ndarray
    held_out: np.ndarray


def seed_key(seed: int, purpose: int) -> jax.Array:
    """A random key of one seed.

    Args:
      seed: number of the seed.
      purpose: 0 hashes, 1 network, 2 its training, 3 split, 4 draws, 5 reference,
        6 permutations, 7 intervals and tests.

    Returns:
      The key.
    """
    return jax.random.fold_in(jax.random.key(seed), purpose)


def known_pairs(
    config: Config, names: np.ndarray, chosen: np.ndarray, truth: Truth | None
) -> tuple[Array | None, Array | None, int]:
    """The pairs that a map is held against.

    Args:
      config: the run.
      names: of all genes.
      chosen: genes of the map.
      truth: of a simulation.

    Returns:
      ``(known, within, lost)`` of `Cells`.

    Raises:
      ValueError: if the file of pairs names no pair of the chosen genes.
    """
    place = np.full(len(names), -1)
    place[chosen] = np.arange(len(chosen))
    within = None
    if truth is not None:
        pairs, kind = truth.pairs, truth.marker_type[chosen]
        same = (kind[:, None] == kind) & (kind[:, None] >= 0)
        within = jnp.asarray(same[np.triu_indices(len(chosen), 1)])
    elif config.pairs:
        index = {str(name): i for i, name in enumerate(names)}
        with Path(config.pairs).open(newline="", encoding="utf-8") as file:
            rows = [row[:2] for row in csv.reader(file) if len(row) >= 2]
        found = [[index.get(a.strip(), -1), index.get(b.strip(), -1)] for a, b in rows]
        pairs = np.array([pair for pair in found if min(pair) >= 0]).reshape(-1, 2)
    else:
        return None, None, 0
    local = place[pairs]
    here = (local >= 0).all(1) & (local[:, 0] != local[:, 1])
    if not here.any():
        raise ValueError(
            f"pairs: expected pairs of the {len(chosen)} chosen genes, got none among "
            f"{len(here)}; keep more genes (--genes), or name them (--keep)"
        )
    known = fidelity.planted_mask(len(chosen), local[here])
    return known, within, int((~here).sum())


def densities(config: Config, cells: Cells, seed: int) -> np.ndarray:
    """Both passes: the density of each cell, NaN for one without genes.

    Args:
      config: the run.
      cells: its cells.
      seed: of the hashes.

    Returns:
      One number a cell.
    """
    number = len(cells.prepared.genes)
    params = wds.hash_parameters(seed_key(seed, 0), number, config.hashes)
    sketch = stream.sketch_cells(cells.prepared.chunks(), params)
    return stream.score_cells(cells.prepared.chunks(), params, sketch)


def tokens_of(rows: csr_array) -> Tokens:
    """Tokens whose width repeats, so that few sizes are compiled.

    Args:
      rows: prepared cells.

    Returns:
      `Tokens`.
    """
    most = int(np.diff(rows.indptr).max(initial=1))
    return make_tokens(rows, width=-(-most // 16) * 16)


def fit(
    config: Config,
    cells: Cells,
    seed: int,
    workdir: Path | None,
    *,
    permutation: int | None = None,
) -> Network:
    """Train on cells that have a label and a gene.

    Args:
      config: the run.
      cells: its cells.
      seed: of split, network and training.
      workdir: where checkpoints go; None for none.
      permutation: number of the permutation of the labels; None for the labels.

    Returns:
      The network.

    Raises:
      ValueError: if there are too few cells with a label.
    """
    labelled = np.flatnonzero(cells.codes >= 0)
    if len(labelled) < 10:
        raise ValueError(
            f"label {config.label!r}: expected at least 10 cells with one, got "
            f"{len(labelled)}"
        )
    order = np.asarray(jax.random.permutation(seed_key(seed, 3), len(labelled)))
    used = labelled[order[: config.train_cells]]
    count = max(int(len(used) * (1 - config.holdout)), 1)
    trained, held_out = np.sort(used[:count]), np.sort(used[count:])
    labels = cells.codes[trained]
    if permutation is not None:
        shuffle = jax.random.fold_in(seed_key(seed, 6), permutation)
        labels = labels[np.asarray(jax.random.permutation(shuffle, len(labels)))]
    shape = celluformer.Config(
        len(cells.prepared.genes),
        len(cells.classes),
        config.width,
        config.heads,
        config.layers,
        config.hidden,
        config.dropout,
    )
    found = train.train(
        celluformer.make_apply(shape),
        celluformer.init(shape, key=seed_key(seed, 1)),
        tokens_of(cells.prepared.take(trained)),
        jnp.asarray(labels),
        key=seed_key(seed, 2),
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        workdir=workdir,
    )
    return Network(shape, found.params, found.loss, trained, held_out)


def held_out_accuracy(network: Network, cells: Cells) -> float:
    """Accuracy on the labelled cells that the network did not see.

    Args:
      network: the network.
      cells: the cells.

    Returns:
      A share; of the most frequent class, if nothing was learned.
    """
    tokens = tokens_of(cells.prepared.take(network.held_out))
    labels = jnp.asarray(cells.codes[network.held_out])
    apply_fn = celluformer.make_apply(network.config)
    return train.accuracy(apply_fn, network.params, tokens, labels)


def at_most(num_cells: int, most: int, seed: int) -> np.ndarray:
    """All cells, or so many drawn evenly.

    Args:
      num_cells: cells that there are.
      most: cells to keep.
      seed: of the draw.

    Returns:
      Indices in ascending order.
    """
    if num_cells <= most:
        return np.arange(num_cells)
    drawn = rivals.uniform(num_cells, most, key=seed_key(seed, 5))
    return np.sort(np.asarray(drawn))


def pick(
    config: Config,
    cells: Cells,
    weights: Weights,
    way: str,
    number: int,
    key: jax.Array,
) -> Sample:
    """Pick cells one way.

    Args:
      config: the run.
      cells: its cells.
      weights: of the diverse sampler.
      way: one of `configs.wds.SAMPLERS`.
      number: cells to pick.
      key: random key.

    Returns:
      The sample; ways without known inclusion weight cells evenly.

    Raises:
      ValueError: if more cells are asked than there are.
    """
    if way == "wds":
        return sample(weights.log_weight, number, key=key, estimand=config.estimand)
    if way == "uniform":
        return sample(jnp.zeros(len(weights.log_weight)), number, key=key)
    rows = _components(cells)
    if way == "k-centre":
        chosen = rivals.k_centre(jnp.asarray(rows), number, key=key)
    else:
        seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
        chosen = jnp.asarray(rivals.geosketch_cells(rows, number, seed=seed))
    even = jnp.full(number, 1 / number)
    return Sample(chosen, number * even, even, jnp.asarray(float(number)))


def pair_map(
    pair_fn: interactions.AttentionFn,
    params: PyTree,
    cells: Cells,
    chosen: np.ndarray,
    **options: Any,
) -> interactions.PairSums:
    """Sums over some cells.

    Args:
      pair_fn: scores the pairs of a cell.
      params: its parameters.
      cells: the cells.
      chosen: those to sum over.
      **options: of `jeff_graph.cells.interactions.pair_sums`.

    Returns:
      The sums.
    """
    tokens = tokens_of(cells.prepared.take(np.asarray(chosen)))
    number = len(cells.prepared.genes)
    return interactions.pair_sums(pair_fn, params, tokens, number, **options)


def _components(cells: Cells) -> np.ndarray:
    rows = cells.prepared.take(np.arange(cells.prepared.num_cells))
    return rivals.principal_components(rows, min(_COMPONENTS, min(rows.shape) - 1))
