"""Test the similarities of terms by hand, on ten terms and four diseases.

0 > (1 > (3, 4 > 7), 2 > (4, 5 > (8, 9), 6)); 4 has two parents. With their ancestors,
terms 0 to 9 are in 4, 3, 4, 2, 2, 3, 0, 1, 2 and 1 of the four diseases.
"""

from math import log

import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm.genes import similarity
from jeff_llm.genes.batch import Batch
from jeff_llm.genes.query import make_query
from jeff_llm.genes.ranking import Phenotypes
from jeff_llm.genes.scoring import score
from jeff_llm.genes.tables import make_tables

IC = [0, log(4 / 3), 0, log(2), log(2), log(4 / 3), log(4), log(4), log(2), log(4)]


def close(found, expected):
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-5, atol=1e-6)


def test_information_content(ten):
    close(make_tables(ten).information, IC)
    zero = list(IC)
    zero[6] = 0
    close(make_tables(ten, unannotated=0).information, zero)


def test_resnik_of_every_pair(ten, ids):
    tables = make_tables(ten)
    batch = Batch(tables, make_query(ten.ontology, [Phenotypes((ids(3), ids(8)))]))
    assert tables.annotated.tolist() == [3, 4, 5, 7, 8, 9]
    # Rows by annotated term; the columns are the terms 3 and 8.
    expected = [
        [log(2), 0],
        [log(4 / 3), 0],
        [0, log(4 / 3)],
        [log(4 / 3), 0],
        [0, log(2)],
        [0, log(4 / 3)],
    ]
    close(batch.mica[:, :2], expected)
    # Ancestors of 3: 0 1 3; of 8: 0 2 5 8; of 4: 0 1 2 4; of 9: 0 2 5 9.
    close(batch.ancestor_index[0, :2], [1, 1 / 6])
    close(batch.ancestor_index[1, :2], [2 / 5, 2 / 6])
    close(batch.ancestor_index[5, :2], [1 / 6, 3 / 5])


def test_sets_by_hand(ten, ids):
    who = Phenotypes((ids(3), ids(8)))
    names = ("resnik_one_way", "resnik_both_ways", "resnik_largest", "simgic")
    found = score(make_tables(ten), [who], names)
    one = [log(2) / 2, (log(4 / 3) + log(2)) / 2, log(4 / 3) / 2, log(2)]
    close(found["resnik_one_way"][0, :4], one)
    # Backwards, of 3 and 7; 4 and 8; 5; 3, 8 and 9.
    back = [
        (log(2) + log(4 / 3)) / 2,
        (log(4 / 3) + log(2)) / 2,
        log(4 / 3),
        (2 * log(2) + log(4 / 3)) / 3,
    ]
    close(found["resnik_both_ways"][0, :4], (np.array(one) + back) / 2)
    close(found["resnik_largest"][0, :4], [log(2), log(2), log(4 / 3), log(2)])
    # The patient has 0 1 2 3 5 8, the third disease 0 2 5.
    close(found["simgic"][0, 2], log(4 / 3) / (2 * log(4 / 3) + 2 * log(2)))
    assert found["resnik_one_way"][0, 4] == -np.inf


def test_pairs_by_hand():
    mica, first, second = (jnp.array([x]) for x in (1.0, 2.0, 3.0))
    close(similarity.lin(mica, first, second), 0.4)
    close(similarity.jiang_conrath(mica, first, second), 1 / 4)
    close(similarity.relevance(mica, first, second), 0.4 * (1 - np.exp(-1)))
    close(similarity.information_coefficient(mica, first, second), 0.4 * 0.5)
    close(similarity.jaccard(jnp.array(2.0), jnp.array(3.0), jnp.array(4.0)), 2 / 5)
    close(similarity.phenodigm_pair(jnp.array(4.0), jnp.array(0.25)), 1)
    zero = jnp.zeros(1)
    for measure in (similarity.lin, similarity.relevance):
        close(measure(zero, zero, zero), 0)
    close(similarity.information_coefficient(zero, zero, zero), 0)
    close(similarity.jiang_conrath(zero, zero, zero), 1)


@pytest.mark.parametrize("seed", [0, 1])
def test_both_passes_are_the_best_over_all_paths(random_hpo, seed):
    ontology = random_hpo(seed).ontology
    who = Phenotypes(ontology.ids)
    query = make_query(ontology, [who])
    assert sorted(query.closure.tolist()) == list(range(len(ontology.ids)))
    own = np.random.default_rng(seed).normal(size=(len(query.closure), 3))
    own = own.astype(np.float32)
    down = similarity.over_ancestors(jnp.asarray(own), jnp.asarray(query.parents))
    up = similarity.over_descendants(jnp.asarray(own), jnp.asarray(query.parents))
    row = {int(term): place for place, term in enumerate(query.closure)}
    above = [
        [row[int(a)] for a in ontology.ancestors_of(int(t))] for t in query.closure
    ]
    for place, rows in enumerate(above):
        close(down[place], own[rows].max(0))
        below = [other for other, rows in enumerate(above) if place in rows]
        close(up[place], own[below].max(0))
