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
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int
from scipy.sparse import csr_array

from jeff.checks import check_choice
from jeff_graph.cells.expression import Source
from jeff_graph.cells.rows import is_checked, mark_checked

__all__ = [
    "Moments",
    "Prepared",
    "Recipe",
    "apply_recipe",
    "choose_genes",
    "gene_moments",
    "is_counts",
    "make_recipe",
    "merge_moments",
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


class Moments(NamedTuple):
    """Sums over cells, from which a gene's mean and variance follow; they add.

    Attributes:
      num_cells: number of cells.
      total: sum of each gene's expression.
      square: sum of its squares.
      detected: number of cells that express it.
    """

    num_cells: int
    total: Float[np.ndarray, " genes"]
    square: Float[np.ndarray, " genes"]
    detected: Int[np.ndarray, " genes"]

    @property
    def mean(self) -> Float[np.ndarray, " genes"]:
        """Mean of each gene."""
        return self.total / max(self.num_cells, 1)

    @property
    def variance(self) -> Float[np.ndarray, " genes"]:
        """Variance of each gene, with the number of cells below."""
        return np.maximum(self.square / max(self.num_cells, 1) - self.mean**2, 0.0)


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


def is_counts(chunk: csr_array) -> bool:
    """Whether all values are whole numbers.

    Args:
      chunk: expression.

    Returns:
      True for counts.
    """
    return bool((chunk.data == np.round(chunk.data)).all())


def gene_moments(chunks: Iterable[csr_array]) -> Moments:
    """Sums for each gene's mean, variance and detection, in one pass.

    Args:
      chunks: expression, at least one chunk.

    Returns:
      `Moments`, in float64.

    Raises:
      ValueError: if there is no chunk.
    """
    total: Moments | None = None
    for chunk in chunks:
        given: Any = chunk
        genes, (cells, number) = chunk.indices, given.shape
        # Sums over millions of cells: float32 would stop counting at 2^24.
        values = chunk.data.astype(np.float64)
        powers = (values, values**2, np.ones_like(values))
        sums = [np.bincount(genes, power, minlength=number) for power in powers]
        part = Moments(cells, sums[0], sums[1], sums[2].astype(np.int64))
        total = part if total is None else merge_moments(total, part)
    if total is None:
        raise ValueError("chunks: expected at least one, got none")
    return total


def merge_moments(*parts: Moments) -> Moments:
    """Moments of the cells of several parts: the sums.

    Args:
      *parts: at least one.

    Returns:
      Their sum.

    Raises:
      ValueError: if there is none, or numbers of genes differ.
    """
    if len({part.total.shape for part in parts}) != 1:
        raise ValueError("parts: expected at least one, all with one number of genes")
    return Moments(
        sum(part.num_cells for part in parts),
        np.sum([part.total for part in parts], axis=0),
        np.sum([part.square for part in parts], axis=0),
        np.sum([part.detected for part in parts], axis=0),
    )


def choose_genes(
    moments: Moments,
    num_genes: int,
    *,
    method: Literal["dispersion", "variance"] = "dispersion",
    keep: Int[np.ndarray, " kept"] | None = None,
) -> Int[np.ndarray, " chosen"]:
    """Genes in which cells differ.

    "dispersion" ranks by ``variance / mean``, which the markers of a rare cell type
    reach as well as those of a common one; "variance" by the variance, which they do
    not. Genes found in fewer than 3 cells are not chosen. Ties go to the first.

    Args:
      moments: of prepared expression.
      num_genes: how many to choose, the kept ones among them.
      method: how they are ranked.
      keep: genes that are chosen in any case.

    Returns:
      Indices in ascending order; fewer than asked where fewer are expressed.

    Raises:
      ValueError: if ``num_genes`` is below 2 or the number kept, fewer than 2 genes are
        expressed, or the method is unknown.
    """
    check_choice("method", method, ("dispersion", "variance"))
    kept = np.zeros(0, int) if keep is None else np.unique(keep)
    if num_genes < max(2, len(kept)):
        raise ValueError(
            f"num_genes: expected at least {max(2, len(kept))}, got {num_genes}"
        )
    score = moments.variance.copy()
    if method == "dispersion":
        # A gene without expression is excluded below, not divided by 0.
        score /= np.maximum(moments.mean, 1e-12)
    # A gene of one or two cells has the greatest dispersion, and no pairs.
    score[(moments.detected < 3) | (moments.variance <= 0)] = -np.inf
    score[kept] = np.inf
    # Stable, so that equal scores choose the same genes on every machine.
    chosen = np.argsort(-score, kind="stable")[:num_genes]
    chosen = np.sort(chosen[score[chosen] > -np.inf])
    if len(chosen) < 2:
        raise ValueError(
            "moments: expected at least 2 genes that differ between cells and are "
            f"found in 3 of them, got {len(chosen)}"
        )
    return chosen


def make_recipe(
    source: Source,
    *,
    num_genes: int | None = None,
    target: float | Literal["median"] | None = "median",
    method: Literal["dispersion", "variance"] = "dispersion",
    keep: Iterable[str] = (),
) -> Recipe:
    """Choose a recipe from all cells: one pass over them, two to choose genes.

    Counts are scaled to one depth and their logarithm is taken. Values that are not
    whole numbers are taken for logarithms and stay unchanged.

    Args:
      source: the cells.
      num_genes: genes to choose; None keeps all.
      target: depth, or "median" for that of the cells; None leaves the depth.
      method: as in `choose_genes`.
      keep: names of genes that are kept in any case.

    Returns:
      A `Recipe`.

    Raises:
      ValueError: if a name in ``keep`` is unknown, there is no cell with a gene, or
        as `choose_genes`.
    """
    names = {str(name): i for i, name in enumerate(source.genes)}
    unknown = [name for name in keep if name not in names]
    if unknown:
        raise ValueError(
            f"keep: expected names of genes, got {', '.join(unknown[:5])}, which the "
            f"cells do not have; theirs are like {', '.join(list(names)[:3])}"
        )
    counts, depths = True, []
    for chunk in source.chunks():
        counts = counts and is_counts(chunk)
        depths.append(np.asarray(chunk.sum(axis=1, dtype=np.float64)).ravel())
    depth = np.concatenate(depths) if depths else np.zeros(0)
    if not (depth > 0).any():
        raise ValueError("source: expected cells that express genes, got none")
    recipe = Recipe()
    if counts:
        # Cells without genes have no depth.
        middle = float(np.median(depth[depth > 0]))
        recipe = Recipe(target=middle if target == "median" else target, log=True)
    if num_genes is None:
        return recipe
    moments = gene_moments(prepare(source, recipe).chunks())
    kept = np.array([names[name] for name in keep], int)
    chosen = choose_genes(moments, num_genes, method=method, keep=kept)
    return dataclasses.replace(recipe, genes=chosen)
