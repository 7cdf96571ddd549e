"""Test an endpoint and its failures, against a real server in this process."""

import asyncio
import contextlib
import datetime
import email.utils
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import pytest

pytest.importorskip("openai", reason="the endpoint needs the openai client")

import openai

from jeff_llm.chat import (
    Budget,
    Cached,
    ChatError,
    OpenAICompatible,
    Price,
    Request,
    ask,
    conversation,
    run,
    usage,
)

KEY = "sk-Very+Secret/0123456789=="
REQUEST = Request(conversation("What is 2 + 2?"), max_tokens=7)


class Reply(NamedTuple):
    """What the server sends: a status, a body, more headers, after some seconds."""

    status: int = 200
    body: str | bytes = ""
    headers: tuple[tuple[str, str], ...] = ()
    kind: str = "application/json"
    delay: float = 0.0


def completion(text: str | None = "4", **choice: Any) -> dict[str, Any]:
    """A whole chat completion."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "tiny-2025",
        "choices": [
            {"index": 0, "message": message, "finish_reason": "stop", **choice}
        ],
        "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15},
    }


def good(text: str | None = "4", **choice: Any) -> Reply:
    return Reply(body=json.dumps(completion(text, **choice)))


def without(*path: str | int) -> Reply:
    """A completion in which a field is missing."""
    body = inner = completion()
    for step in path[:-1]:
        inner = inner[step]
    del inner[path[-1]]
    return Reply(body=json.dumps(body))


class Server(ThreadingHTTPServer):
    """Sends the replies of a list in their order, the last one again and again."""

    daemon_threads = False

    def __init__(self, handler: type[BaseHTTPRequestHandler]):
        super().__init__(("127.0.0.1", 0), handler)
        self.replies: list[Reply] = [good()]
        self.seen: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.times: list[float] = []
        self.peers: set[int] = set()
        self.lock = threading.Lock()
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers["content-length"]))
        with server.lock:
            server.times.append(time.monotonic())
            server.seen.append(json.loads(body))
            server.headers.append({k.lower(): v for k, v in self.headers.items()})
            server.paths.append(self.path)
            server.peers.add(self.client_address[1])
            reply = server.replies[min(len(server.seen), len(server.replies)) - 1]
        server.stopping.wait(reply.delay)
        data = reply.body if isinstance(reply.body, bytes) else reply.body.encode()
        with contextlib.suppress(ConnectionError):
            self.send_response(reply.status)
            headers = {"content-type": reply.kind, "content-length": str(len(data))}
            for name, value in (headers | dict(reply.headers)).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
        if "content-length" in dict(reply.headers):
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = Server(Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.stopping.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def model(server: Server) -> Callable[..., OpenAICompatible]:
    """An endpoint at the server, with waits of milliseconds."""

    def make(**options: Any) -> OpenAICompatible:
        options = {"retries": 3, "backoff": 0.001, "timeout": 10.0} | options
        return OpenAICompatible(server.url, "tiny", **options)

    return make


def failure(model: OpenAICompatible, request: Request = REQUEST) -> ChatError:
    with pytest.raises(ChatError) as caught:
        ask(model, request)
    error = caught.value
    assert error.model == "tiny"
    assert error.__cause__ is None and error.__context__ is None, "holds the headers"
    return error


def test_an_answer(server, model):
    server.replies = [good()]
    answer = ask(model(price=Price(input=2.0, output=10.0)), REQUEST)
    assert answer.text == "4"
    assert answer.finish_reason == "stop"
    assert (answer.prompt_tokens, answer.completion_tokens) == (12, 3)
    assert answer.cost == pytest.approx((2 * 12 + 10 * 3) / 1e6, rel=1e-12)
    assert (answer.model, answer.cached, answer.log_probs) == ("tiny-2025", False, None)
    assert server.paths == ["/v1/chat/completions"]
    assert ask(model(), REQUEST).cost == 0.0


def test_only_what_is_asked_for_is_sent(server, model):
    ask(model(), REQUEST)
    messages = [{"role": "user", "content": "What is 2 + 2?"}]
    plain = {"model": "tiny", "messages": messages, "max_tokens": 7, "temperature": 0.0}
    assert server.seen == [plain]
    schema = {"type": "object", "properties": {"sum": {"type": "integer"}}}
    server.replies = [good(logprobs={"content": []})]
    more = Request(
        conversation("What is 2 + 2?", system="Add."),
        temperature=0.5,
        top_p=0.9,
        seed=0,
        stop=("\n", "."),
        schema=json.dumps(schema),
        logprobs=True,
    )
    ask(model(), more)
    assert server.seen[1] == {
        "model": "tiny",
        "messages": [{"role": "system", "content": "Add."}, *messages],
        "max_tokens": 256,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 0,
        "stop": ["\n", "."],
        "logprobs": True,
    }
    ask(model(send_schema=True), more)
    wanted = {"name": "answer", "strict": True, "schema": schema}
    format_ = {"type": "json_schema", "json_schema": wanted}
    assert server.seen[2] == server.seen[1] | {"response_format": format_}
    ask(model(send_schema=True), REQUEST)
    assert server.seen[3] == plain


def test_openai_itself_gets_the_new_name_of_max_tokens(monkeypatch):
    """Its models that reason take no ``max_tokens``; other servers know no other."""
    bodies = []

    async def attempt(self, client, request):
        bodies.append(self._fields(request))
        raise asyncio.CancelledError

    monkeypatch.setattr(OpenAICompatible, "_attempt", attempt)
    for url in ("https://api.openai.com/v1", "https://api.openai.com.example.org/v1"):
        with pytest.raises(asyncio.CancelledError):
            ask(OpenAICompatible(url, "m"), REQUEST)
    assert bodies[0]["max_completion_tokens"] == bodies[1]["max_tokens"] == 7
    assert "max_tokens" not in bodies[0] and "max_completion_tokens" not in bodies[1]


def test_a_model_that_reasons_first(server, model):
    """An error names the field, of a server that needs it or does not know it."""
    asked = Request(REQUEST.messages, max_tokens=7, temperature=0.5, top_p=0.9)
    ask(model(reasons=True), asked)
    body = server.seen[0]
    assert body["max_completion_tokens"] == 7
    assert not {"max_tokens", "temperature", "top_p"} & set(body)
    for refused in (
        "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
        "'temperature' does not support 0 with this model.",
    ):
        server.replies = [Reply(400, refused)]
        assert failure(model()).cause.endswith("pass reasons=True")
    server.replies = [Reply(422, "max_completion_tokens: extra field")]
    assert failure(model(reasons=True)).cause.endswith("leave out reasons=True")
    server.replies = [Reply(400, "no such model")]
    assert failure(model()).cause == "status 400: 'no such model'"


def test_what_is_not_reported_is_not_zero(server, model):
    price = Price(1.0, 2.0)
    for reply, tokens in (
        (without("usage"), (None, None)),
        (without("usage", "completion_tokens"), (12, None)),
        (Reply(body=json.dumps(completion() | {"usage": None})), (None, None)),
    ):
        server.replies = [reply]
        answer = ask(model(price=price), REQUEST)
        assert (answer.prompt_tokens, answer.completion_tokens) == tokens
        assert answer.cost is None and ask(model(), REQUEST).cost == 0.0
        total = usage([answer, answer])
        assert (total.completion_tokens, total.tokens, total.cost) == (None,) * 3
    spent = Budget(1.0)
    cause = failure(model(price=price, budget=spent)).cause
    assert cause.startswith("usage: expected the tokens read and written, since a bud")
    assert spent.spent > 0, "it may have been billed"


def test_unknown_costs_are_stored(server, model, tmp_path):
    server.replies = [good()]
    cached = Cached(model(price=Price(1.0, 1.0)), tmp_path / "answers.db")
    ask(cached, REQUEST)
    assert cached.spent() == pytest.approx(15e-6)
    server.replies = [without("usage")]
    ask(cached, Request(REQUEST.messages, seed=1))
    again = ask(cached, Request(REQUEST.messages, seed=1))
    assert again.cached and again.cost == 0 and again.completion_tokens is None
    assert cached.spent() is None


@pytest.mark.parametrize("kind", ["parts", "mark", "latin"])
def test_answers_as_openai_reads_them(kind, server, model):
    """The peer is openai's own client; its parts are those that it sends itself."""
    said = "K\u00f6ln"
    content = [{"type": "text", "text": "K"}, {"type": "text", "text": "\u00f6ln"}]
    whole = completion(content if kind == "parts" else said)  # pyright: ignore
    body = json.dumps(whole, ensure_ascii=False).encode()
    reply = Reply(body=b"\xef\xbb\xbf" * (kind == "mark") + body)
    if kind == "latin":
        reply = reply._replace(kind="application/json; charset=iso-8859-1")
    server.replies = [reply]
    assert ask(model(), REQUEST).text == said
    client = openai.OpenAI(base_url=server.url, api_key="none")
    turns = [{"role": "user", "content": "2 + 2?"}]
    found = client.chat.completions.create(model="tiny", messages=turns)  # pyright: ignore
    given = found.choices[0].message.content
    assert given == (content if kind == "parts" else said)
    client.close()


