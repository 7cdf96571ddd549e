"""Genes that a diagnosis in words or of MONDO stands for.

A language model answers with diseases, and often with a group of them, such as
"Usher syndrome". A disease has the genes that HPO links to it. An answer without genes
of its own has the genes of all diseases whose names contain its words.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from jeff_llm.genes.annotations import Annotations

__all__ = [
    "genes_of_answers",
]

# Words that do not tell one disease from another; a group lacks those of its members.
_COMMON = re.compile(
    "a|an|and|autosomal|by|congenital|disease|disorder|dominant|due|familial|form|"
    "hereditary|in|inherited|isolated|linked|of|or|recessive|syndrome|the|to|type|with|x"
)


def genes_of_answers(
    answers: Iterable[str],
    annotations: Annotations,
    mondo: Mapping[str, tuple[str, ...]],
    names: Mapping[str, str],
) -> dict[str, tuple[str, ...]]:
    """Genes of each answer.

    An answer that MONDO maps to diseases with genes has these genes. Otherwise it is
    taken for a group: it has the genes of the diseases whose names contain all of
    `_name_words` of its name.

    Args:
      answers: MONDO ids, or names of diseases.
      annotations: diseases, their names, and their genes.
      mondo: ids of OMIM and Orphanet by MONDO id, as
        `jeff_llm.genes.nomenclature.read_mondo` reads them.
      names: name by MONDO id, as `jeff_llm.genes.stored.read_mondo_names` reads them.

    Returns:
      Symbols by answer, ascending; none where no disease fits.
    """
    linked: dict[int, list[int]] = defaultdict(list)
    for gene, disease in annotations.links.tolist():
        linked[disease].append(gene)
    places = {name: place for place, name in enumerate(annotations.diseases)}
    # Only diseases with genes can add any.
    containing: dict[str, set[int]] = defaultdict(set)
    for disease in linked:
        for word in _name_words(annotations.disease_names[disease]):
            containing[word].add(disease)
    found = {}
    for answer in dict.fromkeys(answers):
        exact = {places[name] for name in mondo.get(answer, ()) if name in places}
        diseases = exact & linked.keys()
        if not diseases:
            words = _name_words(names.get(answer, answer))
            members = [containing.get(word, set()) for word in words]
            diseases = set.intersection(*members) if members else set()
        genes = {gene for disease in diseases for gene in linked[disease]}
        found[answer] = tuple(annotations.genes[gene] for gene in sorted(genes))
    return found


def _name_words(name: str) -> frozenset[str]:
    """Words that tell a disease from others.

    Lower case, without remarks in brackets, possessives, the plural's ``s`` and words
    such as "syndrome"; British "-aemia" is "-emia". An id of MONDO has none.

    Args:
      name: name of a disease.

    Returns:
      The words.

    >>> sorted(_name_words("Usher syndromes, type 1 (USH1)"))
    ['1', 'usher']
    """
    if re.fullmatch(r"MONDO:\d+", name):
        return frozenset()
    text = re.sub(r"\([^()]*\)", " ", name.lower()).replace("aemia", "emia")
    words = re.findall(r"[a-z0-9]+", re.sub(r"['\u2019]s\b", "", text))
    plain = (word[:-1] if len(word) > 4 and word[-1] == "s" else word for word in words)
    return frozenset(word for word in plain if not _COMMON.fullmatch(word))
