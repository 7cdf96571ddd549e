"""All ontology measures for many patients and all profiles at once."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

from jeff_llm.genes import evidence, overlap, pairs, similarity
from jeff_llm.genes.ranking import Phenotypes
from jeff_llm.genes.tables import Query, Tables, ancestors_of_all, make_query

__all__ = ["MEASURES", "combine", "score"]

_KINDS: dict[str, Callable[..., Array]] = {
    "resnik": lambda mica, first, second: mica,  # noqa: ARG005
    "lin": similarity.lin,
    "jiang_conrath": similarity.jiang_conrath,
    "relevance": similarity.relevance,
    "information_coefficient": similarity.information_coefficient,
    "jaccard": similarity.jaccard,
}
_WAYS = ("one_way", "both_ways", "largest")
_OTHERS = (
    "phenodigm",
    "simgic",
    "weighted_overlap",
    "icto",
    "naive_bayes",
    "lirical",
    "matched_information",
    "combined",
)
MEASURES = (*(f"{kind}_{way}" for kind in _KINDS for way in _WAYS), *_OTHERS)

# Patients that are scored together: bounds the arrays at about a gigabyte.
_CHUNK = 128
# Weights of `combined`, chosen by `train_scripts.genes` on the shared phenopackets.
SIZE_WEIGHT = 0.5
OVERLAP_WEIGHT = 3.0
OVERLAP_START = 0.02


def score(
    tables: Tables,
    patients: Sequence[Phenotypes],
    measures: Collection[str] = ("combined",),
) -> dict[str, Float32[np.ndarray, "cases profiles"]]:
    """Score every profile for every patient.

    Args:
      tables: prepared profiles.
      patients: observed and excluded terms.
      measures: names from `MEASURES`.

    Returns:
      Scores by measure; larger is better; -inf for a profile without terms.

    Raises:
      ValueError: if a measure is unknown, or a patient has no observed term.
      KeyError: if a term is not in the ontology.
    """
    unknown = sorted(set(measures) - set(MEASURES))
    if unknown:
        raise ValueError(f"measures: expected names from {MEASURES}, got {unknown}")
    out = {
        name: np.empty((len(patients), tables.num_profiles), np.float32)
        for name in measures
    }
    empty = np.diff(tables.profiles.starts) == 0
    for start in range(0, len(patients), _CHUNK):
        chunk = patients[start : start + _CHUNK]
        batch = _Batch(tables, make_query(tables.ontology, chunk))
        for name, values in batch.scores(measures):
            out[name][start : start + len(chunk)] = values
    for values in out.values():
        values[:, empty] = -np.inf
    return out


def combine(
    matched: Float32[np.ndarray, "*cases profiles"] | Array,
    shared: Float32[np.ndarray, "*cases profiles"] | Array,
):
    """Join the two measures that complement each other.

    ``matched_information + c ln(weighted_overlap + e)``, with c = 3 and e = 0.02: the
    first asks how well each observed term is explained, the second how much of the
    two pictures coincides.

    Args:
      matched: matched information less the cost of the profile's size.
      shared: weighted overlap.

    Returns:
      The combined score.
    """
    return matched + OVERLAP_WEIGHT * jnp.log(shared + OVERLAP_START)


class _Batch:
    """Arrays of one chunk of patients, each computed when a measure first needs it."""

    def __init__(self, tables: Tables, query: Query):
        self.tables = tables
        self.num_cases = len(query.cases)
        self.query = _pad(query)
        known = self.query.closure >= 0
        closure = self.query.closure[known]
        self.frequency = self._rows(tables.dense(closure), known)
        self.information = jnp.asarray(_take(tables.information, self.query.closure, 0))
        self.background = jnp.asarray(_take(tables.background, self.query.closure, 1))
        self.parents = jnp.asarray(self.query.parents)
        self.cases = jnp.asarray(self.query.cases)

    def scores(self, measures: Collection[str]) -> Iterator[tuple[str, np.ndarray]]:
        """Name and scores of each measure; pairs of one kind share their arrays."""
        for kind in _KINDS:
            ways = [way for way in _WAYS if f"{kind}_{way}" in measures]
            if ways:
                found = self._set_scores(kind)
                for way in ways:
                    yield f"{kind}_{way}", self._cut(getattr(found, way))
        for name in _OTHERS:
            if name in measures:
                yield name, self._cut(getattr(self, f"_{name}"))

    def _cut(self, values: Array) -> np.ndarray:
        return np.asarray(values)[: self.num_cases]

    def _rows(self, values: np.ndarray, known: np.ndarray) -> Array:
        out = np.zeros((len(known), values.shape[1]), np.float32)
        out[known] = values
        return jnp.asarray(out)

    # Patients x terms of the closure.

    @cached_property
    def _observed_host(self) -> np.ndarray:
        return _indicator(self.query.terms[self.query.cases], self.query.cases, self)

    @cached_property
    def _observed(self) -> Array:
        return jnp.asarray(self._observed_host)

    @cached_property
    def _excluded(self) -> Array:
        rows = self.query.excluded
        return jnp.asarray(_indicator(rows, rows, self))

    @cached_property
    def _closure_host(self) -> np.ndarray:
        return np.asarray(
            similarity.over_descendants(jnp.asarray(self._observed_host.T), self.parents)
        ).T

    @cached_property
    def _closure(self) -> Array:
        return jnp.asarray(self._closure_host)

    @cached_property
    def _specific(self) -> Array:
        """Observed terms that imply no other observed one is more specific."""
        below = np.zeros_like(self._observed_host)
        parents = self.query.parents
        for column in range(parents.shape[1]):
            place = parents[:, column]
            strict = place != np.arange(len(place))
            np.maximum.at(below.T, place[strict], self._closure_host.T[strict])
        return jnp.asarray(self._observed_host * (1 - below))

    # Similarities of pairs of terms.

    @cached_property
    def _implied(self) -> Array:
        known = self.query.closure >= 0
        return self._rows(self.tables.implied(self.query.closure[known]), known)

    @cached_property
    def _mica(self) -> Array:
        own = self._implied * self.information[:, None]
        return similarity.over_ancestors(own, self.parents)[self.query.terms].T

    @cached_property
    def _common(self) -> Array:
        """Number of common ancestors of annotated and observed terms."""
        return (self._term_closure @ self._implied).T

    @cached_property
    def _term_closure(self) -> Array:
        own = np.zeros((len(self.query.closure), len(self.query.terms)), np.float32)
        own[self.query.terms, np.arange(len(self.query.terms))] = 1
        return similarity.over_descendants(jnp.asarray(own), self.parents).T

    def _pair(self, kind: str) -> Array:
        annotated = self.tables.annotated
        if kind == "jaccard":
            counts = np.diff(self.tables.ontology.ancestor_starts)[annotated]
            sizes = self._term_closure.sum(1)
            return similarity.jaccard(
                self._common, jnp.asarray(counts, jnp.float32)[:, None], sizes[None]
            )
        own = jnp.asarray(self.tables.information[annotated])[:, None]
        asked = self.information[self.query.terms][None]
        return _KINDS[kind](self._mica, own, asked)

    def _set_scores(self, kind: str) -> pairs.SetScores:
        values = self._pair(kind)
        nearest = pairs.best_in_case(values, self.cases)
        size = (self.cases.shape[0], self.tables.num_profiles)
        found = [np.zeros(size, np.float32) for _ in range(3)]
        for bucket in self.tables.buckets:
            parts = _bucket_scores(
                values, nearest, self.cases, bucket.terms, bucket.valid
            )
            for target, part in zip(found, parts, strict=True):
                target[:, bucket.rows] = np.asarray(part)
        forward, backward, largest = found
        return pairs.SetScores(forward, (forward + backward) / 2, largest)

    @cached_property
    def _resnik_backward(self) -> np.ndarray:
        """Sum over each profile's terms of frequency times the best match."""
        nearest = pairs.best_in_case(self._pair("resnik"), self.cases)
        out = np.zeros((self.cases.shape[0], self.tables.num_profiles), np.float32)
        for bucket in self.tables.buckets:
            part = pairs.profile_sum(nearest, bucket.terms, bucket.frequencies)
            out[:, bucket.rows] = np.asarray(part).T
        return out

    # Measures.

    @cached_property
    def _phenodigm(self) -> Array:
        values = similarity.phenodigm_pair(self._mica, self._pair("jaccard"))
        nearest = pairs.best_in_case(values, self.cases)
        size = (self.cases.shape[0], self.tables.num_profiles)
        forward, backward, largest = (np.zeros(size, np.float32) for _ in range(3))
        for bucket in self.tables.buckets:
            parts = _bucket_scores(
                values, nearest, self.cases, bucket.terms, bucket.valid
            )
            width = bucket.valid.sum(1)
            forward[:, bucket.rows] = np.asarray(parts[0])
            backward[:, bucket.rows] = np.asarray(parts[1]) * width
            largest[:, bucket.rows] = np.asarray(parts[2])
        observed = self.cases >= 0
        asked = jnp.sqrt(self.information[self.query.terms])[self.cases]
        sizes = jnp.asarray(np.diff(self.tables.profiles.starts))
        return pairs.phenodigm(
            jnp.asarray(largest),
            jnp.asarray(forward) * jnp.maximum(observed.sum(1, keepdims=True), 1),
            jnp.asarray(backward),
            asked,
            observed,
            sizes,
        )

    @cached_property
    def _simgic(self) -> Array:
        total = jnp.asarray(self.tables.propagated_information)
        return overlap.simgic(self._closure, self.frequency, self.information, total)

    @cached_property
    def _weighted_overlap(self) -> Array:
        expected = jnp.asarray(self.tables.expected_information)
        return overlap.weighted_overlap(
            self._closure, self.frequency, self.information, expected
        )

    @cached_property
    def _icto(self) -> Array:
        known = self.query.closure >= 0
        direct = self._rows(self.tables.direct(self.query.closure[known]), known)
        return overlap.icto(
            self._closure, self._specific, self.frequency, direct, self.information
        )

    @cached_property
    def _naive_bayes(self) -> Array:
        return overlap.naive_bayes(self._specific, self.frequency, self.background)

    @cached_property
    def _lirical(self) -> Array:
        observed = evidence.likelihood_observed(
            self.frequency, self.background, self.parents
        )
        return evidence.over_terms(
            observed, self._observed
        ) + overlap.likelihood_excluded(
            self._excluded, self.frequency, self.background
        )

    @cached_property
    def _matched_information(self) -> Array:
        found = evidence.matched_information(
            self.frequency, self.information, self.parents
        )
        unexplained = self.tables.direct_information - self._resnik_backward
        cost = evidence.log_size(jnp.asarray(unexplained))
        return evidence.over_terms(found, self._observed) - SIZE_WEIGHT * cost

    @cached_property
    def _combined(self) -> Array:
        return combine(self._matched_information, self._weighted_overlap)


