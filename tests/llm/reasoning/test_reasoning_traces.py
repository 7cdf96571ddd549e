"""Test the reader of traces: every form of file, and every way to be wrong."""

import gzip
import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from jeff import assets
from jeff_llm.reasoning.answers import answer_key
from jeff_llm.reasoning.traces import from_jsonl

LINES = [
    {"question": "a", "answer": "18", "correct": True, "tokens": 10, "order": 2},
    {"question": 7, "answer": None, "correct": False, "tokens": 5, "order": 1.5},
    {"question": "a", "answer": "$18.0", "correct": True, "tokens": 12.5, "order": 1},
    {"question": "a", "answer": "  ", "correct": False, "tokens": 0, "order": 3},
]


@pytest.fixture
def write(tmp_path):
    def save(rows, name="traces.jsonl"):
        text = "\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows)
        path = tmp_path / name
        data = text.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return save


@pytest.mark.parametrize("name", ["traces.jsonl", "traces.jsonl.gz"])
def test_a_sample_a_line(write, name) -> None:
    found = from_jsonl(write([*LINES, "", " "], name))
    assert found.questions == ("a", "7") and found.question.tolist() == [0, 1, 0, 0]
    assert found.answer.tolist() == [0, -1, 0, -1] and found.answers == ("18",)
    assert found.length.tolist() == [10, 5, 12.5, 0] and found.unit == "tokens"
    assert found.correct.tolist() == [True, False, True, False]
    assert found.correct.dtype == bool
    assert found.order.tolist() == [2, 1.5, 1, 3]
    assert found.text is None and found.run is None and found.runs == ()


def test_a_question_a_line(write) -> None:
    rows = [
        {"id": 1, "runs": {"full": {"out": 3, "n": 9}, "short": {"out": "3.", "n": 4}}},
        {"id": 2, "runs": {"short": {"out": 1e22, "n": 5}}},
    ]
    names = {"question": "id", "answer": "out", "tokens": "n", "samples": "runs"}
    found = from_jsonl(write(rows), **names)
    assert found.question.tolist() == [0, 0, 1] and found.answer.tolist() == [0, 0, 1]
    assert found.runs == ("full", "short") and found.run.tolist() == [0, 1, 1]
    assert found.correct is None and found.order is None
    rows[0]["runs"] = list(rows[0]["runs"].values())
    rows[1]["runs"] = list(rows[1]["runs"].values())
    listed = from_jsonl(write(rows), **names)
    assert listed.run is None and listed.answer.tolist() == [0, 0, 1]


def test_words_are_counted_where_there_are_no_tokens(write) -> None:
    rows = [{"question": 1, "answer": "x", "text": text} for text in ("a b  c", "")]
    found = from_jsonl(write(rows))
    assert found.length.tolist() == [3, 0] and found.unit == "words"
    assert found.text == ["a b  c", ""]
    del rows[1]["text"]
    with pytest.raises(ValueError, match=r":2: expected 'tokens', or 'text' to count"):
        from_jsonl(write(rows))
    # With tokens, some samples may lack their text.
    rows = [row | {"tokens": 4} for row in rows]
    assert from_jsonl(write(rows)).text == ["a b  c", None]


