"""The Human Phenotype Ontology as arrays, read from ``hp.obo``.

Only what prioritisation needs is kept: names, exact synonyms, ``is_a`` and the ids
that have moved. ``relationship`` and the terms of other ontologies, which ``hp-full``
imports, are left out. The reader is written here since the format is lines of
``key: value``, and a general one would build an object per term.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

__all__ = [
    "PHENOTYPE_ROOT",
    "Ontology",
    "TermReport",
    "canonical_id",
    "parse_ontology",
]

PHENOTYPE_ROOT = "HP:0000118"

_ID = re.compile(r"(?:.*/)?hp[:_](\d{7})", re.IGNORECASE)
_SYNONYM = re.compile(r'"((?:[^"\\]|\\.)*)"\s+EXACT\b')


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
    parent_starts: Int32[np.ndarray, " terms+1"]
    parents: Int32[np.ndarray, " links"]
    ancestor_starts: Int32[np.ndarray, " terms+1"]
    ancestors: Int32[np.ndarray, " pairs"]
    depths: Int32[np.ndarray, " terms"]
    moved: Mapping[str, str]
    obsolete: Mapping[str, tuple[str, ...]]
    release: str

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """Term by its id."""
        return {name: position for position, name in enumerate(self.ids)}

    @cached_property
    def order(self) -> Int32[np.ndarray, " terms"]:
        """All terms, parents before children."""
        return np.argsort(self.depths, kind="stable").astype(np.int32)

    @cached_property
    def phenotypes(self) -> Bool[np.ndarray, " terms"]:
        """Whether each term is a phenotypic abnormality (below HP:0000118)."""
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
            found |= {term: None} if self.phenotypes[term] else {}
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


class _Term(NamedTuple):
    name: str
    parents: list[str]
    synonyms: list[str]


def parse_ontology(text: str, *, source: str = "hp.obo") -> Ontology:
    """Read an ontology in OBO format.

    Args:
      text: contents of ``hp.obo``.
      source: name of the file, for messages.

    Returns:
      The ontology.

    Raises:
      ValueError: if a line or a term is malformed, an id occurs twice, a parent is
        missing, ``is_a`` runs in a circle, or there is no phenotypic abnormality.
    """
    terms: dict[str, _Term] = {}
    merged: dict[str, str] = {}
    retired: dict[str, tuple[list[str], list[str]]] = {}
    release = "unknown"
    for kind, line, values in _stanzas(text, source):
        if kind == "":
            release = values.get("data-version", ["unknown"])[0].rpartition("/")[2]
        term = values.get("id", [""])[0]
        if kind != "Term" or (term and not term.startswith("HP:")):
            continue
        where = f"{source}:{line}"
        if not term or not values.get("name"):
            raise ValueError(f"{where}: expected a term with id and name, got {term!r}")
        if term in terms or term in retired:
            raise ValueError(f"{where}: the term {term} stands twice")
        if values.get("is_obsolete", ["false"])[0] == "true":
            retired[term] = values.get("replaced_by", []), values.get("consider", [])
            continue
        parents = [v.split()[0] for v in values.get("is_a", []) if v]
        synonyms = [m[1] for v in values.get("synonym", []) if (m := _SYNONYM.match(v))]
        parents = sorted({p for p in parents if p.startswith("HP:")})
        terms[term] = _Term(values["name"][0], parents, synonyms)
        merged |= {old: term for old in values.get("alt_id", [])}
    if PHENOTYPE_ROOT not in terms:
        raise ValueError(
            f"{source}: expected an HPO with {PHENOTYPE_ROOT} (phenotypic "
            f"abnormality), got {len(terms)} terms without it"
        )
    return _assemble(terms, merged, retired, release, source)


def _stanzas(text: str, source: str):
    """Yield kind, line number and values by key; the header's kind is empty."""
    kind, start, values = "", 1, {}
    # Not splitlines: a definition may contain separators such as U+2028.
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip()
        if line.startswith("[") and line.endswith("]"):
            yield kind, start, values
            kind, start, values = line[1:-1], number, {}
            continue
        if not line or line.startswith("!"):
            continue
        key, colon, value = line.partition(":")
        if not colon:
            raise ValueError(f"{source}:{number}: expected 'key: value', got {line!r}")
        values.setdefault(key, []).append(value.strip())
    yield kind, start, values


def _assemble(terms, merged, retired, release: str, source: str) -> Ontology:
    ids = sorted(terms)
    positions = {term: position for position, term in enumerate(ids)}
    parents = []
    for term in ids:
        if missing := [p for p in terms[term].parents if p not in positions]:
            raise ValueError(f"{source}: {term} is_a {missing[0]}, which is no term")
        parents.append([positions[p] for p in terms[term].parents])
    depths, ancestors = _closure(parents, ids, source)
    moved, obsolete = _retired(positions, merged, retired)
    return Ontology(
        tuple(ids),
        tuple(terms[term].name for term in ids),
        _labels([terms[term] for term in ids]),
        *_csr(parents),
        *_csr(ancestors),
        np.array(depths, dtype=np.int32),
        moved,
        obsolete,
        release,
    )


def _closure(parents: list[list[int]], ids: list[str], source: str):
    """Depth and sorted ancestors of each term, by Kahn's order of the links."""
    children: list[list[int]] = [[] for _ in parents]
    waiting = [len(some) for some in parents]
    for child, some in enumerate(parents):
        for parent in some:
            children[parent].append(child)
    depths, above = [0] * len(parents), [{term} for term in range(len(parents))]
    ready = [term for term, count in enumerate(waiting) if count == 0]
    for term in ready:
        for child in children[term]:
            depths[child] = max(depths[child], depths[term] + 1)
            above[child] |= above[term]
            waiting[child] -= 1
            if waiting[child] == 0:
                ready.append(child)
    if len(ready) < len(parents):
        raise ValueError(
            f"{source}: is_a runs in a circle: {_circle(parents, waiting, ids)}"
        )
    return depths, [sorted(some) for some in above]


def _circle(parents: list[list[int]], waiting: list[int], ids: list[str]) -> str:
    term = next(term for term, count in enumerate(waiting) if count)
    seen: list[int] = []
    # A term that still waits has a parent that waits, so the walk must meet itself.
    while term not in seen:
        seen.append(term)
        term = next(parent for parent in parents[term] if waiting[parent])
    return " is_a ".join(ids[t] for t in [*seen[seen.index(term) :], term])


def _retired(positions, merged, retired):
    """Resolve chains of replaced ids; what ends nowhere is obsolete."""
    forward = merged | {old: new[0] for old, (new, _) in retired.items() if new}
    moved = {}
    for old in forward:
        new, seen = old, set()
        while new in forward and new not in positions and new not in seen:
            seen.add(new)
            new = forward[new]
        if new in positions and old not in positions:
            moved[old] = new
    obsolete = {
        old: tuple(consider)
        for old, (_, consider) in retired.items()
        if old not in moved
    }
    return moved, obsolete


def _labels(terms: list[_Term]) -> dict[str, int]:
    names: dict[str, set[int]] = {}
    synonyms: dict[str, set[int]] = {}
    for position, term in enumerate(terms):
        names.setdefault(term.name.lower(), set()).add(position)
        for synonym in term.synonyms:
            synonyms.setdefault(synonym.lower(), set()).add(position)
    found = synonyms | names
    return {label: min(some) for label, some in found.items() if len(some) == 1}


def _csr(rows: list[list[int]]):
    starts = np.cumsum([0, *map(len, rows)], dtype=np.int32)
    values = [value for row in rows for value in row]
    return starts, np.array(values, dtype=np.int32)
