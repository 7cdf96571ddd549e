"""Rankings of the user's own patients, as the files and tables show them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jeff_llm.genes.cases import Case
from jeff_llm.genes.reasons import Explanation

__all__ = [
    "Answer",
    "best_ranks",
    "check_file_names",
    "file_name",
    "shown_rank",
    "standing",
    "tied",
]


class Answer(NamedTuple):
    """The ranking of one patient.

    Attributes:
      case: the patient.
      genes: candidates, best first.
      scores: their scores, in the same order.
      ranks: their ranks, in the same order; equal scores share the best rank.
      explained: reasons of the first genes.
      first: the gene that `combined` puts first among all genes of HPO.
      probability: that ``first`` is right.
      label: how solvable the case looks: "yes", "maybe" or "no".
    """

    case: Case
    genes: list[str]
    scores: np.ndarray
    ranks: np.ndarray
    explained: list[Explanation]
    first: str
    probability: float
    label: str


def best_ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks of sorted scores.

    Args:
      scores: largest first.

    Returns:
      Ranks from 1; equal scores share the best one.
    """
    return np.searchsorted(-scores, -scores) + 1


def standing(answer: Answer) -> np.ndarray:
    """Numbers that sort as the ranks do, also where a model has ranked again.

    Args:
      answer: a ranking.

    Returns:
      One number per gene, larger is better; -inf for a gene without a score.
    """
    ranks = answer.ranks.astype(np.float64)
    return np.where(np.isfinite(answer.scores), -ranks, -np.inf)


def tied(answer: Answer) -> np.ndarray:
    """Number of genes at the rank of each.

    Args:
      answer: a ranking.

    Returns:
      The numbers, best gene first; 1 for a rank of its own.
    """
    _, inverse, counts = np.unique(
        answer.ranks, return_inverse=True, return_counts=True
    )
    return counts[inverse]


def shown_rank(rank: int, equal: int) -> str:
    """Write a rank as results of sports are written.

    Args:
      rank: from 1.
      equal: number of genes at this rank.

    Returns:
      The rank, with a sign of equality where it is shared.

    >>> shown_rank(3, 1), shown_rank(3, 2)
    ('3', '3=')
    """
    return f"{rank}=" if equal > 1 else str(rank)


def file_name(case: Case) -> str:
    """Name of the phenopacket's file, by which PhEval finds its truth.

    Args:
      case: a patient.

    Returns:
      The name without its folder; the neutral name for a patient without a file.
    """
    return Path(case.source).name or case.name


def check_file_names(cases: Sequence[Case]) -> None:
    """Check that PhEval can tell the patients apart.

    Args:
      cases: the patients.

    Raises:
      ValueError: if two have files of the same name; gives both.
    """
    seen: dict[str, Case] = {}
    for case in cases:
        other = seen.setdefault(file_name(case).removesuffix(".json"), case)
        if other is not case:
            raise ValueError(
                "pheval: expected phenopackets whose files have different names, got "
                f"{other.source} and {case.source}"
            )
