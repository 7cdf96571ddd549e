"""Profiles prepared for scoring: propagated, indexed by term and sorted by size.

Everything that depends on the release of HPO and not on a patient is computed here,
once. `Query` holds what depends on the patients.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32

from jeff_llm.genes.hpo import Hpo
from jeff_llm.genes.ontology import Ontology
from jeff_llm.genes.profiles import (
    Profiles,
    annotation_counts,
    disease_terms,
    gene_terms,
    information_content,
    propagate,
)
from jeff_llm.genes.ranking import Phenotypes

__all__ = [
    "DEFAULT_FREQUENCY",
    "Bucket",
    "Query",
    "Tables",
    "ancestors_of_all",
    "filled",
    "make_query",
    "make_tables",
]

# Frequency of a term whose annotation states none.
DEFAULT_FREQUENCY = 0.5


class Bucket(NamedTuple):
    """Profiles of similar size, padded to one width.

    Attributes:
      rows: the profiles.
      terms: positions of their terms among `Tables.annotated`; padding repeats the
        first one.
      frequencies: frequency of each term; 0 for padding.
      valid: False for padding.
    """

    rows: Int32[np.ndarray, " profiles"]
    terms: Int32[np.ndarray, "profiles width"]
    frequencies: Float32[np.ndarray, "profiles width"]
    valid: Bool[np.ndarray, "profiles width"]


@dataclass(frozen=True)
class Tables:
    """Profiles of diseases or genes, with what scoring needs of them.

    Attributes:
      ontology: the terms.
      profiles: terms and frequencies of each profile; no frequency is NaN.
      information: information content of each term, in nats.
      background: mean over the profiles of the propagated frequency of each term.
      starts: starts of `rows` and `frequencies` by term (CSC).
      rows: profiles that have the term or a descendant of it.
      frequencies: largest frequency among the term and its descendants.
      default_frequency: what stands where an annotation states no frequency.
    """

    ontology: Ontology
    profiles: Profiles
    information: Float32[np.ndarray, " terms"]
    background: Float32[np.ndarray, " terms"]
    starts: Int[np.ndarray, " terms+1"]
    rows: Int32[np.ndarray, " pairs"]
    frequencies: Float32[np.ndarray, " pairs"]
    default_frequency: float = DEFAULT_FREQUENCY

    @property
    def num_profiles(self) -> int:
        """Number of profiles, with empty ones."""
        return len(self.profiles.starts) - 1

    @cached_property
    def annotated(self) -> Int32[np.ndarray, " annotated"]:
        """Terms that stand in a profile themselves.

        Returns:
          Positions in the ontology, ascending.
        """
        return np.unique(self.profiles.terms).astype(np.int32)

    @cached_property
    def propagated_information(self) -> Float32[np.ndarray, " profiles"]:
        """Sum of the information content of each profile's terms and ancestors.

        Returns:
          Nats, by profile.
        """
        return self._sum_by_row(self._pair_information)

    @cached_property
    def expected_information(self) -> Float32[np.ndarray, " profiles"]:
        """Sum of information content times frequency, over terms and ancestors.

        Returns:
          Nats, by profile.
        """
        return self._sum_by_row(self._pair_information * self.frequencies)

    @cached_property
    def direct_information(self) -> Float32[np.ndarray, " profiles"]:
        """Sum of information content times frequency over each profile's own terms.

        Returns:
          Nats, by profile.
        """
        owners = np.repeat(np.arange(self.num_profiles), np.diff(self.profiles.starts))
        values = self.information[self.profiles.terms] * self.profiles.frequencies
        sums = np.bincount(owners, values, minlength=self.num_profiles)
        return sums.astype(np.float32)

    @cached_property
    def buckets(self) -> tuple[Bucket, ...]:
        """All profiles that are not empty, grouped by size in powers of two.

        Returns:
          One bucket per size, smallest first.
        """
        counts = np.diff(self.profiles.starts)
        places = np.searchsorted(self.annotated, self.profiles.terms)
        widths = 1 << np.ceil(np.log2(np.maximum(counts, 4))).astype(int)
        return tuple(
            self._bucket(
                np.flatnonzero((widths == width) & (counts > 0)), width, places
            )
            for width in np.unique(widths[counts > 0]).tolist()
        )

    def dense(
        self, terms: Int[np.ndarray, " some"]
    ) -> Float32[np.ndarray, "some profiles"]:
        """Propagated frequencies of some terms in all profiles; 0 where absent.

        Args:
          terms: positions in the ontology.

        Returns:
          One row per term.
        """
        return _dense(
            terms, self.starts, self.rows, self.frequencies, self.num_profiles
        )

    def direct(
        self, terms: Int[np.ndarray, " some"]
    ) -> Float32[np.ndarray, "some profiles"]:
        """1 where a term is one of the most specific terms of a profile, 0 elsewhere.

        Args:
          terms: positions in the ontology.

        Returns:
          One row per term.
        """
        starts, rows = self._specific
        ones = np.ones(len(rows), dtype=np.float32)
        return _dense(terms, starts, rows, ones, self.num_profiles)

    def over(self, profiles: Profiles) -> "Tables":
        """Other profiles, scored with the information content of these.

        Args:
          profiles: terms of each profile.

        Returns:
          Tables whose `information` and `background` are unchanged.
        """
        return replace(
            _index(self.ontology, profiles, self.information, self.background),
            default_frequency=self.default_frequency,
        )

    @cached_property
    def _specific(self) -> tuple[np.ndarray, np.ndarray]:
        """Terms of each profile without the ancestors of others, by term (CSC)."""
        profiles, ontology = self.profiles, self.ontology
        owners = np.repeat(np.arange(self.num_profiles), np.diff(profiles.starts))
        above, counts = ancestors_of_all(ontology, profiles.terms)
        size = len(ontology.ids)
        keys = np.repeat(owners, counts) * size + above
        itself = above == np.repeat(profiles.terms, counts)
        implied = np.isin(owners * size + profiles.terms, keys[~itself])
        terms, rows = profiles.terms[~implied], owners[~implied]
        order = np.argsort(terms, kind="stable")
        starts = np.searchsorted(terms[order], np.arange(size + 1))
        return starts, rows[order].astype(np.int32)

    def implied(
        self, terms: Int[np.ndarray, " some"]
    ) -> Float32[np.ndarray, "some annotated"]:
        """1 where a term is an annotated term or an ancestor of it, 0 elsewhere.

        Args:
          terms: positions in the ontology.

        Returns:
          One row per term, one column per annotated term.
        """
        starts, columns = self._below
        ones = np.ones(len(columns), dtype=np.float32)
        return _dense(terms, starts, columns, ones, len(self.annotated))

    @cached_property
    def _below(self) -> tuple[np.ndarray, np.ndarray]:
        """Annotated terms at or below each term (CSC)."""
        ontology, annotated = self.ontology, self.annotated
        above, counts = ancestors_of_all(ontology, annotated)
        owners = np.repeat(np.arange(len(annotated)), counts)
        order = np.argsort(above, kind="stable")
        starts = np.searchsorted(above[order], np.arange(len(ontology.ids) + 1))
        return starts, owners[order].astype(np.int32)

    @property
    def _pair_information(self) -> np.ndarray:
        return np.repeat(self.information, np.diff(self.starts))

    def _sum_by_row(self, values: np.ndarray) -> np.ndarray:
        sums = np.bincount(self.rows, values, minlength=self.num_profiles)
        return sums.astype(np.float32)

    def _bucket(self, rows: np.ndarray, width: int, places: np.ndarray) -> Bucket:
        starts = self.profiles.starts[rows]
        counts = self.profiles.starts[rows + 1] - starts
        column = np.arange(width)
        valid = column < counts[:, None]
        taken = starts[:, None] + np.where(valid, column, 0)
        frequencies = np.where(valid, self.profiles.frequencies[taken], 0)
        return Bucket(
            rows.astype(np.int32),
            places[taken].astype(np.int32),
            frequencies.astype(np.float32),
            valid,
        )


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


def make_tables(
    hpo: Hpo,
    *,
    profiles: str = "diseases",
    information: str = "diseases",
    default_frequency: float = DEFAULT_FREQUENCY,
    unannotated: int = 1,
) -> Tables:
    """Prepare the profiles of a release for scoring.

    Args:
      hpo: ontology and annotations.
      profiles: "diseases", one profile per disease; or "genes", the terms of all
        diseases of a gene together.
      information: what the information content counts, "diseases" or "genes".
      default_frequency: frequency of a term whose annotation states none, in (0, 1].
      unannotated: as in `jeff_llm.genes.profiles.information_content`.

    Returns:
      The tables.

    Raises:
      ValueError: if an argument is not one of these, or no profile has a term.
    """
    makers = {"diseases": disease_terms, "genes": gene_terms}
    for name, value in (("profiles", profiles), ("information", information)):
        if value not in makers:
            raise ValueError(f"{name}: expected one of {sorted(makers)}, got {value!r}")
    if not 0 < default_frequency <= 1:
        raise ValueError(
            f"default_frequency: expected a number in (0, 1], got {default_frequency}"
        )
    made = makers[profiles](hpo)
    counted = made if information == profiles else makers[information](hpo)
    total = int((np.diff(counted.starts) > 0).sum())
    if not total:
        raise ValueError(f"hpo: expected {profiles} with phenotypes, got none")
    counts = annotation_counts(hpo.ontology, counted.starts, counted.terms)
    content = information_content(counts, total, unannotated=unannotated)
    made = filled(made, default_frequency)
    tables = _index(
        hpo.ontology,
        made,
        content.astype(np.float32),
        np.zeros(len(counts), np.float32),
    )
    sums = np.add.reduceat(np.append(tables.frequencies, 0), tables.starts[:-1])
    sums[np.diff(tables.starts) == 0] = 0
    background = (sums / (np.diff(made.starts) > 0).sum()).astype(np.float32)
    # Half of what one profile would give, so that no ratio divides by zero.
    floor = np.float32(0.5 / total)
    return replace(
        tables,
        background=np.maximum(background, floor),
        default_frequency=default_frequency,
    )


def filled(profiles: Profiles, default_frequency: float) -> Profiles:
    """Profiles with a default where no frequency is stated.

    Args:
      profiles: terms and frequencies.
      default_frequency: the default, in (0, 1].

    Returns:
      The profiles without NaN.
    """
    known = np.where(
        np.isnan(profiles.frequencies), default_frequency, profiles.frequencies
    )
    return profiles._replace(frequencies=known.astype(np.float32))


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


def ancestors_of_all(
    ontology: Ontology, terms: Int[np.ndarray, " some"]
) -> tuple[Int32[np.ndarray, " pairs"], Int[np.ndarray, " some"]]:
    """Ancestors of many terms, each with the term itself.

    Args:
      ontology: the terms.
      terms: positions, in any order.

    Returns:
      The ancestors, term by term; and how many each has.
    """
    counts = np.diff(ontology.ancestor_starts)[terms]
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    taken = np.repeat(ontology.ancestor_starts[terms], counts) + within
    return ontology.ancestors[taken], counts


def _index(
    ontology: Ontology,
    profiles: Profiles,
    information: np.ndarray,
    background: np.ndarray,
) -> Tables:
    """Propagate the frequencies, and sort them by term."""
    owners = np.repeat(np.arange(len(profiles.starts) - 1), np.diff(profiles.starts))
    above, counts = ancestors_of_all(ontology, profiles.terms)
    keys = above.astype(np.int64) * max(len(profiles.starts) - 1, 1) + np.repeat(
        owners, counts
    )
    # Ascending by key, then by frequency, so the last of each key is the largest.
    values = np.repeat(profiles.frequencies, counts)
    order = np.lexsort((values, keys))
    keys, values = keys[order], values[order]
    last = np.append(keys[1:] != keys[:-1], True)[: len(keys)]
    terms, rows = np.divmod(keys[last], max(len(profiles.starts) - 1, 1))
    starts = np.searchsorted(terms, np.arange(len(ontology.ids) + 1))
    return Tables(
        ontology,
        profiles,
        information,
        background,
        starts,
        rows.astype(np.int32),
        values[last].astype(np.float32),
    )


def _dense(
    terms: np.ndarray,
    starts: np.ndarray,
    rows: np.ndarray,
    values: np.ndarray,
    num_profiles: int,
) -> Float[np.ndarray, "some profiles"]:
    out = np.zeros((len(terms), num_profiles), dtype=np.float32)
    for place, term in enumerate(terms):
        part = slice(starts[term], starts[term + 1])
        out[place, rows[part]] = values[part]
    return out


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
