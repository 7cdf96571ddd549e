"""Test patients drawn from the annotations: their terms, their noise, their keys."""

import jax
import numpy as np
import pytest
from scipy import stats

from jeff_llm.genes.ranking import Phenotypes
from jeff_llm.genes.simulate import LEAST_TERMS, Noise, simulate_cases

KEY = jax.random.key(7)
EXACT = Noise(missing=0, imprecise=0, spurious=0, excluded=0)


@pytest.fixture(scope="module")
def one(make_hpo):
    """One usable disease of five terms; one that two genes share; one that is short."""
    parents = [[], [0], [0], [1], [1], [1], [2], [2], [6]]
    often = {3: "1/1", 4: "1/2", 5: "1/10", 6: "3/4", 7: ""}
    lines = [("OMIM:1", term, share, "PMID:1") for term, share in often.items()]
    lines += [("OMIM:2", term, "1/1", "PMID:1") for term in (3, 4, 8)]
    lines += [("OMIM:3", term, "1/1", "PMID:1") for term in (3, 4)]
    genes = {"A": ["OMIM:1", "OMIM:2"], "B": ["OMIM:2"], "C": ["OMIM:3"]}
    return make_hpo(parents, lines, genes)


def shares(hpo, found, ids, terms):
    count = {t: sum(ids(t) in c.phenotypes.observed for c in found) for t in terms}
    return {term: number / len(found) for term, number in count.items()}


def test_only_diseases_of_one_gene_and_enough_terms(one):
    found = simulate_cases(one, 20, key=KEY)
    assert {(case.gene, *case.diseases) for case in found} == {("A", "OMIM:1")}
    assert {case.source for case in found} == {"simulated"}
    assert [case.name for case in found[:2]] == ["case-1", "case-2"]
    assert not any(case.references for case in found)


def test_terms_occur_as_often_as_annotated(one, ids):
    """Compare with draws in plain code, filled up to three terms by frequency."""
    found = simulate_cases(one, 3000, noise=EXACT, key=KEY)
    sizes = [len(case.phenotypes.observed) for case in found]
    assert min(sizes) == LEAST_TERMS and max(sizes) == 5
    assert all(case.phenotypes.excluded == () for case in found)
    frequency = dict(zip((3, 4, 5, 6, 7), (1, 0.5, 0.1, 0.75, 0.5), strict=True))
    rng = np.random.default_rng(0)
    expected = dict.fromkeys(frequency, 0.0)
    for _ in range(3000):
        shown = [term for term, share in frequency.items() if rng.random() < share]
        while len(shown) < LEAST_TERMS:
            rest = [term for term in frequency if term not in shown]
            weights = np.array([frequency[term] for term in rest])
            shown.append(rest[int(rng.choice(len(rest), p=weights / weights.sum()))])
        for term in shown:
            expected[term] += 1 / 3000
    got = shares(one, found, ids, frequency)
    for term in frequency:
        assert abs(got[term] - expected[term]) < 0.05, (term, got, expected)


def test_each_kind_of_noise_has_its_share(one, ids):
    all_shown = shares(
        one, simulate_cases(one, 2000, noise=EXACT, key=KEY), ids, range(9)
    )
    parents = shares(
        one,
        simulate_cases(one, 2000, noise=EXACT._replace(imprecise=0.5), key=KEY),
        ids,
        range(9),
    )
    # The parent of 3, 4 and 5 is 1, that of 6 and 7 is 2; none of them is the root.
    assert parents[3] == pytest.approx(all_shown[3] / 2, abs=0.05)
    assert parents[1] > 0.5 and parents[2] > 0.3 and parents[0] == 0
    spurious = simulate_cases(one, 2000, noise=EXACT._replace(spurious=0.5), key=KEY)
    # Term 8 alone is not implied by the disease, and is drawn at most once.
    shown = np.mean([len(case.phenotypes.observed) for case in spurious])
    expected = shares(one, spurious, ids, [8])[8]
    assert expected == pytest.approx(stats.poisson.sf(0, 0.5 * 3.2), abs=0.05)
    assert shown == pytest.approx(sum(all_shown.values()) + expected, abs=0.05)


def test_excluded_terms_contradict_nothing(real_hpo):
    noise = Noise(excluded=0.5)
    found = simulate_cases(real_hpo, 60, noise=noise, key=KEY)
    ontology = real_hpo.ontology
    assert sum(len(case.phenotypes.excluded) for case in found) > 100
    for case in found:
        shown, lacking = ([ontology.index(t) for t in p] for p in case.phenotypes)
        implied = {a for term in shown for a in ontology.ancestors_of(term).tolist()}
        assert not implied & set(lacking)
        assert ontology.phenotypes[shown].all()
    assert len({case.gene for case in found}) == 60


def test_missing_terms_leave_the_least(one):
    found = simulate_cases(one, 50, noise=EXACT._replace(missing=1), key=KEY)
    assert {len(case.phenotypes.observed) for case in found} == {LEAST_TERMS}


def test_more_cases_and_raw_keys_change_nothing(one):
    few, many = (simulate_cases(one, count, key=KEY) for count in (3, 9))
    assert few == many[:3]
    assert simulate_cases(one, 3, key=jax.random.key_data(KEY)) == few
    assert simulate_cases(one, 3, key=jax.random.key(8)) != few
    assert isinstance(few[0].phenotypes, Phenotypes)


def test_bad_numbers(one, make_hpo):
    with pytest.raises(ValueError, match="num_cases: expected at least 1, got 0"):
        simulate_cases(one, 0, key=KEY)
    with pytest.raises(ValueError, match=r"noise.missing: expected .* got 1.5"):
        simulate_cases(one, 1, noise=Noise(missing=1.5), key=KEY)
    with pytest.raises(ValueError, match=r"noise.spurious: expected .* got -1"):
        simulate_cases(one, 1, noise=Noise(spurious=-1), key=KEY)
    short = make_hpo([[], [0]], [("OMIM:1", 1, "", "")], {"A": ["OMIM:1"]})
    with pytest.raises(ValueError, match="at least 3 terms, got none"):
        simulate_cases(short, 1, key=KEY)
