"""Load the cells of a run, their classes, and the known pairs."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from configs.wds import Config
from jeff.csv_rows import csv_rows
from jeff_graph.cells import evaluation, expression, h5ad, preprocess, simulate
from jeff_graph.cells.columns import label_codes
from jeff_graph.cells.expression import Source
from jeff_graph.cells.preprocess import Recipe
from jeff_graph.cells.simulate import Truth

__all__ = ["Cells", "known_pairs", "load"]

# Up to this number of cells, the chosen genes are kept in memory instead of streamed.
_IN_MEMORY = 300_000


class Cells(NamedTuple):
    """The cells of a run.

    Attributes:
      source: the unprocessed cells.
      prepared: the cells after depth normalisation, logarithm and choice of genes.
      recipe: the preprocessing that was applied.
      codes: class of each cell, -1 for none.
      classes: names of the classes.
      types: type of each cell as a number, -1 where it is missing, or None.
      type_names: names of the types.
      known: mask over pairs that are known to interact, or None.
      within: mask over pairs of markers of one type, in a simulation, or None.
      lost: number of known pairs with a gene that was not chosen.
    """

    source: Source
    prepared: Source
    recipe: Recipe
    codes: np.ndarray
    classes: tuple[str, ...]
    types: np.ndarray | None
    type_names: tuple[str, ...]
    known: Array | None
    within: Array | None
    lost: int


@contextlib.contextmanager
def load(config: Config, seed: int) -> Iterator[Cells]:
    """Open the cells of a run and choose their genes.

    Args:
      config: settings of the run.
      seed: seed of the simulation.

    Yields:
      The cells; their file is open only within the context.

    Raises:
      ValueError: if the data or a column are not as expected.
      FileNotFoundError: if data are missing; says how to get them.
    """
    with contextlib.ExitStack() as stack:
        truth = None
        if config.data:
            layer = config.layer or "X"
            source = stack.enter_context(
                h5ad.open_cells(config.data, layer, symbols=config.symbols or None)
            )
        elif config.dataset == "simulated":
            source: Any = simulate.simulate_cells(config.cells, seed=seed)
            truth = source.truth
        else:
            source = h5ad.load_pbmc()
        codes, classes = label_codes(
            source.column(config.label), name=f"label {config.label!r}"
        )
        recipe = preprocess.make_recipe(
            source, num_genes=config.genes, keep=config.keep, values=config.values
        )
        prepared: Any = preprocess.prepare(source, recipe)
        if source.num_cells <= _IN_MEMORY:
            prepared = expression.collect(prepared)
        types, type_names = None, ()
        if config.type:
            types, type_names = label_codes(
                source.column(config.type), name=f"type {config.type!r}", least=1
            )
        kept = np.arange(len(source.genes)) if recipe.genes is None else recipe.genes
        known = known_pairs(config, source.genes, kept, truth)
        yield Cells(source, prepared, recipe, codes, classes, types, type_names, *known)


def known_pairs(
    config: Config, names: np.ndarray, chosen: np.ndarray, truth: Truth | None
) -> tuple[Array | None, Array | None, int]:
    """Known pairs with which a map is compared.

    Args:
      config: settings of the run.
      names: names of all genes.
      chosen: indices of the genes in the map.
      truth: planted pairs of a simulation, or None.

    Returns:
      ``(known, within, lost)`` as in `Cells`.

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
        rows = [row[:2] for _, row in csv_rows(config.pairs) if len(row) >= 2]
        found = [[index.get(a.strip(), -1), index.get(b.strip(), -1)] for a, b in rows]
        # Of integers, also where none is left.
        pairs = np.array([pair for pair in found if min(pair) >= 0], int).reshape(-1, 2)
        if not len(pairs):
            raise ValueError(
                f"{config.pairs}: expected pairs of genes of the cells, got none in "
                f"{len(rows)} rows; theirs are like {', '.join(map(str, names[:3]))}"
                " (--symbols names a column of symbols)"
            )
    else:
        return None, None, 0
    # A pair with a gene outside the map has no score there, so it is only counted.
    local = place[pairs]
    here = (local >= 0).all(1) & (local[:, 0] != local[:, 1])
    if not here.any():
        raise ValueError(
            f"pairs: expected pairs of the {len(chosen)} chosen genes, got none among "
            f"{len(here)}; keep more genes (--genes), or name them (--keep)"
        )
    known = evaluation.planted_mask(len(chosen), local[here])
    return known, within, int((~here).sum())
