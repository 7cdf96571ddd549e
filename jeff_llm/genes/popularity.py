"""A remedy for popularity: what a gene gets for being well known is taken off.

Small groups and shuffles remove the influence of the order, but a preference for
well-known genes is the same in every group and stays. It is the same for every patient
too, so one number, the slope of a gene's log-odds over its popularity, can be learned
from the rankings of a few patients, without knowing their causal genes and without a
further call.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64

from jeff_llm.genes.ranking import Phenotypes, Ranker, Ranking, by_score
from jeff_llm.genes.rounds import Request, ask

__all__ = ["Adjusted", "log_odds", "popularity_slope"]


class Adjusted:
    """Ranks genes by their log-odds less what their popularity is worth.

    The score of a gene is ``l - slope z``: l is the log-odds of its rank (`log_odds`),
    z the logarithm of one plus its popularity, less the mean over the list. Inside or
    around a strategy of `jeff_llm.genes.conquer` it serves like any ranker; around it
    is better, since long lists tell more of the odds than groups of five.
    """

    def __init__(
        self, ranker: Ranker, popularity: Mapping[str, float | int], slope: float
    ):
        """Prepare the ranker; nothing is asked yet.

        Args:
          ranker: to be adjusted.
          popularity: citations by gene, at least 0.
          slope: what one unit of z is worth, from `popularity_slope`.

        Raises:
          ValueError: if the slope is not finite.
        """
        if not np.isfinite(slope):
            raise ValueError(f"slope: expected a finite number, got {slope}")
        self.ranker, self.popularity, self.slope = ranker, popularity, slope

    def __call__(self, phenotypes: Phenotypes, genes: Sequence[str], /) -> Ranking:
        """Rank ``genes`` for ``phenotypes``."""
        return self.many([(phenotypes, genes)])[0]

    def many(self, requests: Sequence[Request]) -> list[Ranking]:
        """Rank several requests.

        Args:
          requests: phenotypes and genes of each.

        Returns:
          One ranking per request, with the calls and tokens of the ranker.

        Raises:
          ValueError: if a gene has no popularity.
        """
        return [
            by_score(
                log_odds(ranking) - self.slope * _known(self.popularity, genes),
                calls=ranking.calls,
                tokens=ranking.tokens,
            )
            for ranking, (_, genes) in zip(
                ask(self.ranker, requests), requests, strict=True
            )
        ]


def popularity_slope(
    rankings: Sequence[Ranking],
    genes: Sequence[Sequence[str]],
    popularity: Mapping[str, float | int],
) -> float:
    """Learn what popularity is worth to a ranker.

    The least-squares slope of the log-odds of the ranks over z, both less their mean in
    the list: ``sum z l / sum z^2`` over all lists. Hardly any of the genes is causal,
    so the causal ones need not be known.

    Args:
      rankings: rankings of some patients, by the ranker that is to be adjusted.
      genes: the genes of each.
      popularity: citations by gene, at least 0.

    Returns:
      The slope; above 0 where well-known genes are favoured.

    Raises:
      ValueError: if there is no ranking, lengths differ, a gene has no popularity, or
        all genes of every list are equally popular.
    """
    if not rankings or len(rankings) != len(genes):
        raise ValueError(
            f"rankings: expected one or more, and genes of each, got {len(rankings)} "
            f"and {len(genes)}"
        )
    both = total = 0.0
    for ranking, own in zip(rankings, genes, strict=True):
        z = _known(popularity, own)
        both += float(z @ log_odds(ranking))
        total += float(z @ z)
    if not total > 0:
        raise ValueError("popularity: expected genes of different popularity, got none")
    return both / total


def log_odds(ranking: Ranking) -> Float64[np.ndarray, " genes"]:
    """Log-odds of the rank r of each of n genes: ``ln((n - r + 1/2) / (r - 1/2))``.

    Args:
      ranking: of n genes.

    Returns:
      The log-odds by position in the list that was asked for; their mean is 0.

    >>> log_odds(by_score(np.array([3.0, 1.0, 2.0]))).round(2).tolist()
    [1.61, -1.61, 0.0]
    """
    count = len(ranking.order)
    ranks = np.empty(count)
    ranks[ranking.order] = np.arange(1, count + 1)
    return np.log((count - ranks + 0.5) / (ranks - 0.5))


def _known(
    popularity: Mapping[str, float | int], genes: Sequence[str]
) -> Float64[np.ndarray, " genes"]:
    missing = [gene for gene in genes if gene not in popularity]
    if missing:
        raise ValueError(f"popularity: expected every gene, {missing[0]!r} is missing")
    z = np.log1p([float(popularity[gene]) for gene in genes])
    return z - z.mean()