def test_json_in_another_encoding_is_refused(server, model):
    """A letter would be lost without a word."""
    body = json.dumps(completion("K\u00f6ln"), ensure_ascii=False)
    server.replies = [Reply(body=body.encode("latin-1"))]
    assert failure(model(retries=0)).cause.startswith("expected JSON, came a body of")


def test_log_probs(server, model):
    tokens = [{"token": "4", "logprob": -0.25}, {"token": ".", "logprob": -1}]
    server.replies = [good(logprobs={"content": tokens}), good()]
    asked = Request(REQUEST.messages, logprobs=True)
    assert ask(model(), asked).log_probs == (-0.25, -1.0)
    error = failure(model(), asked)
    assert error.attempts == 1
    nothing = "choices.0.logprobs.content: expected list, came nothing; the "
    assert error.cause.startswith(f"{nothing}answer has no field 'logprobs'")
    server.replies = [good(logprobs=None)]
    error = failure(model(), asked)
    assert error.cause.startswith(f"{nothing}endpoint knows the field, but sent None")
    server.replies = [Reply(400, "logprobs are not supported")]
    assert failure(model(), asked).cause.endswith("ask without logprobs")


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (
            {"logprob": float("nan")},
            ".logprob: Input should be a finite number, came nan",
        ),
        ({"logprob": "-1"}, ".logprob: expected float, came str"),
        ({"token": "4"}, ".logprob: Field required, came {'token': '4'}"),
        (-1.0, ": expected dict, came float"),
    ],
)
def test_a_log_prob_that_is_none(token, said, server, model):
    """The token is named; NaN would pass through every mean unseen."""
    server.replies = [good(logprobs={"content": [{"logprob": -1}, token]})]
    error = failure(model(), Request(REQUEST.messages, logprobs=True))
    assert error.cause.startswith(f"choices.0.logprobs.content.1{said}, in ")


