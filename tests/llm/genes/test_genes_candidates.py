"""Test candidate lists: who the distractors are, where the causal gene stands."""

from itertools import pairwise

import jax
import numpy as np
import pytest
from scipy import stats

from jeff_llm.genes.candidates import KINDS, make_candidates
from jeff_llm.genes.cases import Case
from jeff_llm.genes.ranking import Phenotypes
from jeff_llm.genes.simulate import simulate_cases

KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def chain(make_hpo):
    """Genes A to F with 1 to 6 terms, below two organs; G has none; A has a twin."""
    parents = [[], [0], [0], *[[1]] * 6, *[[2]] * 6]
    lines, genes = [], {}
    for number, name in enumerate("ABCDEF"):
        disease = f"OMIM:{number + 1}"
        # A, C and E have terms of the first organ, the others of the second.
        first = 3 if number % 2 == 0 else 9
        for term in range(first, first + number + 1):
            lines.append((disease, term, "", "PMID:1"))
        genes[name] = [disease]
    genes |= {"G": ["OMIM:9"], "TWIN": ["OMIM:1"]}
    return make_hpo(parents, lines, genes)


def case(ids, gene="A", disease="OMIM:1", terms=(3,)):
    return Case("case-1", Phenotypes(tuple(map(ids, terms))), gene, (disease,))


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_has_the_causal_gene_once_and_no_other_answer(chain, ids, kind):
    for size in (2, 4, 6):
        (found,) = make_candidates(chain, [case(ids)], size, kind=kind, key=KEY)
        assert len(set(found.genes)) == len(found.genes) == size
        assert found.genes[found.causal] == "A"
        assert not {"TWIN", "G"} & set(found.genes)
        sizes = {name: number for number, name in enumerate("ABCDEF", start=1)}
        assert found.popularity.tolist() == [sizes[gene] for gene in found.genes]


def test_distractors_are_those_of_their_kind(chain, ids):
    def others(kind, size, **given):
        one = case(ids, **given)
        (found,) = make_candidates(chain, [one], size, kind=kind, key=KEY)
        return set(found.genes) - {one.gene}

    given = {"gene": "C", "disease": "OMIM:3"}
    assert others("annotations", 2, **given) == {"D"}
    assert others("annotations", 3, **given) == {"B", "D"}
    # C has 3, 4, 5; E has these and two more; A has 3 alone.
    assert others("phenotype", 2, **given) == {"E"}
    assert others("phenotype", 4, **given) == {"A", "E", "TWIN"}
    # An unknown gene has no profile: the patient's terms and no annotations stand in.
    new = {"gene": "NEW", "disease": "OMIM:77", "terms": (9, 10)}
    assert others("phenotype", 2, **new) == {"B"}
    assert others("annotations", 3, **new) == {"A", "TWIN"}


def test_random_distractors_and_places_are_uniform(chain, ids):
    found = [
        make_candidates(
            chain, [case(ids, gene="F", disease="OMIM:6")], 3, key=jax.random.key(i)
        )[0]
        for i in range(400)
    ]
    places = np.bincount([each.causal for each in found], minlength=3)
    assert stats.chisquare(places).pvalue > 1e-3
    names = [gene for each in found for gene in each.genes if gene != "F"]
    counts = np.unique(names, return_counts=True)[1]
    assert len(counts) == 6 and stats.chisquare(counts).pvalue > 1e-3


def test_longer_lists_contain_shorter_ones_and_batches_change_nothing(real_hpo):
    cases = simulate_cases(real_hpo, 4, key=KEY)
    for kind in KINDS:
        lists = [
            make_candidates(real_hpo, cases, k, kind=kind, key=KEY) for k in (5, 10, 25)
        ]
        for short, long in pairwise(lists):
            for few, many in zip(short, long, strict=True):
                assert set(few.genes) < set(many.genes)
        (alone,) = make_candidates(real_hpo, cases[2:3], 10, kind=kind, key=KEY)
        assert alone.genes == lists[1][2].genes
        assert alone.causal == lists[1][2].causal
    terms = lists[1][0].popularity
    assert np.ptp(terms) <= 0.2 * terms.max()


def test_popularity_of_the_user(chain, ids):
    one = [case(ids)]
    (found,) = make_candidates(chain, one, 6, popularity={"A": 9}, key=KEY)
    assert found.popularity.tolist() == [9 * (gene == "A") for gene in found.genes]


def test_bad_arguments(chain, ids):
    for size, text in ((1, "at least 2"), (7, "at most 6 genes for cases")):
        with pytest.raises(ValueError, match=text):
            make_candidates(chain, [case(ids)], size, key=KEY)
    with pytest.raises(ValueError, match="kind: expected"):
        make_candidates(chain, [case(ids)], 3, kind="hard", key=KEY)
    with pytest.raises(ValueError, match=r"cases\[0\]: expected a known gene"):
        make_candidates(chain, [case(ids, gene=None)], 3, key=KEY)
