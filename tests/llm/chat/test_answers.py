"""Test stored answers: lookup, survival of a kill, and separation of requests."""

import dataclasses
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jeff_llm.chat import (
    Answer,
    Cached,
    Cassette,
    ChatError,
    Message,
    Recorder,
    Request,
    ask,
    conversation,
    usage,
)

ROOT = Path(__file__).parents[3]
PROGRAM = ROOT / "tests" / "programs" / "cached_answers.py"


def request(text: str = "What is 2 + 2?", **fields) -> Request:
    return Request(conversation(text), **fields)


class Echo:
    """Says what it was asked, and counts."""

    def __init__(self, name: str = "echo"):
        self.name = name
        self.asked: list[Request] = []

    async def answer(self, request: Request) -> Answer:
        self.asked.append(request)
        text = request.messages[-1].content
        if text == "refuse":
            raise ChatError(self.name, 1, "status 401")
        return Answer(
            f"{self.name}: {text}", "stop", 4, 2, (-0.1, -2.5), 0.125, model="e"
        )


FULL = Request(
    conversation("Grüße, \ud83d\x00 \u2028 'quoted'", "b", "c", system="s"),
    max_tokens=17,
    temperature=0.7,
    top_p=0.9,
    seed=3,
    stop=("\n", "x"),
    schema='{"type": "object"}',
    logprobs=True,
)
# One change to each field of a request makes it another one.
CHANGES = {
    "messages": conversation("Grüße", "b", "c", system="s"),
    "max_tokens": 18,
    "temperature": 0.8,
    "top_p": None,
    "seed": 4,
    "stop": ("\n",),
    "schema": '{"type": "array"}',
    "logprobs": False,
}


def test_an_answer_is_asked_for_once(tmp_path):
    model = Echo()
    path = tmp_path / "new folder" / "answers.db"
    cached = Cached(model, path)
    first = ask(cached, FULL)
    assert (first.cached, first.cost) == (False, 0.125)
    for again in (cached, Cached(Echo(), str(path))):
        second = ask(again, FULL)
        assert second == dataclasses.replace(first, cached=True, cost=0.0)
        assert isinstance(second.log_probs, tuple)
    assert model.asked == [FULL]
    assert cached.name == "echo"


def test_every_field_and_the_name_are_in_the_key(tmp_path):
    assert set(CHANGES) == {field.name for field in dataclasses.fields(Request)}
    requests = [FULL] + [
        dataclasses.replace(FULL, **{name: value}) for name, value in CHANGES.items()
    ]
    requests += [
        Request((Message(role, "a"), Message("user", "b")))
        for role in ("system", "user")
    ]
    model = Echo()
    cached = Cached(model, tmp_path / "answers.db")
    answers = ask(cached, requests)
    assert not any(answer.cached for answer in answers)
    assert len(model.asked) == len(requests)
    again = ask(cached, requests)
    assert [answer.text for answer in again] == [answer.text for answer in answers]
    assert usage(again).cached == len(requests) and usage(again).cost == 0.0
    other = Echo("other")
    assert ask(Cached(other, tmp_path / "answers.db"), FULL).text.startswith("other: ")


def test_the_key_is_as_documented(tmp_path):
    """So that a cache of today is found tomorrow."""
    ask(Cached(Echo(), tmp_path / "answers.db"), request())
    text = (
        '{"model":"echo","request":{"logprobs":false,"max_tokens":256,"messages":'
        '[{"content":"What is 2 + 2?","role":"user"}],"schema":null,"seed":null,'
        '"stop":[],"temperature":0.0,"top_p":null}}'
    )
    database = sqlite3.connect(tmp_path / "answers.db")
    rows = database.execute("SELECT key, answer FROM answers").fetchall()
    database.close()
    assert [key for key, _ in rows] == [hashlib.sha256(text.encode()).hexdigest()]
    assert json.loads(rows[0][1])["text"] == "echo: What is 2 + 2?"


def test_an_error_is_not_kept(tmp_path):
    model = Echo()
    cached = Cached(model, tmp_path / "answers.db")
    for _ in range(2):
        with pytest.raises(ChatError):
            ask(cached, request("refuse"))
    assert len(model.asked) == 2


def test_what_came_before_a_failure_is_kept(tmp_path):
    model = Echo()
    cached = Cached(model, tmp_path / "answers.db")
    requests = [request(f"{number}") for number in range(10)]
    requests.insert(5, request("refuse"))
    with pytest.raises(ExceptionGroup):
        ask(cached, requests)
    model.asked.clear()
    found = ask(cached, requests, return_errors=True)
    assert model.asked == [request("refuse")]
    assert (usage(found).cached, usage(found).failed) == (10, 1)