def test_what_the_server_stopped_at_is_not_in_the_text(server, model):
    server.replies = [good("4. Next", finish_reason="length"), good("4.")]
    stopped = Request(REQUEST.messages, stop=("Next", "."))
    for _ in range(2):
        answer = ask(model(), stopped)
        assert (answer.text, answer.finish_reason) == ("4", "stop")


def test_an_answer_without_text_says_why(server, model):
    server.replies = [good(None, finish_reason="content_filter")]
    answer = ask(model(), REQUEST)
    assert (answer.text, answer.finish_reason) == ("", "content_filter")


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 599])
def test_a_status_that_may_pass_is_retried(status, server, model):
    server.replies = [Reply(status, '{"error": "busy"}')] * 2 + [good()]
    assert ask(model(), REQUEST).text == "4"
    assert len(server.seen) == 3
    assert server.seen[0] == server.seen[1] == server.seen[2]


@pytest.mark.parametrize("status", [429, 500])
def test_a_status_that_stays_is_an_error(status, server, model):
    server.replies = [Reply(status, '{"error": "try  later"}')]
    error = failure(model(retries=2))
    assert (error.attempts, len(server.seen)) == (3, 3)
    assert error.cause == f'status {status}: \'{{"error": "try later"}}\''
    assert str(error) == f"tiny: no answer after 3 attempts; the last: {error.cause}"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_final_status_is_not_retried(status, server, model):
    echo = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}})
    server.replies = [Reply(status, echo)]
    error = failure(model(api_key=KEY))
    assert (error.attempts, len(server.seen)) == (1, 1)
    assert "Incorrect API key provided: ***" in str(error)
    assert KEY not in repr(error) + str(error)
    assert "after 1 attempt;" in str(error)


def date_in(seconds: float) -> str:
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    return email.utils.format_datetime(moment, usegmt=True)


def test_retry_after_is_waited_for(server, model):
    server.replies = [Reply(429, headers=(("retry-after", "0.25"),)), good()]
    assert ask(model(), REQUEST).text == "4"
    first, second = server.times
    assert second - first >= 0.25


def test_retry_after_may_be_a_date(server, model):
    """A date has whole seconds, so one in 1.2 s is more than 0.2 s away."""
    server.replies = [Reply(503, headers=(("retry-after", date_in(1.2)),)), good()]
    ask(model(), REQUEST)
    assert 0.1 <= server.times[1] - server.times[0] <= 3


