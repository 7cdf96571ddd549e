"""Names of genes and diseases across data sets.

Symbols change: HGNC's table maps former symbols, aliases and the ids of HGNC, NCBI and
Ensembl to the current symbol. MONDO's mappings give the OMIM and Orphanet ids of a
disease.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from jeff.csv_rows import csv_columns
from jeff_llm.genes.phenopackets import disease_id

__all__ = [
    "Citations",
    "NameReport",
    "Nomenclature",
    "read_citations",
    "read_hgnc",
    "read_mondo",
]

_CLOSEST = ("skos:exactMatch", "skos:closeMatch", "skos:narrowMatch", "skos:broadMatch")


class NameReport(NamedTuple):
    """What became of a list of names of genes.

    Attributes:
      renamed: pairs of a name and the current symbol, where they differ.
      ambiguous: pairs of a name and the symbols that it may stand for.
      unknown: names that HGNC does not have.
    """

    renamed: tuple[tuple[str, str], ...] = ()
    ambiguous: tuple[tuple[str, tuple[str, ...]], ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Nomenclature:
    """Approved genes and all their names.

    Attributes:
      symbols: current symbols, in the order of the table.
      hgnc: id such as ``"HGNC:5"`` by current symbol.
      entrez: NCBI gene id by current symbol, where there is one.
      ensembl: id such as ``"ENSG00000121410"`` by current symbol, where there is one.
      names: any name or id, in capitals, to the symbols that it may stand for. A
        current symbol goes before a former one, and a former one before an alias.
    """

    symbols: tuple[str, ...]
    hgnc: Mapping[str, str]
    entrez: Mapping[str, int]
    ensembl: Mapping[str, str]
    names: Mapping[str, tuple[str, ...]]

    def resolve(self, names: Iterable[str]) -> tuple[list[str | None], NameReport]:
        """Find the current symbols.

        Args:
          names: symbols, former symbols, aliases, or ids: ``"HGNC:5"``, ``"1"`` or
            ``"NCBIGene:1"``, ``"ENSG00000121410"`` with or without its version.

        Returns:
          A symbol for each name, or None where it is unknown or ambiguous; and the
          report.
        """
        symbols: list[str | None] = []
        renamed, ambiguous, unknown = {}, {}, {}
        for name in names:
            found = list(self.names.get(_plain(name), ()))
            symbols.append(found[0] if len(found) == 1 else None)
            if not found:
                unknown[name] = None
            elif len(found) > 1:
                ambiguous[name] = tuple(found)
            elif found[0] != name:
                renamed[name] = found[0]
        report = NameReport(
            tuple(renamed.items()), tuple(ambiguous.items()), tuple(unknown)
        )
        return symbols, report


class Citations(NamedTuple):
    """Number of publications about each gene.

    Attributes:
      by_entrez: count by NCBI gene id.
      by_symbol: count by symbol; the largest where a symbol occurs several times.
    """

    by_entrez: Mapping[int, int]
    by_symbol: Mapping[str, int]

    def counts(
        self, symbols: Sequence[str], nomenclature: Nomenclature | None = None
    ) -> Float64[np.ndarray, " genes"]:
        """Publications about some genes.

        Args:
          symbols: current symbols.
          nomenclature: joins by NCBI gene id where it has one, since symbols change;
            by symbol alone if None.

        Returns:
          Count by gene; NaN where the table lacks the gene.
        """
        entrez = {} if nomenclature is None else nomenclature.entrez
        found = (
            self.by_entrez.get(entrez.get(symbol, -1), self.by_symbol.get(symbol))
            for symbol in symbols
        )
        return np.array([np.nan if n is None else n for n in found], dtype=np.float64)


def read_hgnc(path: str | Path) -> Nomenclature:
    """Read HGNC's table of all genes.

    Args:
      path: ``hgnc_complete_set.txt``, plain or with ``.gz``; genes that are not
        approved are left out.

    Returns:
      The names of the genes.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a column is missing, a line is cut short, or a symbol occurs twice.
    """
    columns = (
        "symbol",
        "status",
        "hgnc_id",
        "entrez_id",
        "ensembl_gene_id",
        "prev_symbol",
        "alias_symbol",
    )
    rows = [row for row in _rows(path, columns, "\t") if row[1][1] == "Approved"]
    hgnc: dict[str, str] = {}
    entrez: dict[str, int] = {}
    ensembl: dict[str, str] = {}
    for place, (symbol, _, gene, number, stable, *_) in rows:
        if not symbol or symbol in hgnc:
            raise ValueError(f"{place}: expected a symbol of its own, got {symbol!r}")
        hgnc[symbol] = gene
        entrez |= {symbol: _count(place, "entrez_id", number)} if number else {}
        ensembl |= {symbol: stable} if stable else {}
    # Later levels only add names that no earlier level has.
    levels = (
        [(symbol, symbol) for symbol in hgnc],
        [(gene, symbol) for symbol, gene in hgnc.items()],
        [(str(number), symbol) for symbol, number in entrez.items()],
        [(stable, symbol) for symbol, stable in ensembl.items()],
        [(name, row[0]) for _, row in rows for name in row[5].split("|")],
        [(name, row[0]) for _, row in rows for name in row[6].split("|")],
    )
    names: dict[str, tuple[str, ...]] = {}
    for level in levels:
        added: dict[str, dict[str, None]] = {}
        for name, symbol in level:
            if (plain := _plain(name)) and plain not in names:
                added.setdefault(plain, {})[symbol] = None
        names |= {name: tuple(symbols) for name, symbols in added.items()}
    return Nomenclature(tuple(hgnc), hgnc, entrez, ensembl, names)


def read_mondo(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Read MONDO's mappings to OMIM and Orphanet.

    Args:
      path: ``mondo.sssom.tsv``, plain or with ``.gz``.

    Returns:
      Ids of ``OMIM`` and ``ORPHA`` by MONDO id: of exact matches, or, where there are
      none, of the next closest kind. Diseases with neither are left out.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a column is missing or a line is cut short.
    """
    columns = ("subject_id", "predicate_id", "object_id")
    found: dict[str, dict[str, dict[str, None]]] = {}
    for _, (mondo, predicate, other) in _rows(path, columns, "\t"):
        name = disease_id(other)
        if predicate in _CLOSEST and name.startswith(("OMIM:", "ORPHA:")):
            found.setdefault(mondo, {}).setdefault(predicate, {})[name] = None
    return {
        mondo: tuple(kinds[min(kinds, key=_CLOSEST.index)])
        for mondo, kinds in found.items()
    }


