"""The explanation of one gene's score: its parts, in words and as JSON.

`jeff_llm.genes.reasons.explain` makes them.
"""

from typing import Any, NamedTuple

import numpy as np

__all__ = ["HIGH", "Contradiction", "Explanation", "Reason"]

# Share of the genes that is the top; and of other patients, for `Explanation.usual`.
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
