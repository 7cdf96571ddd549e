"""Why a gene ranks where it does: the parts of a score, which add up to it.

The disease of the gene that gives the score is explained, for the measures
``combined`` and ``matched_information`` (`jeff_llm.genes.scoring`). Both hold
logarithms of a number plus a constant, ``ln(s + x) = ln(s) + ln(1 + x / s)``. The
first part is the same for every gene and is shown as such; so each other line is 0 for
a disease that has nothing to do with it, positive where it speaks for the gene and
negative where it speaks against it.
"""

from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Float32, Int32

from jeff.bootstrap import RandomKey
from jeff.checks import check_choice
from jeff_llm.genes.evidence import FREE_INFORMATION
from jeff_llm.genes.explanation import HIGH, Contradiction, Explanation, Reason
from jeff_llm.genes.hpo import Hpo
from jeff_llm.genes.matching import Match, Matching, match_profile
from jeff_llm.genes.own_papers import without_own_papers
from jeff_llm.genes.prioritise import score_cases
from jeff_llm.genes.profiles import Profiles, disease_terms
from jeff_llm.genes.ranking import Phenotypes
from jeff_llm.genes.scoring import OVERLAP_START, OVERLAP_WEIGHT, SIZE_WEIGHT
from jeff_llm.genes.simulate import simulate_cases
from jeff_llm.genes.tables import Tables

__all__ = ["EXPLAINED", "explain", "unrelated_ranks"]

EXPLAINED = ("combined", "matched_information")


def explain(
    hpo: Hpo,
    tables: Tables,
    phenotypes: Phenotypes,
    genes: Sequence[str],
    *,
    measure: str = "combined",
    references: Collection[str] | None = None,
    unrelated: Int32[np.ndarray, "patients genes"] | None = None,
) -> list[Explanation]:
    """Explain the scores of some genes for one patient.

    A gene is marked as known by study only where it ranks in the top 1% and ranks that
    high for more than 1% of other patients as well. A gene at rank r of N that owes
    its rank to the patient's terms is as high for about r / N of the others; one with
    many annotated terms matches some of anybody's. Of the genes in the top ten of the
    600 shared cases, the mark falls on 1% of the causal ones and on 9% of the rest.

    Args:
      hpo: ontology and annotations.
      tables: profiles of the diseases of ``hpo``.
      phenotypes: of the patient.
      genes: symbols; a gene that HPO does not know is explained as such.
      measure: one of `EXPLAINED`.
      references: own papers of the patient, whose annotations do not count.
      unrelated: ranks from `unrelated_ranks`, for the mark; they are computed once and
        serve for all patients.

    Returns:
      One explanation per gene.

    Raises:
      ValueError: if the measure is not one of these, or ``unrelated`` is of another
        number of genes.
      KeyError: if a term is not in the ontology.
    """
    check_choice("measure", measure, EXPLAINED)
    names = hpo.annotations.genes
    if unrelated is not None and unrelated.shape[1] != len(names):
        raise ValueError(
            f"unrelated: expected {len(names)} genes, got {unrelated.shape[1]}"
        )
    cited = None if references is None else [references]
    scored = score_cases(hpo, tables, [phenotypes], (measure,), references=cited)
    scores = scored[measure]
    profiles = _Profiles(hpo, tables, references)
    place = {name: number for number, name in enumerate(names)}
    ranks = _ranks(scores.genes)[0]
    links = hpo.annotations.links
    out = []
    for gene in genes:
        number = place.get(gene, -1)
        score = float(scores.genes[0, number]) if number >= 0 else -np.inf
        counted = int(np.isfinite(scores.genes).sum())
        rank = int(ranks[number]) if number >= 0 else counted + 1
        found = Explanation(gene, measure, score, rank, counted)
        if np.isfinite(score):
            own = links[links[:, 0] == number, 1]
            disease = int(own[np.argmax(scores.diseases[0, own])])
            found = _explain(found, profiles, disease, phenotypes)
            if unrelated is not None:
                usual = float((unrelated[:, number] <= rank).mean())
                marked = rank <= HIGH * counted and usual > HIGH
                found = found._replace(usual=usual, known_by_study_only=marked)
        out.append(found)
    return out


def unrelated_ranks(
    hpo: Hpo,
    tables: Tables,
    measure: str = "combined",
    *,
    num_patients: int = 300,
    key: RandomKey,
) -> Int32[np.ndarray, "patients genes"]:
    """Rank all genes for patients who have other diseases.

    Args:
      hpo: ontology and annotations.
      tables: profiles of the diseases of ``hpo``.
      measure: name from `jeff_llm.genes.scoring.MEASURES`.
      num_patients: patients to simulate (`jeff_llm.genes.simulate.simulate_cases`);
        a few hundred, to tell shares of one in a hundred.
      key: random key.

    Returns:
      Ranks from 1, the best one among equals. The gene that a patient was drawn from
      stands behind all others, since for it the patient is not unrelated.
    """
    cases = simulate_cases(hpo, num_patients, key=key)
    patients = [case.phenotypes for case in cases]
    ranks = _ranks(score_cases(hpo, tables, patients, (measure,))[measure].genes)
    place = {name: number for number, name in enumerate(hpo.annotations.genes)}
    own = [place[case.gene or ""] for case in cases]
    ranks[np.arange(len(cases)), own] = ranks.shape[1] + 1
    return ranks