def read_citations(path: str | Path) -> Citations:
    """Read a table of publications per gene.

    Args:
      path: a file of comma-separated values, plain or with ``.gz``, with the columns
        ``entrez_id``, ``symbol`` and ``n_publications``.

    Returns:
      The counts.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a column is missing, a line is cut short, or a number is none.
    """
    by_entrez: dict[int, int] = {}
    by_symbol: dict[str, int] = {}
    columns = ("entrez_id", "symbol", "n_publications")
    for place, (gene, symbol, publications) in _rows(path, columns, ","):
        count = _count(place, "n_publications", publications)
        by_entrez[_count(place, "entrez_id", gene)] = count
        by_symbol[symbol] = max(count, by_symbol.get(symbol, 0))
    return Citations(by_entrez, by_symbol)


def _plain(name: str) -> str:
    """A name in capitals, without NCBI's prefix and Ensembl's version."""
    text = name.strip().upper().removeprefix("NCBIGENE:")
    return re.sub(r"^(ENSG\d+)\.\d+$", r"\1", text)


def _count(place: str, column: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{place}: {column}: expected a number, got {text!r}")
    return int(text)


def _rows(
    path: str | Path, columns: Sequence[str], delimiter: str
) -> Iterator[tuple[str, list[str]]]:
    """Yield place and values of ``columns`` per line; comment lines are left out."""
    return csv_columns(path, columns, delimiter=delimiter, comment="#")
