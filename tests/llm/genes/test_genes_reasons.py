"""Test that reasons add up to the score, and name what stands behind it."""

import json

import jax
import numpy as np
import pytest

from jeff_llm.genes.explanation import HIGH
from jeff_llm.genes.matching import match_profile
from jeff_llm.genes.prioritise import score_cases
from jeff_llm.genes.ranking import Phenotypes
from jeff_llm.genes.reasons import EXPLAINED, explain, unrelated_ranks
from jeff_llm.genes.simulate import simulate_cases
from jeff_llm.genes.tables import make_tables

KEY = jax.random.key(11)


def total(found):
    parts = sum(reason.contribution for reason in found.terms)
    return found.constant + found.overlap + found.size + parts


@pytest.fixture(scope="module")
def tables(ten):
    return make_tables(ten)


@pytest.fixture(scope="module")
def real_tables(real_hpo):
    return make_tables(real_hpo)


def test_parts_add_up_on_real_diseases(real_hpo, real_tables):
    cases = simulate_cases(real_hpo, 4, key=KEY)
    for case in cases[:2]:
        annotations = real_hpo.annotations
        disease = annotations.diseases.index(case.diseases[0])
        lines = np.flatnonzero(annotations.line_disease == disease)
        cited = annotations.line_references[annotations.reference_starts[lines[0]]]
        for own in (None, [annotations.references[cited]]):
            for measure in EXPLAINED:
                genes = [case.gene, "FBN1", "SCN1A", cases[3].gene]
                found = explain(
                    real_hpo,
                    real_tables,
                    case.phenotypes,
                    genes,
                    measure=measure,
                    references=own,
                )
                for each in found:
                    assert abs(total(each) - each.score) < 1e-4
                    assert each.size <= 0 <= each.overlap
                    assert all(reason.contribution >= 0 for reason in each.terms)
                    # Shares are of what speaks for the gene; the overlap has the rest.
                    speaks = each.overlap + sum(r.contribution for r in each.terms)
                    shares = sum(reason.share for reason in each.terms)
                    assert shares * speaks == pytest.approx(speaks - each.overlap)


@pytest.mark.parametrize("seed", [0, 1])
def test_parts_add_up_on_random_ones(random_hpo, seed):
    made = random_hpo(seed)
    tables = make_tables(made)
    rng = np.random.default_rng(seed)
    ids = np.array(made.ontology.ids)
    genes = list(made.annotations.genes)
    for count in (1, 4, 40):
        who = Phenotypes(tuple(rng.choice(ids, count, replace=False)))
        for measure in EXPLAINED:
            scores = score_cases(made, tables, [who], (measure,))[measure].genes[0]
            found = explain(made, tables, who, genes, measure=measure)
            np.testing.assert_array_equal([each.score for each in found], scores)
            # GX has a disease that shows nothing.
            assert found[-1].disease is None and found[-1].gene == "GX"
            for each in found[:-1]:
                assert abs(total(each) - each.score) < 1e-4
                assert each.rank == 1 + (scores > each.score).sum()


def test_each_kind_of_match(ten, tables, ids):
    """OMIM:4 has 3 at 1/2, 8 at 1/1 and 9 at 1/5; 5 is above 8 and 9."""
    who = Phenotypes(tuple(map(ids, (3, 5, 6, 7))), tuple(map(ids, (9, 4))))
    (found,) = explain(ten, tables, who, ["G3"])
    assert found.disease == "OMIM:4" and found.disease_name == "name of OMIM:4"
    by_term = {reason.term: reason for reason in found.terms}
    exact, above, sideways = (by_term[ids(term)] for term in (3, 5, 6))
    assert (exact.match, exact.annotation, exact.frequency) == ("exact", ids(3), 0.5)
    assert exact.contribution == pytest.approx(1.4 + 0.2 * np.log(0.5))
    # Of 8 and 9, both kinds of 5, the more frequent one counts.
    assert (above.match, above.annotation) == ("more specific", ids(8))
    assert above.ancestor == ids(5) and above.contribution == pytest.approx(1.4)
    # 6 occurs nowhere, which counts as one disease of four; 2 is in all of them.
    assert (sideways.match, sideways.ancestor) == ("related", ids(2))
    assert sideways.lost == pytest.approx(np.log(4))
    assert sideways.contribution == pytest.approx(1.4 - np.log(4))
    assert by_term[ids(7)].annotation_name.startswith("term")
    assert [(c.term, c.contribution) for c in found.contradictions] == [(ids(9), 0.0)]
    assert found.contradictions[0].frequency == pytest.approx(0.2)
    more = explain(ten, tables, Phenotypes((ids(9),)), ["G2"])[0]
    assert more.disease == "OMIM:3" and more.terms[0].match == "more general"


def test_frequencies_that_are_not_stated(ten, tables, ids):
    (found,) = explain(ten, tables, Phenotypes((ids(8), ids(4))), ["G2"])
    by_term = {reason.term: reason for reason in found.terms}
    assert found.disease == "OMIM:2"
    assert not by_term[ids(8)].stated and by_term[ids(8)].frequency == 0.5
    assert by_term[ids(4)].stated and by_term[ids(4)].frequency == 0.25
    text = "\n".join(found.lines())
    assert "term 8: annotated; frequency not stated" in text
    assert "term 4: annotated; in 25% of patients" in text


