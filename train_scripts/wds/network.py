"""Train the network of a run on labelled cells, and test it on others."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from scipy.sparse import csr_array

from configs.wds import Config
from jeff_graph.cells import celluformer, training
from jeff_graph.cells.tokens import Tokens, make_tokens
from train_scripts.running import machines
from train_scripts.running.seeds import seed_key
from train_scripts.wds.data import Cells

__all__ = ["Network", "fit", "held_out_accuracy", "tokens_of"]


class Network(NamedTuple):
    """A trained network, with its training cells and held-out cells."""

    config: celluformer.Config
    params: PyTree
    loss: float
    trained: np.ndarray
    held_out: np.ndarray


def tokens_of(rows: csr_array) -> Tokens:
    """Make tokens whose width is a multiple of 16, so that few sizes are compiled.

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
    """Train on the cells that have a label.

    Args:
      config: settings of the run.
      cells: cells of the run.
      seed: seed of the split, the initial network and the training.
      workdir: folder for checkpoints; None for none.
      permutation: number of the permutation of the labels; None for the true labels.

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
        # Only the labels are permuted: split, initial parameters and batches stay those
        # of the true labels, so the null differs in nothing else.
        shuffle = jax.random.fold_in(seed_key(seed, 6), permutation)
        labels = labels[np.asarray(jax.random.permutation(shuffle, len(labels)))]
    shape = celluformer.Config(
        len(cells.prepared.genes),
        len(cells.classes),
        config.width,
        config.heads,
        config.layers,
        config.hidden,
        config.dropout_rate,
    )
    found = training.fit(
        celluformer.make_apply(shape),
        celluformer.init(shape, key=seed_key(seed, 1)),
        tokens_of(cells.prepared.take(trained)),
        jnp.asarray(labels),
        key=seed_key(seed, 2),
        num_epochs=config.num_epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        workdir=workdir and machines.kept(workdir),
        mesh=machines.mesh(),
    )
    return Network(shape, found.params, found.loss, trained, held_out)


def held_out_accuracy(network: Network, cells: Cells) -> float:
    """Accuracy on the labelled cells that are held out.

    Args:
      network: the network.
      cells: the cells.

    Returns:
      A share in [0, 1]. A network that has learned nothing reaches about the share of
      the most frequent class.
    """
    tokens = tokens_of(cells.prepared.take(network.held_out))
    labels = jnp.asarray(cells.codes[network.held_out])
    apply_fn = celluformer.make_apply(network.config)
    return training.accuracy(apply_fn, network.params, tokens, labels)
