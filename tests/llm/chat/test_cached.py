"""Test the cache of answers: lookup, a kill, a full disk, equal requests."""

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from jeff_llm.chat import (
    Answer,
    Cached,
    ChatError,
    Message,
    Request,
    ask,
    conversation,
    usage,
)
from jeff_llm.chat import cached as cached_module

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
    assert usage(ask(cached, requests)).failed == 1
    model.asked.clear()
    found = ask(cached, requests)
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
    whole = '{"text": %s, "finish_reason": "", "prompt_tokens": 1, '
    whole += '"completion_tokens": 1}'
    values = ("{", '{"text": "4"}', "[]", '{"log_probs": 3}', whole % "4", "[" * 9999)
    for value in values:
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


class Slow(Echo):
    """Answers after a moment, so that equal requests meet."""

    async def answer(self, request: Request) -> Answer:
        found = asyncio.ensure_future(super().answer(request))
        await asyncio.sleep(0.02)
        return await found


def test_200_equal_requests_are_paid_once(tmp_path):
    model = Slow()
    found = ask(Cached(model, tmp_path / "answers.db"), [request()] * 200)
    assert model.asked == [request()]
    assert {answer.text for answer in found} == {"echo: What is 2 + 2?"}
    total = usage(found)
    assert (total.requests, total.cached, total.cost) == (200, 199, 0.125)


def test_equal_requests_share_a_failure_and_the_next_asks_again(tmp_path):
    model = Slow()
    cached = Cached(model, tmp_path / "answers.db")
    found = ask(cached, [request("refuse")] * 5, concurrency=5)
    assert [str(error) for error in found] == [str(found[0])] * 5
    assert len(model.asked) == 1
    with pytest.raises(ChatError):
        ask(cached, request("refuse"))
    assert len(model.asked) == 2


def test_one_that_gives_up_does_not_take_the_answer_from_the_others(tmp_path):
    model = Slow()
    cached = Cached(model, tmp_path / "answers.db")

    async def three():
        tasks = [asyncio.create_task(cached.answer(request())) for _ in range(3)]
        await asyncio.sleep(0.01)
        tasks[0].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    given_up, *others = asyncio.run(three())
    assert isinstance(given_up, asyncio.CancelledError)
    assert [answer.text for answer in others] == ["echo: What is 2 + 2?"] * 2
    assert usage(others).cost == 0.125, "what was paid is in the books, once"
    assert len(model.asked) == 1


def test_a_request_that_nobody_waits_for_is_given_up(tmp_path):
    class Endless(Echo):
        given_up = 0

        async def answer(self, request: Request) -> Answer:
            await super().answer(request)
            try:
                await asyncio.sleep(60 if len(self.asked) == 1 else 0)
            except asyncio.CancelledError:
                self.given_up += 1
                raise
            return Answer("late", "stop", 1, 1)

    model = Endless()
    cached = Cached(model, tmp_path / "answers.db")

    async def give_up():
        asked = asyncio.create_task(cached.answer(request()))
        while not model.asked:
            await asyncio.sleep(0.001)
        asked.cancel()
        await asyncio.wait([asked])
        return await cached.answer(request())

    assert asyncio.run(give_up()).text == "late"
    assert model.given_up == 1 and len(model.asked) == 2


class Filling(Echo):
    """Lets something happen when it is asked for the n-th time."""

    def __init__(self, at: int, happens: Callable[[], object]):
        super().__init__()
        self.at, self.happens = at, happens

    async def answer(self, request: Request) -> Answer:
        answer = await super().answer(request)
        if len(self.asked) == self.at:
            self.happens()
        return answer


def check_nothing_is_lost(cached: Cached, model: Echo) -> None:
    """Ask for 200, four at a time; the store fails when the 20th is asked."""
    requests = [request(f"{number}" + "x" * 300) for number in range(200)]
    found = ask(cached, requests, concurrency=4)
    paid = len(model.asked)
    # Those in flight alone are still asked, and what the last free page can hold.
    assert 20 <= paid <= 28
    answers = [each for each in found if isinstance(each, Answer)]
    assert len(answers) == paid, "every answer that came was handed over"
    errors = [each for each in found if not isinstance(each, Answer)]
    assert len(errors) == 200 - paid
    for error in errors:
        assert isinstance(error, OSError) and str(cached.path) in str(error)
        assert "stored answers are not asked twice" in str(error)
        assert "nothing" in str(error) and "asked" in str(error)
    again = ask(cached, requests, concurrency=4)
    assert usage(again).cached >= 16, "stored answers are still given"
    assert len(model.asked) == paid


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"a small file system needs root: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(folder: Path) -> None:
    with (folder / "filling").open("wb", buffering=0) as file:
        for size in (2**16, 512):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)


@pytest.mark.skipif(shutil.which("mount") is None, reason="there is no mount")
def test_a_disk_that_fills(small_disk):
    """And with room again the rest is asked, and nothing twice."""
    path = small_disk / "answers.db"
    model = Filling(20, lambda: fill(small_disk))
    check_nothing_is_lost(Cached(model, path), model)
    (small_disk / "filling").unlink()
    model = Echo()
    requests = [request(f"{number}" + "x" * 300) for number in range(200)]
    found = ask(Cached(model, path), requests)
    assert usage(found).failed == 0 and len(model.asked) <= 200 - 16


def test_a_file_that_may_not_grow(tmp_path, monkeypatch):
    """The limit of a process on the size of files; no root is needed."""
    resource = pytest.importorskip("resource", reason="there are no limits of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "answers.db"
    monkeypatch.setattr(cached_module, "_LOCK_SECONDS", 0.1)

    def forbid() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))

    model = Filling(20, forbid)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        check_nothing_is_lost(Cached(model, path), model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_file_that_another_process_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(cached_module, "_LOCK_SECONDS", 0.05)
    path = tmp_path / "answers.db"
    holders = []

    def hold() -> None:
        holders.append(sqlite3.connect(path, isolation_level=None))
        holders[0].execute("BEGIN IMMEDIATE")

    model = Filling(20, hold)
    cached = Cached(model, path)
    try:
        check_nothing_is_lost(cached, model)
    finally:
        holders[0].close()
    assert "database is locked" in str(cached.stopped)


def test_only_the_owner_reads_a_cache(tmp_path):
    path = tmp_path / "answers.db"
    before = os.umask(0)
    try:
        cached = Cached(Echo(), path)
        holder = sqlite3.connect(path)  # so that the files beside it are there
        holder.execute("SELECT * FROM answers").fetchall()
        ask(cached, [request("a"), request("b")])
        assert set(seen(tmp_path)) == {
            "answers.db",
            "answers.db-shm",
            "answers.db-wal",
        }
        assert set(seen(tmp_path).values()) == {0o600}
        holder.close()
        path.chmod(0o664)
        Cached(Echo(), path)
        assert seen(tmp_path) == {"answers.db": 0o600}
    finally:
        os.umask(before)


def seen(folder: Path) -> dict[str, int]:
    return {each.name: stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()}


def test_what_the_stored_answers_cost(tmp_path):
    cached = Cached(Echo(), tmp_path / "answers.db")
    assert cached.spent() == 0.0
    ask(cached, [request(f"{number}") for number in range(3)])
    ask(cached, [request(f"{number}") for number in range(3)])
    assert cached.spent() == 3 * 0.125