def test_scores(write) -> None:
    rows = [
        LINES[0] | {"correct": score, "order": order}
        for order, score in enumerate((0.25, 1, True))
    ]
    found = from_jsonl(write(rows))
    assert found.correct.dtype == np.float32
    assert found.correct.tolist() == [0.25, 1, 1]


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        (1, {"question": None}, "'question' as text or a whole number, got None"),
        (1, {"question": True}, "'question' as text or a whole number, got True"),
        (1, {"question": ""}, "'question' as text or a whole number, got ''"),
        (2, {"answer": True}, "'answer' as text, a number or null, got True"),
        (2, {"answer": ["18"]}, r"'answer' as text, a number or null, got \['18'\]"),
        (2, {"tokens": True}, "'tokens' as a number of at least 0, got True"),
        (2, {"tokens": "9"}, "'tokens' as a number of at least 0, got '9'"),
        (2, {"tokens": -1}, "'tokens' as a number of at least 0, got -1"),
        (2, {"tokens": None}, "'tokens' in every sample .* in 3 of 4"),
        (3, {"correct": 2}, r"'correct' as true, false or a number in \[0, 1\], got 2"),
        (3, {"correct": "yes"}, "'correct' as true, false or a number .* got 'yes'"),
        (3, {"correct": None}, "'correct' in every sample .* got it in 3 of 4"),
        (1, {"order": False}, "'order' as a number of at least 0, got False"),
        (
            2,
            {"tokens": 1e300},
            r"'tokens' as a number of at most 3.4e\+38, got 1e\+300",
        ),
        (2, {"tokens": 10**400}, r"JSON .expected a finite number, came 1000"),
        (3, {"correct": 10**400}, "JSON .expected a finite number, came 1000"),
        (4, {"text": 3}, "'text' as text, got 3"),
    ],
)
def test_a_wrong_field_is_named(write, place, change, message) -> None:
    rows = [dict(line) for line in LINES]
    rows[place - 1] |= change
    with pytest.raises(ValueError, match=rf"traces.jsonl:{place}: expected {message}"):
        from_jsonl(write(rows))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": 1', "expected JSON"),
        ("[1]", r"expected an object, got '\[1\]'"),
        ('{"question": 1, "answer": 2, "tokens": NaN}', "finite number, came NaN"),
        ('{"question": 1, "answer": 2, "tokens": 1e999}', "finite number, came 1e999"),
        ('{"question": 1, "answer": 1e999, "tokens": 2}', "finite number, came 1e999"),
        ('{"question": 1, "answer": 2, "answer": 3}', "key 'answer' stands twice"),
        ('{"question": 1, "tokens": 2}', "expected a field 'answer', null for no"),
        ('{"answer": 1, "tokens": 2}', r"expected a field 'question', got \['answer'"),
    ],
)
def test_a_wrong_line_is_named(write, line, message) -> None:
    with pytest.raises(ValueError, match=rf"traces.jsonl:2: .*{message}"):
        from_jsonl(write([LINES[0], line]))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": 1}], r"jsonl:1: expected 'runs' with at least 1 sample.* got None"),
        ([{"id": 1, "runs": []}], r"jsonl:1: .*at least 1 sample.* got \[\]"),
        (
            [{"id": 1, "runs": [3]}],
            r"jsonl:1: runs\[0\]: expected an object with .* got 3",
        ),
        (
            [{"id": 1, "runs": {"\ud83d": {"answer": 1}}}],
            "runs.*name that is text in UTF",
        ),
        (
            [{"id": 1, "runs": {"a": {"answer": 1, "tokens": -2}}}],
            r"jsonl:1: runs\[a\]: expected 'tokens' as a number of at least 0, got -2",
        ),
        (
            [{"id": 1, "runs": [{"answer": 1, "tokens": 2}]}] * 2,
            r"jsonl:2: expected each question once, got 'id' = '1' again, as in .*:1",
        ),
    ],
)
def test_wrong_samples_are_named(write, rows, message) -> None:
    with pytest.raises(ValueError, match=message):
        from_jsonl(write(rows), question="id", samples="runs")


def test_a_sample_that_is_there_twice(write) -> None:
    with pytest.raises(ValueError, match=r":5: expected each sample once, .*jsonl:1"):
        from_jsonl(write([*LINES, LINES[0]]))
    again = [LINES[0] | {"order": 9}, LINES[0] | {"order": 9, "tokens": 11}]
    assert len(from_jsonl(write([*LINES, *again])).question) == 6
    # Without an order of finishing, equal samples are samples.
    rows = [{"question": 1, "answer": "x", "tokens": 4}] * 3
    assert len(from_jsonl(write(rows)).question) == 3


def test_times_of_finishing_stay_apart(write) -> None:
    rows = [LINES[0] | {"order": 1732800000.0 + k / 4} for k in (2, 0, 1)]
    assert np.argsort(from_jsonl(write(rows)).order).tolist() == [1, 2, 0]


