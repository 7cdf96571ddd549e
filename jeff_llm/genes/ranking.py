"""What a ranker of genes takes and returns.

A ranker is any callable ``rank(phenotypes, genes) -> Ranking``: an ontology measure, a
language model, a simulator, or a function of your own. One that answers several
requests faster together than one by one has a method ``many(requests)`` besides.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

__all__ = ["Phenotypes", "Ranker", "Ranking", "by_score", "rank_many"]


class Phenotypes(NamedTuple):
    """Phenotype terms of one patient.

    Attributes:
      observed: ids of the terms that the patient shows, such as ``"HP:0001250"``.
      excluded: ids of the terms that were looked for and not found.
    """

    observed: tuple[str, ...]
    excluded: tuple[str, ...] = ()


class Ranking(NamedTuple):
    """The answer of a ranker.

    Attributes:
      order: positions in the list of genes that was asked for, best first; int,
        [genes]. Every position occurs once.
      scores: score by position in the list that was asked for, not by rank; larger is
        better; float, [genes].
      calls: requests to a model that the ranking took.
      tokens: tokens read and written by the model in these requests; None if an
        endpoint did not report them.
    """

    order: np.ndarray
    scores: np.ndarray
    calls: int = 0
    tokens: int | None = 0


@runtime_checkable
class Ranker(Protocol):
    """Any callable that ranks genes for a patient."""

    def __call__(self, phenotypes: Phenotypes, genes: Sequence[str], /) -> Ranking:
        """Rank ``genes`` for ``phenotypes``."""
        ...


def by_score(scores: np.ndarray, *, calls: int = 0, tokens: int | None = 0) -> Ranking:
    """Rank by descending score; equal scores keep the order of the input.

    Args:
      scores: one score per gene; larger is better; float, [genes].
      calls: requests to a model that the scores took.
      tokens: tokens of these requests.

    Returns:
      The ranking.

    Raises:
      ValueError: if a score is NaN, or ``scores`` has not one axis.

    >>> by_score(np.array([0.1, 0.7, 0.7])).order.tolist()
    [1, 2, 0]
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1:
        raise ValueError(f"scores: expected one axis, got shape {scores.shape}")
    if np.isnan(scores).any():
        where = int(np.flatnonzero(np.isnan(scores))[0])
        raise ValueError(f"scores: expected numbers, got NaN at position {where}")
    return Ranking(np.argsort(-scores, kind="stable"), scores, calls, tokens)


def rank_many(
    ranker: Ranker, requests: Sequence[tuple[Phenotypes, Sequence[str]]]
) -> list[Ranking]:
    """Rank several requests, together where the ranker can.

    Args:
      ranker: the ranker; its method ``many`` is used if it has one.
      requests: phenotypes and genes of each request.

    Returns:
      One ranking per request, in the order of the requests.
    """
    together = getattr(ranker, "many", None)
    if together is not None:
        return list(together(requests))
    return [ranker(phenotypes, genes) for phenotypes, genes in requests]
