"""All ontology measures for many patients and all profiles at once."""

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32

from jeff_llm.genes import evidence, overlap, pairs, similarity
from jeff_llm.genes.batch import Batch, SetScores
from jeff_llm.genes.query import make_query
from jeff_llm.genes.ranking import Phenotypes
from jeff_llm.genes.tables import Tables

__all__ = [
    "ENSEMBLE",
    "MEASURES",
    "OVERLAP_START",
    "OVERLAP_WEIGHT",
    "SIZE_WEIGHT",
    "score",
]

# Patients that are scored together: bounds the arrays at about two gigabytes.
_CHUNK = 64

# Constants of `combined`, chosen on the shared phenopackets (docs/genes.md).
SIZE_WEIGHT = 0.5
OVERLAP_WEIGHT = 3.0
OVERLAP_START = 0.02

# Measures whose ranks are summed, chosen on the same cases: they err differently.
ENSEMBLE = (
    "combined",
    "naive_bayes",
    "icto",
    "jiang_conrath_one_way",
    "information_coefficient_both_ways",
)


def score(
    tables: Tables,
    patients: Sequence[Phenotypes],
    measures: Collection[str] = ("combined",),
    *,
    mesh: Mesh | None = None,
) -> dict[str, Float32[np.ndarray, "cases profiles"]]:
    """Score every profile for every patient.

    Args:
      tables: prepared profiles.
      patients: observed and excluded terms.
      measures: names from `MEASURES`.
      mesh: a mesh, to whose devices of this process batches of patients are dealt out.

    Returns:
      Scores by measure; larger is better; -inf for a profile without terms.

    Raises:
      ValueError: if a measure is unknown, or a patient has no observed term.
      KeyError: if a term is not in the ontology.
    """
    unknown = sorted(set(measures) - set(MEASURES))
    if unknown:
        raise ValueError(f"measures: expected names from {MEASURES}, got {unknown}")
    shape = len(patients), tables.num_profiles
    out = {name: np.empty(shape, np.float32) for name in MEASURES if name in measures}

    def fill(start: int) -> None:
        chunk = patients[start : start + _CHUNK]
        batch = Batch(tables, make_query(tables.ontology, chunk))
        found: dict[str, Array] = {}
        sets: dict[str, SetScores] = {}
        for name, values in out.items():
            scores = _measure(name, batch, found, sets)
            values[start : start + len(chunk)] = np.asarray(scores)[: len(chunk)]

    starts = range(0, len(patients), _CHUNK)
    if mesh is None:
        for start in starts:
            fill(start)
    else:
        _fill_on(list(mesh.local_devices), fill, starts)
    empty = np.diff(tables.profiles.starts) == 0
    for values in out.values():
        values[:, empty] = -np.inf
    return out


def _fill_on(
    devices: list[jax.Device],  # pyright: ignore
    fill: Callable[[int], None],
    starts: Sequence[int],
) -> None:
    """Deal batches to devices, with a thread each: steps wait for the host at times."""

    def on(number: int) -> None:
        with jax.default_device(devices[number % len(devices)]):
            fill(starts[number])

    with ThreadPoolExecutor(len(devices)) as pool:
        list(pool.map(on, range(len(starts))))


def _measure(
    name: str, batch: Batch, found: dict[str, Array], sets: dict[str, SetScores]
) -> Array:
    """One measure; ``found`` and ``sets`` keep what others need of it."""
    if name not in found:
        if name == "combined":
            parts = ("matched_information", "weighted_overlap")
            found[name] = _combined(*(_measure(p, batch, found, sets) for p in parts))
        elif name in _OTHERS:
            found[name] = _OTHERS[name](batch)
        else:
            kind, way = next(
                (kind, way)
                for kind in _PAIRS
                for way in _WAYS
                if name == f"{kind}_{way}"
            )
            if kind not in sets:
                sets[kind] = batch.sets(_PAIRS[kind](batch))
            found[name] = _WAYS[way](sets[kind])
    return found[name]


