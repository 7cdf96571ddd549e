"""Test all measures against their formulas in plain Python, and against hpo3."""

import logging
from dataclasses import replace
from math import exp, log, sqrt

import jax
import numpy as np
import pytest

from jeff import assets
from jeff_llm.genes import similarity
from jeff_llm.genes.batch import Batch
from jeff_llm.genes.profiles import (
    Profiles,
    annotation_counts,
    disease_terms,
    information_content,
)
from jeff_llm.genes.query import make_query
from jeff_llm.genes.ranking import Phenotypes
from jeff_llm.genes.scoring import MEASURES, score
from jeff_llm.genes.simulate import simulate_cases
from jeff_llm.genes.tables import make_tables

KEY = jax.random.key(5)


class Plain:
    """The measures, one patient and one disease at a time, from their definitions."""

    def __init__(self, hpo):
        ontology = hpo.ontology
        self.ids = ontology.ids
        self.above = [
            set(ontology.ancestors_of(t).tolist()) for t in range(len(self.ids))
        ]
        made = disease_terms(hpo)
        bounds = zip(made.starts, made.starts[1:], strict=False)
        self.profiles = [
            {
                int(t): 0.5 if np.isnan(f) else float(f)
                for t, f in zip(made.terms[a:b], made.frequencies[a:b], strict=True)
            }
            for a, b in bounds
        ]
        used = [profile for profile in self.profiles if profile]
        self.propagated = [self.propagate(profile) for profile in self.profiles]
        counts = [sum(t in p for p in self.propagated) for t in range(len(self.ids))]
        self.ic = [log(len(used)) - log(max(count, 1)) for count in counts]
        self.background = [
            max(sum(p.get(t, 0) for p in self.propagated), 0.5) / len(used)
            for t in range(len(self.ids))
        ]

    def propagate(self, profile):
        found = {}
        for term, share in profile.items():
            for one in self.above[term]:
                found[one] = max(found.get(one, 0), share)
        return found

    def mica(self, a, b):
        return max((self.ic[t] for t in self.above[a] & self.above[b]), default=0.0)

    def pair(self, kind, a, b):
        mica, first, second = self.mica(a, b), self.ic[a], self.ic[b]
        lin = 2 * mica / (first + second) if first + second else 0.0
        common = len(self.above[a] & self.above[b])
        index = common / len(self.above[a] | self.above[b])
        return {
            "resnik": mica,
            "lin": lin,
            "jiang_conrath": 1 / (1 + first + second - 2 * mica),
            "relevance": lin * (1 - exp(-mica)),
            "information_coefficient": lin * (1 - 1 / (1 + mica)),
            "jaccard": index,
            "phenodigm": sqrt(mica * index),
        }[kind]

    def all(self, patient, number):
        """Every measure of one patient and disease."""
        asked = sorted({self.ids.index(term) for term in patient.observed})
        lacking = sorted({self.ids.index(term) for term in patient.excluded})
        profile, f = self.profiles[number], self.propagated[number]
        if not profile:
            return dict.fromkeys(MEASURES, -np.inf)
        found = {}
        for name in MEASURES:
            kind = next((k for k in KINDS if name.startswith(k)), None)
            if kind:
                found[name] = self.sets(kind, asked, profile)[name[len(kind) + 1 :]]
        found["phenodigm"] = self.phenodigm(asked, profile)
        closed = set().union(*(self.above[q] for q in asked))
        ic = self.ic
        whole = sum(ic[t] for t in closed)
        common = sum(ic[t] for t in closed & f.keys())
        union = sum(ic[t] for t in closed | f.keys())
        found["simgic"] = common / max(union, 1e-6)
        shared = sum(ic[t] * f[t] ** 0.2 for t in closed & f.keys())
        rest = sum(ic[t] * f[t] for t in f.keys() - closed)
        found["weighted_overlap"] = shared / max(whole + 0.2 * rest, 1e-6)
        specific = [
            q for q in asked if not any(q in self.above[p] - {p} for p in asked)
        ]
        own = [d for d in profile if not any(d in self.above[e] - {e} for e in profile)]
        found["icto"] = sum(ic[q] for q in specific if q in f and q not in own)
        found["icto"] += sum(ic[d] for d in own if d in closed)
        found["naive_bayes"] = sum(
            log(max(f[q], 0.01)) - log(self.background[q]) for q in specific if q in f
        )
        found["lirical"] = sum(self.ratio(q, f) for q in asked) + sum(
            log(max(1 - f.get(t, 0), 0.01)) - log(max(1 - self.background[t], 0.01))
            for t in lacking
        )
        matched = sum(self.matched(q, f) for q in asked)
        unshown = sum(
            share * (ic[d] - max(self.mica(d, q) for q in asked))
            for d, share in profile.items()
        )
        found["matched_information"] = matched - 0.5 * log(10 + unshown)
        found["combined"] = found["matched_information"] + 3 * log(
            found["weighted_overlap"] + 0.02
        )
        return found

    def sets(self, kind, asked, profile):
        values = [[self.pair(kind, q, d) for d in profile] for q in asked]
        forward = np.mean([max(row) for row in values])
        backward = np.mean([max(column) for column in zip(*values, strict=True)])
        both = (forward + backward) / 2
        return {"one_way": forward, "both_ways": both, "largest": np.max(values)}

    def phenodigm(self, asked, profile):
        values = [[self.pair("phenodigm", q, d) for d in profile] for q in asked]
        total = sum(map(max, values)) + sum(map(max, zip(*values, strict=True)))
        perfect = [sqrt(self.ic[q]) for q in asked]
        best, mean = max(perfect), sum(perfect) / len(perfect)
        both = total / ((len(asked) + len(profile)) * max(mean, 1e-6))
        return min(1, (np.max(values) / max(best, 1e-6) + both) / 2)

    def ratio(self, q, f):
        def log_ratio(t):
            return max(log(f[t] / self.background[t]), log(0.01))

        if q in f:
            return log_ratio(q)
        return max(log_ratio(t) if t in f else log(0.01) for t in self.above[q])

    def matched(self, q, f):
        reached = (self.ic[t] + 0.2 * log(f[t]) for t in self.above[q] if t in f)
        best = max(reached, default=-np.inf)
        return max(0, 1.4 - (self.ic[q] - best))


