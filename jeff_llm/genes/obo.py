"""Read an ontology in OBO format.

Only what prioritisation needs is kept: names, exact synonyms, ``is_a`` and the ids
that have moved. ``relationship`` and the terms of other ontologies, which ``hp-full``
imports, are left out. The reader is written here since the format is lines of
``key: value``, and a general one builds an object per term.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from jeff_llm.genes.ontology import PHENOTYPE_ROOT, Ontology

__all__ = ["parse_ontology"]

_SYNONYM = re.compile(r'"((?:[^"\\]|\\.)*)"\s+EXACT\b')


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
        if "" in values.get("is_a", []):
            raise ValueError(f"{where}: expected a term after is_a, got nothing")
        if term in terms or term in retired:
            raise ValueError(f"{where}: the term {term} stands twice")
        if values.get("is_obsolete", ["false"])[0] == "true":
            retired[term] = values.get("replaced_by", []), values.get("consider", [])
            continue
        parents = [v.split()[0] for v in values.get("is_a", [])]
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


def _stanzas(text: str, source: str) -> Iterator[tuple[str, int, dict[str, list[str]]]]:
    """Yield kind, line number and values by key; the header's kind is empty."""
    kind, start = "", 1
    values: dict[str, list[str]] = {}
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


def _assemble(
    terms: Mapping[str, _Term],
    merged: Mapping[str, str],
    retired: Mapping[str, tuple[list[str], list[str]]],
    release: str,
    source: str,
) -> Ontology:
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


def _closure(
    parents: list[list[int]], ids: list[str], source: str
) -> tuple[list[int], list[list[int]]]:
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


def _retired(
    positions: Mapping[str, int],
    merged: Mapping[str, str],
    retired: Mapping[str, tuple[list[str], list[str]]],
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Resolve chains of replaced ids; what ends nowhere is obsolete."""
    forward = dict(merged) | {old: new[0] for old, (new, _) in retired.items() if new}
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


def _csr(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    starts = np.cumsum([0, *map(len, rows)], dtype=np.int32)
    values = [value for row in rows for value in row]
    return starts, np.array(values, dtype=np.int32)