def test_many_threads_share_a_file(tmp_path):
    model = Echo()
    cached = Cached(model, tmp_path / "answers.db")
    requests = [request(f"{number}") for number in range(40)]
    threads = [
        threading.Thread(target=ask, args=(cached, requests[start:] + requests[:start]))
        for start in (0, 10, 20, 30)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    model.asked.clear()
    assert all(answer.cached for answer in ask(cached, requests))
    assert model.asked == []


def start(*args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", PROGRAM, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def finish(process: subprocess.Popen[str]) -> list:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return json.loads(out)


def expected(first: int, last: int) -> list[str]:
    return [f"question {number}!" for number in range(first, last)]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_run_goes_on_where_it_was(tmp_path):
    """Killed twice with -9; at most the four that were on the way are asked again."""
    cache, asked = tmp_path / "answers.db", tmp_path / "asked"
    for kill_at in (20, 30):
        killed = start(cache, asked, 0, 60, kill_at)
        killed.communicate(timeout=60)
        assert killed.returncode == -9
    assert len(lines(asked)) == 50
    found = finish(start(cache, asked, 0, 60))
    assert [text for text, *_ in found] == expected(0, 60)
    assert all(log_probs == [-0.5, -0.25] for _, log_probs, _, _ in found)
    known = [cost == 0.0 for _, _, cached, cost in found if cached]
    assert all(known) and len(known) >= 42
    assert len(lines(asked)) == 50 + 60 - len(known)
    before = len(lines(asked))
    assert all(cached for _, _, cached, _ in finish(start(cache, asked, 0, 60)))
    assert len(lines(asked)) == before


def test_processes_share_a_file_from_its_making(tmp_path):
    """Four at once, with a file that is not there yet and questions in common."""
    cache = tmp_path / "answers.db"
    ranges = [(0, 40), (10, 50), (20, 60), (0, 60)]
    running = [start(cache, tmp_path / f"{i}", *r) for i, r in enumerate(ranges)]
    for (first, last), process in zip(ranges, running, strict=True):
        assert [text for text, *_ in finish(process)] == expected(first, last)
    model = Echo("noted")
    asked = [request(f"question {i}", logprobs=True) for i in range(60)]
    answers = ask(Cached(model, cache), asked)
    assert [answer.text for answer in answers] == expected(0, 60)
    assert model.asked == []


def test_making_the_file_at_the_same_time(tmp_path):
    """Many threads open one new file; none is in another's way."""
    for attempt in range(5):
        path, errors = tmp_path / f"{attempt}.db", []

        def make(path: Path = path, errors: list[Exception] = errors) -> None:
            try:
                ask(Cached(Echo(), path), request())
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=make) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []


def damaged(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "answers.db"
    requests = [request("a" * 900 + str(number)) for number in range(50)]
    ask(Cached(Echo(), path), requests)
    content = path.read_bytes()
    if kind == "torn":
        path.write_bytes(content[: len(content) // 2])
    if kind == "scrambled":
        path.write_bytes(content[:4096] + b"\x9d" * (len(content) - 4096))
    if kind == "text":
        path.write_text("question,answer\n" * 100)
    if kind == "another":
        path.unlink()
        database = sqlite3.connect(path)
        database.execute("CREATE TABLE answers (key TEXT PRIMARY KEY, answer TEXT)")
        database.close()
    if kind == "later":
        database = sqlite3.connect(path)
        database.execute("PRAGMA user_version = 2")
        database.close()
    return path


@pytest.mark.parametrize("kind", ["torn", "scrambled", "text", "another", "later"])
def test_a_file_that_is_no_cache_is_named_and_left_alone(kind, tmp_path):
    path = damaged(tmp_path, kind)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"answers\.db: expected an answer cache"):
        ask(Cached(Echo(), path), request("a" * 900 + "3"))
    assert path.read_bytes() == before


def test_an_entry_that_is_no_answer_is_named(tmp_path):
    path = tmp_path / "answers.db"
    ask(Cached(Echo(), path), request())
    for value in ("{", '{"text": "4"}', "[]", '{"log_probs": 3}'):
        database = sqlite3.connect(path)
        database.execute("UPDATE answers SET answer = ?", (value,))
        database.commit()
        database.close()
        with pytest.raises(ValueError, match=r"answers\.db: [0-9a-f]{64}: expected an"):
            ask(Cached(Echo(), path), request())


def test_a_file_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(OSError, match=f"{tmp_path.name}: the answer cache cannot be"):
        Cached(Echo(), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Cached(Echo(), tmp_path / "file" / "answers.db")


def test_an_empty_file_becomes_a_cache(tmp_path):
    """As a run leaves it that was killed before it had made the table."""
    (tmp_path / "answers.db").touch()
    cached = Cached(Echo(), tmp_path / "answers.db")
    ask(cached, request())
    assert ask(cached, request()).cached


def test_cassette_round_trip(tmp_path):
    path = tmp_path / "new folder" / "tape.jsonl"
    model = Echo()
    recorder = Recorder(model, path)
    requests = [FULL, request(), request(seed=1)]
    heard = ask(recorder, requests)
    assert heard == ask(Echo(), requests), "recording changes nothing"
    cassette = Cassette(path)
    assert (recorder.name, cassette.name) == ("echo", "echo")
    replayed = ask(cassette, requests)
    assert replayed == [dataclasses.replace(a, cached=True, cost=0.0) for a in heard]
    for line in path.read_bytes().splitlines():
        assert set(json.loads(line)) == {"model", "request", "answer"}


def test_a_cassette_can_be_added_to(tmp_path):
    """Also after a kill in the middle of a line; the later answer counts."""
    path = tmp_path / "tape.jsonl"
    ask(Recorder(Echo(), path), [request("a"), request("b")])
    whole = path.read_text()
    path.write_text(whole + whole[:70])
    with pytest.raises(ValueError, match=r"tape\.jsonl: line 3: expected a record"):
        Cassette(path)
    recorder = Recorder(Echo(), path)
    assert path.read_text() == whole
    ask(recorder, request("c"))
    path.write_text(path.read_text() + whole.splitlines()[0].replace("echo: a", "new"))
    texts = [ask(Cassette(path), request(text)).text for text in "abc"]
    assert texts == ["new", "echo: b", "echo: c"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_cassette_written_by_hand(tmp_path):
    """What a request does not say is at its default."""
    path = tmp_path / "tape.jsonl"
    message = {"role": "user", "content": "Grüße"}
    answer = {
        "text": "Hallo",
        "finish_reason": "stop",
        "prompt_tokens": 1,
        "completion_tokens": 1,
    }
    record = {"model": "m", "request": {"messages": [message]}, "answer": answer}
    path.write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
    assert ask(Cassette(path), request("Grüße")).text == "Hallo"


def test_a_request_that_is_not_recorded_is_named(tmp_path):
    path = tmp_path / "tape.jsonl"
    ask(Recorder(Echo(), path), request())
    asked = request("How   many people\nlive there? " + "word " * 30)
    with pytest.raises(LookupError) as caught:
        ask(Cassette(path), asked)
    assert str(caught.value) == (
        f"{path}: no answer to 'How many people live there? word word word word word "
        "word word' with these settings; to record it, ask Recorder(model, path) the "
        "same once"
    )
    with pytest.raises(LookupError, match="What is 2"):
        ask(Cassette(path), request(seed=9))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "expected answers of one model, of 0 came"),
        (b"{}\n", r"line 1: expected a record of .* \(KeyError"),
        (b"[1]\n", "line 1: expected a record"),
        (b"\xff\xfe\n", "line 1: expected a record"),
        (
            b'{"request": {"messages": [{"role": "x", "content": ""}]}}',
            "role: expected",
        ),
        (b'{"request": {"messages": [], "max_token": 3}}', "line 1.*max_token"),
    ],
)
def test_a_cassette_of_another_kind_is_named(content, said, tmp_path):
    path = tmp_path / "tape.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"tape\.jsonl: .*{said}"):
        Cassette(path)


def test_a_cassette_is_of_one_model(tmp_path):
    path = tmp_path / "tape.jsonl"
    ask(Recorder(Echo("a"), path), request())
    ask(Recorder(Echo("b"), path), request())
    with pytest.raises(ValueError, match="one model, of 2 came: a, b"):
        Cassette(path)


def test_a_missing_cassette_says_how_to_record(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"tape\.jsonl: .*Recorder\(model, path"
    ):
        Cassette(tmp_path / "tape.jsonl")


def test_they_wrap_each_other(tmp_path):
    """A cache may stand before a cassette, and a recorder before a cache."""
    ask(Recorder(Echo(), tmp_path / "tape"), request())
    cached = Cached(Cassette(tmp_path / "tape"), tmp_path / "answers.db")
    recorder = Recorder(cached, tmp_path / "copy")
    assert ask(recorder, request()) == ask(Cassette(tmp_path / "copy"), request())
    assert repr(recorder) == (
        f"Recorder(Cached(Cassette({str(tmp_path / 'tape')!r}), "
        f"{str(tmp_path / 'answers.db')!r}), {str(tmp_path / 'copy')!r})"
    )
