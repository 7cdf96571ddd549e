"""Why a gene ranks where it does: the parts of a score, which add up to it.

The disease of the gene that gives the score is explained, for the measures
``combined`` and ``matched_information`` (`jeff_llm.genes.scoring`). Both hold
logarithms of a number plus a constant, ``ln(s + x) = ln(s) + ln(1 + x / s)``. The
first part is the same for every gene and is shown as such; so each other line is 0 for
a disease that has nothing to do with it, positive where it speaks for the gene and
negative where it speaks against it.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from jeff.bootstrap import RandomKey
from jeff.checks import check_choice
from jeff_llm.genes.evidence import FREE_INFORMATION
from jeff_llm.genes.hpo import Hpo
from jeff_llm.genes.matching import Match, Matching, match_profile
from jeff_llm.genes.own_papers import without_own_papers
from jeff_llm.genes.prioritise import score_cases
from jeff_llm.genes.profiles import Profiles, disease_terms
from jeff_llm.genes.ranking import Phenotypes
from jeff_llm.genes.scoring import OVERLAP_START, OVERLAP_WEIGHT, SIZE_WEIGHT
from jeff_llm.genes.simulate import simulate_cases
from jeff_llm.genes.tables import Tables

__all__ = [
    "EXPLAINED",
    "HIGH",
    "Contradiction",
    "Explanation",
    "Reason",
    "explain",
    "unrelated_ranks",
]

EXPLAINED = ("combined", "matched_information")

# Share of the genes that is the top; and of other patients, for `usual`.
HIGH = 0.01


class Reason(NamedTuple):
    """What one observed term adds to the score.

    Attributes:
      term: id of the observed term.
      name: its name.
      match: "exact", the disease is annotated with the term; "more specific", with a
        kind of it; "more general", with an ancestor of it; "related", with a kind of
        an ancestor; "none", with nothing that explains it better than chance.
      annotation: id of the annotation that it met; None if there is none.
      annotation_name: its name.
      ancestor: id of the common ancestor of both that explains the term best.
      ancestor_name: its name.
      information: information content of the common ancestor, in nats.
      lost: information of the term that the common ancestor lacks, in nats.
      frequency: frequency of the annotation, which counts.
      stated: whether HPO states it; else it is the default.
      contribution: what the term adds, in nats, at least 0.
      share: the contribution over all that speaks for the gene.
    """

    term: str
    name: str
    match: str
    annotation: str | None
    annotation_name: str
    ancestor: str | None
    ancestor_name: str
    information: float
    lost: float
    frequency: float
    stated: bool
    contribution: float
    share: float


class Contradiction(NamedTuple):
    """A term that was looked for and not found, and that the disease shows.

    The explained measures do not use such terms: the contribution is always 0.

    Attributes:
      term: id.
      name: its name.
      frequency: frequency of the term, or of a kind of it, in the disease.
      contribution: 0, in nats.
    """

    term: str
    name: str
    frequency: float
    contribution: float = 0.0


class Explanation(NamedTuple):
    """The score of one gene, by its parts.

    ``constant + size + overlap + sum of terms' contributions`` is the score.

    Attributes:
      gene: symbol.
      measure: the measure that is explained.
      score: the score; -inf for a gene without an annotated disease, which has no
        parts.
      rank: place among all genes of HPO, from 1; the best one among equals.
      num_genes: genes of HPO with a score.
      disease: id of the disease that gives the score, or None.
      disease_name: its name.
      terms: what each observed term adds.
      constant: part that is the same for every gene, in nats.
      overlap: what the share of the two pictures that coincides adds; 0 for
        "matched_information".
      overlap_share: that share, in [0, 1] (`jeff_llm.genes.overlap.weighted_overlap`).
      size: what the size of the profile costs, at most 0.
      unshown: information of the profile that the patient does not show, in nats.
      contradictions: excluded terms that the disease shows, most frequent first.
      usual: share of other patients for whom the gene ranks at least as high; None
        if they were not given.
      known_by_study_only: whether the gene is in the top `HIGH` of all genes, and is as
        high for more than `HIGH` of other patients; None if they were not given.
    """

    gene: str
    measure: str
    score: float
    rank: int
    num_genes: int
    disease: str | None = None
    disease_name: str = ""
    terms: tuple[Reason, ...] = ()
    constant: float = 0.0
    overlap: float = 0.0
    overlap_share: float = 0.0
    size: float = 0.0
    unshown: float = 0.0
    contradictions: tuple[Contradiction, ...] = ()
    usual: float | None = None
    known_by_study_only: bool | None = None

    def as_dict(self) -> dict[str, Any]:
        """The explanation for JSON.

        Returns:
          Fields by name; a score of -inf is None, since JSON has no infinity.
        """
        found = self._asdict()
        for name in ("terms", "contradictions"):
            found[name] = [part._asdict() for part in found[name]]
        return found | {"score": self.score if np.isfinite(self.score) else None}

    def lines(self) -> list[str]:
        """The explanation in words.

        Returns:
          A heading, and a line for each part of the score.
        """
        if self.disease is None:
            return [f"{self.gene}: HPO annotates no disease of this gene"]
        head = f"{self.gene}: rank {self.rank} of {self.num_genes}, by {self.disease}"
        lines = [f"{head} {self.disease_name}; score {self.score:.2f}"]
        for reason in sorted(self.terms, key=lambda part: -part.contribution):
            share = f"{reason.share:4.0%}"
            lines.append(f"  {reason.contribution:+6.2f} {share}  {_words(reason)}")
        if self.measure == "combined":
            lines.append(
                f"  {self.overlap:+6.2f}       overlap: patient and disease share "
                f"{self.overlap_share:.0%} of what they show, by information"
            )
        lines.append(
            f"  {self.size:+6.2f}       size: {self.unshown:.0f} nats of the disease "
            "that the patient does not show"
        )
        lines.append(f"  {self.constant:+6.2f}       the same for every gene")
        lines += [
            f"  not used: {part.name} is excluded, and the disease shows it in "
            f"{part.frequency:.0%} of patients"
            for part in self.contradictions
        ]
        if self.known_by_study_only:
            lines.append(
                f"  known by study only: as high for {self.usual:.1%} of other patients"
            )
        return lines


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


def _words(reason: Reason) -> str:
    often = f"in {reason.frequency:.0%} of patients"
    if not reason.stated:
        often = "frequency not stated"
    rare = f"1 in {np.exp(reason.information):,.0f} profiles"
    if reason.match == "none":
        near = f"; nearest: {reason.ancestor_name}, {rare}" if reason.ancestor else ""
        return f"{reason.name}: not explained better than chance{near}"
    if reason.match == "exact":
        return f"{reason.name}: annotated; {often}; {rare}"
    if reason.match == "more specific":
        return f"{reason.name}: annotated as {reason.annotation_name}; {often}; {rare}"
    return (
        f"{reason.name}: annotated as {reason.annotation_name}; {often}; both are "
        f"{reason.ancestor_name}, {rare}"
    )
