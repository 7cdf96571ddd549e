"""Test questions from files: every form of an answer, and what is refused."""

import json

import pytest

from jeff import assets
from jeff_llm.clinic.items import Question, make_items
from jeff_llm.clinic.questions import read_questions

CASE = {"vignette": "A man comes. He coughs.", "question": "Why?"}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def one(tmp_path, **fields):
    [question] = read_questions(write(tmp_path / "q.jsonl", CASE | fields)).questions
    return question


def test_all_fields(tmp_path):
    full = CASE | {
        "id": 7,
        "answer": " Asthma",
        "options": ["Flu", "Asthma "],
        "level": "challenge",
        "simulated": True,
        "source": "me",
        "note": None,
    }
    found = read_questions(write(tmp_path / "q.jsonl", full, CASE | {"answer": "Flu"}))
    assert found.questions == [
        Question(
            "7",
            "A man comes. He coughs.",
            "Asthma",
            "Why?",
            ("Flu", "Asthma"),
            "challenge",
            True,
        ),
        Question("q.jsonl:2", "A man comes. He coughs.", "Flu", "Why?"),
    ]
    assert found.ignored_fields == ("note", "source")


@pytest.mark.parametrize(
    "fields",
    [
        {"answer": "Flu"},
        {"answer": "b"},
        {"answer": 1},
        {"answer_idx": "b"},
        {"answer_idx": 1},
        {"answer": "Flu", "answer_idx": "b"},
        {"answer": None, "answer_idx": "b"},
    ],
)
def test_one_answer_in_all_its_forms(tmp_path, fields):
    options = {"a": "Asthma", "b": "Flu", "c": None}
    question = one(tmp_path, options=options, **fields)
    assert question.answer == "Flu"
    assert question.options == ("Asthma", "Flu")


def test_letters_of_a_list_and_numbers_where_letters_mislead(tmp_path):
    assert one(tmp_path, options=["x", "y"], answer="B").answer == "y"
    assert one(tmp_path, options=["B", "A"], answer=0).answer == "B"
    assert one(tmp_path, options=["A", "B"], answer="B").answer == "B"
    assert one(tmp_path, options=["1", "0"], answer="1").answer == "1"
    for index in ("A", 0):
        options = ["B", "A"]
        question = one(tmp_path, options=options, answer="B", answer_idx=index)
        assert question.answer == "B"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"expected an 'answer', got \['question', 'vignette'\]"),
        ({"answer": ""}, "answer: expected the text, letter or number .* got ''"),
        ({"answer": 0}, "answer: .* of 0 options, .* got 0"),
        ({"answer": -1, "options": ["x"]}, "answer: .* got -1"),
        ({"answer": True, "options": ["x", "y"]}, "answer: .* got True"),
        ({"answer": "z", "options": ["x"]}, r"\[\('A', 'x'\)\], got 'z'"),
        (
            {"answer": "B", "options": ["B", "A"]},
            "the letter of one option and the text",
        ),
        ({"answer_idx": "x", "options": ["x"]}, "answer_idx: .* got 'x'"),
        (
            {"answer": "x", "answer_idx": "B", "options": ["x", "y"]},
            "expected one answer, got {'answer': 'x', 'answer_idx': 'B'}, which",
        ),
        ({"answer": "x", "options": "x, y"}, "options: expected a list .* 'x, y'"),
        ({"answer": "x", "options": ["x"] * 27}, "options: .* at most 26 texts"),
        ({"answer": "x", "options": ["x", 2]}, "options: expected a text for 'B'.*2"),
        ({"answer": "x", "options": {"A": " "}}, "options: expected a text for 'A'"),
        ({"answer": "x", "vignette": ["a"]}, r"vignette: expected a text, got \['a'\]"),
        ({"answer": "x", "vignette": "", "question": " "}, "expected a 'question'"),
        ({"answer": "x", "level": "hard"}, "level: expected one of .* got 'hard'"),
        ({"answer": "x", "meta_info": "step4"}, "meta_info: .* got 'step4'"),
        (
            {"answer": "x", "meta_info": "step1", "level": "advance"},
            "expected one level, got level 'advance' and meta_info 'step1'",
        ),
        ({"answer": "x", "id": ["a"]}, r"id: expected a text or number, got \['a'\]"),
        ({"answer": "x", "id": ""}, "id: expected a text or number, got ''"),
        ({"answer": "x", "simulated": "no"}, "simulated: expected a bool, got 'no'"),
        ({"answer": "x", "simulated": 1}, "simulated: expected a bool, got 1"),
    ],
)
def test_lines_that_are_refused(tmp_path, fields, message):
    path = write(tmp_path / "q.jsonl", CASE | {"answer": "Flu"}, CASE | fields)
    with pytest.raises(ValueError, match=rf"q\.jsonl:2: .*?{message}"):
        read_questions(path)


def test_files_that_are_refused(tmp_path):
    twice = [CASE | {"answer": "Flu", "id": number} for number in ("1", 2, 1)]
    with pytest.raises(ValueError, match=r"q.jsonl:3: .*'1', which is that of .*:1"):
        read_questions(write(tmp_path / "q.jsonl", *twice))
    with pytest.raises(ValueError, match="at least one question"):
        read_questions(write(tmp_path / "q.jsonl"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_questions(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="folder without state"):
        read_questions(tmp_path)


def test_medqa_is_read_as_it_is():
    try:
        path = assets.shared_file("medqa/medqa_us_test.jsonl")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    found = read_questions(path)
    assert len(found.questions) == 773
    assert found.ignored_fields == ("metamap_phrases",)
    assert {each.level for each in found.questions} == {"basic", "advance"}
    assert {len(each.options) for each in found.questions} == {4}
    assert all(each.answer in each.options for each in found.questions)
    assert len(make_items(found.questions[:40]).items) > 30


def test_a_folder_of_datasets(tmp_path):
    """The same questions as from the lines, though absent fields are null there."""
    datasets = pytest.importorskip("datasets")
    rows = [
        CASE | {"answer": "B", "options": {"A": "x", "B": "y"}, "level": None},
        CASE | {"answer": "x", "options": {"A": "x", "C": "z"}, "level": "basic"},
    ]
    data = datasets.Dataset.from_list([row | {"id": n} for n, row in enumerate(rows)])
    data.save_to_disk(tmp_path / "one")
    lines = [row | {"id": n} for n, row in enumerate(rows)]
    expected = read_questions(write(tmp_path / "q.jsonl", *lines))
    assert read_questions(tmp_path / "one") == expected
    datasets.DatasetDict(a=data, b=data).save_to_disk(tmp_path / "many")
    with pytest.raises(ValueError, match=r"one split or 'train'.*\['a', 'b'\]"):
        read_questions(tmp_path / "many")
    assert read_questions(tmp_path / "many" / "b").questions == expected.questions
    data.remove_columns("answer").save_to_disk(tmp_path / "bad")
    with pytest.raises(ValueError, match="bad:1: expected an 'answer'"):
        read_questions(tmp_path / "bad")
