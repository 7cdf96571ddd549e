"""Test the dialogue script on questions of the user's own, from file to report."""

import dataclasses
import json
import re
import string
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from configs.dialogue import PRESETS
from configs.finetune import Config as FinetuneConfig
from jeff_llm.clinic.items import make_items
from jeff_llm.clinic.questions import read_questions
from train_scripts.dialogue import endpoint, own
from train_scripts.finetune import run as finetune

pytest.importorskip("sentencex", reason="vignettes are cut by it")
pytest.importorskip("bm25s", reason="a rule needs it")

SIGNS = ("cough", "rash", "fever", "headache", "swelling", "pain")
FORMS = ("dialogue", "multiple_choice", "monologue")


def row(number, **changes):
    sign = SIGNS[number % len(SIGNS)]
    letter = string.ascii_uppercase[number]
    found = {
        "id": f"case {number}",
        "vignette": f"Patient {letter} comes to the clinic. The {sign} of {letter} "
        f"began this week. Examination of {letter} shows a {sign}. {letter} was given "
        "a drug.",
        "question": "What is the cause?",
        "answer": f"Cause {letter}",
        "options": [f"Cause {letter}", "Nothing"],
    }
    return found | changes


@pytest.fixture
def data(tmp_path):
    return write(tmp_path / "questions.jsonl", [row(number) for number in range(8)])


def write(path, rows):
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


@pytest.fixture
def config(data):
    return dataclasses.replace(
        PRESETS["file"],
        data=str(data),
        noise=(2,),
        test_items=6,
        chat_items=5,
        resamples=20,
    )


@pytest.fixture
def without_minilm(monkeypatch):
    def missing(name, **_):
        raise FileNotFoundError(f"{name} is not here")

    monkeypatch.setattr(own.encoder, "load", missing)


def lines(path):
    return [json.loads(each) for each in Path(path).read_text().splitlines()]


def no_mazes(config, **changes):
    """Fewer sentences than any item of these tests has, so that nothing is tested."""
    return dataclasses.replace(config, evidence=(99, 99), **changes)


@pytest.mark.usefixtures("without_minilm")
def test_files_and_report(config, tmp_path, capsys):
    out = tmp_path / "run"
    part = own.analyse(config, out, progress=False)
    for name in FORMS:
        rows = lines(out / f"{name}.jsonl")
        assert [each["id"] for each in rows] == [f"case {n}" for n in range(8)]
        assert all(set(each) == {"id", "messages"} for each in rows)
    assert not (out / "rejects.jsonl").exists()
    mazes = lines(out / "mazes.jsonl")
    assert len(mazes) == 8
    for each in mazes:
        letter = each["answer"][-1]
        gold = [each["listed"][number - 1] for number in each["gold"]]
        assert gold[0].endswith(f"of {letter} began this week.")
        assert gold[2] == f"{letter} was given a drug."
        assert len(each["listed"]) == len(each["kinds"]) == 5 == each["noise"] + 3
        assert each["sources"].count("evidence") == 3
    assert "| dialogue.jsonl | 8 |" in part.table
    assert f"train_scripts.finetune --data {out}/dialogue.jsonl" in part.table
    assert "| doctor | Thank you." in part.table
    assert "| 2 | - | bm25 | 6 |" in part.table
    assert "| 2 | - | random, expected | 6 | 0.200 | 0.100 | 0.600 |" in part.table
    assert "`embedding` and `usual_order` are left out" in part.table
    assert "Rejects" not in part.table and "What" not in part.table.split("Mazes")[1]
    assert part.numbers["items"] == 8 and part.numbers["rejects"] == 0
    assert 0 <= part.numbers["bm25_noise_2_position"] <= 1
    assert not capsys.readouterr().err


HARD = [
    row(0, vignette="One sentence alone.", id="short"),
    row(1, question=None, id="unasked"),
    row(
        2,
        id="long",
        vignette=" ".join(f"Sign {n} is seen in the patient." for n in range(41)),
    ),
    row(
        3,
        id="markup",
        vignette="<p>A <b>man</b> comes | in.</p><ul><li>He has a pH &lt; 7.2 and a "
        "cough.</li></ul><p>He has\x1b[31m a rash.</p>",
    ),
    row(
        4,
        id="chinese",
        vignette="患者男\uff0c40岁。咳嗽两周。体温38.5度。",
        question="病因是什么\uff1f",
        answer="肺炎",
        options=["肺炎", "哮喘"],
    ),
    row(5, id="open", options=None, surprise=1),
    row(6, id="un|\nsafe", vignette="None | of <i>this</i>"),
]


@pytest.fixture
def hard(config, tmp_path):
    data = write(tmp_path / "hard.jsonl", HARD)
    return no_mazes(config, data=str(data))


