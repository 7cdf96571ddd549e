"""Read HPO's annotations: ``phenotype.hpoa`` and ``genes_to_phenotype.txt``.

The first has one line per disease, term and reference; of the second, only the diseases
of the genes are taken. Columns are found by their names, under the spellings of all
releases since 2018.
"""

import re
from collections.abc import Iterator, Mapping

import numpy as np

from jeff_llm.genes.annotations import (
    AnnotationReport,
    Annotations,
    parse_frequency,
)
from jeff_llm.genes.ontology import Ontology

__all__ = ["parse_annotations"]

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
            places = _header(line, columns, f"{source}:{number}")
            continue
        if len(fields) <= max(places):
            raise ValueError(
                f"{source}:{number}: expected at least {max(places) + 1} fields "
                f"between tabs, got {len(fields)}; the file may be cut short"
            )
        yield [fields[place].strip() for place in places]
    if not places:
        raise ValueError(f"{source}: expected a header and lines below it, found none")


def _header(line: str, columns: Mapping[str, tuple[str, ...]], place: str) -> list[int]:
    """Places of the columns; none of them if the line is a comment."""
    # Releases before 2023 write the header as a comment, with "<tab>" spelled out.
    text = line.removeprefix("#").removeprefix("Format:").replace("<tab>", "\t")
    heads = [re.sub(r"[\s_-]", "", head).lower() for head in text.split("\t")]
    places = {
        column: heads.index(name)
        for column, names in columns.items()
        for name in names
        if name in heads
    }
    if not places and line.startswith("#"):
        return []
    if missing := [column for column in columns if column not in places]:
        raise ValueError(
            f"{place}: expected a header with a column of the {missing[0]} "
            f"({' or '.join(columns[missing[0]])}), got {line[:120]!r}"
        )
    return [places[column] for column in columns]


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
