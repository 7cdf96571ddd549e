"""Gene prioritisation: from a patient's phenotypes to ranked genes, with reasons.

`load` reads the Human Phenotype Ontology, `from_terms` and `from_phenopackets` read
patients, and `OntologyRanker` ranks genes in milliseconds; `explain` says why. Any
callable ``rank(phenotypes, genes) -> Ranking`` is a ranker: measures of the ontology,
embeddings, language models (`listwise`, `options`), stored rankings (`stored`), or your
own. `conquer` frees a ranker of the order of its input, `bias` measures how far.

`scoring` has the measures for many patients at once, `fusion` joins rankings,
`evaluate` gives top-k accuracy with intervals by gene. `solvability`,
`top_probability` and `abstention` say how far to trust an answer. `pheval` writes what
PhEval compares with other programs.

For research; it is not a medical device.
"""

import importlib
from typing import TYPE_CHECKING, Any

from jeff_llm.genes.ranking import Phenotypes, Ranker, Ranking, by_score, rank_many

if TYPE_CHECKING:  # so that editors know what `__getattr__` brings
    from jeff_llm.genes import (
        abstention,
        answer_genes,
        bias,
        biased,
        candidates,
        conquer,
        embedding,
        fusion,
        hpo_class,
        language_votes,
        listwise,
        nomenclature,
        options,
        pheval,
        profiles,
        reasons,
        scoring,
        similarity,
        simulate,
        solvability,
        stored,
        tables,
        top_probability,
    )
    from jeff_llm.genes.cases import (
        Case,
        from_phenobrain,
        from_phenopackets,
        from_terms,
    )
    from jeff_llm.genes.conquer import as_ranker, divide_and_conquer
    from jeff_llm.genes.evaluation import evaluate, paired_difference, rank_of
    from jeff_llm.genes.hpo import Hpo, load
    from jeff_llm.genes.prioritise import OntologyRanker, score_cases
    from jeff_llm.genes.reasons import explain
    from jeff_llm.genes.tables import make_tables

# The module of each function and class; every other name is a module.
_FUNCTIONS = {
    "Case": "cases",
    "Hpo": "hpo",
    "OntologyRanker": "prioritise",
    "as_ranker": "conquer",
    "divide_and_conquer": "conquer",
    "evaluate": "evaluation",
    "explain": "reasons",
    "from_phenobrain": "cases",
    "from_phenopackets": "cases",
    "from_terms": "cases",
    "load": "hpo",
    "make_tables": "tables",
    "paired_difference": "evaluation",
    "rank_of": "evaluation",
    "score_cases": "prioritise",
}

__all__ = [
    "Case",
    "Hpo",
    "OntologyRanker",
    "Phenotypes",
    "Ranker",
    "Ranking",
    "abstention",
    "answer_genes",
    "as_ranker",
    "bias",
    "biased",
    "by_score",
    "candidates",
    "conquer",
    "divide_and_conquer",
    "embedding",
    "evaluate",
    "explain",
    "from_phenobrain",
    "from_phenopackets",
    "from_terms",
    "fusion",
    "hpo_class",
    "language_votes",
    "listwise",
    "load",
    "make_tables",
    "nomenclature",
    "options",
    "paired_difference",
    "pheval",
    "profiles",
    "rank_many",
    "rank_of",
    "reasons",
    "score_cases",
    "scoring",
    "similarity",
    "simulate",
    "solvability",
    "stored",
    "tables",
    "top_probability",
]


def __getattr__(name: str) -> Any:
    """Load a module, or a function of one, at first use."""
    if name not in __all__:
        raise AttributeError(f"module 'jeff_llm.genes' has no attribute {name!r}")
    place = _FUNCTIONS.get(name, name)
    module = importlib.import_module(f"jeff_llm.genes.{place}")
    return getattr(module, name) if name in _FUNCTIONS else module


def __dir__() -> list[str]:
    """All public names, also those that are not loaded yet."""
    return sorted(__all__)