def test_nothing_in_common_is_zero_but_for_the_constant(make_hpo, ids):
    """Two roots, so that patient and disease share no ancestor at all."""
    parents = [[], [0], [], [2]]
    made = make_hpo(parents, [("OMIM:1", 1, "", "")], {"A": ["OMIM:1"]})
    tables = make_tables(made)
    (found,) = explain(made, tables, Phenotypes((ids(3),)), ["A"])
    assert found.terms[0].match == "none" and found.terms[0].annotation is None
    assert found.overlap == 0 and found.terms[0].contribution == 0
    # One disease only: its terms have no information, so its size costs nothing.
    assert found.size == 0 and found.score == pytest.approx(found.constant)
    assert "term 3: not explained better than chance" in "\n".join(found.lines())


def test_own_papers_are_left_out(ten, tables, ids):
    who = Phenotypes((ids(7),))
    kept, lost = (
        explain(ten, tables, who, ["G1"], references=own)[0]
        for own in (["PMID:1"], ["PMID:1", "PMID:2"])
    )
    assert kept.terms[0].match == "exact"
    # Nothing is left of the only disease of the gene.
    assert lost.disease is None and lost.score == -np.inf


def test_genes_without_a_profile(ten, tables, ids):
    found = explain(ten, tables, Phenotypes((ids(3),)), ["NEW", "G1"])
    assert found[0].score == -np.inf and found[0].rank == found[0].num_genes + 1
    assert found[0].lines() == ["NEW: HPO annotates no disease of this gene"]
    assert found[0].as_dict()["score"] is None
    text = json.dumps([each.as_dict() for each in found], allow_nan=False)
    again = json.loads(text)[1]
    assert again["terms"][0]["term"] == ids(3) and again["disease"] == "OMIM:1"
    assert again["rank"] == 1


def test_lines_show_every_part(ten, tables, ids):
    who = Phenotypes((ids(3), ids(6)), (ids(7),))
    (found,) = explain(ten, tables, who, ["G1"])
    lines = found.lines()
    assert lines[0].startswith("G1: rank ")
    shown = [line.split()[0] for line in lines[1:] if line.split()[0] != "not"]
    assert sum(map(float, shown)) == pytest.approx(found.score, abs=0.03)
    assert len(shown) == 2 + 3
    assert lines[-1].startswith("  not used: term 7 is excluded")


def test_mark_of_genes_that_are_always_high(make_hpo, ids):
    """One disease has a term of every organ, each of the others terms of three."""
    organs = range(1, 121)
    parents = [[], *[[0] for _ in organs]]
    lines, genes = [], {}
    for gene in range(110):
        own = [1 + gene, 1 + (gene + 1) % 120, 1 + (gene + 2) % 120]
        lines += [(f"OMIM:{gene + 1}", term, "1/1", "PMID:1") for term in own]
        genes[f"G{gene}"] = [f"OMIM:{gene + 1}"]
    lines += [("OMIM:999", term, "1/1", "PMID:2") for term in organs]
    made = make_hpo(parents, lines, genes | {"WELL": ["OMIM:999"]})
    tables = make_tables(made)
    ranks = unrelated_ranks(made, tables, "resnik_one_way", num_patients=60, key=KEY)
    place = made.annotations.genes.index("WELL")
    assert (ranks[:, place] == 1).mean() > 0.5
    # Far apart, so that no other disease has two of them.
    who = Phenotypes(tuple(map(ids, range(1, 120, 10))))
    marked, plain = explain(made, tables, who, ["WELL", "G5"], unrelated=ranks)
    assert marked.rank == 1 and marked.usual is not None and marked.usual > HIGH
    assert marked.known_by_study_only
    assert "known by study only" in marked.lines()[-1]
    assert plain.known_by_study_only is False
    (unknown,) = explain(made, tables, who, ["WELL"])
    assert unknown.known_by_study_only is None and unknown.usual is None
    with pytest.raises(ValueError, match="unrelated: expected 111 genes, got 1"):
        explain(made, tables, who, ["WELL"], unrelated=ranks[:, :1])


def test_the_patients_own_gene_is_not_counted(ten, tables):
    ranks = unrelated_ranks(ten, tables, num_patients=3, key=KEY)
    cases = simulate_cases(ten, 3, key=KEY)
    for row, case in zip(ranks, cases, strict=True):
        assert row[ten.annotations.genes.index(case.gene)] == 4
    # It was first, and the others keep their places.
    assert ranks.min() == 2


def test_bad_arguments(ten, tables, ids):
    with pytest.raises(ValueError, match="measure: expected"):
        explain(ten, tables, Phenotypes((ids(3),)), ["G1"], measure="lirical")
    with pytest.raises(KeyError):
        explain(ten, tables, Phenotypes(("HP:7777777",)), ["G1"])
    none = np.zeros(0, np.int32)
    with pytest.raises(ValueError, match="terms: expected at least one"):
        match_profile(ten.ontology, tables.information, none, none.astype(float), [1])
    one = np.ones(1, np.int32)
    with pytest.raises(ValueError, match="observed: expected at least one"):
        match_profile(ten.ontology, tables.information, one, one / 1, [])