def test_hard_questions(hard, tmp_path):
    out = tmp_path / "run"
    part = own.analyse(hard, out, progress=False)
    found = {each["id"]: each["messages"] for each in lines(out / "dialogue.jsonl")}
    assert list(found) == ["unasked", "long", "markup", "chinese", "open"]
    assert len(found["long"]) == 2 * 40 + 4
    assert found["unasked"][-2]["content"] == "What do you conclude?"
    said = " ".join(each["content"] for each in found["markup"])
    assert "He has a pH < 7.2 and a cough." in said and "<b>" not in said
    assert found["chinese"][2]["content"] == "咳嗽两周。"
    choices = [each["id"] for each in lines(out / "multiple_choice.jsonl")]
    assert choices == ["unasked", "long", "markup", "chinese"]
    rejects = lines(out / "rejects.jsonl")
    assert [each["id"] for each in rejects] == ["short", "un|\nsafe"]
    assert "at least one sentence of evidence" in rejects[0]["reason"]
    reason = "expected a background and at least one sentence of evidence"
    assert f"| {reason} | 2 | short |" in part.table
    assert "Fields that were ignored: surprise." in part.table
    assert "There are too few items for mazes" in part.table
    assert not (out / "mazes.jsonl").exists()
    assert "\x1b" not in part.table
    for line in part.table.splitlines():
        if line.startswith("| patient or chart") or line.startswith("| doctor"):
            assert line.count("|") == 3


@pytest.mark.usefixtures("without_minilm")
def test_levels_for_which_there_are_too_few_items(config, tmp_path):
    data = write(tmp_path / "two.jsonl", [row(0), row(1)])
    config = dataclasses.replace(config, data=str(data), noise=(1, 50))
    part = own.analyse(config, tmp_path / "run", progress=False)
    assert "Too few items for noise 50: items: expected sentences" in part.table
    assert {each["noise"] for each in lines(tmp_path / "run" / "mazes.jsonl")} == {1}
    assert "| 1 | - | identity | 2 |" in part.table


def test_items_with_one_sentence_of_evidence_are_not_tested(config, tmp_path):
    short = "Patient A comes in. A coughs."
    data = write(tmp_path / "one.jsonl", [row(0, vignette=short)])
    config = dataclasses.replace(config, data=str(data), noise=(0,), evidence=(1, 9))
    part = own.analyse(config, tmp_path / "run", progress=False)
    assert "No item has two sentences of evidence" in part.table
    assert len(lines(tmp_path / "run" / "mazes.jsonl")) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected at least one question, got none"),
        ("{", r"bad\.jsonl:1: expected JSON"),
        ('{"question": "Why?"}\n', r"bad\.jsonl:1: expected an 'answer'"),
        (
            '{"question": "Why?", "answer": "A", "id": "x"}\n',
            "expected at least one question that makes an item, got none of 1; the "
            "first, x: expected a background",
        ),
    ],
)
def test_bad_files(config, tmp_path, content, message):
    data = tmp_path / "bad.jsonl"
    data.write_text(content)
    out = tmp_path / "run"
    with pytest.raises(ValueError, match=message):
        own.analyse(dataclasses.replace(config, data=str(data)), out, progress=False)
    assert not out.exists(), "nothing is written"


def test_a_file_that_is_missing(config, tmp_path):
    config = dataclasses.replace(config, data=str(tmp_path / "nowhere.jsonl"))
    with pytest.raises(FileNotFoundError, match="expected a file of JSON lines"):
        own.analyse(config, tmp_path / "run", progress=False)


def test_a_folder_of_datasets(config, tmp_path):
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "saved"
    datasets.Dataset.from_list([row(0), row(1)]).save_to_disk(str(folder))
    config = no_mazes(config, data=str(folder))
    part = own.analyse(config, tmp_path / "run", progress=False)
    assert part.numbers["items"] == 2


def test_transformers_renders_every_row(hard, tiny_chat_model, tmp_path):
    transformers = pytest.importorskip("transformers")
    own.analyse(hard, tmp_path / "run", progress=False)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(tiny_chat_model)
    for name in FORMS:
        rows = lines(tmp_path / "run" / f"{name}.jsonl")
        assert rows
        for each in rows:
            shown = tokenizer.apply_chat_template(each["messages"], tokenize=False)
            place = 0
            for message in each["messages"]:
                place = shown.index(message["content"], place) + len(message["content"])


