"""Simulated clinical questions, for machines without questions to share.

A case has a disease of HPO and some of its phenotypes, put into fixed sentences. No
clinician wrote it: figures on simulated questions say how methods compare and that a
program works, and not how well evidence is chosen in real cases.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from jeff.bootstrap import RandomKey
from jeff_llm.clinic.items import LEVELS, Question
from jeff_llm.genes.hpo import Hpo
from jeff_llm.genes.ontology import Ontology

__all__ = ["simulate_questions"]

_FEWEST_TERMS, _MOST_TERMS = 3, 6
_OPTIONS = 4
# Terms as rare as these say little of the disease.
_RARE = 0.2

# Branches of HPO by how their terms are found; any other is found by looking.
_REPORTED = (
    "HP:0025142",  # constitutional symptom
    "HP:0000707",  # nervous system
    "HP:0025031",  # digestive system
    "HP:0002086",  # respiratory system
    "HP:0000119",  # genitourinary system
)
_MEASURED = (
    "HP:0001939",  # metabolism
    "HP:0001871",  # blood
    "HP:0002715",  # immune system
    "HP:0000818",  # endocrine system
)
_IMAGED = ("HP:0000924", "HP:0001626")  # skeleton; heart and vessels

# Sentences of each way, in the order of a case report.
_TELL: dict[str, tuple[str, ...]] = {
    "reported": (
        "The parents report {term}.",
        "There is a history of {term}.",
        "{Person} has had {term} for some months.",
        "{Person} also has {term}.",
    ),
    "seen": (
        "Physical examination shows {term}.",
        "Examination also reveals {term}.",
        "On examination, there is {term}.",
    ),
    "imaged": (
        "Imaging shows {term}.",
        "Further imaging shows {term}.",
    ),
    "measured": (
        "Laboratory studies show {term}.",
        "Repeated laboratory tests confirm {term}.",
    ),
}
_AGES = (
    ("6-month-old", "girl", "boy"),
    ("4-year-old", "girl", "boy"),
    ("12-year-old", "girl", "boy"),
    ("28-year-old", "woman", "man"),
    ("51-year-old", "woman", "man"),
    ("70-year-old", "woman", "man"),
)
_PLACES = (
    "is brought to the clinic for evaluation.",
    "is referred to a specialist.",
    "comes to the physician for a second opinion.",
)
_ASK = "Which of the following is the most likely diagnosis?"


class _Disease(NamedTuple):
    """A disease that can be told: its name and its terms."""

    name: str
    terms: Int[np.ndarray, " terms"]
    shares: Float[np.ndarray, " terms"]


def simulate_questions(
    hpo: Hpo, num_questions: int, *, key: RandomKey
) -> list[Question]:
    """Draw questions whose vignettes list phenotypes of a disease.

    Diseases are drawn without replacement, three to six of their terms in proportion to
    their frequency, one sentence a term. The other options are diseases drawn likewise.

    Args:
      hpo: ontology and annotations.
      num_questions: number of questions, at least 1; the first of more are the same.
      key: random key.

    Returns:
      The questions, marked as simulated.

    Raises:
      ValueError: if there are fewer diseases with three terms than questions or
        options.
    """
    if num_questions < 1:
        raise ValueError(f"num_questions: expected at least 1, got {num_questions}")
    diseases = _diseases(hpo)
    if len(diseases) < max(num_questions, _OPTIONS):
        raise ValueError(
            f"num_questions: expected at most {len(diseases)}, the diseases of HPO "
            f"{hpo.annotations.release} with {_FEWEST_TERMS} terms and a name, got "
            f"{num_questions}"
        )
    ways = _ways(hpo.ontology)
    seed = np.asarray(jax.random.key_data(key)).astype(np.uint32).ravel().tolist()
    order = np.random.default_rng(seed).permutation(len(diseases))
    questions = []
    for number in range(num_questions):
        # A generator of its own: the first questions are those of any longer draw.
        random = np.random.default_rng([*seed, number])
        disease = diseases[order[number]]
        names = _names(diseases, disease.name, random)
        vignette = _vignette(hpo.ontology, disease, ways, random)
        questions.append(
            Question(
                f"simulated_{number:04d}",
                vignette,
                disease.name,
                _ASK,
                names,
                LEVELS[0],
                simulated=True,
            )
        )
    return questions


def _diseases(hpo: Hpo) -> list[_Disease]:
    """Diseases with a name of their own and enough terms, in a fixed order."""
    notes, ontology = hpo.annotations, hpo.ontology
    kept = (
        (notes.line_aspect == "P")
        & ~notes.line_negated
        & ~(notes.line_frequency < _RARE)
        & ontology.phenotypes[notes.line_term]
    )
    share = np.nan_to_num(notes.line_frequency, nan=1.0)
    lines = np.flatnonzero(kept)
    lines = lines[np.argsort(notes.line_disease[lines], kind="stable")]
    starts = np.searchsorted(
        notes.line_disease[lines], np.arange(len(notes.diseases) + 1)
    )
    found: dict[str, _Disease] = {}
    for disease, name in enumerate(notes.disease_names):
        own = lines[starts[disease] : starts[disease + 1]]
        terms, first = np.unique(notes.line_term[own], return_index=True)
        if name and name not in found and len(terms) >= _FEWEST_TERMS:
            found[name] = _Disease(name, terms, share[own][first])
    return list(found.values())


def _names(
    diseases: list[_Disease], answer: str, random: np.random.Generator
) -> tuple[str, ...]:
    drawn = random.permutation(len(diseases))[:_OPTIONS]
    others = [name for place in drawn if (name := diseases[place].name) != answer]
    names = [answer, *others[: _OPTIONS - 1]]
    return tuple(names[place] for place in random.permutation(_OPTIONS))


def _ways(ontology: Ontology) -> np.ndarray:
    """How each term is found."""
    ways = np.full(len(ontology.ids), "seen", dtype=object)
    for name, roots in (
        ("imaged", _IMAGED),
        ("measured", _MEASURED),
        # Last, since a fever belongs to the metabolism too, and is told all the same.
        ("reported", _REPORTED),
    ):
        for root in roots:
            ways[_below(ontology, root)] = name
    return ways


def _below(ontology: Ontology, root: str) -> Bool[np.ndarray, " terms"]:
    owners = np.repeat(np.arange(len(ontology.ids)), np.diff(ontology.ancestor_starts))
    below = np.zeros(len(ontology.ids), bool)
    if root in ontology.positions:  # a small release may lack a branch
        below[owners[ontology.ancestors == ontology.positions[root]]] = True
    return below


def _vignette(
    ontology: Ontology,
    disease: _Disease,
    ways: np.ndarray,
    random: np.random.Generator,
) -> str:
    age, female, male = _AGES[random.integers(len(_AGES))]
    is_female = bool(random.integers(2))
    count = min(
        len(disease.terms), int(random.integers(_FEWEST_TERMS, _MOST_TERMS + 1))
    )
    chosen = random.choice(
        disease.terms, count, replace=False, p=disease.shares / disease.shares.sum()
    )
    article = "An" if age.startswith(("8", "11-", "18")) else "A"
    sentences = [
        f"{article} {age} {female if is_female else male} "
        f"{_PLACES[random.integers(len(_PLACES))]}"
    ]
    for way, tellings in _TELL.items():
        for number, term in enumerate(t for t in chosen if ways[t] == way):
            telling = tellings[min(number, len(tellings) - 1)]
            name = ontology.names[term]
            # Names such as "EEG with spikes" and "Abnormal ECG" keep their capitals.
            if not name[:2].isupper():
                name = name[0].lower() + name[1:]
            person = "She" if is_female else "He"
            sentences.append(telling.format(term=name, Person=person))
    return " ".join(sentences)
