"""Preparation of counts: depth, logarithm, choice of genes.

Min-max similarity depends on sequencing depth, so shallow cells look diverse. Most
genes are noise that all cells share, so rare cell types do not look diverse. Dividing
by depth and keeping the most dispersed genes is therefore part of the method here.
Everything streams, in one pass for the depth and one more to choose genes. Memory holds
a chunk and one number per cell.

References:
  Satija et al., "Spatial reconstruction of single-cell gene expression data", Nature
  Biotechnology 2015 (depth and dispersion).
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
from jaxtyping import Array, Int
from scipy.sparse import csr_array

from jeff_graph.cells.expression import Source
from jeff_graph.cells.moments import choose_genes, gene_moments
from jeff_graph.cells.rows import is_checked, mark_checked
from jeff_graph.cells.scales import Values, empty_scale, taken_as

__all__ = [
    "Prepared",
    "Recipe",
    "apply_recipe",
    "make_recipe",
    "prepare",
]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Preparation of every chunk.

    Attributes:
      genes: columns to keep, in this order; None for all.
      target: depth to which each cell's sum over all genes is scaled; None to leave it.
      log: take ``ln(1 + x)``.
    """

    genes: np.ndarray | None = None
    target: float | None = None
    log: bool = False


class Prepared:
    """A source seen through a recipe; itself a source.

    Attributes:
      source: the cells.
      recipe: what is done to them.
      genes: names of the genes that are kept.
    """

    source: Source
    recipe: Recipe
    genes: np.ndarray

    def __init__(self, source: Source, recipe: Recipe):
        """Look through a recipe; `prepare` is the way in.

        Args:
          source: the cells.
          recipe: what is done to them.
        """
        self.source, self.recipe = source, recipe
        kept = slice(None) if recipe.genes is None else recipe.genes
        self.genes = source.genes[kept]

    @property
    def num_cells(self) -> int:
        """Number of cells."""
        return self.source.num_cells

    def column(self, name: str) -> np.ndarray:
        """A column of the source.

        Args:
          name: of the column.

        Returns:
          One value per cell.
        """
        return self.source.column(name)

    def chunks(self, size: int = 4096) -> Iterator[csr_array]:
        """Prepared expression of consecutive cells.

        Args:
          size: cells per chunk.

        Yields:
          Float32 rows.
        """
        for chunk in self.source.chunks(size):
            yield apply_recipe(self.recipe, chunk)

    def take(self, cells: Int[Array | np.ndarray, " rows"]) -> csr_array:
        """Prepared expression of some cells, in the requested order.

        Args:
          cells: indices.

        Returns:
          Float32 rows.
        """
        return apply_recipe(self.recipe, self.source.take(cells))


def prepare(source: Source, recipe: Recipe) -> Prepared:
    """Apply a recipe to a source, chunk by chunk as it is read.

    Args:
      source: the cells.
      recipe: what is done to them.

    Returns:
      A source of the prepared cells.
    """
    return Prepared(source, recipe)


def apply_recipe(recipe: Recipe, chunk: csr_array) -> csr_array:
    """Scale to one depth, take the logarithm, keep the chosen genes.

    ``y_ci = ln(1 + target x_ci / sum_j x_cj)``; the sum runs over all genes. A cell
    without counts stays so.

    Args:
      recipe: what to do.
      chunk: expression, [cells, genes].

    Returns:
      Float32 rows with sorted indices.

    >>> chunk = csr_array(np.array([[1.0, 3.0], [0.0, 8.0]]))
    >>> apply_recipe(Recipe(target=4.0), chunk).toarray().tolist()
    [[1.0, 3.0], [0.0, 4.0]]
    """
    # Scaling and the logarithm keep what is finite and at least 0 so.
    note = mark_checked if is_checked(chunk) else lambda rows: rows
    values = np.asarray(chunk.data, np.float32)
    if recipe.target is not None:
        depth = np.asarray(chunk.sum(axis=1, dtype=np.float64)).ravel()
        scale = recipe.target / np.where(depth > 0, depth, 1.0)
        # Scaled before genes are dropped: the depth is that of all genes.
        values = values * np.repeat(scale.astype(np.float32), np.diff(chunk.indptr))
    if recipe.log:
        values = np.log1p(values)
    rows = csr_array((values, chunk.indices, chunk.indptr), shape=chunk.shape)
    if recipe.genes is None:
        return note(rows)
    rows = csr_array(rows[:, recipe.genes])
    rows.sort_indices()
    return note(rows)


def make_recipe(
    source: Source,
    *,
    num_genes: int | None = None,
    target: float | Literal["median"] | None = "median",
    method: Literal["dispersion", "variance"] = "dispersion",
    keep: Iterable[str] = (),
    values: Values = "auto",
) -> Recipe:
    """Choose a recipe from all cells: one pass over them, two to choose genes.

    Counts are scaled to one depth and their logarithm is taken; logarithms stay
    unchanged. Which of the two the values are is told by
    `jeff_graph.cells.scales.taken_as`, or by you.

    Args:
      source: the cells.
      num_genes: genes to choose; None keeps all.
      target: depth, or "median" for that of the cells; None leaves the depth.
      method: as in `choose_genes`.
      keep: names of genes that are kept in any case.
      values: "counts", raw or normalised, "log", or "auto" to tell by the values, with
        a warning where they leave a doubt.

    Returns:
      A `Recipe`.

    Raises:
      ValueError: if a name in ``keep`` is unknown, there is no cell with a gene,
        ``values`` is unknown, or as `choose_genes`.
    """
    names = {str(name): i for i, name in enumerate(source.genes)}
    # An iterator is read once; one name is not a sequence of letters.
    keep = [keep] if isinstance(keep, str) else [str(name) for name in keep]
    unknown = [name for name in keep if name not in names]
    if unknown:
        raise ValueError(
            f"keep: expected names of genes, got {', '.join(unknown[:5])}, which the "
            f"cells do not have; theirs are like {', '.join(list(names)[:3])}"
        )
    scale = empty_scale()
    for chunk in source.chunks():
        scale = scale.add(chunk)
    if not scale.largest > 0:
        raise ValueError("source: expected cells that express genes, got none")
    place = str(getattr(source, "path", "source"))
    logged = bool(getattr(source, "logged", False))
    recipe = Recipe()
    if taken_as(scale, values, logged=logged, place=place) == "counts":
        middle = scale.median_depth
        recipe = Recipe(target=middle if target == "median" else target, log=True)
    if num_genes is None:
        return recipe
    moments = gene_moments(prepare(source, recipe).chunks())
    kept = np.array([names[name] for name in keep], int)
    chosen = choose_genes(moments, num_genes, method=method, keep=kept)
    return dataclasses.replace(recipe, genes=chosen)
