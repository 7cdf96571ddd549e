"""Classes of patients by their terms: how special, how many, and of which organ."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Real

from jeff_llm.genes.ontology import PHENOTYPE_ROOT, Ontology
from jeff_llm.genes.ranking import Phenotypes

__all__ = [
    "HpoClass",
    "hpo_classes",
    "thirds",
]

_THIRDS = ("low", "middle", "high")


class HpoClass(NamedTuple):
    """Class of one patient.

    Attributes:
      specificity: third of the mean information content, among the patients given.
      mean_information: mean information content of the observed terms, in nats.
      num_terms: number of observed terms.
      branch: name of the organ system with most of the terms.
    """

    specificity: str
    mean_information: float
    num_terms: int
    branch: str


def hpo_classes(
    patients: Sequence[Phenotypes],
    ontology: Ontology,
    information: Float[np.ndarray, " terms"],
) -> list[HpoClass]:
    """Class of each patient.

    Args:
      patients: observed terms.
      ontology: the terms.
      information: information content by term, in nats.

    Returns:
      The classes, in the order of the patients.

    Raises:
      ValueError: if there are fewer than three patients, one has no observed term, or
        ``information`` has not one number for each term.
      KeyError: if a term is not in the ontology.
    """
    if np.shape(information) != (len(ontology.ids),):
        raise ValueError(
            f"information: expected shape ({len(ontology.ids)},), one for each term, "
            f"got {np.shape(information)}"
        )
    terms = [
        np.unique([ontology.index(term) for term in patient.observed])
        for patient in patients
    ]
    for number, own in enumerate(terms):
        if not len(own):
            raise ValueError(
                f"patients[{number}]: expected at least one observed term, got none"
            )
    means = np.array([information[own].mean() for own in terms])
    return [
        HpoClass(third, float(mean), len(own), _top_branch(ontology, own))
        for third, mean, own in zip(thirds(means), means, terms, strict=True)
    ]


def thirds(values: Real[np.ndarray, " cases"]) -> tuple[str, ...]:
    """Third of each value: "low", "middle" or "high".

    The limits are the quantiles 1/3 and 2/3, so equal values are in one third, and the
    thirds may differ in size.

    Args:
      values: one number for each case.

    Returns:
      One of low, middle and high for each case.

    Raises:
      ValueError: if there are fewer than three values, or one is NaN.

    >>> thirds(np.array([1.0, 5.0, 3.0]))
    ('low', 'high', 'middle')
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) < 3:
        raise ValueError(
            f"values: expected at least three cases, got shape {values.shape}"
        )
    if np.isnan(values).any():
        raise ValueError("values: expected numbers, got NaN")
    limits = np.quantile(values, (1 / 3, 2 / 3), method="inverted_cdf")
    return tuple(_THIRDS[place] for place in np.searchsorted(limits, values))


def _top_branch(ontology: Ontology, terms: Int[np.ndarray, " terms"]) -> str:
    """Organ system with most of some terms.

    The organ systems are the children of "Phenotypic abnormality" (HP:0000118). A term
    under several of them counts for each; of equal counts, the lower id's wins.

    Args:
      ontology: the terms.
      terms: positions of phenotypes.

    Returns:
      Name of the organ system; that of HP:0000118 if no term is below one.

    Raises:
      KeyError: if the ontology has no HP:0000118.
    """
    root = ontology.index(PHENOTYPE_ROOT)
    above, counts = np.unique(
        np.concatenate([ontology.ancestors_of(int(term)) for term in terms]),
        return_counts=True,
    )
    best, most = root, 0
    for term, count in zip(above.tolist(), counts.tolist(), strict=True):
        parents = ontology.parents[
            ontology.parent_starts[term] : ontology.parent_starts[term + 1]
        ]
        if root in parents and count > most:
            best, most = term, count
    return ontology.names[best]
