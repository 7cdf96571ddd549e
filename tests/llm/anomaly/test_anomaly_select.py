"""Test the choice of a detector by a model: tables, regrets, answers."""

import json

import numpy as np
import pytest

from jeff import assets
from jeff_llm.anomaly.select import (
    Table,
    baselines,
    facts,
    pick,
    read_table,
    regret,
    selection_request,
)
from jeff_llm.chat import Answer

PAIRS = (("MiniLM", "kNN"), ("MiniLM", "LOF"), ("hashes", "kNN"))


class Chooser:
    """Answers in turn, whatever it is asked."""

    name = "chooser"

    def __init__(self, *said):
        self.said, self.seen = said, []

    async def answer(self, request):
        self.seen.append(request)
        # A repair of one query is answered as the query was.
        return Answer(self.said[request.seed % len(self.said)], "stop", 1, 1)


def test_a_table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(
        "\ufeffencoder,detector,dataset,auroc,note\nA,x,d1,0.5,\nB,x,d1,1,n\nA,x,d2,0,\n"
    )
    found = read_table(path)
    assert found.candidates == (("A", "x"), ("B", "x"))
    assert found.data_sets == ("d1", "d2")
    np.testing.assert_array_equal(found.auroc, [[0.5, 1], [0, np.nan]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"table\.csv: expected a header with encoder"),
        ("encoder,detector,auroc\nA,x,1\n", r"table\.csv: expected a column 'dataset'"),
        ("encoder,detector,dataset,auroc\n", r"table\.csv: expected a row"),
        ("encoder,detector,dataset,auroc\nA,x,d,high\n", r"expected a number.*'high'"),
        ("encoder,detector,dataset,auroc\nA,x,d\n", r":2: expected 4 fields"),
        ("encoder,detector,dataset,auroc\nA,x,d,1,2\n", r":2: expected 4 fields"),
        ("encoder,detector,dataset,auroc\nA,x,d,93\n", r":2: expected each cell once"),
        ("encoder,detector,dataset,auroc\nA,x,d,nan\n", r":2: expected each cell once"),
        ("encoder,detector,dataset,auroc\nA,x,d,1\nA,x,d,1\n", ":3: expected each"),
        ('encoder,detector,dataset,auroc\nA,"x" y,d,1\n', r":2: expected a row of a table"),
    ],
)  # fmt: skip
def test_tables_that_are_refused(tmp_path, content, message):
    path = tmp_path / "table.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_table(path)


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "table.csv")


def test_regret_by_hand():
    """No answer, and a candidate without a number, lose what chance loses."""
    auroc = np.array([0.9, 0.5, np.nan, 0.7])
    found = regret(auroc, np.array([0, 1, 2, 3, -1]))
    np.testing.assert_allclose(found, [0, 0.4, 0.2, 0.2, (0 + 0.4 + 0.2 + 0.2) / 4])
    assert regret(auroc, np.array([], int)).shape == (0,)
    for index in (-2, 4):
        with pytest.raises(ValueError, match="index: expected -1 to 3, got"):
            regret(auroc, np.array([index]))
    with pytest.raises(ValueError, match="auroc: expected at least one number"):
        regret(np.array([np.nan]), np.array([0]))


def test_baselines_leave_their_own_data_set_out():
    """The candidate that is best on the others, though another is best here."""
    auroc = np.array([[0.9, 0.6, 0.5], [0.5, 0.8, 0.6], [0.6, 0.9, 0.5]])
    found = baselines(Table(PAIRS, ("a", "b", "c"), auroc))
    # For "a" the others favour the second; for "b" the others have equal means of the
    # first two, and the first counts; for "c" the first again.
    np.testing.assert_allclose(found.average, [0.3, 0.3, 0.3], atol=1e-12)
    np.testing.assert_allclose(found.random, [0.7 / 3, 0.5 / 3, 0.7 / 3], atol=1e-12)
    np.testing.assert_allclose(found.median, [0.3, 0.2, 0.3], atol=1e-12)
    with pytest.raises(
        ValueError, match="table: expected at least two data sets, got 1"
    ):
        baselines(Table(PAIRS, ("a",), auroc[:1]))


def test_a_cell_that_is_missing_is_no_zero():
    """A candidate that was not measured on another data set is not held against."""
    auroc = np.array([[0.9, 0.8], [np.nan, 0.6], [0.9, 0.5]])
    found = baselines(Table(PAIRS[:2], ("a", "b", "c"), auroc))
    np.testing.assert_allclose(found.average, [0, 0, 0], atol=1e-12)


def test_facts():
    found = facts("mail", ["one", "three", "to"], ["a", "b", "a"])
    assert (found.size, found.classes, found.examples) == (
        3,
        ("a", "b"),
        ("one", "three"),
    )
    assert found.lengths == (pytest.approx(10 / 3), 2, 5)
    for texts, classes in (([], []), (["a"], [])):
        with pytest.raises(ValueError, match="texts, classes: expected as many"):
            facts("mail", texts, classes)


def test_the_request_names_pairs_by_number():
    about = facts("mail", ['say "hi"\n' + "x" * 500, "two"], ["a", "b"])
    asked = selection_request(PAIRS, about, {"kNN": "distances"}, seed=3)
    words = asked.messages[-1].content
    assert "1. MiniLM + kNN\n2. MiniLM + LOF\n3. hashes + kNN\n" in words
    assert "- kNN: distances" in words and "LOF:" not in words and asked.seed == 3
    assert r"say \"hi\"\n" in words and "x" * 200 not in words
    control = selection_request(PAIRS, None, {}).messages[-1].content
    assert "Nothing is known of the texts" in control and "mail" not in control


def test_answers():
    """What names no number of the list is -1, and is told; nothing is left out."""
    said = [{"pair": 2, "reason": "so"}, {"pair": 1}, {"pair": 4}, {"pair": 0}]
    said += [{"pair": "2"}, {"pair": True}, {"encoder": "MiniLM"}, {"pair": 1.5}]
    model = Chooser(*map(json.dumps, said), "MiniLM", '```json\n{"pair": 3.0}\n```')
    found = pick(model, PAIRS, None, {}, queries=10)
    assert found.index.tolist() == [1, 0, -1, -1, -1, -1, -1, -1, -1, 2]
    assert found.reasons[:2] == ("so", "") and all(
        "expected" in r for r in found.reasons[2:9]
    )
    losses = regret(np.array([0.9, 0.5, 0.7]), found.index)
    np.testing.assert_allclose(losses[[0, 1, 2, 9]], [0.4, 0, 0.2, 0.2])
    assert {request.seed for request in model.seen} == set(range(10))
    with pytest.raises(ValueError, match="candidates: expected at least one"):
        pick(model, [], None, {})


def test_the_published_table():
    """Of the survey: each mean is one of the candidates', and chance loses more."""
    try:
        path = assets.shared_file("adbench_table/auroc.csv")
    except FileNotFoundError as error:
        pytest.skip(f"the table is not here: {error}")
    table = read_table(path)
    assert np.all((table.auroc >= 0) & (table.auroc <= 1) | np.isnan(table.auroc))
    found = baselines(table)
    assert len(found.random) == len(table.data_sets)
    assert found.average.mean() < found.random.mean()
    best = [regret(row, np.array([np.nanargmax(row)]))[0] for row in table.auroc]
    assert best == [0] * len(best)
    whole = read_table(path)
    assert whole.candidates == table.candidates
