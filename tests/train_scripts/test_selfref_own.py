"""Test Self-REF on your own file: both kinds of rows, output files, and errors."""

import json

import numpy as np
import pytest

from configs.selfref import Config
from jeff_llm.confidence import routing, selfref
from jeff_llm.models import weights
from train_scripts.questions import answering
from train_scripts.selfref import measure, own
from train_scripts.selfref import run as script

LETTERS = "abcdefghijklmnop"


@pytest.fixture
def write(tmp_path):
    def to(rows, name="own"):
        path = tmp_path / f"{name}.jsonl"
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("\n".join(lines))
        return path

    return to


@pytest.fixture(scope="module")
def model(tiny_chat_model):
    return weights.load(tiny_chat_model)


def marked(count=40):
    """A right answer is a vowel's: a model can learn to see that."""
    return [
        {
            "prompt": f"say {LETTERS[n % 16]}{n}",
            "response": f" {LETTERS[n % 16]}",
            "correct": LETTERS[n % 16] in "aeio",
        }
        for n in range(count)
    ]


def written(folder):
    """Files of the training's checkpoints, and when each was written."""
    files = [p for p in folder.glob("training/*/**/*") if p.is_file()]
    return {path: path.stat().st_mtime_ns for path in files}


def test_marked_answers(write, tiny_chat_model, model, tmp_path) -> None:
    """Everything is written, and what is written gives the confidences again."""
    config = Config(
        data=str(write(marked())),
        model=str(tiny_chat_model),
        rank=2,
        num_epochs=2,
        holdout=0.4,
        max_error=0.5,
        merged=True,
        seeds=(0,),
    )
    folder = tmp_path / "run"
    result = script.run(config, folder, progress=False)
    rows = [json.loads(x) for x in (folder / "answers.jsonl").read_text().splitlines()]
    assert len(rows) == 16 and result.metrics["learned_from"] == 24
    known = {row["prompt"]: row for row in marked()}
    assert all(known[r["prompt"]]["correct"] == r["small_correct"] for r in rows)
    sure = np.array([row["confidence"] for row in rows])
    assert 0 < sure.min() < sure.max() < 1
    prompts = [row["prompt"] for row in rows]
    answers = [model.tokenizer.encode(row["response"], False) for row in rows]
    taught, tokens = selfref.load(model, folder / "adapters")
    for each in (taught, weights.load(folder / "model")):
        again = selfref.confidence(each, prompts, answers, tokens)
        np.testing.assert_allclose(again, sure, atol=1e-4)
    table = (folder / "table.md").read_text()
    assert "| token |" in table and "- By token: " in table
    routers = json.loads((folder / "router.json").read_text())
    assert len(routers) == 2 and routers["token"]["max_error"] == 0.5
    assert routers["token"]["measure"] == "selfref"
    assert {row["confidence_measure"] for row in rows} == {"selfref"}
    assert sorted(path.name for path in folder.glob("*.png")) == [
        "01_routing.png",
        "02_confidence.png",
    ]
    rows = [json.dumps({**row, "large_correct": True}) for row in rows]
    logs = routing.from_jsonl(write(rows, "logs"))
    np.testing.assert_allclose(logs.confidence, sure, rtol=1e-6)
    trained = written(folder)
    assert trained
    again = script.run(config, folder, progress=False)
    assert again.metrics == result.metrics
    assert written(folder) == trained, "the training was done again"


def test_the_model_answers(write, tiny_chat_model, model, tmp_path) -> None:
    """Texts to the end of the line, messages through the template, any right answer."""
    texts = [f"say {letter}" for letter in LETTERS]
    turns = [[{"role": "user", "content": text}] for text in texts[:4]]
    stops = answering.newlines(model)
    options = {"max_new_tokens": 4}
    _, said = answering.answer(model, texts, stop_ids=stops, **options)
    rows = [
        {"prompt": text, "answer": ["never", f"{answer}." if n % 2 else "no"]}
        for n, (text, answer) in enumerate(zip(texts, said, strict=True))
    ]
    rows += [{"prompt": turn, "answer": "never"} for turn in turns]
    grown, tokens = selfref.add_tokens(model)
    questions = own.read_questions(write(rows), grown)
    assert [question.stops for question in questions] == [True] * 16 + [False] * 4
    config = Config(data="own.jsonl", **options)
    ends = [*model.stop_ids, *tokens]
    found = own._answers(config, grown, questions, ends)
    assert found.texts[:16] == said
    expected = np.r_[np.arange(16) % 2 == 1, [False] * 4]
    given = np.array([bool(text.strip(" .")) for text in said] + [True] * 4)
    np.testing.assert_array_equal(found.correct[given], expected[given])
    assert given[:16:2].any() and given[1:16:2].any()
    assert found.prompts[16] != found.prompts[0]


