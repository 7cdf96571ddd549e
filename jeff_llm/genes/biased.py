"""A simulated language model whose position and popularity bias are known.

Measures of bias and remedies against it can be tested on it: what they find can be
compared with what was put in.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from jeff.bootstrap import RandomKey
from jeff_llm.genes.ranking import Phenotypes, Ranker, Ranking, by_score
from jeff_llm.genes.rounds import Request, ask, generator

__all__ = ["Biased"]

Quality: TypeAlias = Ranker | Mapping[str, float | int]


class Biased:
    """Ranks by the quality of genes, with noise and two biases of known size.

    The utility of gene i at place ``i = 0, 1, ...`` of a list of n genes is

    ``quality_i - position_bias ln(1 + i) + popularity_bias z_i + noise ln(n) e_i``

    with z the logarithm of one plus the citations, standardised over all genes of
    ``popularity``, and e standard Gumbel noise. Genes rank by utility. So gene i is
    first with the probability ``softmax(u / (noise ln(n)))_i``, u being the utility
    without noise: the model of Luce. The noise grows with the length of the list, and
    accuracy falls with it.

    The noise depends on the key and on the whole request: the same request gets the
    same answer, and another order of the genes gets independent noise.
    """

    def __init__(
        self,
        quality: Quality,
        *,
        popularity: Mapping[str, float | int] | None = None,
        position_bias: float = 0.0,
        popularity_bias: float = 0.0,
        noise: float = 1.0,
        key: RandomKey,
    ):
        """Make a simulator.

        Args:
          quality: score by gene, larger is better, or a ranker that gives the scores.
          popularity: citations by gene, at least 0; needed if ``popularity_bias`` is
            not 0.
          position_bias: what a gene loses each time its place is e times as far down.
          popularity_bias: what a gene gains by standard deviation of log citations.
          noise: scale of the noise, over the logarithm of the length; at least 0.
          key: random key.

        Raises:
          ValueError: if a number is not finite, ``noise`` or a count of citations is
            negative, or a bias to popular genes has no popularity that differs.
        """
        sizes = {
            "position_bias": position_bias,
            "popularity_bias": popularity_bias,
            "noise": noise,
        }
        for name, size in sizes.items():
            if not np.isfinite(size):
                raise ValueError(f"{name}: expected a finite number, got {size}")
        if noise < 0:
            raise ValueError(f"noise: expected at least 0, got {noise}")
        self.quality, self.key = quality, key
        self.position_bias, self.popularity_bias = position_bias, popularity_bias
        self.noise = noise
        self.standardised = _standardised(popularity) if popularity_bias else {}

    def __call__(self, phenotypes: Phenotypes, genes: Sequence[str], /) -> Ranking:
        """Rank ``genes`` for ``phenotypes``.

        Args:
          phenotypes: of the patient.
          genes: to rank.

        Returns:
          The ranking; its scores are the utilities.
        """
        return self.many([(phenotypes, genes)])[0]

    def many(self, requests: Sequence[Request]) -> list[Ranking]:
        """Rank several requests; one call each, beside those of a ranker of quality.

        Args:
          requests: phenotypes and genes of each.

        Returns:
          One ranking per request.

        Raises:
          ValueError: if a gene has no quality or no popularity.
        """
        if isinstance(self.quality, Mapping):
            found = [by_score(_of(self.quality, "quality", g)) for _, g in requests]
        else:
            found = ask(self.quality, requests)
        return [
            by_score(
                base.scores + self._disturbance(phenotypes, genes),
                calls=base.calls + 1,
                tokens=base.tokens,
            )
            for base, (phenotypes, genes) in zip(found, requests, strict=True)
        ]

    def _disturbance(self, phenotypes: Phenotypes, genes: Sequence[str]) -> np.ndarray:
        count = len(genes)
        rng = generator(self.key, phenotypes, genes)
        moved = self.noise * np.log(max(count, 1)) * rng.gumbel(size=count)
        moved -= self.position_bias * np.log1p(np.arange(count))
        if self.popularity_bias:
            known = _of(self.standardised, "popularity", genes)
            moved += self.popularity_bias * known
        return moved


def _standardised(popularity: Mapping[str, float | int] | None) -> dict[str, float]:
    if popularity is None:
        raise ValueError(
            "popularity: expected citations by gene for a popularity_bias, got None"
        )
    citations = np.array(list(popularity.values()), np.float64)
    for gene, count in popularity.items():
        if not 0 <= count < np.inf:
            raise ValueError(
                f"popularity: expected finite counts of at least 0, got {count} for "
                f"{gene!r}"
            )
    logarithm = np.log1p(citations)
    if not len(citations) or np.ptp(logarithm) == 0:
        raise ValueError(
            "popularity: expected genes of different popularity, got "
            f"{len(citations)} genes of the same"
        )
    scaled = (logarithm - logarithm.mean()) / logarithm.std()
    return dict(zip(popularity, scaled.tolist(), strict=True))


def _of(
    values: Mapping[str, float | int], name: str, genes: Sequence[str]
) -> np.ndarray:
    missing = [gene for gene in genes if gene not in values]
    if missing:
        raise ValueError(
            f"{name}: expected a number for every gene, got none for "
            f"{', '.join(map(repr, missing[:5]))} ({len(missing)} in all)"
        )
    return np.array([values[gene] for gene in genes], np.float64)