def test_the_dialogues_train(config, tiny_chat_model, tmp_path):
    out = tmp_path / "run"
    part = own.analyse(no_mazes(config), out, progress=False)
    room = int(re.search(r"--max-tokens (\d+)", part.table)[1])
    assert room == 256
    summary = finetune.run(
        FinetuneConfig(
            data=str(out / "dialogue.jsonl"),
            workdir=str(tmp_path / "tuned"),
            model=str(tiny_chat_model),
            num_epochs=1,
            batch_size=2,
            # This tokenizer takes a token for almost every letter.
            max_tokens=4 * room,
            holdout=0.0,
            merged=False,
        ),
        progress=False,
    )
    assert summary.steps >= 1 and 0 < summary.train_loss < 20


class Endpoint(BaseHTTPRequestHandler):
    """Answers by ``server.said(messages)``; refuses after ``server.limit`` calls."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append(body)
        failing = len(self.server.seen) > self.server.limit
        said = self.server.said(body["messages"])
        choice = {"index": 0, "message": {"role": "assistant", "content": said}}
        reply = {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [choice | {"finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
        }
        wrong = {"error": {"message": "no\nmore"}}
        content = json.dumps(wrong if failing else reply).encode()
        self.send_response(400 if failing else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(serve):
    pytest.importorskip("openai", reason="the endpoint needs the openai client")
    found = serve(Endpoint)
    found.limit, found.said = 10**6, perfect
    return found


@pytest.fixture
def asked(config, server):
    return dataclasses.replace(
        config,
        chat=f"http://127.0.0.1:{server.server_port}/v1",
        chat_model="m|odel",
        prices=(1.0, 2.0),
    )


def perfect(messages):
    """The numbers of the patient's sentences, in their order."""
    letter = re.search(r"Patient (\w) comes", messages[0]["content"])[1]
    listed = re.findall(r"^(\d+)\. (.*)$", messages[0]["content"], re.M)
    signs = ("began this week", "Examination of", "was given")
    numbers = [
        number
        for sign in signs
        for number, sentence in listed
        if sign in sentence and re.search(rf"\b{letter}\b", sentence)
    ]
    turn = len(messages) // 2
    if "one sentence a turn" in messages[0]["content"]:
        return numbers[turn]
    return ", ".join(numbers)


@pytest.mark.usefixtures("without_minilm")
def test_an_endpoint_from_first_call_to_report(asked, server, tmp_path, capsys):
    """It fails midway; the same command goes on, and pays for nothing twice."""
    out = tmp_path / "run"
    server.limit = 7
    with pytest.raises(OSError, match="the same command goes on from here") as caught:
        own.analyse(asked, out, progress=False)
    assert "\n" not in str(caught.value) and asked.chat in str(caught.value)
    # Five mazes in one round, and in several rounds a call for each of three picks.
    assert "m|odel: 20 calls, at most about " in capsys.readouterr().out
    assert len(lines(out / "dialogue.jsonl")) == 8, "the files do not wait for it"
    server.limit, before = 10**6, len(server.seen)
    part = own.analyse(asked, out, progress=False)
    assert len(server.seen) - before == 20 - 7
    for rounds in ("one", "several"):
        assert part.numbers[f"chat_{rounds}_noise_2_position"] == 1
        assert part.numbers[f"chat_{rounds}_noise_2_failed"] == 0
        assert f"| 2 | {rounds} | **m/odel** | 5 | 1.000 [" in part.table
    # All five are right, and five decide nothing.
    assert "beats the best rule without a model in 0 of 2 settings" in part.table
    assert "m/odel has shown nothing beyond the best rule" in part.table
    assert "With 5 mazes a setting, bootstrap intervals are too narrow" in part.table
    assert "Fewer than 10 decide nothing." in part.table
    assert "That is 100% of the way from chance (0.200)" in part.table
    # Those that the first start paid for are in the cost of the run.
    tokens, cost = 20 * 12, 20 * (9 + 2 * 3) / 1e6
    assert f"10 mazes: {tokens} tokens, cost {cost:.4f}" in part.table
    assert "0 replies could not be read" in part.table
    again = own.analyse(asked, out, progress=False)
    assert len(server.seen) - before == 13, "the second run asks nothing"
    assert again.numbers == part.numbers


@pytest.mark.usefixtures("without_minilm")
def test_a_model_that_shows_nothing(asked, server, tmp_path):
    server.said = lambda messages: "It is hard to say, at 120/80."
    asked = dataclasses.replace(asked, rounds=("one",))
    part = own.analyse(asked, tmp_path / "run", progress=False)
    assert part.numbers["chat_one_noise_2_position"] == 0
    assert part.numbers["chat_one_noise_2_failed"] == 1
    assert "beats the best rule without a model in 0 of 1 settings" in part.table
    assert "That is below chance (0.200)." in part.table
    assert "5 replies could not be read" in part.table
    assert "Failures by reason: no number 5." in part.table


