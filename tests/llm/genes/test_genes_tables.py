"""Test prepared profiles: propagated frequencies, buckets, and patients as arrays."""

import numpy as np
import pytest

from jeff_llm.genes.profiles import Profiles
from jeff_llm.genes.query import make_query
from jeff_llm.genes.ranking import Phenotypes
from jeff_llm.genes.tables import (
    DEFAULT_FREQUENCY,
    ancestors_of_all,
    filled,
    make_tables,
)


@pytest.fixture(scope="module")
def tables(ten):
    return make_tables(ten)


def test_frequencies_are_those_of_the_most_frequent_kind(tables):
    """Columns are OMIM:1 to OMIM:4, and OMIM:9 that has no terms."""
    found = tables.dense(np.array([1, -1, 4, 5, 6]))
    expected = [
        [1, 0.25, 0, 0.5, 0],
        [0, 0, 0, 0, 0],
        [0.5, 0.25, 0, 0, 0],
        [0, 0.5, 0.8, 1, 0],
        [0, 0, 0, 0, 0],
    ]
    np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(tables.background[1], 1.75 / 4)
    # Nothing has 6: half of what one disease would give.
    np.testing.assert_allclose(tables.background[6], 0.5 / 4)


def test_sums_by_disease(tables):
    ic = tables.information
    closed = [[0, 1, 2, 3, 4, 7], [0, 1, 2, 4, 5, 8], [0, 2, 5], [0, 1, 2, 3, 5, 8, 9]]
    expected = [ic[rows].sum() for rows in closed]
    np.testing.assert_allclose(tables.propagated_information[:4], expected, rtol=1e-6)
    # OMIM:2: 4 and 1 at 1/4; 8 and 5 at the default.
    expected = 0.25 * (ic[4] + ic[1]) + DEFAULT_FREQUENCY * (ic[8] + ic[5])
    np.testing.assert_allclose(tables.expected_information[1], expected, rtol=1e-6)
    np.testing.assert_allclose(
        tables.direct_information[1],
        0.25 * ic[4] + DEFAULT_FREQUENCY * ic[8],
        rtol=1e-6,
    )
    assert tables.expected_information[4] == 0


def test_most_specific_terms(make_hpo):
    """A profile of 1, 2 and 3, of which 1 is above 2, has 2 and 3."""
    parents = [[], [0], [1], [0]]
    lines = [("OMIM:1", term, "", "") for term in (1, 2, 3)]
    lines.append(("OMIM:2", 1, "", ""))
    made = make_tables(make_hpo(parents, lines, {"A": ["OMIM:1"]}))
    found = made.direct(np.arange(4))
    np.testing.assert_array_equal(found, [[0, 0], [0, 1], [1, 0], [1, 0]])
    assert made.annotated.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(
        made.implied(np.arange(4)), [[1, 1, 1], [1, 1, 0], [0, 1, 0], [0, 0, 1]]
    )


def test_buckets_hold_every_profile_once(real_hpo):
    tables = make_tables(real_hpo)
    counts = np.diff(tables.profiles.starts)
    rows = np.concatenate([bucket.rows for bucket in tables.buckets])
    np.testing.assert_array_equal(np.sort(rows), np.flatnonzero(counts))
    for bucket in tables.buckets:
        width = bucket.terms.shape[1]
        assert width & (width - 1) == 0
        np.testing.assert_array_equal(bucket.valid.sum(1), counts[bucket.rows])
        assert (counts[bucket.rows] > width / 2).all() or width == 4
        assert (bucket.frequencies[~bucket.valid] == 0).all()
        # Padding repeats the first term, so that it never changes a maximum.
        first = np.repeat(bucket.terms[:, :1], width, axis=1)
        assert (bucket.terms == first)[~bucket.valid].all()
        row = int(bucket.rows[0])
        part = slice(*tables.profiles.starts[row : row + 2])
        found = tables.annotated[bucket.terms[0][bucket.valid[0]]]
        np.testing.assert_array_equal(found, tables.profiles.terms[part])


def test_genes_have_the_terms_of_their_diseases(ten, tables):
    genes = make_tables(ten, profiles="genes", information="genes")
    assert genes.num_profiles == 3
    # G2 has OMIM:2 and OMIM:3: 4, 5 and 8. All three genes have 1.
    np.testing.assert_allclose(genes.dense(np.array([5]))[0], [0, 0.8, 1])
    assert genes.information[1] == 0
    mixed = make_tables(ten, profiles="genes")
    np.testing.assert_array_equal(mixed.information, tables.information)


def test_other_profiles_keep_the_information(tables):
    profiles = Profiles(
        np.array([0, 0, 2], np.int32),
        np.array([3, 8], np.int32),
        np.array([0.5, np.nan], np.float32),
    )
    other = tables.over(filled(profiles, 0.1))
    assert other.information is tables.information
    assert other.background is tables.background
    np.testing.assert_allclose(other.dense(np.array([5, 1])), [[0, 0.1], [0, 0.5]])
    assert other.default_frequency == tables.default_frequency
    nothing = tables.over(
        Profiles(np.zeros(2, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32))
    )
    np.testing.assert_array_equal(nothing.dense(np.arange(10)), np.zeros((10, 1)))
    assert nothing.buckets == ()


def test_queries(ten, ids):
    who = [
        Phenotypes((ids(7), ids(3), ids(7)), (ids(6),)),
        Phenotypes((ids(8),), (ids(3), ids(4))),
    ]
    query = make_query(ten.ontology, who)
    assert sorted(query.closure.tolist()) == list(range(9))
    depth = ten.ontology.depths[query.closure]
    assert (np.diff(depth) >= 0).all()
    for row, term in enumerate(query.closure.tolist()):
        start, stop = ten.ontology.parent_starts[term : term + 2]
        parents = set(ten.ontology.parents[start:stop].tolist())
        found = {int(query.closure[p]) for p in query.parents[row] if p != row}
        assert found == parents
    observed = [
        [int(query.closure[query.terms[t]]) for t in row if t >= 0]
        for row in query.cases
    ]
    assert observed == [[3, 7], [8]]
    excluded = [
        [int(query.closure[t]) for t in row if t >= 0] for row in query.excluded
    ]
    assert excluded == [[6], [3, 4]]


def test_ancestors_of_many(ten):
    above, counts = ancestors_of_all(ten.ontology, np.array([7, 0]))
    assert above.tolist() == [0, 1, 2, 4, 7, 0] and counts.tolist() == [5, 1]
    above, counts = ancestors_of_all(ten.ontology, np.zeros(0, int))
    assert len(above) == len(counts) == 0


def test_bad_arguments(ten, make_hpo):
    for given, text in (
        ({"profiles": "all"}, "profiles: expected one of"),
        ({"information": "all"}, "information: expected one of"),
        ({"default_frequency": 0.0}, r"default_frequency: expected .* \(0, 1\]"),
        ({"unannotated": 2}, "unannotated: expected 0 or 1"),
    ):
        with pytest.raises(ValueError, match=text):
            make_tables(ten, **given)
    lacking = make_hpo([[], [0]], [("OMIM:1", 1, "NOT", "")], {"A": ["OMIM:1"]})
    with pytest.raises(ValueError, match="expected diseases with phenotypes, got none"):
        make_tables(lacking)
    with pytest.raises(ValueError, match="patients: expected at least one"):
        make_query(ten.ontology, [])