@pytest.mark.parametrize(
    "header", ["-5", "nan", "soon", "", "Tue, 06 Oct 2020 00:00:00 GMT", "Tue, 99 Foo"]
)
def test_retry_after_that_says_nothing(header, server, model):
    server.replies = [Reply(429, headers=(("retry-after", header),)), good()]
    assert ask(model(), REQUEST).text == "4"
    assert server.times[1] - server.times[0] < 1


@pytest.mark.parametrize("kind", ["seconds", "date"])
def test_retry_after_that_is_too_long_ends_it(kind, server, model):
    header = "3600" if kind == "seconds" else date_in(3601)
    server.replies = [Reply(429, "slow down", (("retry-after", header),))]
    error = failure(model(max_backoff=5.0))
    assert error.attempts == 1
    assert error.cause.startswith("status 429: 'slow down'; asks to wait 3")
    assert error.cause.endswith(" s, more than max_backoff=5.0")


def test_waits_double_their_bound_and_are_random(server, model, monkeypatch):
    bounds, waits = [], []

    def uniform(low: float, high: float) -> float:
        bounds.append((low, high))
        return high / 2

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("random.uniform", uniform)
    monkeypatch.setattr("asyncio.sleep", sleep)
    server.replies = [Reply(500)]
    failure(model(retries=6, backoff=1.5, max_backoff=20.0))
    expected = [1.5, 3.0, 6.0, 12.0, 20.0, 20.0]
    assert waits == [high / 2 for high in expected]
    assert bounds[: len(waits)] == [(0.0, high) for high in expected]


BROKEN = [
    Reply(body='{"choices": [{"message'),
    Reply(body=""),
    Reply(body=b"\xff\xfe\x00"),
    Reply(body="<html><h1>Bad gateway</h1>", kind="text/html"),
    Reply(body="[" * 100_000),
]


@pytest.mark.parametrize("reply", BROKEN, ids=["cut", "empty", "bytes", "html", "deep"])
def test_a_broken_body_is_retried(reply, server, model):
    server.replies = [reply, good()]
    assert ask(model(), REQUEST).text == "4"
    server.seen.clear()
    server.replies = [reply]
    error = failure(model(retries=1))
    assert error.attempts == 2
    assert error.cause.startswith(f"expected JSON, came a body of {reply.kind}: '")
    assert len(error.cause) < 300


def test_a_body_that_stops_early_is_retried(server, model):
    server.replies = [Reply(body="{", headers=(("content-length", "99"),)), good()]
    assert ask(model(), REQUEST).text == "4"
    assert len(server.seen) == 2


def test_json_under_another_content_type_is_taken(server, model):
    server.replies = [good()._replace(kind="text/plain")]
    assert ask(model(), REQUEST).text == "4"


WRONG = {
    'choices.0.message: expected dict, came nothing, in \'{"error"': Reply(
        body='{"error": "no such route"}'
    ),
    "choices.0.message: expected dict, came nothing": Reply(body='{"choices": []}'),
    "body: expected dict, came list, in '[7]'": Reply(body="[7]"),
    "body: expected dict, came nothing, in 'null'": Reply(body="null"),
    "choices.0.message: expected dict, came str": Reply(
        body='{"choices": [{"message": "4"}]}'
    ),
    "choices.0.finish_reason: expected str, came nothing": without(
        "choices", 0, "finish_reason"
    ),
    "usage: expected dict, came str": Reply(
        body=json.dumps(completion() | {"usage": "none"})
    ),
    "usage.prompt_tokens: expected int, came bool": Reply(
        body=json.dumps(completion() | {"usage": {"prompt_tokens": True}})
    ),
    "choices.0.message.content: expected parts of type 'text', came {'type': 'text'}": (
        good([{"type": "text"}])  # pyright: ignore
    ),
    "choices.0.message.content: expected parts of type 'text', came {'type': 'thin": (
        good([{"type": "thinking", "text": "a"}])  # pyright: ignore
    ),
}


@pytest.mark.parametrize("said", WRONG)
def test_json_of_another_kind_is_final(said, server, model):
    server.replies = [WRONG[said]]
    error = failure(model())
    assert (error.attempts, len(server.seen)) == (1, 1)
    assert error.cause.startswith(said)


