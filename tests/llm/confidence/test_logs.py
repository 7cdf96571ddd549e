"""Test the reading of logs, and the errors for invalid lines."""

import json

import numpy as np
import pytest

from jeff_llm.confidence import routing

GOOD = [
    {"confidence": 0.9, "small_correct": True, "large_correct": True, "cost": 2.0},
    {"confidence": 0.2, "small_correct": False, "large_correct": 1, "cost": 3},
]


@pytest.fixture
def write(tmp_path):
    def save(rows):
        path = tmp_path / "logs.jsonl"
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) + "\n\n")
        return path

    return save


def test_rows(write) -> None:
    found = routing.from_jsonl(write([*GOOD, ""]))
    np.testing.assert_allclose(found.confidence, [0.9, 0.2])
    assert found.small_correct.tolist() == [True, False]
    assert found.cost.tolist() == [2, 3] and found.priced
    assert found.dataset == ["", ""]
    assert routing.from_jsonl(
        write([{**row, "dataset": None} for row in GOOD])
    ).dataset == ["", ""]


def test_log_probabilities(write) -> None:
    rows = [{**row, "token_logprobs": [-1.0, -3.0]} for row in GOOD]
    for row in rows:
        del row["confidence"], row["cost"]
    found = routing.from_jsonl(write(rows))
    np.testing.assert_allclose(found.confidence, np.exp(-2.0), rtol=1e-6)
    assert not found.priced and found.cost.tolist() == [1, 1]
    found = routing.from_jsonl(write(rows), measure="average")
    expected = (np.exp(-1) + np.exp(-3)) / 2
    np.testing.assert_allclose(found.confidence, expected, rtol=1e-6)


def test_what_the_confidence_is(write) -> None:
    """A threshold on one measure says nothing about another."""
    one, other = ({"confidence_measure": name} for name in ("selfref", "average"))
    logprobs = {"confidence": None, "token_logprobs": [-1.0]}

    def measure(first, second):
        rows = [row | more for row, more in zip(GOOD, (first, second), strict=True)]
        return routing.from_jsonl(write(rows)).measure

    assert measure({}, {}) == measure(one, {}) == measure({}, logprobs) == ""
    assert measure(one, one) == "selfref"
    assert measure(logprobs, logprobs) == "perplexity"
    for second in (other, logprobs):
        with pytest.raises(ValueError, match="expected one measure of confidence"):
            measure(one, second)
    with pytest.raises(ValueError, match="confidence_measure: expected a name"):
        measure(one, {"confidence_measure": ["selfref"]})


def test_names_of_one_s_own(write) -> None:
    rows = [
        {"c": 0.5, "s": 0.0, "l": 1, "set": "a"},
        {"c": 1, "s": 0.5, "l": 0, "set": "b"},
    ]
    found = routing.from_jsonl(
        write(rows), confidence="c", small_correct="s", large_correct="l", dataset="set"
    )
    assert found.small_correct.tolist() == [0, 0.5] and found.dataset == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"confidence": None},
            "jsonl:2: expected 'confidence' or 'token_logprobs', got confidence: null",
        ),
        ({"dataset": ["a"]}, r"jsonl:2: dataset: expected a name, got \['a'\]"),
        (
            {"confidence": 1.2},
            r"jsonl:2: confidence: expected a number in \[0, 1\], got 1.2",
        ),
        (
            {"confidence": float("nan")},
            r"jsonl:2: confidence: expected a number in \[0, 1\], got nan",
        ),
        ({"confidence": "0.5"}, "got '0.5'"),
        ({"confidence": True}, "got True"),
        ({"small_correct": "yes"}, "small_correct: expected true, false or a number"),
        ({"large_correct": None}, "large_correct: expected true, false or a number"),
        ({"cost": -1}, r"cost: expected a number in \[0, 1e\+30\], got -1"),
        ({"cost": 1e39}, r"cost: expected a number in \[0, 1e\+30\], got 1e\+39"),
        (
            {"cost": float("inf")},
            r"jsonl:2: cost: expected a number in \[0, 1e\+30\], got inf",
        ),
        ({"cost": None}, "expected 'cost' in every row or in none, got it in 1 of 2"),
        (
            {"confidence": None, "token_logprobs": [0.5]},
            "token_logprobs: expected a list of log-probabilities",
        ),
        ({"confidence": None, "token_logprobs": []}, "token_logprobs: expected a list"),
    ],
)
def test_bad_fields(write, change, message) -> None:
    with pytest.raises(ValueError, match=message):
        routing.from_jsonl(write([GOOD[0], {**GOOD[1], **change}]))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([GOOD[0]], "expected at least 2 queries, got 1"),
        ([], "expected at least 2 queries, got 0"),
        ([GOOD[0], GOOD[0]], "'small_correct' is 1 in all 2 rows"),
        ([GOOD[1], GOOD[1]], "'small_correct' is 0 in all 2 rows"),
        (["{", GOOD[0]], "jsonl:1: expected JSON"),
        ([GOOD[0], '{"cost": %s}' % ("9" * 400)], "jsonl:2: expected JSON .*came 9999"),
        ([GOOD[0], '{"x": %s' % ("[" * 100_000)], "jsonl:2: .*of a moderate depth"),
        (["[1]", GOOD[0]], "jsonl:1: expected an object"),
        (
            [{"confidence": 1}, GOOD[0]],
            r"jsonl:1: expected a field 'small_correct', got \['confidence'\]",
        ),
    ],
)
def test_bad_files(write, rows, message) -> None:
    with pytest.raises(ValueError, match=message):
        routing.from_jsonl(write(rows))


def test_no_file_and_no_measure(tmp_path, write, unchecked) -> None:
    with pytest.raises(FileNotFoundError, match="expected a file of JSON lines"):
        routing.from_jsonl(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="'perplexity' or 'average', got 'mean'"):
        routing.from_jsonl(write(GOOD), measure="mean")


def test_numbers_that_python_writes_beside_json(write) -> None:
    """A token of probability 0, and NaN in a field that nobody reads."""
    rows = [
        {
            "token_logprobs": [float("-inf"), -0.5],
            "small_correct": 0,
            "large_correct": 1,
        },
        {"token_logprobs": [-0.1], "small_correct": 1, "large_correct": 1},
    ]
    found = routing.from_jsonl(write([row | {"time": float("nan")} for row in rows]))
    np.testing.assert_allclose(found.confidence, [0, np.exp(-0.1)], rtol=1e-6)