@jax.jit
def _bucket_scores(values, nearest, cases, terms, valid):
    """Mean over a patient's terms, mean over a profile's terms, and largest."""
    best = pairs.best_in_profile(values, terms)
    weights = valid / jnp.maximum(valid.sum(1, keepdims=True), 1)
    backward = pairs.profile_sum(nearest, terms, weights).T
    return pairs.case_mean(best, cases), backward, pairs.case_maximum(best, cases)


def _indicator(rows: np.ndarray, valid: np.ndarray, batch: _Batch) -> np.ndarray:
    out = np.zeros((len(valid), len(batch.query.closure)), np.float32)
    case, column = np.nonzero(valid >= 0)
    out[case, rows[case, column]] = 1
    return out


def _take(values: np.ndarray, closure: np.ndarray, padding: float) -> np.ndarray:
    return np.where(closure >= 0, values[closure], padding).astype(np.float32)


def _pad(query: Query) -> Query:
    """Pad every axis to a power of two, so that few shapes are compiled."""
    size = _power(len(query.closure) + 1, 64)
    extra = size - len(query.closure)
    parents = np.arange(size, dtype=np.int32)[:, None].repeat(_PARENTS, axis=1)
    width = query.parents.shape[1]
    if width > _PARENTS:
        parents = np.arange(size, dtype=np.int32)[:, None].repeat(width, axis=1)
    parents[: len(query.closure), :width] = query.parents
    terms = np.full(_power(len(query.terms), 16), size - 1, dtype=np.int32)
    terms[: len(query.terms)] = query.terms
    return Query(
        np.append(query.closure, np.full(extra, -1, np.int32)),
        parents,
        terms,
        _pad_cases(query.cases),
        _pad_cases(query.excluded),
    )


# Most terms of HPO have at most this many parents.
_PARENTS = 6


def _pad_cases(values: np.ndarray) -> np.ndarray:
    rows, width = values.shape
    out = np.full((_power(rows, 1), _power(width, 8)), -1, dtype=np.int32)
    out[:rows, :width] = values
    return out


def _power(count: int, least: int) -> int:
    return max(least, 1 << (count - 1).bit_length())
