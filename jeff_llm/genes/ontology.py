"""The Human Phenotype Ontology as arrays; `jeff_llm.genes.obo` reads it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

__all__ = ["PHENOTYPE_ROOT", "Ontology", "TermReport", "canonical_id"]

PHENOTYPE_ROOT = "HP:0000118"

_ID = re.compile(r"(?:.*/)?hp[:_](\d{7})", re.IGNORECASE)


class TermReport(NamedTuple):
    """What became of a list of term ids.

    Attributes:
      mapped: pairs of a merged or replaced id and the current id.
      unknown: texts that are no term of this release.
      obsolete: obsolete ids without a replacement.
      other: ids of terms that are no phenotypes, such as an onset or a modifier.
      repeated: ids that name a term a second time.
    """

    mapped: tuple[tuple[str, str], ...] = ()
    unknown: tuple[str, ...] = ()
    obsolete: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ontology:
    """Terms in the order of their ids, and the ``is_a`` links between them.

    The links of term ``t`` are ``values[starts[t]:starts[t + 1]]`` (CSR), ascending.

    Attributes:
      ids: ids of the terms that are not obsolete, ascending.
      names: name by term.
      labels: names and exact synonyms in lower case, to the term; a label that belongs
        to several terms is left out, except that a name goes before a synonym.
      parent_starts: starts of the parents of each term.
      parents: terms named by ``is_a``.
      ancestor_starts: starts of the ancestors of each term.
      ancestors: terms reached by ``is_a``, and the term itself.
      depths: steps on the longest path to a root; a parent is less deep than its child.
      moved: merged and replaced ids, to the current id.
      obsolete: other obsolete ids, to the ids that the ontology suggests to consider.
      release: release of the ontology, such as ``"2025-01-16"``.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    labels: Mapping[str, int]
    parent_starts: Int32[np.ndarray, " starts"]
    parents: Int32[np.ndarray, " links"]
    ancestor_starts: Int32[np.ndarray, " starts"]
    ancestors: Int32[np.ndarray, " pairs"]
    depths: Int32[np.ndarray, " terms"]
    moved: Mapping[str, str]
    obsolete: Mapping[str, tuple[str, ...]]
    release: str

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """Find terms by their ids.

        Returns:
          Position by id.
        """
        return {name: position for position, name in enumerate(self.ids)}

    @cached_property
    def order(self) -> Int32[np.ndarray, " terms"]:
        """Order the terms, parents before children.

        Returns:
          Positions of all terms.
        """
        return np.argsort(self.depths, kind="stable").astype(np.int32)

    @cached_property
    def phenotypes(self) -> Bool[np.ndarray, " terms"]:
        """Mark the terms that are phenotypic abnormalities (HP:0000118 and below).

        Returns:
          True for a phenotype.
        """
        root = self.positions.get(PHENOTYPE_ROOT, -1)
        owners = np.repeat(np.arange(len(self.ids)), np.diff(self.ancestor_starts))
        below = np.zeros(len(self.ids), dtype=bool)
        below[owners[self.ancestors == root]] = True
        return below

    def ancestors_of(self, term: int) -> Int32[np.ndarray, " ancestors"]:
        """Ancestors of one term, with the term itself.

        Args:
          term: position of the term.

        Returns:
          Positions of the ancestors, ascending.
        """
        return self.ancestors[
            self.ancestor_starts[term] : self.ancestor_starts[term + 1]
        ]

    def index(self, term: str) -> int:
        """Position of a term.

        Args:
          term: its id; a merged or replaced id counts as the current one.

        Returns:
          The position in `ids`.

        Raises:
          KeyError: if this release has no such term.
        """
        name = canonical_id(term) or term
        name = self.moved.get(name, name)
        if name in self.positions:
            return self.positions[name]
        if name in self.obsolete:
            hint = ", ".join(self.obsolete[name]) or "nothing"
            raise KeyError(f"{term!r} is obsolete; the ontology suggests {hint}")
        raise KeyError(f"expected a term of HPO {self.release}, got {term!r}")

    def resolve(
        self, terms: Iterable[str]
    ) -> tuple[Int32[np.ndarray, " found"], TermReport]:
        """Find the phenotypes that ids or labels name.

        Args:
          terms: ids, as in `canonical_id`, or names and exact synonyms of terms.

        Returns:
          Positions of the phenotypes, each once, in the order of ``terms``; and what
          became of the others.
        """
        found: dict[int, None] = {}
        rest: dict[str, list] = {name: [] for name in TermReport._fields}
        for text in terms:
            name = canonical_id(text)
            if name is None:
                term = self.labels.get(" ".join(text.split()).lower())
                if term is None:
                    rest["unknown"].append(text)
                    continue
                name = self.ids[term]
            if name in self.moved:
                rest["mapped"].append((name, self.moved[name]))
                name = self.moved[name]
            if name not in self.positions:
                rest["obsolete" if name in self.obsolete else "unknown"].append(name)
                continue
            term = self.positions[name]
            if not self.phenotypes[term]:
                rest["other"].append(name)
            elif term in found:
                rest["repeated"].append(name)
            else:
                found[term] = None
        report = TermReport(**{name: tuple(items) for name, items in rest.items()})
        return np.fromiter(found, dtype=np.int32, count=len(found)), report


def canonical_id(text: str) -> str | None:
    """Write the id of a term as HPO does.

    Args:
      text: an id such as ``"HP:0001250"``, ``"hp:0001250"``, ``"HP_0001250"``, or an
        address that ends in one.

    Returns:
      ``"HP:"`` and seven digits, or None if the text is no such id.

    >>> canonical_id("http://purl.obolibrary.org/obo/HP_0001250")
    'HP:0001250'
    """
    match = _ID.fullmatch(text.strip())
    return f"HP:{match[1]}" if match else None
