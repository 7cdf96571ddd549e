"""A remedy for popularity: what a gene gets for any patient is taken off.

Small groups and shuffles remove the influence of the order, but a preference for
well-known genes is the same in every group and stays. It is the same for every patient
too, so it shows where the ranker is asked about patients who have nothing to do with
the genes.
"""

from collections.abc import Sequence

import numpy as np

from jeff_llm.genes.ranking import Phenotypes, Ranker, Ranking, by_score
from jeff_llm.genes.rounds import Request, ask

__all__ = ["Calibrated"]


class Calibrated:
    """Ranks genes by their odds for the patient over those for unrelated patients.

    With rank r of n genes, a list gives a gene the log-odds
    ``l = ln((n - r + 1/2) / (r - 1/2))``. The score is
    ``l(patient) - weight mean l(unrelated patient)``: the place of a gene in the list
    and how well it is known are the same in both, and cancel.

    It takes ``1 + len(unrelated)`` calls for each of the ranker's. Inside
    `jeff_llm.genes.conquer` it serves like any ranker.

    References:
      Zhao et al., "Calibrate Before Use: Improving Few-Shot Performance of Language
      Models", ICML 2021 (calibration by inputs without content; here by other
      patients, since a model may refuse to rank for nobody).
    """

    def __init__(
        self, ranker: Ranker, unrelated: Sequence[Phenotypes], *, weight: float = 1.0
    ):
        """Prepare the ranker; nothing is asked yet.

        Args:
          ranker: to be calibrated.
          unrelated: patients with other diseases; a few suffice.
          weight: how much is taken off, at least 0.

        Raises:
          ValueError: if there is no unrelated patient, or the weight is negative or not
            finite.
        """
        if not unrelated:
            raise ValueError("unrelated: expected at least one patient, got none")
        if not 0 <= weight < np.inf:
            raise ValueError(f"weight: expected a number of at least 0, got {weight}")
        self.ranker, self.unrelated, self.weight = ranker, tuple(unrelated), weight

    def __call__(self, phenotypes: Phenotypes, genes: Sequence[str], /) -> Ranking:
        """Rank ``genes`` for ``phenotypes``."""
        return self.many([(phenotypes, genes)])[0]

    def many(self, requests: Sequence[Request]) -> list[Ranking]:
        """Rank several requests; all calls of all of them go to the ranker together.

        Args:
          requests: phenotypes and genes of each.

        Returns:
          One ranking per request, with the calls and tokens of all its parts.
        """
        patients = [[own, *self.unrelated] for own, _ in requests]
        asked = [
            (patient, genes)
            for some, (_, genes) in zip(patients, requests, strict=True)
            for patient in some
        ]
        found = iter(ask(self.ranker, asked))
        out = []
        for some in patients:
            parts = [next(found) for _ in some]
            own, *others = (_log_odds(part) for part in parts)
            out.append(
                by_score(
                    own - self.weight * np.mean(others, axis=0),
                    calls=sum(part.calls for part in parts),
                    tokens=sum(part.tokens for part in parts),
                )
            )
        return out


def _log_odds(ranking: Ranking) -> np.ndarray:
    count = len(ranking.order)
    ranks = np.empty(count)
    ranks[ranking.order] = np.arange(1, count + 1)
    return np.log((count - ranks + 0.5) / (ranks - 0.5))
