"""Choice of genes: mean, variance and detection of each, in one pass over the cells.

References:
  Satija et al., "Spatial reconstruction of single-cell gene expression data", Nature
  Biotechnology 2015 (dispersion).
"""

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from jeff.checks import check_choice

__all__ = ["Moments", "choose_genes", "gene_moments", "merge_moments"]


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
    keep: Iterable[int] | Int[np.ndarray, " kept"] | None = None,
) -> Int[np.ndarray, " chosen"]:
    """Genes in which cells differ.

    "dispersion" ranks by ``variance / mean``, which the markers of a rare cell type
    reach as well as those of a common one; "variance" by the variance, which they do
    not. Genes found in fewer than 3 cells are not chosen. Ties go to the first.

    Args:
      moments: of prepared expression.
      num_genes: how many to choose, the kept ones among them.
      method: how they are ranked.
      keep: indices of genes that are chosen in any case.

    Returns:
      Indices in ascending order; fewer than asked where fewer are expressed.

    Raises:
      ValueError: if ``num_genes`` is below 2 or the number kept, fewer than 2 genes are
        expressed, the method is unknown, or there is no such gene as in ``keep``.
    """
    check_choice("method", method, ("dispersion", "variance"))
    # An iterator is read once, here.
    kept = np.unique(np.array([] if keep is None else list(keep), int))
    most = len(moments.total)
    if kept.size and not 0 <= kept[0] <= kept[-1] < most:
        raise ValueError(
            f"keep: expected genes from 0 to {most - 1}, got {kept[0]} to {kept[-1]}"
        )
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
