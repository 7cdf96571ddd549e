"""Test that each reader of rows takes a Hugging Face data set as it takes its lines."""

import json

import numpy as np
import pytest

import jeff_llm.confidence
from configs.kv import Config
from jeff_llm.anomaly.texts import read_texts
from jeff_llm.reasoning import traces
from train_scripts.kv import run

datasets = pytest.importorskip("datasets", reason="datasets is an optional extra")
ROWS = [
    {
        "text": f"a\u2028b {i}",
        "question": f"q{i // 2}",
        "answer": None if i == 3 else str(i),
        "correct": i % 2 > 0,
        "tokens": i + 1,
        "token_logprobs": [-0.5, float("-inf") if i else 0.0],
        "small_correct": i % 2,
        "large_correct": 1.0,
        "dataset": "faq" if i else None,
    }
    for i in range(4)
]


def write(folder, *left_out):
    """The rows as a folder, and as lines."""
    rows = [{k: v for k, v in row.items() if k not in left_out} for row in ROWS]
    datasets.Dataset.from_list(rows).save_to_disk(folder / "saved")
    lines = folder / "rows.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "saved", lines


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_texts(tmp_path):
    saved, _ = write(tmp_path, "token_logprobs")
    found = read_texts(saved, column="question")
    assert [each.text for each in found] == ["q0", "q0", "q1", "q1"]
    assert found[2].place == f"{saved}:3"
    with pytest.raises(ValueError, match=":4: expected a text, got None"):
        read_texts(saved, column="answer")
    assert run._text(Config(data=str(saved))).split("\n")[3] == ROWS[3]["text"]


def test_logs_for_routing(tmp_path):
    """Whose log-probabilities may be infinite; a null is no data set named None."""
    found, expected = map(jeff_llm.confidence.from_jsonl, write(tmp_path))
    same(found, expected)
    assert found.dataset == ["", "faq", "faq", "faq"]


def test_traces(tmp_path):
    same(*map(traces.from_jsonl, write(tmp_path, "token_logprobs")))
