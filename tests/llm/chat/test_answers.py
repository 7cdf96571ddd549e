"""Test cassettes: recording, replaying, and what is not a record."""

import dataclasses
import json
import os
import signal
import stat
from pathlib import Path

import pytest

from jeff_llm.chat import (
    Answer,
    Cached,
    Cassette,
    Recorder,
    Request,
    ask,
    conversation,
)


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
        (b"[" * 100_000, "line 1: expected a record .*of a moderate depth"),
        (b'{"answer": {"cost": %s}}' % (b"9" * 400), "line 1: .*a finite number"),
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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_an_answer_that_cannot_be_recorded_is_handed_over(tmp_path):
    path = tmp_path / "tape.jsonl"
    model = Echo()
    recorder = Recorder(model, path)
    ask(recorder, request("a"))
    whole = path.read_bytes()
    path.unlink()
    path.symlink_to("/dev/full")  # every write finds the disk full
    found = ask(recorder, [request(text) for text in "bcd"], concurrency=1)
    assert found[0].text == "echo: b"
    assert [each.messages[-1].content for each in model.asked] == ["a", "b"]
    for error in found[1:]:
        assert isinstance(error, OSError)
        assert str(error).startswith(f"{path}: expected to store each answer")
        assert "No space left" in str(error) and "nothing more is asked" in str(error)
    path.unlink()
    path.write_bytes(whole)
    again = Recorder(model, path)
    ask(again, request("c"))
    assert [ask(Cassette(path), request(text)).text for text in "ac"] == [
        "echo: a",
        "echo: c",
    ]


def test_a_record_that_does_not_fit_leaves_no_fragment(tmp_path):
    """The limit of a process on the size of files cuts a write in the middle."""
    resource = pytest.importorskip("resource", reason="there are no limits of files")
    path = tmp_path / "tape.jsonl"
    recorder = Recorder(Echo(), path)
    ask(recorder, request("a"))
    whole, before = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 50, before[1]))
        assert ask(recorder, request("b")).text == "echo: b"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == whole
    assert isinstance(recorder.stopped, OSError)


def test_only_the_owner_reads_a_cassette(tmp_path):
    path = tmp_path / "tape.jsonl"
    before = os.umask(0)
    try:
        ask(Recorder(Echo(), path), request())
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    Recorder(Echo(), path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
