"""Test stored diagnoses: reading, genes of answers, votes, rankers and accuracy."""

import gzip

import jax
import numpy as np
import pytest

from jeff_llm.genes import answer_genes, language_votes, stored
from jeff_llm.genes.annotations import AnnotationReport, Annotations
from jeff_llm.genes.cases import Case
from jeff_llm.genes.ranking import Phenotypes
from jeff_llm.genes.stored import StoredAnswer

KEY = jax.random.key(0)
HEAD = "case,language,rank,mondo,correct_omim,is_correct\n"
TABLE = """PMID_1_II_2,en,2,MONDO:0000002,OMIM:1,1
PMID_1_II_2,en,1,MONDO:0000009,OMIM:1,0
PMID_1_II_2,de,1,MONDO:0000002,OMIM:1,1
PMID_2,en,1,"Usher syndrome, of some kind",OMIM:2,0
PMID_2,en,2,nothing known,OMIM:2,0
PMID_3,de,1,MONDO:0000003,OMIM:3,0
"""
MONDO_TABLE = """# prefixes: none
subject_id\tsubject_label\tpredicate_id\tobject_id
MONDO:0000002\tan "odd name\tskos:exactMatch\tOMIM:1
MONDO:0000003\tUsher syndrome\tskos:exactMatch\tORPHA:886
"""
ONE, TWO, THREE = (Phenotypes((f"HP:000000{i}",)) for i in (1, 2, 3))


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "rankings.csv.gz"
    path.write_bytes(gzip.compress((HEAD + TABLE).encode()))
    return path


@pytest.fixture
def rankings(table):
    return stored.read_rankings(table)


@pytest.fixture
def annotations():
    """OMIM:1 has G1, two types of Usher syndrome have G2 and G3; a disease has none."""
    none = np.zeros(0, np.int32)
    return Annotations(
        diseases=("OMIM:1", "OMIM:2", "OMIM:3", "ORPHA:886"),
        disease_names=("First", "Usher syndrome, type 1", "USHER SYNDROME 2", "Usher"),
        line_disease=none,
        line_term=none,
        line_frequency=none.astype(np.float32),
        line_negated=none.astype(bool),
        line_aspect=none.astype("U1"),
        reference_starts=np.zeros(1, np.int32),
        line_references=none,
        references=(),
        genes=("G1", "G2", "G3"),
        entrez=np.arange(3),
        links=np.array([[0, 0], [1, 1], [2, 2]], np.int32),
        release="1",
        report=AnnotationReport(),
    )


@pytest.fixture
def genes_of(rankings, annotations, tmp_path):
    path = tmp_path / "mondo.tsv"
    path.write_text(MONDO_TABLE)
    names = stored.read_mondo_names(path)
    assert names["MONDO:0000002"] == 'an "odd name'
    mondo = {"MONDO:0000002": ("OMIM:1",), "MONDO:0000003": ("ORPHA:886",)}
    return answer_genes.genes_of_answers(rankings.diseases, annotations, mondo, names)


def test_reading(rankings):
    assert rankings.languages == ("de", "en")
    assert list(rankings.answers) == ["PMID_1_II_2", "PMID_2", "PMID_3"]
    assert rankings.answers["PMID_1_II_2"]["en"] == (
        StoredAnswer(1, "MONDO:0000009", correct=False),
        StoredAnswer(2, "MONDO:0000002", correct=True),
    )
    assert rankings.first_correct("en").tolist() == [2, np.inf, np.inf]
    assert rankings.first_correct("de").tolist() == [1, np.inf, np.inf]
    with pytest.raises(ValueError, match=r"language: expected .*'de', 'en'.* got 'fr'"):
        rankings.first_correct("fr")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,language\n", "expected a column 'rank'"),
        (HEAD + "a,en,0,M,O,1\n", "csv:2: rank: expected 1, 2, .*got '0'"),
        (HEAD + "a,en,1,M,O,yes\n", "is_correct: expected 0 or 1, got 'yes'"),
        (HEAD + "a,en,1,M,O,1\na,en,2,M,P,0\n", "csv:3: correct_omim: expected O"),
        (HEAD + "a,en,1\n", "expected 6 fields"),
        ("", "expected a header with case"),
    ],
)
def test_broken_tables(tmp_path, text, message):
    path = tmp_path / "rankings.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        stored.read_rankings(path)


def test_files_that_are_none(tmp_path, table):
    with pytest.raises(FileNotFoundError, match="expected a table"):
        stored.read_rankings(tmp_path / "none.csv")
    table.write_bytes(table.read_bytes()[:-20])
    with pytest.raises(ValueError, match="expected a table, but it cannot be read"):
        stored.read_rankings(table)


