"""Test requests as values, and many requests at a time in scripts and notebooks."""

import asyncio
import dataclasses
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from pathlib import Path

import pytest

from jeff_llm import chat
from jeff_llm.chat import (
    Answer,
    AskError,
    ChatError,
    ChatModel,
    Message,
    Price,
    Request,
    Usage,
    ask,
    ask_all,
    conversation,
    map_async,
    run,
    usage,
)

ROOT = Path(__file__).parents[3]


def request(text: str = "hello", **fields) -> Request:
    return Request(conversation(text), **fields)


class Shout:
    """Answers in capitals, and fails where it is asked to."""

    name = "shout"

    def __init__(self) -> None:
        self.now = self.most = 0
        self.loops: set[asyncio.AbstractEventLoop] = set()

    async def answer(self, request: Request) -> Answer:
        self.loops.add(asyncio.get_running_loop())
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.001 * (len(self.loops) + self.now % 3))
        self.now -= 1
        text = request.messages[-1].content
        if text == "refuse":
            raise ChatError(self.name, 2, "status 500")
        if text == "break":
            raise ValueError("prompt: too long")
        return Answer(text.upper(), "stop", len(text), 1, cost=0.25, model=self.name)


REQUESTS = [request(f"question {i}") for i in range(30)]
ANSWERS = [f"QUESTION {i}" for i in range(30)]


def test_it_is_a_chat_model():
    assert isinstance(Shout(), ChatModel)
    assert not isinstance(request(), ChatModel)


def test_ask_one_and_many():
    model = Shout()
    assert ask(model, request()).text == "HELLO"
    assert [answer.text for answer in ask(model, REQUESTS)] == ANSWERS
    assert ask(model, []) == []


@pytest.mark.parametrize("concurrency", [1, 3, 8, 100])
def test_no_more_than_so_many_at_a_time(concurrency):
    model = Shout()
    answers = ask(model, REQUESTS, concurrency=concurrency)
    assert [answer.text for answer in answers] == ANSWERS
    assert model.most == min(concurrency, len(REQUESTS))
    assert len(model.loops) == 1


def test_concurrency_is_positive():
    with pytest.raises(ValueError, match="concurrency: expected at least 1, got 0"):
        ask(Shout(), REQUESTS, concurrency=0)


def test_progress_counts_every_request():
    seen = []
    requests = [*REQUESTS[:4], request("refuse")]
    ask(
        Shout(),
        requests,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(done, 5) for done in range(1, 6)]


def test_a_failure_does_not_lose_the_others():
    model = Shout()
    texts = ["a", "refuse", "b", "break", "c"]
    requests = [request(text) for text in texts]
    found = ask(model, requests)
    assert [each.text for each in found[::2]] == ["A", "B", "C"]
    assert isinstance(found[1], ChatError) and isinstance(found[3], ValueError)
    seen = []
    with pytest.raises(AskError, match="2 of 5 failed") as caught:
        ask(
            model,
            requests,
            progress=lambda done, _: seen.append(done),
            return_errors=False,
        )
    assert {str(error) for error in caught.value.exceptions} == {
        str(found[1]),
        str(found[3]),
    }
    assert seen == [1, 2, 3, 4, 5], "all were tried first"
    assert list(map(repr, caught.value.results)) == list(map(repr, found))


def test_85_failures_of_200_lose_no_answer():
    """By default and in the error that is raised."""
    refused = set(range(0, 170, 2))
    texts = ["refuse" if i in refused else f"q{i}" for i in range(200)]
    requests = [request(text) for text in texts]
    found = ask(Shout(), requests)
    expected = [None if text == "refuse" else text.upper() for text in texts]
    assert [getattr(each, "text", None) for each in found] == expected
    assert usage(found).failed == 85
    with pytest.raises(AskError) as caught:
        ask(Shout(), requests, return_errors=False)
    assert [getattr(each, "text", None) for each in caught.value.results] == expected


def test_a_display_that_fails_loses_no_answer():
    def broken(done: int, total: int) -> None:
        raise BrokenPipeError(32, "the reader has gone")

    with pytest.raises(AskError, match="progress failed") as caught:
        ask(Shout(), REQUESTS, progress=broken)
    assert [answer.text for answer in caught.value.results] == ANSWERS
    assert isinstance(caught.value.first, BrokenPipeError)


def test_an_error_with_answers_is_split_and_sent_like_any_group():
    errors = [ValueError("a"), ChatError("m", 1, "b")]
    group = AskError("2 of 3 failed", errors, ["x", *errors])
    assert group.first is errors[0]
    assert AskError("outer", [group], []).first is errors[0]
    some, rest = group.split(ChatError)
    assert some.exceptions == (errors[1],) and rest.exceptions == (errors[0],)
    assert some.results == rest.results == group.results
    again = pickle.loads(pickle.dumps(group))
    assert again.results[0] == "x" and len(again.exceptions) == 2


def test_the_error_of_one_request_is_raised_as_it_is():
    with pytest.raises(ChatError, match="shout: no answer after 2 attempts") as caught:
        ask(Shout(), request("refuse"))
    assert "no running event loop" not in "".join(
        traceback.format_exception(caught.value)
    )


def test_ask_all_takes_any_iterable():
    async def questions():
        return await ask_all(Shout(), iter(REQUESTS[:2]), concurrency=1)

    assert [answer.text for answer in asyncio.run(questions())] == ANSWERS[:2]