def _resnik(batch: Batch) -> Array:
    return batch.mica


def _from_information(measure: Callable[..., Array]) -> Callable[[Batch], Array]:
    return lambda batch: measure(batch.mica, *batch.term_information)


def _jaccard(batch: Batch) -> Array:
    return batch.ancestor_index


def _one_way(scores: SetScores) -> Array:
    return scores.forward


def _both_ways(scores: SetScores) -> Array:
    return (scores.forward + scores.backward) / 2


def _largest(scores: SetScores) -> Array:
    return scores.largest


def _phenodigm(batch: Batch) -> Array:
    values = similarity.phenodigm_pair(batch.mica, batch.ancestor_index)
    scores = batch.sets(values)
    observed = batch.cases >= 0
    sizes = jnp.asarray(np.diff(batch.tables.profiles.starts))
    perfect = jnp.sqrt(batch.information[batch.query.terms])[batch.cases]
    return pairs.phenodigm(
        scores.largest,
        scores.forward * jnp.maximum(observed.sum(1, keepdims=True), 1),
        scores.backward * sizes,
        perfect,
        observed,
        sizes,
    )


def _simgic(batch: Batch) -> Array:
    total = jnp.asarray(batch.tables.propagated_information)
    return overlap.simgic(batch.closure, batch.frequency, batch.information, total)


def _weighted_overlap(batch: Batch) -> Array:
    expected = jnp.asarray(batch.tables.expected_information)
    return overlap.weighted_overlap(
        batch.closure, batch.frequency, batch.information, expected
    )


def _icto(batch: Batch) -> Array:
    return overlap.icto(
        batch.closure, batch.specific, batch.frequency, batch.direct, batch.information
    )


def _naive_bayes(batch: Batch) -> Array:
    return overlap.naive_bayes(batch.specific, batch.frequency, batch.background)


def _lirical(batch: Batch) -> Array:
    ratio = evidence.likelihood_observed(
        batch.frequency, batch.background, batch.parents
    )
    absent = overlap.likelihood_excluded(
        batch.excluded, batch.frequency, batch.background
    )
    return batch.observed @ ratio + absent


def _matched_information(batch: Batch) -> Array:
    found = evidence.matched_information(
        batch.frequency, batch.information, batch.parents
    )
    return batch.observed @ found - SIZE_WEIGHT * evidence.log_size(batch.unexplained)


def _combined(
    matched: Float[Array, "cases profiles"], coincident: Float[Array, "cases profiles"]
) -> Float[Array, "cases profiles"]:
    """Join the two measures that complement each other.

    ``matched_information + c ln(weighted_overlap + e)``: the first asks how well each
    observed term is explained, the second how much of the two pictures coincides.
    """
    return matched + OVERLAP_WEIGHT * jnp.log(coincident + OVERLAP_START)


_PAIRS: dict[str, Callable[[Batch], Array]] = {
    "resnik": _resnik,
    "lin": _from_information(similarity.lin),
    "jiang_conrath": _from_information(similarity.jiang_conrath),
    "relevance": _from_information(similarity.relevance),
    "information_coefficient": _from_information(similarity.information_coefficient),
    "jaccard": _jaccard,
}
_WAYS: dict[str, Callable[[SetScores], Array]] = {
    "one_way": _one_way,
    "both_ways": _both_ways,
    "largest": _largest,
}
_OTHERS: dict[str, Callable[[Batch], Array]] = {
    "phenodigm": _phenodigm,
    "simgic": _simgic,
    "weighted_overlap": _weighted_overlap,
    "icto": _icto,
    "naive_bayes": _naive_bayes,
    "lirical": _lirical,
    "matched_information": _matched_information,
}
MEASURES = (
    *(f"{kind}_{way}" for kind in _PAIRS for way in _WAYS),
    *_OTHERS,
    "combined",
)
