"""HPO's annotations of diseases and genes as arrays.

``phenotype.hpoa`` has one line per disease, term and reference;
``genes_to_phenotype.txt`` links genes to diseases. Columns are found by their names,
under the spellings of all releases since 2018. Frequencies are fractions: ``3/7``,
``42%``, or the middle of the interval that HPO gives to a frequency class.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, Shaped

from jeff_llm.genes.ontology import Ontology

__all__ = [
    "FREQUENCY_CLASSES",
    "AnnotationReport",
    "Annotations",
    "parse_annotations",
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

# Spellings of each column, compared in lower case without underscores and hyphens.
_LINE_COLUMNS = {
    "disease": ("databaseid",),
    "name": ("diseasename",),
    "qualifier": ("qualifier",),
    "term": ("hpoid",),
    "reference": ("reference",),
    "frequency": ("frequency",),
    "aspect": ("aspect",),
}
_GENE_COLUMNS = {
    "entrez": ("ncbigeneid", "entrezgeneid"),
    "symbol": ("genesymbol", "entrezgenesymbol"),
    "disease": ("diseaseid", "diseaseidforlink"),
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
    reference_starts: Int32[np.ndarray, " lines+1"]
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


def parse_annotations(
    lines: str,
    genes: str,
    ontology: Ontology,
    *,
    sources: tuple[str, str] = ("phenotype.hpoa", "genes_to_phenotype.txt"),
) -> Annotations:
    """Read the annotations of diseases and genes.

    Args:
      lines: contents of ``phenotype.hpoa``.
      genes: contents of ``genes_to_phenotype.txt``.
      ontology: terms of the annotations.
      sources: names of the two files, for messages.

    Returns:
      The annotations. Lines of merged terms are mapped, and lines of unknown or
      obsolete terms are dropped; both are counted.

    Raises:
      ValueError: if a column is missing, a line is cut short, a gene id is no number,
        or a file has no lines.
    """
    counts = dict.fromkeys(AnnotationReport._fields, 0)
    table = _read_lines(lines, sources[0], ontology, counts)
    entrez, links = _read_genes(genes, sources[1], counts)
    names: dict[str, str] = dict.fromkeys((disease for _, disease in links), "")
    for disease, name, *_ in table:
        names[disease] = names.get(disease) or name
    diseases, symbols = sorted(names), sorted(entrez)
    cited = sorted({reference for row in table for reference in row[-1]})
    at_disease, at_gene, at_reference = map(_positions, (diseases, symbols, cited))
    pairs = sorted((at_gene[gene], at_disease[disease]) for gene, disease in links)
    _, _, terms, frequencies, negated, aspects, references = zip(*table, strict=True)
    return Annotations(
        diseases=tuple(diseases),
        disease_names=tuple(names[disease] for disease in diseases),
        line_disease=np.array([at_disease[row[0]] for row in table], dtype=np.int32),
        line_term=np.array(terms, dtype=np.int32),
        line_frequency=np.array(frequencies, dtype=np.float32),
        line_negated=np.array(negated, dtype=bool),
        line_aspect=np.array(aspects, dtype="U1"),
        reference_starts=np.cumsum([0, *map(len, references)], dtype=np.int32),
        line_references=np.array(
            [at_reference[reference] for row in references for reference in row],
            dtype=np.int32,
        ),
        references=tuple(cited),
        genes=tuple(symbols),
        entrez=np.array([entrez[symbol] for symbol in symbols], dtype=np.int64),
        links=np.array(pairs, dtype=np.int32),
        release=_release(lines),
        report=AnnotationReport(**counts),
    )


def _read_lines(text: str, source: str, ontology: Ontology, counts: dict[str, int]):
    """Disease, name, term, frequency, negated, aspect and references of each line."""
    table = []
    frequencies: dict[str, float | None] = {}
    for row in _rows(text, _LINE_COLUMNS, source):
        disease, name, qualifier, term, reference, frequency, aspect = row
        if term in ontology.moved:
            counts["mapped"] += 1
            term = ontology.moved[term]
        if term not in ontology.positions:
            counts["obsolete" if term in ontology.obsolete else "unknown"] += 1
            continue
        if frequency not in frequencies:
            frequencies[frequency] = _frequency(frequency)
        value = frequencies[frequency]
        counts["frequencies"] += value is None
        table.append(
            (
                disease,
                name,
                ontology.positions[term],
                float("nan") if value is None else value,
                qualifier.upper() == "NOT",
                aspect.upper(),
                [r for r in map(str.strip, reference.split(";")) if r],
            )
        )
    if not table:
        raise ValueError(f"{source}: expected annotations of known terms, found none")
    return table


def _read_genes(text: str, source: str, counts: dict[str, int]):
    """NCBI id by symbol, and the pairs of symbol and disease."""
    entrez: dict[str, int] = {}
    links: set[tuple[str, str]] = set()
    for number, symbol, disease in _rows(text, _GENE_COLUMNS, source):
        if symbol in {"", "-"} or disease in {"", "-"}:
            counts["unnamed"] += 1
            continue
        if not (number.isascii() and number.isdigit()):
            raise ValueError(
                f"{source}: {symbol}: expected an NCBI gene id, a number, "
                f"got {number!r}"
            )
        entrez[symbol] = min(int(number), entrez.get(symbol, int(number)))
        links.add((symbol, disease))
    if not links:
        raise ValueError(f"{source}: expected genes with diseases, found none")
    return entrez, links


def _rows(
    text: str, columns: Mapping[str, tuple[str, ...]], source: str
) -> Iterator[list[str]]:
    """Yield the values of ``columns`` for each line below the header."""
    places: list[int] = []
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.rstrip("\r")
        if not line.strip():
            continue
        fields = line.split("\t")
        if not places:
            found = _header(line, columns)
            if found is None and line.startswith("#"):
                continue
            if found is None:
                raise ValueError(
                    f"{source}:{number}: expected a header with the columns "
                    f"{', '.join(names[0] for names in columns.values())}; "
                    f"got {line[:120]!r}"
                )
            places = found
            continue
        if len(fields) <= max(places):
            raise ValueError(
                f"{source}:{number}: expected at least {max(places) + 1} fields "
                f"between tabs, got {len(fields)}; the file may be cut short"
            )
        yield [fields[place].strip() for place in places]
    if not places:
        raise ValueError(f"{source}: expected a header and lines below it, found none")


def _header(line: str, columns: Mapping[str, tuple[str, ...]]) -> list[int] | None:
    """Places of the columns; None if the line lacks one of them."""
    # Releases before 2023 write the header as a comment with "<tab>" spelled out.
    text = line.removeprefix("#").removeprefix("Format:").replace("<tab>", "\t")
    heads = [re.sub(r"[\s_-]", "", head).lower() for head in text.split("\t")]
    places = [
        next((heads.index(name) for name in names if name in heads), None)
        for names in columns.values()
    ]
    found = [place for place in places if place is not None]
    return found if len(found) == len(columns) else None


def _frequency(text: str) -> float | None:
    try:
        return parse_frequency(text)
    except ValueError:
        return None


def _release(text: str) -> str:
    match = re.search(r"^#(?:version|date):[ \t]*(\S+)", text[:10_000], re.MULTILINE)
    return match[1] if match else "unknown"


def _positions(names: list[str]) -> dict[str, int]:
    return {name: position for position, name in enumerate(names)}