KINDS = (
    "resnik",
    "lin",
    "jiang_conrath",
    "relevance",
    "information_coefficient",
    "jaccard",
)


def draw(ids, rng, count):
    """A patient with so many terms, some of them twice, and two excluded ones."""
    chosen = rng.choice(ids, count, replace=False).tolist()
    lacking = rng.choice(ids, 2, replace=False).tolist()
    return Phenotypes((*chosen, *chosen[:2]), tuple(lacking))


@pytest.mark.parametrize("seed", [0, 1])
def test_all_measures_as_their_formulas(random_hpo, seed):
    made = random_hpo(seed)
    rng = np.random.default_rng(seed)
    ids = np.array(made.ontology.ids)
    sizes = (1, 2, 5, 12, len(ids))
    patients = [draw(ids, rng, size) for size in sizes]
    found = score(make_tables(made), patients, MEASURES)
    assert tuple(found) == MEASURES
    plain = Plain(made)
    for row, patient in enumerate(patients):
        for column in range(len(plain.profiles)):
            expected = plain.all(patient, column)
            for name in MEASURES:
                assert found[name][row, column] == pytest.approx(
                    expected[name], rel=2e-5, abs=2e-5
                ), (name, row, column)
    # The disease that shows nothing has no score in any measure.
    empty = made.annotations.diseases.index("OMIM:99")
    assert all((values[:, empty] == -np.inf).all() for values in found.values())


def test_a_patient_alone_is_as_in_a_batch(random_hpo):
    made = random_hpo(0)
    rng = np.random.default_rng(3)
    ids = np.array(made.ontology.ids)
    patients = [draw(ids, rng, size) for size in rng.integers(1, 30, 100)]
    tables = make_tables(made)
    together = score(tables, patients, MEASURES)
    for row in (0, 63, 64, 99):
        alone = score(tables, patients[row : row + 1], MEASURES)
        for name in MEASURES:
            np.testing.assert_allclose(
                alone[name][0], together[name][row], rtol=1e-5, atol=1e-5, err_msg=name
            )


def test_order_and_repetition_of_terms_do_not_count(random_hpo):
    made = random_hpo(1)
    ids = made.ontology.ids
    tables = make_tables(made)
    pair = [Phenotypes(ids[3:9]), Phenotypes(ids[3:9][::-1] + ids[4:6])]
    for values in score(tables, pair, MEASURES).values():
        np.testing.assert_array_equal(values[0], values[1])


def test_terms_that_no_profile_has(make_hpo, ids):
    """An inheritance below a root of its own shares nothing with a disease."""
    parents = [[], [0], [0], [], [3]]
    lines = [("OMIM:1", 1, "1/2", ""), ("OMIM:2", 2, "1/1", "")]
    made = make_hpo(parents, lines, {"A": ["OMIM:1"]})
    tables = make_tables(made)
    found = score(tables, [Phenotypes((ids(4),)), Phenotypes((ids(1),))], MEASURES)
    for name, values in found.items():
        assert np.isfinite(values).all(), name
    for name in ("resnik_both_ways", "jaccard_largest", "simgic", "icto", "phenodigm"):
        assert (found[name][0] == 0).all()
        assert found[name][1, 0] > 0
    # ln 0.01 for a term that nothing explains.
    np.testing.assert_allclose(found["lirical"][0], log(0.01), rtol=1e-5)


