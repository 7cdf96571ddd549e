"""Profiles without what the patients' own papers contributed.

HPO is annotated from the papers that describe many of the public cases, so a method is
flattered where a case's own paper stands behind the profile of its disease. Here the
annotations that have no other source are left out, for each case its own.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from jeff_llm.genes.annotations import Annotations
from jeff_llm.genes.hpo import Hpo
from jeff_llm.genes.profiles import Profiles, collect_lines, select_pairs

__all__ = ["Replaced", "without_own_papers"]


class Replaced(NamedTuple):
    """Profiles that change for one patient, as rows of a table of their own.

    Attributes:
      cases: patient of each row.
      diseases: disease of each row, as a position in ``annotations.diseases``.
      profiles: what is left of the disease's profile; may be empty.
    """

    cases: Int32[np.ndarray, " rows"]
    diseases: Int32[np.ndarray, " rows"]
    profiles: Profiles


def without_own_papers(hpo: Hpo, references: Sequence[Collection[str]]) -> Replaced:
    """Find the profiles that rest on the patients' own papers, and what is left.

    A line counts as lost only if all its references are the patient's own; one that
    another paper supports too is kept as it stands, with its frequency.

    Args:
      hpo: ontology and annotations.
      references: for each patient, the ``"PMID:..."`` of its own papers.

    Returns:
      One row per patient and disease that loses a line.
    """
    annotations = hpo.annotations
    citing = _citing(annotations)
    counts = np.diff(annotations.reference_starts)
    phenotypic = annotations.line_aspect == "P"
    by_disease = np.argsort(annotations.line_disease, kind="stable")
    starts = np.searchsorted(
        annotations.line_disease[by_disease], np.arange(len(annotations.diseases) + 1)
    )
    cases, diseases, lines = [], [], []
    for case, own in enumerate(references):
        found = [citing[name] for name in set(own) if name in citing]
        if not found:
            continue
        cited, times = np.unique(np.concatenate(found), return_counts=True)
        lost = cited[(times == counts[cited]) & phenotypic[cited]]
        for disease in np.unique(annotations.line_disease[lost]):
            all_lines = by_disease[starts[disease] : starts[disease + 1]]
            all_lines = all_lines[phenotypic[all_lines]]
            cases.append(case)
            diseases.append(disease)
            lines.append(np.setdiff1d(all_lines, lost))
    rows = np.repeat(np.arange(len(lines)), [len(part) for part in lines])
    joined = np.concatenate([*lines, np.zeros(0, np.int64)]).astype(np.int64)
    shown, profiles = collect_lines(hpo, joined, rows, len(lines))
    return Replaced(
        np.array(cases, np.int32),
        np.array(diseases, np.int32),
        select_pairs(profiles, shown),
    )


def _citing(annotations: Annotations) -> dict[str, np.ndarray]:
    """Lines by the reference that they cite."""
    counts = np.diff(annotations.reference_starts)
    lines = np.repeat(np.arange(len(counts)), counts)
    order = np.argsort(annotations.line_references, kind="stable")
    starts = np.searchsorted(
        annotations.line_references[order],
        np.arange(len(annotations.references) + 1),
    )
    return {
        name: lines[order[starts[place] : starts[place + 1]]]
        for place, name in enumerate(annotations.references)
    }
