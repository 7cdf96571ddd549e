"""Rank genes by an ontology measure: each gene by the best of its diseases."""

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32

from jeff_llm.genes.hpo import Hpo
from jeff_llm.genes.own_papers import without_own_papers
from jeff_llm.genes.ranking import Phenotypes, Ranking, by_score
from jeff_llm.genes.scoring import MEASURES, score
from jeff_llm.genes.tables import Tables, filled, make_tables

__all__ = ["OntologyRanker", "Scored", "leave_out", "score_cases", "to_genes"]

# Patients whose scores a ranker keeps: divide and conquer asks for one many times.
_KEPT = 256


class Scored(NamedTuple):
    """Scores of one measure; larger is better, -inf where nothing is known.

    Attributes:
      diseases: by disease of ``hpo.annotations.diseases``.
      genes: by gene of ``hpo.annotations.genes``, the largest over its diseases.
    """

    diseases: Float32[np.ndarray, "cases diseases"]
    genes: Float32[np.ndarray, "cases genes"]


def score_cases(
    hpo: Hpo,
    tables: Tables,
    patients: Sequence[Phenotypes],
    measures: Collection[str] = ("combined",),
    *,
    references: Sequence[Collection[str]] | None = None,
    mesh: Mesh | None = None,
) -> dict[str, Scored]:
    """Score all diseases and genes for many patients.

    Args:
      hpo: ontology and annotations.
      tables: profiles of the diseases of ``hpo``.
      patients: observed and excluded terms.
      measures: names from `jeff_llm.genes.scoring.MEASURES`.
      references: own papers of each patient, whose annotations do not count for it;
        None to count all.
      mesh: as in `jeff_llm.genes.scoring.score`.

    Returns:
      Scores by measure.

    Raises:
      ValueError: if ``references`` has not one entry per patient, or as `score`.
    """
    found = score(tables, patients, measures, mesh=mesh)
    if references is not None:
        found = leave_out(hpo, tables, patients, found, references)
    return {name: Scored(each, to_genes(hpo, each)) for name, each in found.items()}


def leave_out(
    hpo: Hpo,
    tables: Tables,
    patients: Sequence[Phenotypes],
    scores: Mapping[str, Float32[np.ndarray, "cases diseases"]],
    references: Sequence[Collection[str]],
) -> dict[str, Float32[np.ndarray, "cases diseases"]]:
    """Replace the scores that rest on the patients' own papers.

    Only the profiles that change are scored again
    (`jeff_llm.genes.own_papers.without_own_papers`). The information content stays
    that of all annotations: one paper among thousands hardly moves it.

    Args:
      hpo: ontology and annotations.
      tables: profiles of the diseases of ``hpo``.
      patients: observed and excluded terms.
      scores: scores of the diseases by measure, with all annotations.
      references: own papers of each patient.

    Returns:
      New scores by measure; a disease of which nothing is left has -inf.

    Raises:
      ValueError: if ``references`` has not one entry per patient.
    """
    if len(references) != len(patients):
        raise ValueError(
            f"references: expected one entry per patient ({len(patients)}), "
            f"got {len(references)}"
        )
    out = {name: values.copy() for name, values in scores.items()}
    replaced = without_own_papers(hpo, references)
    if len(replaced.cases):
        other = tables.over(filled(replaced.profiles, tables.default_frequency))
        rows = np.arange(len(replaced.cases))
        for name, values in score(other, patients, tuple(scores)).items():
            out[name][replaced.cases, replaced.diseases] = values[replaced.cases, rows]
    return out


def to_genes(
    hpo: Hpo, scores: Float32[np.ndarray, "cases diseases"]
) -> Float32[np.ndarray, "cases genes"]:
    """Give each gene the largest score of its diseases.

    Args:
      hpo: the links of genes and diseases.
      scores: scores of the diseases.

    Returns:
      Scores of the genes; -inf for a gene without a disease.
    """
    links = hpo.annotations.links
    links = links[np.argsort(links[:, 0], kind="stable")]
    out = np.full((len(scores), len(hpo.annotations.genes)), -np.inf, np.float32)
    genes, starts = np.unique(links[:, 0], return_index=True)
    out[:, genes] = np.maximum.reduceat(scores[:, links[:, 1]], starts, axis=1)
    return out


class OntologyRanker:
    """Rank genes by an ontology measure.

    >>> rank = OntologyRanker(hpo)  # doctest: +SKIP
    >>> rank(Phenotypes(("HP:0001250",)), ["SCN1A", "FBN1"]).order  # doctest: +SKIP
    array([0, 1])
    """

    def __init__(
        self, hpo: Hpo, measure: str = "combined", *, tables: Tables | None = None
    ):
        """Prepare the profiles.

        Args:
          hpo: ontology and annotations.
          measure: name from `jeff_llm.genes.scoring.MEASURES`.
          tables: prepared profiles of diseases, to share among rankers.

        Raises:
          ValueError: if the measure is unknown.
        """
        if measure not in MEASURES:
            raise ValueError(f"measure: expected one of {MEASURES}, got {measure!r}")
        self.hpo = hpo
        self.measure = measure
        self.tables = make_tables(hpo) if tables is None else tables
        self._place = {name: place for place, name in enumerate(hpo.annotations.genes)}
        self._kept: OrderedDict[Phenotypes, np.ndarray] = OrderedDict()

    def __call__(self, phenotypes: Phenotypes, genes: Sequence[str], /) -> Ranking:
        """Rank ``genes``; one that HPO does not know has the score -inf."""
        return self.many([(phenotypes, genes)])[0]

    def many(
        self, requests: Sequence[tuple[Phenotypes, Sequence[str]]]
    ) -> list[Ranking]:
        """Rank several requests; each patient is scored once.

        Args:
          requests: phenotypes and genes of each.

        Returns:
          One ranking per request.
        """
        patients = list(dict.fromkeys(phenotypes for phenotypes, _ in requests))
        scores = self.genome(patients)
        place = {patient: row for row, patient in enumerate(patients)}
        out = []
        for phenotypes, genes in requests:
            row = scores[place[phenotypes]]
            known = [self._place.get(gene, -1) for gene in genes]
            out.append(by_score(np.where(np.array(known) >= 0, row[known], -np.inf)))
        return out

    def genome(
        self, patients: Sequence[Phenotypes]
    ) -> Float32[np.ndarray, "cases genes"]:
        """Score all genes of ``hpo.annotations.genes``.

        Args:
          patients: observed and excluded terms.

        Returns:
          The scores, by patient.
        """
        new = [patient for patient in patients if patient not in self._kept]
        if new:
            found = score_cases(self.hpo, self.tables, new, (self.measure,))
            fresh = dict(zip(new, found[self.measure].genes, strict=True))
        else:
            fresh = {}
        out = [fresh[p] if p in fresh else self._kept[p] for p in patients]
        self._kept.update(fresh)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return np.stack(out)
