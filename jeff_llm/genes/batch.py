"""Arrays of one batch of patients, each computed when a measure first needs it.

Every axis is padded to a power of two, so that few shapes are compiled: a clinic that
ranks one patient after the other compiles once.
"""

from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jeff_llm.genes import pairs, similarity
from jeff_llm.genes.query import Query
from jeff_llm.genes.tables import Tables

__all__ = ["Batch", "SetScores"]

# Most terms of HPO have at most this many parents.
_PARENTS = 6


class SetScores(NamedTuple):
    """Scores of sets of terms by one similarity of pairs; [cases, profiles].

    Attributes:
      forward: mean over the observed terms of the best match in the profile.
      backward: mean over the profile's terms of the best match among the observed.
      largest: best match of any two terms.
    """

    forward: Array
    backward: Array
    largest: Array


class Batch:
    """Patients and profiles, over the closure of the patients' terms."""

    def __init__(self, tables: Tables, query: Query):
        """Collect what every measure needs.

        Args:
          tables: prepared profiles.
          query: the patients.
        """
        self.tables = tables
        self.num_cases = len(query.cases)
        self.query = _pad(query)
        self.information = jnp.asarray(self._take(tables.information, 0.0))
        self.background = jnp.asarray(self._take(tables.background, 1.0))
        self.parents = jnp.asarray(self.query.parents)
        self.cases = jnp.asarray(self.query.cases)

    @cached_property
    def frequency(self) -> Array:
        """Propagated frequencies of the closure in the profiles.

        Returns:
          The frequencies, [closure, profiles]; 0 where absent.
        """
        return jnp.asarray(self.tables.dense(self.query.closure))

    @cached_property
    def direct(self) -> Array:
        """Mark the most specific terms of each profile.

        Returns:
          1 for these, [closure, profiles]; 0 elsewhere.
        """
        return jnp.asarray(self.tables.direct(self.query.closure))

    @cached_property
    def observed(self) -> Array:
        """Mark the observed terms of each patient.

        Returns:
          1 for these, [cases, closure]; 0 elsewhere.
        """
        rows = np.where(self.query.cases >= 0, self.query.terms[self.query.cases], -1)
        return jnp.asarray(self._indicator(rows))

    @cached_property
    def excluded(self) -> Array:
        """Mark the excluded terms of each patient.

        Returns:
          1 for these, [cases, closure]; 0 elsewhere.
        """
        return jnp.asarray(self._indicator(self.query.excluded))

    @cached_property
    def closure(self) -> Array:
        """Mark the observed terms of each patient and their ancestors.

        Returns:
          1 for these, [cases, closure]; 0 elsewhere.
        """
        return similarity.over_descendants(self.observed.T, self.parents).T

    @cached_property
    def specific(self) -> Array:
        """Mark the observed terms with no other observed one below them.

        Returns:
          1 for these, [cases, closure]; 0 elsewhere.
        """
        size = len(self.query.closure)
        closed = np.asarray(self.closure)
        below = np.zeros_like(closed)
        for column in self.query.parents.T:
            strict = column != np.arange(size)
            np.maximum.at(below.T, column[strict], closed.T[strict])
        return self.observed * (1 - below)

    @cached_property
    def mica(self) -> Array:
        """Information content of the best common ancestor (MICA).

        Returns:
          The content in nats, [annotated, terms]; 0 without a common ancestor.
        """
        own = self._implied * self.information[:, None]
        return similarity.over_ancestors(own, self.parents)[self.query.terms].T

    @cached_property
    def ancestor_index(self) -> Array:
        """Jaccard index of the ancestors of annotated and observed terms.

        Returns:
          The index, [annotated, terms].
        """
        size = len(self.query.closure)
        own = np.zeros((size, len(self.query.terms)), np.float32)
        own[self.query.terms, np.arange(len(self.query.terms))] = 1
        closed = similarity.over_descendants(jnp.asarray(own), self.parents).T
        counts = np.diff(self.tables.ontology.ancestor_starts)[self.tables.annotated]
        return similarity.jaccard(
            (closed @ self._implied).T,
            jnp.asarray(counts, jnp.float32)[:, None],
            closed.sum(1)[None],
        )

    @cached_property
    def term_information(self) -> tuple[Array, Array]:
        """Information content of the annotated and of the observed terms.

        Returns:
          Both in nats, [annotated, 1] and [1, terms].
        """
        annotated = jnp.asarray(self.tables.information[self.tables.annotated])
        return annotated[:, None], self.information[self.query.terms][None]

    @cached_property
    def unexplained(self) -> Array:
        """Expected information of each profile that the patient does not show.

        Returns:
          The information in nats, [cases, profiles].
        """
        nearest = pairs.best_in_case(self.mica, self.cases)
        shown = self._empty()
        for bucket in self.tables.buckets:
            part = pairs.profile_sum(nearest, bucket.terms, bucket.frequencies)
            shown[:, bucket.rows] = np.asarray(part).T
        return jnp.asarray(self.tables.direct_information - shown)

    def sets(self, values: Array) -> SetScores:
        """Score patients and profiles by a similarity of pairs.

        Args:
          values: similarity of annotated and observed terms.

        Returns:
          The scores.
        """
        nearest = pairs.best_in_case(values, self.cases)
        found = self._empty(), self._empty(), self._empty()
        for bucket in self.tables.buckets:
            parts = _bucket_scores(
                values, nearest, self.cases, bucket.terms, bucket.valid
            )
            for target, part in zip(found, parts, strict=True):
                target[:, bucket.rows] = np.asarray(part)
        return SetScores(*map(jnp.asarray, found))

    @cached_property
    def _implied(self) -> Array:
        return jnp.asarray(self.tables.implied(self.query.closure))

    def _empty(self) -> np.ndarray:
        return np.zeros((len(self.query.cases), self.tables.num_profiles), np.float32)

    def _take(self, values: np.ndarray, padding: float) -> np.ndarray:
        closure = self.query.closure
        return np.where(closure >= 0, values[closure], padding).astype(np.float32)

    def _indicator(self, rows: np.ndarray) -> np.ndarray:
        out = np.zeros((len(rows), len(self.query.closure)), np.float32)
        case, column = np.nonzero(rows >= 0)
        out[case, rows[case, column]] = 1
        return out


