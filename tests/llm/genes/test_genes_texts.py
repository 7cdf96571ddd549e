"""Test the texts of patients, genes and diseases."""

import numpy as np
import pytest

from jeff_llm.genes.profile_texts import ProfileTexts, term_information
from jeff_llm.genes.profiles import Profiles, disease_terms
from jeff_llm.genes.ranking import Phenotypes


def test_patient(ten, ids):
    patient = Phenotypes((ids(1), ids(9), ids(3)), (ids(6),))
    # Terms of one disease each before those of several.
    wanted = "Phenotypes: term 9, term 3, term 1. Not found: term 6."
    assert ProfileTexts(ten).patient(patient) == wanted
    short = ProfileTexts(ten, num_terms=1).patient(patient)
    assert short == "Phenotypes: term 9. Not found: term 6."
    assert ProfileTexts(ten).patient(Phenotypes(())) == "Phenotypes: none known."
    with pytest.raises(KeyError, match="HP:9999999"):
        ProfileTexts(ten).patient(Phenotypes(("HP:9999999",)))


def test_gene(ten):
    texts = ProfileTexts(ten, num_diseases=1)
    # ln 2 / 2 by the usual frequency, 4/5 ln(4/3), and ln 2 / 4.
    wanted = "Diseases: name of OMIM:2. Phenotypes: term 8, term 5, term 4."
    assert texts.gene("G2") == wanted
    assert texts.gene("G9") == "Phenotypes: none known."
    bare = ProfileTexts(ten, num_diseases=0, symbol=True)
    assert bare.gene("G2") == "G2. Phenotypes: term 8, term 5, term 4."
    assert bare.gene("G9") == "G9. Phenotypes: none known."


def test_the_paper_of_a_case_is_left_out(ten):
    texts = ProfileTexts(ten, num_diseases=0, without=["PMID:3"])
    assert texts.gene("G2") == "Phenotypes: term 5."


def test_disease(ten):
    wanted = "Disease: name of OMIM:1. Phenotypes: term 3, term 7."
    assert ProfileTexts(ten).disease("OMIM:1") == wanted
    with pytest.raises(KeyError, match="'OMIM:77'"):
        ProfileTexts(ten).disease("OMIM:77")


def test_no_symbol_in_names_of_diseases(make_hpo, ids):
    """Symbols are words; neither their parts nor longer symbols are touched."""
    lines = [("OMIM:1", 1, "", "PMID:1")]
    genes = {"OMIM": ["OMIM:1"], "name": ["OMIM:1"], "of OMIM": ["OMIM:1"]}
    hpo = make_hpo([[], [0]], lines, genes)
    texts = ProfileTexts(hpo)
    assert texts.gene("OMIM").startswith("Diseases: name of :1.")
    assert texts.gene("name").startswith("Diseases: of OMIM:1.")
    named = ProfileTexts(hpo, symbol=True)
    assert named.gene("OMIM").startswith("OMIM. Diseases: name of OMIM:1.")
    assert ids(1) not in texts.gene("OMIM")


@pytest.mark.usefixtures("unchecked")
def test_refuses(ten):
    with pytest.raises(ValueError, match="num_terms: expected at least 1, got 0"):
        ProfileTexts(ten, num_terms=0)
    with pytest.raises(ValueError, match="num_diseases: expected at least 0"):
        ProfileTexts(ten, num_diseases=-1)
    with pytest.raises(ValueError, match=r"information: expected shape \(10,\)"):
        ProfileTexts(ten, information=np.zeros(3))


def test_information(ten):
    profiles = disease_terms(ten)
    found = term_information(ten.ontology, profiles)
    # Terms 0 and 1: all four diseases have one, three have the other.
    np.testing.assert_allclose(found[:2], [0, np.log(4 / 3)])
    empty = Profiles(
        np.zeros(5, np.int32), profiles.terms[:0], profiles.frequencies[:0]
    )
    with pytest.raises(ValueError, match="profiles: expected terms"):
        term_information(ten.ontology, empty)
