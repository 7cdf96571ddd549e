"""Cells as padded lists of their expressed genes: the input of a Transformer."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from jeff_graph.cells.rows import sparse_values

__all__ = ["Tokens", "make_tokens"]


class Tokens(NamedTuple):
    """The expressed genes of cells, one per token.

    Invariants: a token is real where its value is above 0, padding has a value of 0;
    the real tokens of a cell are distinct genes.

    Attributes:
      genes: id of each token's gene, in [0, genes).
      values: its expression.
    """

    genes: Int[Array | np.ndarray, "cells tokens"]
    values: Float[Array | np.ndarray, "cells tokens"]


def make_tokens(cells: Any, *, width: int | None = None) -> Tokens:
    """List the genes of each cell.

    Args:
      cells: dense array or scipy sparse matrix, [cells, genes], no negative values.
      width: tokens per cell, padding included; by default those of the largest cell.

    Returns:
      `Tokens` of numpy arrays, genes in ascending order.

    Raises:
      ValueError: if values are negative or NaN, or ``width`` is too small.

    >>> make_tokens(np.array([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]])).genes.tolist()
    [[1, 2], [0, 0]]
    """
    sparse, values = sparse_values(cells)
    # Ascending genes: one cell gives one row of tokens, however it was stored.
    if not sparse.has_sorted_indices:
        sparse = sparse.sorted_indices()
        values = np.asarray(sparse.data, np.float32)
    counts = np.diff(sparse.indptr)
    most = max(int(counts.max(initial=0)), 1)
    width = most if width is None else width
    if width < most:
        raise ValueError(
            f"width: expected at least {most}, the genes of the largest cell, got "
            f"{width}"
        )
    row = np.repeat(np.arange(len(counts)), counts)
    slot = np.arange(len(values)) - np.repeat(sparse.indptr[:-1], counts)
    tokens = Tokens(
        np.zeros((len(counts), width), np.int32), np.zeros((len(counts), width), "f4")
    )
    tokens.genes[row, slot] = sparse.indices
    tokens.values[row, slot] = values
    return tokens