def test_failures_by_reason_and_an_unknown_cost(asked, server, tmp_path, capsys):
    items = make_items(read_questions(asked.data).questions).items
    mazes = own.make_mazes(items, noise=(0,), key=own.seed_key(0, 1))
    said = iter(["3, 1, 2", "3, 1", "3, 3, 1", "none"] * 2)
    server.said = lambda messages: next(said)
    asked = dataclasses.replace(asked, rounds=("one",), prices=(0, 0), concurrency=1)
    found = endpoint.ask(asked, tmp_path, mazes, progress=False)
    assert found.picks["one", 0][:4] == [[2, 0, 1], None, None, None]
    assert "too few 2, repeated 2, no number 2" in found.note
    assert "cost unknown" in found.note
    assert "cost unknown (--prices tells it)" in capsys.readouterr().out


def rewritten(messages):
    """A dialogue in other words; that of case B loses a fact."""
    draft = messages[0]["content"].split("Conversation:\n")[1].splitlines()
    turns = []
    for line in draft:
        speaker, _, text = line.partition(": ")
        text = f"Well. {text}" if speaker == "doctor" else text
        if "B was given" not in text:
            turns.append({"speaker": speaker, "text": text})
    return json.dumps({"turns": turns})


def test_dialogues_that_a_model_writes(asked, server, tmp_path, capsys):
    pytest.importorskip("jsonschema", reason="answers are checked by a schema")
    server.said = rewritten
    asked = no_mazes(asked, rewrite=True)
    out = tmp_path / "run"
    # Chat is only asked to rewrite: there is nothing to test it on.
    part = own.analyse(asked, out, progress=False)
    found = {each["id"]: each["messages"] for each in lines(out / "dialogue.jsonl")}
    assert list(found) == [f"case {n}" for n in (0, *range(2, 8))]
    assert found["case 0"][1]["content"].startswith("Well. Thank you.")
    assert len(lines(out / "monologue.jsonl")) == 8
    [reject] = lines(out / "rejects.jsonl")
    assert reject["id"] == "case 1"
    assert reject["reason"] == "the patient must say word for word: B was given a drug."
    assert "| the patient must say word for word | 1 | case 1 |" in part.table
    assert "m/odel wrote the dialogues" in part.table
    assert "at most 32 calls for rewriting" in capsys.readouterr().out
    assert part.numbers["dialogue"] == 7 and part.numbers["rejects"] == 1


def test_an_endpoint_that_rewrites_nothing(asked, server, tmp_path):
    pytest.importorskip("jsonschema", reason="answers are checked by a schema")
    server.limit = 0
    asked = no_mazes(asked, rewrite=True)
    with pytest.raises(OSError, match=r"the request failed: .*the same command goes"):
        own.analyse(asked, tmp_path / "run", progress=False)


@pytest.mark.usefixtures("without_minilm")
def test_a_model_of_the_runtime(config, monkeypatch, tmp_path):
    """Each finished setting is stored, and a changed file is not taken for it."""
    loaded, chosen = [], []

    def choose(model, mazes, *, rounds):
        chosen.append((model, rounds, len(mazes)))
        return own.choosing.Choices([list(maze.gold)[::-1] for maze in mazes], [])

    monkeypatch.setattr(
        own.weights, "load", lambda name, **_: loaded.append(name) or name
    )
    monkeypatch.setattr(own.choosing, "choose_by_number", choose)
    config = dataclasses.replace(config, model="tiny", model_items=4)
    out = tmp_path / "run"
    part = own.analyse(config, out, progress=False)
    assert chosen == [("tiny", "one", 4), ("tiny", "several", 4)]
    assert "| 2 | one | **tiny** | 4 | 0.333 [" in part.table
    assert "## What tiny has shown" in part.table
    assert own.analyse(config, out, progress=False) == part
    assert loaded == ["tiny"] and len(chosen) == 2
    short = dataclasses.replace(config, model_words=1)
    told = own.analyse(short, tmp_path / "short", progress=False).table
    assert "`tiny` is not tested" in told and "--model-words" in told
    write(Path(config.data), [row(n) for n in range(1, 9)])
    own.analyse(config, out, progress=False)
    assert len(chosen) == 4


def test_minilm_reads_each_text_once(monkeypatch):
    class Counting:
        def encode(self, texts):
            seen.append(list(texts))
            return own.np.ones((len(texts), 2))

    seen = []
    monkeypatch.setattr(own.encoder, "load", lambda name, **_: Counting())
    encode = own._encode([])
    assert encode(["a", "b"]).shape == (2, 2)
    assert encode(["b", "c", "a"]).shape == (3, 2) and encode(["c"]).shape == (1, 2)
    assert seen == [["a", "b"], ["c"]]
