"""Test profiles without the annotations that only the patient's own papers support."""

import numpy as np

from jeff_llm.genes.own_papers import without_own_papers
from jeff_llm.genes.profiles import disease_terms


def rows(found, hpo):
    """Terms of each row, by patient and disease."""
    profiles = found.profiles
    bounds = zip(profiles.starts, profiles.starts[1:], strict=False)
    return {
        (int(case), hpo.annotations.diseases[disease]): profiles.terms[a:b].tolist()
        for case, disease, (a, b) in zip(
            found.cases, found.diseases, bounds, strict=True
        )
    }


def test_lines_with_no_other_source_are_left_out(ten):
    own = [["PMID:1"], [], ["PMID:3"], ["PMID:2", "PMID:1"], ["PMID:6", "PMID:77"]]
    found = rows(without_own_papers(ten, own), ten)
    assert found == {
        # Another paper supports 7 as well.
        (0, "OMIM:1"): [7],
        (2, "OMIM:2"): [],
        (3, "OMIM:1"): [],
        (4, "OMIM:4"): [3, 8],
    }


def test_nothing_changes_without_papers(ten):
    for own in ([], [[]], [["PMID:404"], ["PMID:2"]]):
        found = without_own_papers(ten, own)
        assert len(found.cases) == len(found.diseases) == 0
        assert found.profiles.starts.tolist() == [0]


def test_same_as_leaving_the_papers_out_of_all_profiles(real_hpo):
    """As `disease_terms(without=...)`, which makes every profile anew."""
    annotations = real_hpo.annotations
    rng = np.random.default_rng(0)
    pmids = [name for name in annotations.references if name.startswith("PMID:")]
    own = [rng.choice(pmids, size, replace=False).tolist() for size in (1, 3, 40)]
    found = without_own_papers(real_hpo, own)
    whole = disease_terms(real_hpo)
    for case, references in enumerate(own):
        expected = disease_terms(real_hpo, without=references)
        changed = set(found.diseases[found.cases == case].tolist())
        assert changed
        for disease in range(len(annotations.diseases)):
            part = slice(*expected.starts[disease : disease + 2])
            if disease in changed:
                row = np.flatnonzero(
                    (found.cases == case) & (found.diseases == disease)
                )[0]
                got, place = (
                    found.profiles,
                    slice(*found.profiles.starts[row : row + 2]),
                )
            else:
                got, place = whole, slice(*whole.starts[disease : disease + 2])
            np.testing.assert_array_equal(got.terms[place], expected.terms[part])
            np.testing.assert_array_equal(
                got.frequencies[place], expected.frequencies[part]
            )
