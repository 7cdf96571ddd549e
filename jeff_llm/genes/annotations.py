"""HPO's annotations of diseases and genes as arrays; `jeff_llm.genes.hpoa` reads them.

Frequencies are fractions: ``3/7``, ``42%``, or the middle of the interval that HPO
gives to a frequency class.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, Shaped

__all__ = [
    "FREQUENCY_CLASSES",
    "AnnotationReport",
    "Annotations",
    "lines_without",
    "parse_frequency",
]

# Obligate 100%, very frequent 80-99%, frequent 30-79%, occasional 5-29%, very rare
# 1-4%, excluded 0%.
FREQUENCY_CLASSES: Mapping[str, float] = {
    "HP:0040280": 1.0,
    "HP:0040281": 0.895,
    "HP:0040282": 0.545,
    "HP:0040283": 0.17,
    "HP:0040284": 0.025,
    "HP:0040285": 0.0,
}


class AnnotationReport(NamedTuple):
    """Counts of what could not be taken as it stands.

    Attributes:
      mapped: lines whose term was merged or replaced, and mapped.
      obsolete: lines dropped, since their term is obsolete without a replacement.
      unknown: lines dropped, since the ontology has no such term.
      frequencies: lines whose frequency could not be read, and counts as not stated.
      unnamed: lines of genes dropped, since they have no symbol or no disease.
    """

    mapped: int = 0
    obsolete: int = 0
    unknown: int = 0
    frequencies: int = 0
    unnamed: int = 0


@dataclass(frozen=True)
class Annotations:
    """Annotations of diseases, and the diseases of genes.

    Attributes:
      diseases: ids such as ``"OMIM:301310"``, ascending.
      disease_names: name by disease; empty if only genes name the disease.
      line_disease: disease of each line.
      line_term: term of each line.
      line_frequency: fraction of patients with the term, in [0, 1]; NaN if not stated.
      line_negated: whether the line says that the disease lacks the term.
      line_aspect: ``"P"`` phenotype, ``"I"`` inheritance, ``"C"`` course, ``"M"``
        modifier, ``"H"`` history.
      reference_starts: starts of the references of each line (CSR).
      line_references: references of the lines.
      references: ids such as ``"PMID:10874631"``, ascending.
      genes: symbols, ascending.
      entrez: NCBI gene id by gene.
      links: pairs of gene and disease, ascending, each once.
      release: release of the annotations.
      report: what could not be taken as it stands.
    """

    diseases: tuple[str, ...]
    disease_names: tuple[str, ...]
    line_disease: Int32[np.ndarray, " lines"]
    line_term: Int32[np.ndarray, " lines"]
    line_frequency: Float32[np.ndarray, " lines"]
    line_negated: Bool[np.ndarray, " lines"]
    line_aspect: Shaped[np.ndarray, " lines"]
    reference_starts: Int32[np.ndarray, " starts"]
    line_references: Int32[np.ndarray, " cited"]
    references: tuple[str, ...]
    genes: tuple[str, ...]
    entrez: Int64[np.ndarray, " genes"]
    links: Int32[np.ndarray, "links 2"]
    release: str
    report: AnnotationReport


def parse_frequency(text: str) -> float:
    """Read the frequency of a term in a disease.

    Args:
      text: ``"3/7"``, ``"42%"`` or the id of a class in `FREQUENCY_CLASSES`.

    Returns:
      The fraction, in [0, 1]; NaN if ``text`` is empty or names no patients (``0/0``).

    Raises:
      ValueError: if ``text`` is none of these.

    >>> parse_frequency("3/4"), parse_frequency("HP:0040282")
    (0.75, 0.545)
    """
    if not text:
        return float("nan")
    if text in FREQUENCY_CLASSES:
        return FREQUENCY_CLASSES[text]
    if match := re.fullmatch(r"(\d+)\s*/\s*(\d+)", text, re.ASCII):
        shown, total = float(match[1]), float(match[2])
    elif match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text, re.ASCII):
        shown, total = float(match[1]), 100.0
    else:
        shown, total = 1.0, 0.0
    if shown <= total:
        return shown / total if total else float("nan")
    raise ValueError(f"expected n/m, a percentage or a frequency class, got {text!r}")


def lines_without(
    annotations: Annotations, references: Collection[str]
) -> Bool[np.ndarray, " lines"]:
    """Lines that stand without some references.

    HPO is annotated from the papers that describe the cases, so a case is scored
    without its own paper.

    Args:
      annotations: annotations of diseases.
      references: references to leave out, such as ``"PMID:10874631"``.

    Returns:
      True for each line that has another reference, or none at all.

    Raises:
      TypeError: if ``references`` is one text, and no collection of texts.
    """
    if isinstance(references, str):
        raise TypeError(
            f"references: expected a collection of texts, got {references!r}"
        )
    left_out = set(references)
    kept = np.array([r not in left_out for r in annotations.references], dtype=bool)
    counts = np.diff(annotations.reference_starts)
    lines = np.repeat(np.arange(len(counts)), counts)
    others = np.bincount(
        lines[kept[annotations.line_references]], minlength=len(counts)
    )
    return (others > 0) | (counts == 0)
