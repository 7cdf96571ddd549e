"""Test the ranker of genes: best disease, own papers, unknown genes, what is kept."""

import numpy as np
import pytest

from jeff_llm.genes import prioritise
from jeff_llm.genes.prioritise import OntologyRanker, score_cases, to_genes
from jeff_llm.genes.profiles import disease_terms
from jeff_llm.genes.ranking import Phenotypes, Ranker
from jeff_llm.genes.scoring import score
from jeff_llm.genes.tables import filled, make_tables

INF = np.float32(np.inf)


@pytest.fixture(scope="module")
def tables(ten):
    return make_tables(ten)


def test_a_gene_has_the_best_of_its_diseases(ten):
    scores = np.array([[1, 5, 2, 3, -INF], [4, -INF, -INF, -2, -INF]], np.float32)
    np.testing.assert_array_equal(to_genes(ten, scores), [[1, 5, 3], [4, -INF, -2]])


def test_scores_without_the_patients_own_papers(ten, tables, ids):
    patients = [Phenotypes((ids(3), ids(8))), Phenotypes((ids(7),))]
    own = [["PMID:5"], ["PMID:2", "PMID:1"]]
    measures = ("combined", "lirical", "resnik_both_ways")
    found = score_cases(ten, tables, patients, measures, references=own)
    kept = score_cases(ten, tables, patients, measures)
    for row, references in enumerate(own):
        left = filled(disease_terms(ten, without=references), 0.5)
        expected = score(tables.over(left), patients[row : row + 1], measures)
        for name in measures:
            np.testing.assert_allclose(
                found[name].diseases[row], expected[name][0], rtol=1e-5
            )
            assert (found[name].diseases[row] != kept[name].diseases[row]).any()
            np.testing.assert_array_equal(
                found[name].genes, to_genes(ten, found[name].diseases)
            )
    # Nothing is left of OMIM:1 for the second patient, and it is G1's only disease.
    assert found["combined"].genes[1, 0] == -INF
    nothing = score_cases(ten, tables, patients, references=[[], ["PMID:404"]])
    np.testing.assert_array_equal(
        nothing["combined"].diseases, kept["combined"].diseases
    )
    with pytest.raises(ValueError, match=r"references: expected one entry .* \(2\)"):
        score_cases(ten, tables, patients, references=[[]])


def test_ranker(ten, tables, ids):
    rank = OntologyRanker(ten, "resnik_one_way", tables=tables)
    assert isinstance(rank, Ranker)
    who = Phenotypes((ids(3), ids(8)))
    found = rank(who, ["NEW", "G1", "G3", "G2"])
    # By hand, in test_genes_similarity: ln 2, (ln 4/3 + ln 2) / 2, ln 2 / 2.
    assert found.order.tolist() == [2, 3, 1, 0]
    expected = [-np.inf, np.log(2) / 2, np.log(2), np.log(8 / 3) / 2]
    np.testing.assert_allclose(found.scores, expected, rtol=1e-6)
    with pytest.raises(ValueError, match="measure: expected one of"):
        OntologyRanker(ten, "best")


def test_many_requests_score_each_patient_once(ten, tables, ids, monkeypatch):
    rank = OntologyRanker(ten, tables=tables)
    asked = []

    def counted(hpo, tables, patients, measures):
        asked.append(list(patients))
        return score_cases(hpo, tables, patients, measures)

    monkeypatch.setattr(prioritise, "score_cases", counted)
    one, two = Phenotypes((ids(3),)), Phenotypes((ids(8),))
    answers = rank.many([(one, ["G1", "G2"]), (two, ["G3"]), (one, ["G3", "G1"])])
    assert asked == [[one, two]]
    again = rank(one, ["G3", "G1"])
    assert asked == [[one, two]]
    np.testing.assert_array_equal(again.scores, answers[2].scores)
    assert answers[0].scores[0] == answers[2].scores[1]
    monkeypatch.setattr(prioritise, "_KEPT", 1)
    rank(Phenotypes((ids(5),)), ["G1"])
    rank(one, ["G1"])
    assert len(asked) == 3 and asked[-1] == [one]


def test_real_genes(real_hpo):
    """Dravet syndrome, from its textbook signs."""
    rank = OntologyRanker(real_hpo)
    signs = ("HP:0002373", "HP:0002133", "HP:0001251", "HP:0001249", "HP:0002123")
    scores = rank.genome([Phenotypes(signs)])[0]
    place = real_hpo.annotations.genes.index("SCN1A")
    assert (scores >= scores[place]).sum() <= 20
