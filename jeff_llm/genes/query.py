"""Patients as arrays over the part of the ontology that concerns them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from jeff_llm.genes.ontology import Ontology
from jeff_llm.genes.profiles import propagate
from jeff_llm.genes.ranking import Phenotypes

__all__ = ["Query", "make_query"]


class Query(NamedTuple):
    """Patients as arrays over the terms that concern them.

    Attributes:
      closure: positions of all observed and excluded terms and their ancestors,
        parents before children.
      parents: rows of the parents in `closure`, padded with the row itself.
      terms: rows in `closure` of the different observed terms of all patients.
      cases: positions in `terms` of each patient's observed terms; padding is -1.
      excluded: rows in `closure` of each patient's excluded terms; padding is -1.
    """

    closure: Int32[np.ndarray, " closure"]
    parents: Int32[np.ndarray, "closure width"]
    terms: Int32[np.ndarray, " terms"]
    cases: Int32[np.ndarray, "cases observed"]
    excluded: Int32[np.ndarray, "cases excluded"]


def make_query(ontology: Ontology, patients: Sequence[Phenotypes]) -> Query:
    """Turn patients into arrays.

    Args:
      ontology: the terms.
      patients: observed and excluded terms of each.

    Returns:
      The arrays; unknown ids are refused, so resolve them first.

    Raises:
      ValueError: if there is no patient, or one has no observed term.
      KeyError: if an id is not in the ontology.
    """
    if not patients:
        raise ValueError("patients: expected at least one, got none")
    observed, excluded = [], []
    for number, patient in enumerate(patients):
        observed.append(sorted({ontology.index(term) for term in patient.observed}))
        excluded.append(sorted({ontology.index(term) for term in patient.excluded}))
        if not observed[-1]:
            raise ValueError(
                f"patients[{number}]: expected at least one observed term, got none"
            )
    terms = np.unique(np.concatenate(observed))
    asked = np.unique(np.concatenate([terms, *excluded])).astype(np.int64)
    _, closed = propagate(ontology, np.array([0, len(asked)]), asked)
    closure = closed[np.argsort(ontology.depths[closed], kind="stable")]
    place = np.full(len(ontology.ids), -1, dtype=np.int32)
    place[closure] = np.arange(len(closure))
    number = np.full(len(ontology.ids), -1, dtype=np.int32)
    number[terms] = np.arange(len(terms))
    return Query(
        closure.astype(np.int32),
        _parents(ontology, closure, place),
        place[terms],
        _padded([number[row] for row in observed]),
        _padded([place[row] for row in excluded]),
    )


def _parents(ontology: Ontology, closure: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Rows of the parents; all ancestors of a closed set are in it."""
    starts = ontology.parent_starts[closure]
    counts = ontology.parent_starts[closure + 1] - starts
    width = max(int(counts.max(initial=0)), 1)
    column = np.arange(width)
    inside = column < counts[:, None]
    if not len(ontology.parents):
        return np.arange(len(closure), dtype=np.int32)[:, None]
    taken = np.where(inside, starts[:, None] + column, 0)
    rows = place[ontology.parents[taken]]
    own = np.arange(len(closure))[:, None]
    return np.where(inside, rows, own).astype(np.int32)


def _padded(rows: Sequence[np.ndarray]) -> np.ndarray:
    width = max(*map(len, rows), 1)
    out = np.full((len(rows), width), -1, dtype=np.int32)
    for row, values in enumerate(rows):
        out[row, : len(values)] = values
    return out
