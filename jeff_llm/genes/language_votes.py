"""Ranks genes by stored diagnoses of a language model, alone or with another ranker.

`votes` turns the diagnoses of a case, in several prompt languages, into points of
genes; `fused` joins them with a score of the phenotypes.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Float64

from jeff_llm.genes.cases import Case
from jeff_llm.genes.ranking import Phenotypes, Ranking, by_score
from jeff_llm.genes.stored import StoredAnswer, StoredRankings, case_key

__all__ = ["StoredRanker", "fused", "votes"]

Genes = Mapping[str, tuple[str, ...]]


class StoredRanker:
    """Ranks genes by the votes that are stored for a patient's phenotypes.

    Cases whose phenotypes are equal share the mean of their votes, since a ranker
    cannot tell them apart. Without stored answers all genes have a score of 0.
    """

    def __init__(
        self,
        rankings: StoredRankings,
        cases: Sequence[Case],
        genes_of: Genes,
        *,
        languages: Sequence[str] | None = None,
        size_exponent: float = 1.0,
    ):
        """Join the stored answers with the cases.

        Args:
          rankings: the stored answers.
          cases: patients; `case_key` of their source finds the answers.
          genes_of: genes by answer, as `jeff_llm.genes.answer_genes` finds them.
          languages: as in `votes`.
          size_exponent: as in `votes`.
        """
        found: dict[Phenotypes, list[dict[str, float]]] = {}
        for case in cases:
            answers = rankings.answers.get(case_key(case.source))
            if answers is not None:
                points = votes(
                    answers, genes_of, languages=languages, size_exponent=size_exponent
                )
                found.setdefault(case.phenotypes, []).append(points)
        self._votes = found

    def __call__(self, phenotypes: Phenotypes, genes: Sequence[str], /) -> Ranking:
        """Rank genes.

        Args:
          phenotypes: of a patient, as in the cases.
          genes: symbols.

        Returns:
          The ranking; it took no call.
        """
        scores = np.zeros(len(genes))
        every = self._votes.get(phenotypes, [])
        for points in every:
            scores += [points.get(gene, 0.0) / len(every) for gene in genes]
        return by_score(scores)

    def __contains__(self, phenotypes: object) -> bool:
        """Whether answers are stored for these phenotypes."""
        return phenotypes in self._votes


def votes(
    answers: Mapping[str, Sequence[StoredAnswer]],
    genes_of: Genes,
    *,
    languages: Sequence[str] | None = None,
    size_exponent: float = 1.0,
) -> dict[str, float]:
    """Points of genes, from the diagnoses of one case in several languages.

    In one language a gene has ``max_a 1 / ((rank_a + 1) size_a^e)`` over the answers a
    that stand for it, where an answer stands for ``size_a`` genes. The points are the
    mean over the languages in which the case was answered.

    Args:
      answers: answers by language.
      genes_of: genes by answer.
      languages: languages that vote; all by default.
      size_exponent: ``e``, at least 0: how much less an answer says about each of its
        genes if it has many.

    Returns:
      Points by symbol, above 0 and at most 1/2; other genes have none.

    Raises:
      ValueError: if ``size_exponent`` is negative or not finite.

    >>> answers = {"en": [StoredAnswer(1, "a", True), StoredAnswer(3, "b", False)]}
    >>> votes(answers, {"a": ("G1",), "b": ("G1", "G2")}, size_exponent=1.0)
    {'G1': 0.5, 'G2': 0.125}
    """
    if not 0 <= size_exponent < np.inf:
        raise ValueError(
            f"size_exponent: expected a number of at least 0, got {size_exponent}"
        )
    asked = [name for name in answers if languages is None or name in languages]
    total: dict[str, float] = {}
    for name in asked:
        best: dict[str, float] = {}
        for answer in answers[name]:
            genes = genes_of.get(answer.disease, ())
            for gene in genes:
                points = 1 / ((answer.rank + 1) * len(genes) ** size_exponent)
                best[gene] = max(best.get(gene, 0.0), points)
        for gene, points in best.items():
            total[gene] = total.get(gene, 0.0) + points / len(asked)
    return total


def fused(
    scores: Float[np.ndarray, "*cases genes"],
    points: Float[np.ndarray, "*cases genes"],
    *,
    weight: float = 4.0,
    scale: float = 1.0,
) -> Float64[np.ndarray, "*cases genes"]:
    """Score of the phenotypes and votes of a model, joined.

    ``score + weight ln(1 + scale points)``. A score of -inf, of a gene without
    phenotypes, counts as the lowest finite one, so that votes can still raise the gene.

    Args:
      scores: in nats, as log-likelihoods are; larger is better.
      points: votes, at least 0.
      weight: at least 0; 0 ignores the votes.
      scale: above 0; the larger, the more a weak vote counts against a strong one.

    Returns:
      The joined scores.

    Raises:
      ValueError: if shapes differ, a point is negative, or a number is out of range.
    """
    scores, points = np.asarray(scores, np.float64), np.asarray(points, np.float64)
    if scores.shape != points.shape:
        raise ValueError(
            f"points: expected shape {scores.shape} as in scores, got {points.shape}"
        )
    if not (points >= 0).all():
        raise ValueError(f"points: expected at least 0, got {points.min()}")
    for name, value, holds in (
        ("weight", weight, 0 <= weight < np.inf),
        ("scale", scale, 0 < scale < np.inf),
    ):
        if not holds:
            raise ValueError(f"{name}: expected a finite positive number, got {value}")
    known = np.isfinite(scores)
    least = np.min(scores, axis=-1, keepdims=True, where=known, initial=np.inf)
    filled = np.where(known, scores, np.where(np.isfinite(least), least, 0.0))
    return filled + weight * np.log1p(scale * points)