def test_genes_of_answers(genes_of):
    assert genes_of == {
        "MONDO:0000009": (),
        "MONDO:0000002": ("G1",),
        "Usher syndrome, of some kind": (),
        "nothing known": (),
        "MONDO:0000003": ("G2", "G3"),
    }


def test_name_words():
    words = answer_genes._name_words
    assert words("Niemann-Pick disease type C") == {"niemann", "pick", "c"}
    assert words("Fanconi anaemias") == words("Fanconi anemia (less likely)")
    assert words("Leber's disease") == {"leber"}
    assert words("MONDO:0100438") == words("the syndrome") == frozenset()


def test_votes_by_hand():
    answers = {
        "de": [StoredAnswer(1, "group", correct=False)],
        "en": [
            StoredAnswer(1, "none", correct=False),
            StoredAnswer(2, "group", correct=False),
            StoredAnswer(3, "own", correct=True),
        ],
    }
    genes_of = {"group": ("A", "B"), "own": ("A",)}
    # In English A has 1/3 over 2 and 1/4: the larger is 1/4.
    found = language_votes.votes(answers, genes_of, size_exponent=1.0)
    assert found == pytest.approx({"A": (1 / 4 + 1 / 4) / 2, "B": (1 / 4 + 1 / 6) / 2})
    found = language_votes.votes(
        answers, genes_of, languages=("de",), size_exponent=0.0
    )
    assert found == pytest.approx({"A": 0.5, "B": 0.5})
    with pytest.raises(ValueError, match="size_exponent: expected"):
        language_votes.votes(answers, genes_of, size_exponent=-1.0)


def test_ranker(rankings, genes_of):
    cases = [
        Case("case-1", ONE, source="a/PMID_1 II-2.json"),
        Case("case-2", TWO, source="PMID_2"),
        # A ranker cannot tell this case from the first one.
        Case("case-3", ONE, source="b/PMID_3.json"),
        Case("case-4", THREE, source="PMID_4"),
    ]
    ranker = language_votes.StoredRanker(rankings, cases, genes_of, size_exponent=0.0)
    found = ranker(ONE, ["G3", "G9", "G1"])
    np.testing.assert_allclose(found.scores, [1 / 4, 0, (1 / 2 + 1 / 3) / 4])
    assert found.order.tolist() == [0, 2, 1]
    assert (found.calls, found.tokens) == (0, 0)
    assert ranker(TWO, ["G1"]).scores == ranker(THREE, ["G1"]).scores == [0]
    assert TWO in ranker and THREE not in ranker


@pytest.mark.usefixtures("unchecked")
def test_fused():
    scores = np.array([[-1.0, 2.0, -np.inf], [-np.inf, -np.inf, -np.inf]])
    points = np.array([[0.0, 0.0, 1.0], [0.0, 0.5, 0.0]])
    found = language_votes.fused(scores, points, weight=2.0, scale=1.0)
    wanted = [[-1, 2, -1 + 2 * np.log(2)], [0, 2 * np.log(1.5), 0]]
    np.testing.assert_allclose(found, wanted)
    for wrong, message in (
        ({"points": points[0]}, "points: expected shape"),
        ({"points": -points}, "points: expected at least 0, got -1.0"),
        ({"weight": -1.0}, "weight: expected"),
        ({"scale": 0.0}, "scale: expected"),
    ):
        with pytest.raises(ValueError, match=message):
            language_votes.fused(**{"scores": scores, "points": points, **wrong})


def test_accuracy(rankings, tmp_path):
    found = stored.accuracy_by_language(rankings, key=KEY, num_resamples=50)
    assert list(found) == ["de", "en"]
    assert (
        found["de"].top1.estimate == found["en"].top3.estimate == pytest.approx(1 / 3)
    )
    assert found["en"].top1.estimate == 0
    path = tmp_path / "ic.csv"
    path.write_text("case,mean_ic\nPMID_2,1.5\nPMID_1_II_2,9\nPMID_3,4\nPMID_5,\n")
    information = stored.read_information(path)
    assert information == {"PMID_2": 1.5, "PMID_1_II_2": 9.0, "PMID_3": 4.0}
    thirds = stored.accuracy_by_information(
        rankings, information, "de", key=KEY, num_resamples=50
    )
    assert [(t.low, t.cases, t.accuracy.top1.estimate) for t in thirds] == [
        (1.5, 1, 0),
        (4.0, 1, 0),
        (9.0, 1, 1),
    ]
    with pytest.raises(ValueError, match="information: expected at least 3"):
        stored.accuracy_by_information(rankings, {"PMID_2": 1.0}, "de", key=KEY)
    path.write_text("case,mean_ic\nPMID_2,high\n")
    with pytest.raises(ValueError, match=r"csv:2: mean_ic: .* got 'high'"):
        stored.read_information(path)