def test_a_time_out_is_retried(server, model):
    server.replies = [good()._replace(delay=5.0), good()]
    assert ask(model(timeout=0.4), REQUEST).text == "4"
    assert len(server.seen) == 2
    server.replies = [good()._replace(delay=5.0)]
    error = failure(model(timeout=0.05, retries=1))
    assert (error.attempts, error.cause) == (2, "no answer within 0.05 s")


def test_no_connection_is_retried():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    model = OpenAICompatible(
        f"http://127.0.0.1:{port}/v1", "tiny", retries=2, backoff=0.001
    )
    error = failure(model)
    assert error.attempts == 3
    assert error.cause.startswith(f"no connection to http://127.0.0.1:{port}/v1: ")


def test_the_key_is_sent_and_shown_nowhere(server, model, monkeypatch, caplog):
    monkeypatch.setenv("OPENAI_API_KEY", "another-key")
    monkeypatch.setenv("OPENAI_ORG_ID", "an-organisation")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "a-project")
    keyed = model(api_key=KEY)
    with caplog.at_level(logging.DEBUG):
        answer = ask(keyed, REQUEST)
    assert ask(model(), REQUEST) == answer
    first, second = server.headers
    assert first["authorization"] == f"Bearer {KEY}"
    assert second["authorization"] == "Bearer none"
    assert not {name for name in first if name.startswith("openai-")}
    assert repr(keyed) == f"OpenAICompatible({server.url!r}, 'tiny')"
    assert KEY not in caplog.text + repr(answer) + str(server.seen)


def test_a_key_is_not_cut_in_two_by_the_end_of_what_is_shown(server, model):
    server.replies = [Reply(400, "x" * 190 + KEY), Reply(500, " " * 780 + KEY)]
    assert "sk-" not in failure(model(api_key=KEY)).cause
    assert "sk-" not in failure(model(api_key=KEY, retries=0)).cause


def test_many_at_a_time_share_connections_and_leave_none(server, model):
    server.replies = [good()._replace(delay=0.01)]
    shared = model()
    requests = [Request(REQUEST.messages, seed=seed) for seed in range(40)]
    answers = ask(shared, requests, concurrency=4)
    assert [answer.text for answer in answers] == ["4"] * 40
    assert sorted(body["seed"] for body in server.seen) == list(range(40))
    assert len(server.peers) <= 8
    assert shared._open == {}


def test_one_model_serves_loops_in_several_threads(server, model):
    shared, found = model(), []
    server.replies = [good()._replace(delay=0.05)]
    threads = [
        threading.Thread(target=lambda: found.extend(ask(shared, [REQUEST] * 4)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.text for answer in found] == ["4"] * 12
    assert shared._open == {}


def test_a_request_can_be_given_up(server, model):
    server.replies = [good()._replace(delay=5.0)]
    shared = model()

    async def give_up():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(shared.answer(REQUEST), 0.1)

    run(give_up())
    assert shared._open == {}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"base_url": "127.0.0.1:8000"}, "base_url: expected a URL such as http://"),
        ({"base_url": "ftp://host/v1"}, "base_url: .* got 'ftp://host/v1'"),
        ({"base_url": "http://host:99999"}, "base_url: expected a URL"),
        ({"base_url": "http://[::1"}, "base_url: expected a URL"),
        ({"timeout": 0.0}, "timeout: expected a positive number, got 0.0"),
        ({"timeout": float("nan")}, "timeout: .* got nan"),
        ({"retries": -1}, "retries: .* got -1"),
        ({"backoff": -1.0}, "backoff"),
        ({"max_backoff": -1.0}, "max_backoff"),
    ],
)
def test_bad_arguments(options, said):
    given = {"base_url": "http://host/v1", "model": "m"} | options
    with pytest.raises(ValueError, match=f"^{said}"):
        OpenAICompatible(**given)


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": f"https://user:{KEY}@host/v1"},
        {"base_url": f"user:{KEY}@host/v1"},
        {"base_url": f"https://host/v1?key={KEY}"},
        {"api_key": KEY + "\n"},
        {"api_key": f'{KEY}"'},
        {"api_key": f"{KEY} {KEY}"},
    ],
)
def test_an_error_about_a_key_does_not_show_it(options):
    given = {"base_url": "http://host/v1", "model": "m"} | options
    with pytest.raises(ValueError, match="api_key") as caught:
        OpenAICompatible(**given)
    assert "Secret" not in str(caught.value)


def test_an_empty_key_is_an_error():
    with pytest.raises(ValueError, match="api_key"):
        OpenAICompatible("http://host/v1", "m", api_key="")