def test_wrong_files(write, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none.jsonl: expected"):
        from_jsonl(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match=r"expected a folder saved by save_to_disk"):
        from_jsonl(tmp_path)
    with pytest.raises(ValueError, match="expected at least 1 sample, got none"):
        from_jsonl(write([]))
    whole = write(LINES * 20, "cut.jsonl.gz")
    whole.write_bytes(whole.read_bytes()[:-12])
    with pytest.raises(
        ValueError, match=r"gz: expected a file of JSON lines, but it cannot be read"
    ):
        from_jsonl(whole)
    whole.write_bytes(b"no gzip at all")
    with pytest.raises(
        ValueError, match="expected a file of JSON lines, but it cannot be read"
    ):
        from_jsonl(whole)
    (tmp_path / "latin.jsonl").write_bytes('{"question": "\xe9"}'.encode("latin-1"))
    with pytest.raises(ValueError, match="expected text in UTF-8"):
        from_jsonl(tmp_path / "latin.jsonl")


@pytest.mark.parametrize(
    "same",
    [
        ["18", "18.0", "$18", "\\$18.00", " 18. ", 18, 18.0, "+18", "36/2"],
        ["1,800", "1800", "$1,800.00", 1800],
        ["-5", "\N{MINUS SIGN}5", "\N{EN DASH}5", "-$5", "-5.0", "\\boxed{-5}"],
        [0.5, ".5", "1/2", "2/4", "\\frac{1}{2}", "\\boxed{\\dfrac{2}{4}}", "1 / 2"],
        ["20%", "20.0\\%"],
        ["(B)", "b", "B."],
        ["New  York", "new york.", "\\text{New York}"],
        ["x + 2", "X+2"],
        ["Jos\u00e9", "jose\u0301"],
        ["\u00e9 + 1", "e\u0301+1"],
    ],
)
def test_equal_answers(same) -> None:
    assert len({answer_key(each) for each in same}) == 1


def test_different_answers() -> None:
    different = [
        *("18", "-18", "18%", "18 dollars", "1.8", "1,8", "x+2", "x-2", "x2"),
        *(
            "2 1/2",
            "21/2",
            "-1/2",
            "2\\frac{1}{2}",
            "5",
            "\u221a5",
            "\u00b15",
            "\u221e",
        ),
        *("3/0", "1/3", "0.333", "[1,2]", "(1,2)", "18.0.1", "9" * 400),
        *("c", "c++", "c#", "4!", "4", "\u0926\u093f\u0928", "\u0926\u0940\u0928"),
    ]
    assert len({answer_key(each) for each in different}) == len(different)


def test_no_answer_has_no_key() -> None:
    assert {answer_key(each) for each in ("", " ?", "\\boxed{}", "\\text{ . }")} == {""}


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, max_value=10**9))
def test_numbers_are_compared_by_value(value) -> None:
    assert (
        answer_key(f"{value:f}")
        == answer_key(f"{value:f}00")
        == answer_key(f"${value:f}")
    )


@given(st.text(max_size=30))
def test_a_key_is_its_own_key(text) -> None:
    """Whatever the answer: nothing raises, and equal answers stay equal."""
    key = answer_key(text)
    assert answer_key(key) == key


def test_the_shared_chains() -> None:
    """Accuracy and length of the README beside the file, on its part of the items."""
    try:
        path = assets.shared_file("compressed_cot/gsm8k_qwen25_7b_tokenskip.jsonl.gz")
    except FileNotFoundError as error:
        pytest.skip(f"compressed_cot is not here: {error}")
    found = from_jsonl(
        path, question="id", answer="prediction", tokens="n_tokens", samples="runs"
    )
    assert len(found.questions) == 819 and found.runs[:2] == ("full", "ts_0.9")
    full = found.run == 0
    assert found.correct[full].mean() == pytest.approx(0.924, abs=0.02)
    assert found.length[full].mean() == pytest.approx(280.7, abs=5)
    assert [found.text[k] is None for k in (0, 6)] == [False, True]
