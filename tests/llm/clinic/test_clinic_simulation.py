"""Test simulated questions on a tiny release of HPO."""

import re

import jax
import numpy as np
import pytest

from jeff import assets
from jeff_llm.clinic.items import LEVELS, make_items
from jeff_llm.clinic.simulation import simulate_questions
from jeff_llm.genes import hpo

# Roots of HPO by how their terms are told, and three terms under each.
BRANCHES = {
    "HP:0000707": ("Seizure", "Ataxia", "Tremor"),
    "HP:0000924": ("Scoliosis", "Short femur", "Bowed tibia"),
    "HP:0001939": ("Acidosis", "Low glucose", "EEG acid"),
    "HP:0000152": ("Cleft lip", "Low-set ears", "Flat face"),
}
TERMS = {
    f"HP:{10 * row + column + 11:07d}": (name, root)
    for row, (root, names) in enumerate(BRANCHES.items())
    for column, name in enumerate(names)
}
COLUMNS = (
    "database_id disease_name qualifier hpo_id reference evidence onset frequency sex "
    "modifier aspect biocuration"
)


def release(folder, diseases=8):
    obo = "format-version: 1.2\ndata-version: hp/releases/2030-01-02\n"
    blocks = [("HP:0000001", "All", None), ("HP:0000118", "Phenotype", "HP:0000001")]
    blocks += [(root, f"Branch {root}", "HP:0000118") for root in BRANCHES]
    blocks += [(key, name, root) for key, (name, root) in TERMS.items()]
    for key, name, above in blocks:
        obo += f"\n[Term]\nid: {key}\nname: {name}\n"
        obo += f"is_a: {above}\n" if above else ""
    hpoa = "#version: 2030-01-02\n" + COLUMNS.replace(" ", "\t")

    def line(disease, name, term, frequency="3/4", negated=""):
        cells = [disease, name, negated, term, "PMID:1", "PCS", "", frequency]
        return "\n" + "\t".join([*cells, "", "", "P", "x"])

    keys = list(TERMS)
    for number in range(diseases):
        for step in range(4):
            hpoa += line(f"OMIM:{number}", f"D{number}", keys[(number + 2 * step) % 12])
        # What the disease lacks, and what is rare in it, is not told.
        hpoa += line(f"OMIM:{number}", f"D{number}", keys[(number + 1) % 12], "", "NOT")
        hpoa += line(f"OMIM:{number}", f"D{number}", keys[(number + 3) % 12], "1/100")
    # Too few terms, and the name of another.
    for term in keys[:2]:
        hpoa += line("OMIM:90", "Small", term)
    for term in keys[:4]:
        hpoa += line("OMIM:91", "D0", term)
    head = "ncbi_gene_id\tgene_symbol\thpo_id\thpo_name\tfrequency\tdisease_id\n"
    genes = f"{head}1\tG1\t{keys[0]}\tx\t-\tOMIM:0\n"
    for name, text in zip(hpo.FILES, (obo, hpoa + "\n", genes), strict=True):
        (folder / name).write_text(text)
    return hpo.load(folder)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JEFF_CACHE", str(tmp_path_factory.mktemp("cache")))
        # Back in place at once: the last test needs the real cache.
        return release(tmp_path_factory.mktemp("hpo"))


@pytest.fixture(scope="module")
def questions(tiny):
    return simulate_questions(tiny, 8, key=jax.random.key(0))


def test_questions(questions):
    assert [each.id for each in questions] == [f"simulated_{n:04d}" for n in range(8)]
    assert sorted(each.answer for each in questions) == [f"D{n}" for n in range(8)]
    for each in questions:
        assert each.simulated and each.level == LEVELS[0]
        assert len(set(each.options)) == 4 and each.answer in each.options
        assert each.question.endswith("?")


def told(vignette):
    """Names of the terms in a vignette, in the order of its sentences."""
    names = "|".join(re.escape(name.lower()) for name, _ in TERMS.values())
    return re.findall(names, vignette.lower())


def test_only_terms_of_the_disease_are_told(questions):
    names = [name.lower() for name, _ in TERMS.values()]
    for each in questions:
        number = int(each.answer[1:])
        own = {names[(number + 2 * step) % 12] for step in range(4)}
        found = told(each.vignette)
        assert 3 <= len(found) <= 6 and len(set(found)) == len(found)
        assert set(found) <= own


def test_ways_of_telling(questions):
    """Symptoms before signs, images and laboratory, each by a sentence of its own."""
    ways = {"HP:0000707": 0, "HP:0000152": 1, "HP:0000924": 2, "HP:0001939": 3}
    place = {name.lower(): ways[root] for name, root in TERMS.values()}
    text = " ".join(each.vignette for each in questions)
    assert re.search(
        r"(parents report|history of|has had|also has) (seiz|atax|tremo)", text
    )
    assert re.search(r"(Imaging|imaging) shows (scolio|short f|bowed)", text)
    assert re.search(
        r"aboratory (studies show|tests confirm) (acid|low g|EEG acid)", text
    )
    for each in questions:
        order = [place[name] for name in told(each.vignette)]
        assert order == sorted(order)


def test_every_question_makes_an_item(questions):
    pytest.importorskip("sentencex")
    made = make_items(questions)
    assert not made.rejects
    for question, item in zip(questions, made.items, strict=True):
        assert len(item.evidence) == len(told(question.vignette))
        assert item.sex != "unknown" and item.age_group != "unknown"
        pronouns = set(re.findall(r"\b(?:He|She)\b", " ".join(item.evidence)))
        assert pronouns <= {"She" if item.sex == "female" else "He"}


def test_the_first_of_more_are_the_same(tiny, questions):
    assert simulate_questions(tiny, 3, key=jax.random.key(0)) == questions[:3]
    assert simulate_questions(tiny, 3, key=jax.random.key(1)) != questions[:3]


def test_options_do_not_tell_the_answer_by_their_place(questions, tiny):
    places = [
        each.options.index(each.answer)
        for seed in range(25)
        for each in simulate_questions(tiny, 8, key=jax.random.key(seed))
    ]
    counts = np.bincount(places, minlength=4)
    # Fifty of each are expected; the standard deviation is six.
    assert counts.sum() == 200 and counts.min() > 25


def test_what_is_refused(tiny):
    with pytest.raises(ValueError, match="num_questions: expected at least 1, got 0"):
        simulate_questions(tiny, 0, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"at most 8, the diseases of HPO .*got 9"):
        simulate_questions(tiny, 9, key=jax.random.key(0))


def test_the_real_release():
    if assets.status("hpo") is None:
        pytest.skip("the asset hpo is not on this machine")
    found = simulate_questions(hpo.load(), 20, key=jax.random.key(0))
    assert len({each.answer for each in found}) == 20
    for each in found:
        assert each.vignette.count(".") >= 4 and "{" not in each.vignette