@jax.jit
def _bucket_scores(
    values: Array, nearest: Array, cases: Array, terms: Array, valid: Array
) -> tuple[Array, Array, Array]:
    """Score the profiles of one bucket, as in `SetScores`."""
    best = pairs.best_in_profile(values, terms)
    weights = valid / jnp.maximum(valid.sum(1, keepdims=True), 1)
    backward = pairs.profile_sum(nearest, terms, weights).T
    return pairs.case_mean(best, cases), backward, pairs.best_in_case(best, cases).T


def _pad(query: Query) -> Query:
    # One row more than needed at least: padded terms point to it.
    size = _power(len(query.closure) + 1, 64)
    width = max(query.parents.shape[1], _PARENTS)
    parents = np.arange(size, dtype=np.int32)[:, None].repeat(width, axis=1)
    parents[: len(query.closure), : query.parents.shape[1]] = query.parents
    terms = np.full(_power(len(query.terms), 32), size - 1, dtype=np.int32)
    terms[: len(query.terms)] = query.terms
    extra = np.full(size - len(query.closure), -1, np.int32)
    return Query(
        np.append(query.closure, extra),
        parents,
        terms,
        _pad_cases(query.cases),
        _pad_cases(query.excluded),
    )


def _pad_cases(values: np.ndarray) -> np.ndarray:
    rows, width = values.shape
    out = np.full((_power(rows, 1), _power(width, 32)), -1, dtype=np.int32)
    out[:rows, :width] = values
    return out


def _power(count: int, least: int) -> int:
    return max(least, 1 << (count - 1).bit_length())
