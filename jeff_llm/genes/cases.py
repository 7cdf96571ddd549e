"""Patients to rank genes for: from phenopackets, from PhenoBrain, or typed in.

The answer never reaches a ranker: a ranker takes `Case.phenotypes`, which come from the
phenotypic features alone. Interpretations, paths, ids and titles are read only for
the other fields. A packet that is not usable is counted with its reason, and the rest
goes on.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jeff_llm.genes.case_files import json_values
from jeff_llm.genes.hpo import Hpo
from jeff_llm.genes.phenopackets import disease_id, messages, parse_packet
from jeff_llm.genes.ranking import Phenotypes
from jeff_llm.genes.typed_terms import signed, split_terms

__all__ = [
    "Case",
    "Report",
    "from_phenobrain",
    "from_phenopackets",
    "from_terms",
]

_MEANING = {
    "cases": "cases that can be used",
    "excluded": "terms that are excluded",
    "mapped": "merged or replaced terms, mapped to the current one",
    "obsolete": "terms dropped: obsolete without a replacement",
    "unknown": "terms dropped: not in this release of HPO",
    "other": "terms dropped: no phenotypes (an onset, a modifier, ...)",
    "repeated": "terms dropped: named a second time",
    "contradicted": "excluded terms dropped: they, or a kind of them, are observed",
    "unlabelled": "cases with neither a gene nor a disease to compare with",
    "several_genes": "cases with several causative genes, so none to compare with",
    "version_1": "phenopackets of version 1 of the schema",
}


class Case(NamedTuple):
    """One patient.

    Attributes:
      name: neutral name, from the position in the input.
      phenotypes: all that a ranker may see.
      gene: symbol of the causative gene, or None if it is not known.
      diseases: ids of the diagnosis, such as ``"OMIM:301310"``.
      references: ``"PMID:..."`` of the papers that describe the case.
      sex: ``"female"``, ``"male"``, or None.
      age: ISO 8601 duration at the last encounter, or None.
      source: path or id in the input, to join results with other tables; it can give
        the answer away.
    """

    name: str
    phenotypes: Phenotypes
    gene: str | None = None
    diseases: tuple[str, ...] = ()
    references: frozenset[str] = frozenset()
    sex: str | None = None
    age: str | None = None
    source: str = ""


class Report(NamedTuple):
    """What was read, and what could not be taken as it stands.

    Attributes:
      counts: number by kind: cases, and terms or packets that needed something.
      refused: place and reason of each packet that cannot be used.
      notes: what became of single terms, each once.
    """

    counts: dict[str, int]
    refused: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def lines(self, *, limit: int = 10) -> list[str]:
        """Say the report in sentences.

        Args:
          limit: largest number of refused packets, and of notes, to show.

        Returns:
          One line per kind that occurred, then the refused packets and the notes.
        """
        lines = [
            f"{meaning}: {self.counts.get(kind, 0)}"
            for kind, meaning in _MEANING.items()
            if self.counts.get(kind) or kind == "cases"
        ]
        if self.refused:
            lines.append(f"phenopackets that cannot be used: {len(self.refused)}")
        for all_of_them in (
            [f"{place}: {reason}" for place, reason in self.refused],
            self.notes,
        ):
            lines += [f"  {text}" for text in all_of_them[:limit]]
            if limit and len(all_of_them) > limit:
                lines.append(f"  and {len(all_of_them) - limit} more")
        return lines


def from_phenopackets(path: str | Path, hpo: Hpo) -> tuple[list[Case], Report]:
    """Read phenopackets.

    Args:
      path: a JSON file; a folder, whose ``*.json`` are read at any depth; or a file of
        JSON lines (``.jsonl``), each a phenopacket or an object with the keys
        ``phenopacket`` and, optionally, ``path``, ``causal_gene`` and ``disease``. Any
        file may end in ``.gz``.
      hpo: release of HPO to which the terms are mapped.

    Returns:
      The usable cases, in the order of the input (a folder's by path); and the report.

    Raises:
      FileNotFoundError: if there is no such file or folder.
      ValueError: if no phenopacket can be used; gives the first reasons.
    """
    reader = _Reader(hpo)
    for place, value, error in json_values(path):
        if error is not None:
            reader.refused.append((place, error))
            continue
        wrapped = isinstance(value, dict) and "phenopacket" in value
        try:
            found = messages(value["phenopacket"] if wrapped else value)
        except ValueError as reason:
            reader.refused.append((place, str(reason)))
            continue
        for number, message in enumerate(found, start=1):
            at = place if len(found) == 1 else f"{place}#{number}"
            try:
                _add(reader, value if wrapped else {}, message, at)
            except ValueError as reason:
                reader.refused.append((at, str(reason)))
    return reader.result(str(path))


def from_phenobrain(path: str | Path, hpo: Hpo) -> tuple[list[Case], Report]:
    """Read the public cases of PhenoBrain.

    Args:
      path: file of JSON lines with ``row``, ``hpo`` (ids) and ``diseases`` (ids).
      hpo: release of HPO to which the terms are mapped.

    Returns:
      The usable cases, which have diseases but no gene; and the report.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if no case can be used; gives the first reasons.

    References:
      Mao et al., "A phenotype-based AI pipeline outperforms human experts in
      differentially diagnosing rare diseases using EHRs", npj Digital Medicine, 2025.
    """
    reader = _Reader(hpo)
    for place, value, error in json_values(path):
        row = value if isinstance(value, dict) else {}
        try:
            if error is not None:
                raise ValueError(error)
            terms, diseases = (_texts(row, key) for key in ("hpo", "diseases"))
            phenotypes = reader.phenotypes(terms, [])
        except ValueError as reason:
            reader.refused.append((place, str(reason)))
            continue
        diseases = tuple(disease_id(disease) for disease in diseases)
        source = str(row.get("row", ""))
        reader.add(Case(reader.name(), phenotypes, None, diseases, source=source))
    return reader.result(str(path))


def from_terms(terms: str | Sequence[str], hpo: Hpo) -> tuple[list[Case], Report]:
    """Make a case of terms that a user gives.

    Args:
      terms: ids, names or exact synonyms of terms; a leading ``-`` or ``!`` marks an
        excluded term. A single text is split by
        `jeff_llm.genes.typed_terms.split_terms`.
      hpo: release of HPO to which the terms are mapped.

    Returns:
      One case without an answer, and the report.

    Raises:
      ValueError: if no observed phenotype is left.
    """
    if isinstance(terms, str):
        terms = split_terms(terms, hpo.ontology.labels)
    given = [signed(text) for text in terms if text.strip()]
    reader = _Reader(hpo)
    phenotypes = reader.phenotypes(
        [text for absent, text in given if not absent],
        [text for absent, text in given if absent],
        place="terms: ",
    )
    reader.add(Case(reader.name(), phenotypes))
    # Nobody expects terms that were typed in to come with an answer.
    del reader.counts["unlabelled"]
    return reader.result("terms")


class _Reader:
    """Cases so far, and the counts of what happened to them."""

    def __init__(self, hpo: Hpo):
        self.ontology = hpo.ontology
        self.cases: list[Case] = []
        self.counts: Counter[str] = Counter()
        self.refused: list[tuple[str, str]] = []
        self.notes: dict[str, None] = {}

    def name(self) -> str:
        return f"case-{len(self.cases) + len(self.refused) + 1}"

    def add(self, case: Case) -> None:
        self.cases.append(case)
        self.counts["cases"] += 1
        self.counts["excluded"] += len(case.phenotypes.excluded)
        self.counts["unlabelled"] += case.gene is None and not case.diseases

    def phenotypes(
        self, observed: Sequence[str], excluded: Sequence[str], *, place: str = ""
    ) -> Phenotypes:
        """Map terms to this release, or say why no phenotype is left."""
        if not observed:
            raise ValueError(
                f"{place}expected observed terms, got none and {len(excluded)} excluded"
            )
        shown, why = self._resolve(observed)
        lacking, _ = self._resolve(excluded)
        if not shown:
            raise ValueError(
                f"{place}expected a phenotype that HPO {self.ontology.release} knows, "
                f"got none: {'; '.join(why[:3])}"
            )
        # Who shows a term shows its ancestors too, so none of them can be excluded.
        implied = {a for term in shown for a in self.ontology.ancestors_of(term)}
        kept = [term for term in lacking if term not in implied]
        self.counts["contradicted"] += len(lacking) - len(kept)
        ids = self.ontology.ids
        return Phenotypes(tuple(ids[t] for t in shown), tuple(ids[t] for t in kept))

    def _resolve(self, terms: Sequence[str]) -> tuple[list[int], list[str]]:
        """Positions of the phenotypes, and what became of the other terms."""
        found, report = self.ontology.resolve(terms)
        for kind, items in zip(report._fields, report, strict=True):
            self.counts[kind] += len(items)
        notes = [f"{old} is now {new}" for old, new in report.mapped]
        for term in report.obsolete:
            hint = ", ".join(self.ontology.obsolete[term]) or "no other term"
            notes.append(f"{term} is obsolete; the ontology suggests {hint}")
        notes += [f"{term[:60]!r} is unknown" for term in report.unknown]
        notes += [f"{term} is no phenotype" for term in report.other]
        self.notes |= dict.fromkeys(notes)
        return found.tolist(), notes

    def result(self, source: str) -> tuple[list[Case], Report]:
        report = Report(dict(self.counts), tuple(self.refused), tuple(self.notes))
        if not self.cases:
            reasons = "; ".join(
                f"{at}: {why}".removeprefix(f"{source}: ")
                for at, why in self.refused[:3]
            )
            why = reasons or "it is empty"
            raise ValueError(f"{source}: expected a case that can be used ({why})")
        return self.cases, report


def _add(reader: _Reader, wrapper: dict[str, Any], message: Any, place: str) -> None:
    """Add the case of one phenopacket; its wrapper may carry the answer."""
    source = _answer(wrapper, "path") or place
    packet = parse_packet(message, source=source)
    phenotypes = reader.phenotypes(packet.observed, packet.excluded)
    gene = _answer(wrapper, "causal_gene")
    disease = _answer(wrapper, "disease")
    if gene is None and len(packet.genes) == 1:
        gene = packet.genes[0]
    reader.counts["several_genes"] += gene is None and len(packet.genes) > 1
    reader.counts["version_1"] += packet.version == 1
    reader.add(
        Case(
            reader.name(),
            phenotypes,
            gene,
            (disease_id(disease),) if disease else packet.diseases,
            packet.references,
            packet.sex,
            packet.age,
            source,
        )
    )


def _answer(wrapper: dict[str, Any], key: str) -> str | None:
    value = wrapper.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{key}: expected a text, got {str(value)[:40]!r}")
    return value


def _texts(row: dict[str, Any], key: str) -> list[str]:
    texts = row.get(key)
    if not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
        raise ValueError(f"{key}: expected a list of texts, got {str(texts)[:40]!r}")
    return texts