class _Profiles:
    """Profiles of the diseases, with what HPO states and without own papers."""

    def __init__(
        self, hpo: Hpo, tables: Tables, references: Collection[str] | None = None
    ):
        self.hpo, self.tables = hpo, tables
        self.all = disease_terms(hpo)
        self.replaced = without_own_papers(hpo, [references or ()])
        self.row = {int(d): r for r, d in enumerate(self.replaced.diseases)}

    def of(self, disease: int) -> tuple[np.ndarray, np.ndarray]:
        """Terms of a disease and their frequencies, NaN where none is stated."""
        row, taken = disease, self.all
        if disease in self.row:
            row, taken = self.row[disease], self.replaced.profiles
        return _row(taken, row)


def _row(profiles: Profiles, row: int) -> tuple[np.ndarray, np.ndarray]:
    part = slice(profiles.starts[row], profiles.starts[row + 1])
    return profiles.terms[part], profiles.frequencies[part]


def _ranks(
    scores: Float32[np.ndarray, "cases genes"],
) -> Int32[np.ndarray, "cases genes"]:
    """Ranks from 1; equal scores have the best rank among them."""
    ordered = np.sort(-scores, axis=1)
    pairs = zip(ordered, -scores, strict=True)
    return np.stack([np.searchsorted(*pair) for pair in pairs]).astype(np.int32) + 1


def _explain(
    found: Explanation, profiles: _Profiles, disease: int, phenotypes: Phenotypes
) -> Explanation:
    hpo, tables = profiles.hpo, profiles.tables
    terms, frequencies = profiles.of(disease)
    ontology = hpo.ontology
    stated = dict(zip(terms.tolist(), (~np.isnan(frequencies)).tolist(), strict=True))
    known = np.where(np.isnan(frequencies), tables.default_frequency, frequencies)
    observed = sorted({ontology.index(term) for term in phenotypes.observed})
    matching = match_profile(ontology, tables.information, terms, known, observed)
    combined = found.measure == "combined"
    constant = -SIZE_WEIGHT * np.log(FREE_INFORMATION)
    overlap = 0.0
    if combined:
        constant += OVERLAP_WEIGHT * np.log(OVERLAP_START)
        overlap = OVERLAP_WEIGHT * np.log1p(matching.overlap / OVERLAP_START)
    total = overlap + sum(match.evidence for match in matching.matches)
    return found._replace(
        disease=hpo.annotations.diseases[disease],
        disease_name=hpo.annotations.disease_names[disease],
        terms=tuple(
            _reason(tables, match, stated, total) for match in matching.matches
        ),
        constant=float(constant),
        overlap=float(overlap),
        overlap_share=matching.overlap,
        size=float(-SIZE_WEIGHT * np.log1p(matching.unexplained / FREE_INFORMATION)),
        unshown=matching.unexplained,
        contradictions=_contradictions(hpo, phenotypes, matching),
    )


def _reason(
    tables: Tables, match: Match, stated: dict[int, bool], total: float
) -> Reason:
    ontology, content = tables.ontology, tables.information
    ids, names = ontology.ids, ontology.names
    matched = match.ancestor >= 0
    inherited = float(content[match.ancestor]) if matched else 0.0
    return Reason(
        ids[match.term],
        names[match.term],
        _kind(match, stated),
        ids[match.annotation] if matched else None,
        names[match.annotation] if matched else "",
        ids[match.ancestor] if matched else None,
        names[match.ancestor] if matched else "",
        inherited,
        float(content[match.term]) - inherited,
        match.frequency,
        stated.get(match.annotation, False),
        match.evidence,
        match.evidence / total if total > 0 else 0.0,
    )


def _kind(match: Match, stated: dict[int, bool]) -> str:
    if match.evidence <= 0:
        return "none"
    if match.ancestor == match.term:
        return "exact" if match.term in stated else "more specific"
    return "more general" if match.annotation == match.ancestor else "related"


def _contradictions(
    hpo: Hpo, phenotypes: Phenotypes, matching: Matching
) -> tuple[Contradiction, ...]:
    ontology = hpo.ontology
    excluded = sorted({ontology.index(term) for term in phenotypes.excluded})
    shown = [term for term in excluded if matching.frequency[term] > 0]
    shown.sort(key=lambda term: -matching.frequency[term])
    return tuple(
        Contradiction(
            ontology.ids[term], ontology.names[term], float(matching.frequency[term])
        )
        for term in shown
    )
