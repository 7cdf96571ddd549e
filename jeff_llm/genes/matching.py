"""How the terms of one patient meet the profile of one disease, term by term.

The same formulas as in `jeff_llm.genes.evidence` and `jeff_llm.genes.overlap`, in
double precision and with the terms that stand behind each number, which the batched
functions do not keep.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int

from jeff_llm.genes.evidence import FREQUENCY_WEIGHT, TOLERANCE
from jeff_llm.genes.ontology import Ontology
from jeff_llm.genes.overlap import FREQUENCY_POWER, UNMATCHED_WEIGHT
from jeff_llm.genes.tables import ancestors_of_all

__all__ = ["Match", "Matching", "match_profile"]


class Match(NamedTuple):
    """What an observed term met in a profile.

    Attributes:
      term: the observed term, as a position in the ontology.
      ancestor: the common ancestor that explains it best, or -1 if there is none.
      annotation: the term of the profile at or below ``ancestor`` whose frequency
        counts: the largest; of several, the observed term itself, then the most
        informative.
      frequency: that frequency; 0 without an annotation.
      evidence: `jeff_llm.genes.evidence.matched_information`, in nats.
    """

    term: int
    ancestor: int
    annotation: int
    frequency: float
    evidence: float


class Matching(NamedTuple):
    """A patient and a profile.

    Attributes:
      matches: one per observed term.
      unexplained: information of the profile that the patient does not show, as
        `jeff_llm.genes.evidence.log_size` takes it.
      overlap: `jeff_llm.genes.overlap.weighted_overlap`.
      frequency: propagated frequency of each term of the ontology.
    """

    matches: tuple[Match, ...]
    unexplained: float
    overlap: float
    frequency: Float64[np.ndarray, " terms"]


def match_profile(
    ontology: Ontology,
    information: Float[np.ndarray, " terms"],
    terms: Int[np.ndarray, " some"],
    frequencies: Float[np.ndarray, " some"],
    observed: Sequence[int],
) -> Matching:
    """Match the observed terms of a patient with a profile.

    Args:
      ontology: the terms.
      information: information content of each term, in nats.
      terms: terms of the profile, at least one, each once.
      frequencies: their frequencies, in (0, 1].
      observed: observed terms, each once.

    Returns:
      The matches and the numbers that belong to the whole.

    Raises:
      ValueError: if the profile is empty, or no term is observed.
    """
    for name, given in (("terms", terms), ("observed", observed)):
        if not len(given):
            raise ValueError(f"{name}: expected at least one, got none")
    content = information.astype(np.float64)
    above, counts = ancestors_of_all(ontology, terms)
    strength = np.repeat(frequencies.astype(np.float64), counts)
    frequency = np.zeros(len(content))
    np.maximum.at(frequency, above, strength)
    present = frequency > 0
    log = np.log(frequency, where=present, out=np.full(len(content), -np.inf))
    own = np.where(present, content + FREQUENCY_WEIGHT * log, -np.inf)
    closed = np.zeros(len(content), dtype=bool)
    matches = []
    for term in observed:
        ancestors = ontology.ancestors_of(term)
        closed[ancestors] = True
        # Of equally good ancestors the deepest, which says most to a reader.
        order = np.lexsort((ontology.depths[ancestors], own[ancestors]))
        best = int(ancestors[order[-1]])
        if not present[best]:
            matches.append(Match(term, -1, -1, 0.0, 0.0))
            continue
        below = np.repeat(terms, counts)[
            (above == best) & (strength == frequency[best])
        ]
        found = below[np.lexsort((content[below], below == term))[-1]]
        evidence = max(TOLERANCE - (content[term] - own[best]), 0.0)
        matches.append(Match(term, best, int(found), frequency[best], float(evidence)))
    nearest = np.maximum.reduceat(
        np.where(closed[above], content[above], 0), np.cumsum(counts) - counts
    )
    unexplained = float(frequencies @ (content[terms] - nearest))
    return Matching(
        tuple(matches), unexplained, _overlap(content, closed, frequency), frequency
    )


def _overlap(content: np.ndarray, closed: np.ndarray, frequency: np.ndarray) -> float:
    asked = content[closed]
    # 0 ** 0 would be 1, were the power 0.
    common = np.where(frequency[closed] > 0, frequency[closed] ** FREQUENCY_POWER, 0)
    rest = content[~closed] @ frequency[~closed]
    return float(asked @ common / max(asked.sum() + UNMATCHED_WEIGHT * rest, 1e-6))