def test_bad_arguments(ten, ids):
    tables = make_tables(ten)
    who = Phenotypes((ids(3),))
    with pytest.raises(ValueError, match="measures: expected names from"):
        score(tables, [who], ["resnik"])
    with pytest.raises(ValueError, match=r"patients\[1\]: expected at least one obser"):
        score(tables, [who, Phenotypes(())])
    with pytest.raises(KeyError, match="HP:7777777"):
        score(tables, [Phenotypes(("HP:7777777",))])
    # Four diseases with terms, and one that only a gene names.
    assert score(tables, [])["combined"].shape == (0, 5)


@pytest.mark.slow
def test_single_patients_compile_a_few_times(real_hpo, caplog):
    """Fifty patients, one after the other, as in a clinic."""
    tables = make_tables(real_hpo)
    cases = simulate_cases(real_hpo, 50, key=KEY)
    jax.clear_caches()  # what other tests have compiled
    # Those with hundreds of ancestors are rare, and each costs a compilation.
    compiled = []
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        for case in cases:
            before = len(caplog.records)
            score(tables, [case.phenotypes])
            new = [r.getMessage() for r in caplog.records[before:]]
            compiled.append(any("Finished XLA compilation" in text for text in new))
    assert compiled[0], "the count sees no compilation at all"
    assert sum(compiled) <= 10
    assert sum(compiled[25:]) <= 3


def hpo3_tables(real_hpo, kind):
    """Tables of the sets of terms that hpo3 has, with its information content."""
    pyhpo = pytest.importorskip("pyhpo")
    path = assets.find("hpo").parent
    pyhpo.Ontology(str(path))
    ontology = real_hpo.ontology
    if pyhpo.Ontology.version() != ontology.release:
        pytest.skip(f"hpo3 has read {pyhpo.Ontology.version()}")
    named = {"gene": pyhpo.Ontology.genes, "omim": pyhpo.Ontology.omim_diseases}[kind]
    things = sorted(named, key=lambda thing: thing.id)
    rows = [
        sorted(ontology.positions[f"HP:{int(t):07d}"] for t in x.hpo) for x in things
    ]
    starts = np.append(0, np.cumsum([len(row) for row in rows])).astype(np.int32)
    terms = np.concatenate(rows).astype(np.int32)
    profiles = Profiles(starts, terms, np.ones(len(terms), np.float32))
    counts = annotation_counts(ontology, starts, terms)
    content = information_content(counts, len(things), unannotated=0)
    tables = replace(make_tables(real_hpo), information=content.astype(np.float32))
    return pyhpo, things, tables.over(profiles)


@pytest.mark.parametrize("kind", ["gene", "omim"])
def test_parity_with_hpo3(real_hpo, kind):
    """Same sets of terms, same information content, same similarities.

    hpo3's sets differ from ours in that they hold inheritance and course, lines with a
    frequency of 0, and, for genes, the terms that a disease is said to lack; so its own
    sets are scored here. An unannotated term has no information in hpo3.
    """
    pyhpo, things, tables = hpo3_tables(real_hpo, kind)
    ids = tables.ontology.ids
    theirs = [
        getattr(pyhpo.Ontology.get_hpo_object(name).information_content, kind)
        for name in ids[::37]
    ]
    np.testing.assert_allclose(tables.information[::37], theirs, atol=1e-5)
    cases = simulate_cases(real_hpo, 4, key=KEY)
    patients = [case.phenotypes for case in cases]
    batch = Batch(tables, make_query(tables.ontology, patients))
    sizes = np.diff(tables.profiles.starts)
    columns = [c for c in range(0, len(things), len(things) // 12) if sizes[c]]
    methods = {
        "resnik": lambda mica, *_: mica,
        "lin": similarity.lin,
        "jc": similarity.jiang_conrath,
        "rel": similarity.relevance,
        "ic": similarity.information_coefficient,
    }
    for method, measure in methods.items():
        sets = batch.sets(measure(batch.mica, *batch.term_information))
        forward, backward = np.asarray(sets.forward), np.asarray(sets.backward)
        for row, patient in enumerate(patients):
            asked = pyhpo.HPOSet.from_queries(list(patient.observed))
            count = len(patient.observed)
            for c in columns:
                total = count * forward[row, c] + sizes[c] * backward[row, c]
                ours = {
                    "funSimAvg": (forward[row, c] + backward[row, c]) / 2,
                    "funSimMax": max(forward[row, c], backward[row, c]),
                    "BMA": total / (count + sizes[c]),
                }
                for combine, value in ours.items():
                    other = things[c].hpo_set()
                    expected = asked.similarity(other, kind, method, combine)
                    assert value == pytest.approx(expected, abs=1e-5), (method, combine)