def test_equal_prompts_stay_together(write, model) -> None:
    rows = [{"prompt": f"q{n % 5}", "answer": "a"} for n in range(20)]
    questions = own.read_questions(write(rows), model)
    train, test = own._split(Config(data="own", holdout=0.4), questions)
    assert sorted([*train, *test]) == list(range(20)) and len(test) == 8
    assert not set(train % 5) & set(test % 5)
    draws = [
        own._split(Config(data="own", holdout=0.4, seeds=(seed,)), questions)
        for seed in range(4)
    ]
    assert len({frozenset(held % 5) for _, held in draws}) > 1
    with pytest.raises(ValueError, match="own: expected at least 2 different prompts"):
        own._split(Config(data="own"), questions[:3])
    with pytest.raises(ValueError, match="got 0 in all"):
        own._split(Config(data="own"), [])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": "a"}, "prompt: expected a text or a list of messages, got None"),
        ({"prompt": " ", "answer": "a"}, "prompt: expected a text"),
        ({"prompt": [3], "answer": "a"}, "own.jsonl:2: prompt: "),
        ({"prompt": "a"}, "expected 'answer', a text or a list of accepted ones"),
        ({"prompt": "a", "answer": []}, r"got \[\] among \['answer', 'prompt'\]"),
        ({"prompt": "a", "answer": ["b", 3]}, "expected 'answer'"),
        ({"prompt": "a", "answer": "..."}, "expected 'answer'"),
        ({"prompt": "a", "correct": True}, "response: expected the model's answer"),
        ({"prompt": "a", "response": "b"}, "correct: expected true or false, got None"),
        (
            {"prompt": "a", "response": "b", "correct": 1},
            "correct: expected true or false, got 1",
        ),
    ],
)
def test_rows_that_are_refused(write, model, row, message) -> None:
    path = write([{"prompt": "a", "answer": "b"}, row])
    with pytest.raises(ValueError, match=message):
        own.read_questions(path, model)


def test_one_kind_of_answers_is_refused(write, tiny_chat_model, tmp_path) -> None:
    rows = [{"prompt": f"say {letter}", "answer": "never"} for letter in LETTERS]
    config = Config(data=str(write(rows)), model=str(tiny_chat_model), seeds=(0,))
    with pytest.raises(
        ValueError, match=r"got 0 right ones of 16; for example '.*neve"
    ):
        script.run(config, tmp_path / "a", progress=False)
    write([{**row, "correct": True} for row in marked()])
    with pytest.raises(ValueError, match="got 40 right ones of 40; give more"):
        script.run(config, tmp_path / "b", progress=False)
    assert not list(tmp_path.glob("*/result.json"))


def test_a_tied_head_is_refused(write, tiny_chat_model, tmp_path) -> None:
    config = Config(data=str(write(marked())), model=str(tiny_chat_model), head=True)
    with pytest.raises(ValueError, match="head: expected False, since output and"):
        script.run(config, tmp_path / "a", progress=False)


def test_layers_that_learn(model) -> None:
    first = [
        measure.recipe(Config(first_layer=n), model).first_layer for n in (-1, 0, 1)
    ]
    assert first == [1, 0, 1]


def test_questions_of_a_saved_folder(write, model, tmp_path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"prompt": "say red", "answer": ["red", "two"]}, *marked(2)]
    rows[0] |= dict.fromkeys(rows[1].keys() - rows[0].keys())
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    found = own.read_questions(tmp_path / "saved", model)
    assert found == own.read_questions(write(rows), model)