def test_map_async_is_ask_all_for_anything():
    async def twice(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    assert run(map_async(twice, range(5), concurrency=2)) == [0, 2, 4, 6, 8]


def test_ask_inside_a_running_loop():
    """As in a notebook's cell: another thread, another loop; errors come through."""
    model = Shout()

    async def cell():
        here = asyncio.get_running_loop()
        answers = ask(model, REQUESTS[:3])
        assert here not in model.loops
        with pytest.raises(ChatError):
            ask(model, request("refuse"))
        return answers

    threads = threading.active_count()
    assert [answer.text for answer in asyncio.run(cell())] == ANSWERS[:3]
    assert threading.active_count() == threads


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal to itself")
def test_interrupting_a_cell_cancels_what_is_asked():
    """Control-C in a notebook, whose loop leaves the signal to Python."""
    cancelled = []

    class Endless:
        name = "endless"

        async def answer(self, request: Request) -> Answer:
            os.kill(os.getpid(), signal.SIGINT)
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.append(request)
                raise
            raise AssertionError

    async def cell():
        return ask(Endless(), request())

    loop = asyncio.new_event_loop()
    # A process that a shell put into the background ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(cell())
    finally:
        signal.signal(signal.SIGINT, before)
        loop.close()
    assert cancelled == [request()]


def test_usage_adds_up():
    known = Answer("x", "stop", 100, 10, cost=0.0, cached=True)
    paid = Answer("y", "length", 20, 5, cost=0.25)
    answers = [known, paid, ChatError("m", 1, "x"), paid, paid]
    assert usage(answers) == Usage(
        requests=5,
        cached=1,
        failed=1,
        prompt_tokens=160,
        completion_tokens=25,
        cost=0.75,
    )
    assert usage([]) == Usage(0, 0, 0, 0, 0, 0.0)


def test_price_is_of_a_million_tokens():
    assert Price(0.5, 1.5).cost(2_000_000, 1_000_000) == 2.5
    for prices, said in (((-1, 0), "input: .* -1"), ((0, math.nan), "output: .* nan")):
        with pytest.raises(ValueError, match=said):
            Price(*prices)


def test_conversation():
    assert conversation("a", "b", "c", system="s") == (
        Message("system", "s"),
        Message("user", "a"),
        Message("assistant", "b"),
        Message("user", "c"),
    )
    for turns in ((), ("a", "b")):
        with pytest.raises(ValueError, match=f"turns: .* got {len(turns)}"):
            conversation(*turns)


def test_requests_are_keys():
    """Equal requests are one key, however their numbers and schemas were written."""
    one = request(temperature=1.0, schema='{"type": "object", "title": "x"}')
    same = request(temperature=1.0, schema='{"title":"x",\n"type":"object"}')
    assert one == same and len({one, same, request()}) == 2
    assert one.schema == '{"title":"x","type":"object"}'
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.seed = 3  # pyright: ignore


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"messages": ()}, r"messages: expected at least one message, got \(\)"),
        ({"max_tokens": 0}, "max_tokens: expected at least 1, got 0"),
        ({"temperature": -0.1}, "temperature: expected a finite .* got -0.1"),
        ({"temperature": float("inf")}, "temperature: .* got inf"),
        ({"temperature": float("nan")}, "temperature: .* got nan"),
        ({"top_p": 0.0}, "top_p: expected None or .* got 0.0"),
        ({"top_p": 1.5}, "top_p: .* got 1.5"),
        ({"seed": -1}, "seed: .* got -1"),
        ({"seed": 2**32}, "seed: .* got 4294967296"),
        ({"stop": ("a", "")}, "stop: expected texts that are not empty"),
        ({"schema": "{"}, "schema: expected JSON text, got '{'"),
        ({"schema": "[1]"}, r"schema: expected a JSON object, got '\[1\]'"),
    ],
)
def test_bad_requests(fields, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        Request(**({"messages": conversation("hello")} | fields))


def test_bad_role():
    with pytest.raises(ValueError, match=r"role: expected one of .* got 'human'"):
        Message("human", "hello")


def test_errors_travel_between_processes():
    error = pickle.loads(pickle.dumps(ChatError("m", 3, "status 500")))
    assert (error.model, error.attempts, error.cause) == ("m", 3, "status 500")
    assert str(error) == "m: no answer after 3 attempts; the last: status 500"


PROGRAM = """
import sys, json
from jeff_llm.chat import Request, conversation, Local
heavy = {"jax", "flax", "openai", "gguf", "tokenizers", "transformers"} & {*sys.modules}
assert not heavy, heavy
says = []
for field, value in (("messages", "hello"), ("stop", "."), ("stop", ["."])):
    try:
        Request(**({"messages": conversation("hello")} | {field: value}))
    except TypeError as error:
        says.append(str(error))
a, b = (Request(conversation("x"), temperature=t, top_p=t) for t in (1, 1.0))
print(json.dumps([says, repr(a) == repr(b)]))
"""


def test_as_a_user_has_it():
    """Light to import; and the messages without the checks of the tests."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    says, equal = json.loads(done.stdout)
    assert says == [
        "messages: expected a tuple, got str",
        "stop: expected a tuple, got str",
        "stop: expected a tuple, got list",
    ]
    assert equal


def test_the_door_is_whole():
    for name in chat.__all__:
        assert getattr(chat, name).__doc__
