"""Test what an endpoint may send: bombs, redirects, echoed keys, endless numbers."""

import contextlib
import gzip
import json
import zlib
from http.server import BaseHTTPRequestHandler

import pytest

pytest.importorskip("openai", reason="the endpoint needs the openai client")

from jeff_llm.chat import (
    Budget,
    Cached,
    ChatError,
    CostLimitError,
    OpenAICompatible,
    Price,
    Request,
    ask,
    conversation,
    usage,
)
from jeff_llm.chat.responses import redirect_target, retry_after, secret_pattern

KEY = "sk-Very+Secret/0123456789=="
REQUEST = Request(conversation("What is 2 + 2?"), max_tokens=7)


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.seen.append({k.lower(): v for k, v in self.headers.items()})
        status, headers, body = self.server.reply
        data = body.encode() if isinstance(body, str) else body
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            for name, value in ({"content-type": "application/json"} | headers).items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    do_GET = do_POST  # a redirect that became a GET would be noticed

    def log_message(self, *_):
        pass


def completion(text: str = "4", **fields) -> dict:
    choice = {"message": {"role": "assistant", "content": text}}
    return {
        "model": "tiny-2025",
        "choices": [choice | {"finish_reason": "stop"}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 3},
    } | fields


@pytest.fixture
def server(serve):
    """Sends ``server.reply``: a status, headers and a body; notes what came."""
    found = serve(Handler)
    found.seen = []
    found.reply = (200, {}, json.dumps(completion()))
    return found


def endpoint(server, **options) -> OpenAICompatible:
    options = {"retries": 1, "backoff": 0.001, "timeout": 20.0} | options
    url = f"http://127.0.0.1:{server.server_port}/v1"
    return OpenAICompatible(url, "tiny", **options)


def failure(model: OpenAICompatible) -> ChatError:
    with pytest.raises(ChatError) as caught:
        ask(model, REQUEST)
    return caught.value


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(status, server, serve):
    """Neither with the prompt nor as a GET; only the host is named."""
    other = serve(Handler)
    other.seen, other.reply = [], (200, {}, json.dumps(completion()))
    host = f"http://127.0.0.1:{other.server_port}"
    server.reply = (status, {"location": f"{host}/v1?key=abc"}, "")
    error = failure(endpoint(server))
    assert other.seen == [] and len(server.seen) == 1
    assert error.attempts == 1
    assert error.cause.startswith(f"status {status}: a redirect to '{host}', which is")
    assert "abc" not in str(error)


def test_a_redirect_to_the_same_host_is_not_followed_either(server):
    server.reply = (307, {"location": "/v2/chat/completions"}, "")
    assert "another address of the same host" in failure(endpoint(server)).cause
    assert len(server.seen) == 1


def bomb(size: int) -> bytes:
    """A valid completion with very much white space, in gzip."""
    whole = json.dumps(completion()).encode()
    packer = zlib.compressobj(9, wbits=31)
    block = b" " * 2**20
    parts = [packer.compress(block) for _ in range(size // 2**20)]
    return b"".join([*parts, packer.compress(whole), packer.flush()])


@pytest.mark.parametrize("status", [200, 400])
def test_a_bomb_stops_at_the_limit(status, server, monkeypatch):
    """Also in an error; what is decompressed at once is bounded too."""
    largest = []
    real = zlib.decompressobj

    class Watched:
        def __init__(self, wbits):
            self.inner = real(wbits)

        def decompress(self, data, most):
            part = self.inner.decompress(data, most)
            largest.append(len(part))
            return part

    monkeypatch.setattr(zlib, "decompressobj", Watched)
    server.reply = (status, {"content-encoding": "gzip"}, bomb(2**28))
    error = failure(endpoint(server))
    assert error.attempts == 1 and "at most max_bytes=33,554,432 bytes" in error.cause
    assert sum(largest) == 2**25 + 1
    server.reply = (status, {"content-encoding": "gzip"}, bomb(2**20))
    error = failure(endpoint(server, max_bytes=2**20))
    assert "raise max_bytes" in error.cause
    if status == 200:
        assert ask(endpoint(server, max_bytes=2**21), REQUEST).text == "4"


def test_a_long_body_without_compression_stops_too(server):
    server.reply = (200, {}, json.dumps(completion("x" * 10_000)))
    error = failure(endpoint(server, max_bytes=10_000))
    assert "at most max_bytes=10,000 bytes, came more" in error.cause
    assert len(ask(endpoint(server, max_bytes=11_000), REQUEST).text) == 10_000


@pytest.mark.parametrize(
    ("coding", "body", "attempts", "said"),
    [
        ("br", b"x", 1, "no compression, came 'br'"),
        ("gzip, gzip", b"x", 1, "no compression, came 'gzip, gzip'"),
        ("gzip", b"not gzip", 2, "expected a compressed body, came a damaged one"),
        ("gzip", gzip.compress(b"{}" * 99)[:30], 2, "expected JSON, came a body of"),
    ],
)
def test_a_body_compressed_in_another_way(coding, body, attempts, said, server):
    server.reply = (200, {"content-encoding": coding}, body)
    error = failure(endpoint(server))
    assert said in error.cause and error.attempts == attempts


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate", "identity"])
def test_compressed_answers_are_read(coding, server):
    body = json.dumps(completion("Grüße")).encode()
    packed = {"deflate": zlib.compress, "identity": bytes}.get(coding, gzip.compress)
    server.reply = (200, {"content-encoding": coding}, packed(body))
    assert ask(endpoint(server), REQUEST).text == "Grüße"
    assert server.seen[0]["accept-encoding"] == "gzip"


@pytest.mark.parametrize("charset", ["zlib", "base64", "utf-16", "none"])
def test_the_charset_of_a_header_is_not_believed(charset, server):
    server.reply = (
        200,
        {"content-type": f"application/json; charset={charset}"},
        json.dumps(completion("Grüße"), ensure_ascii=False),
    )
    assert ask(endpoint(server), REQUEST).text == "Grüße"
    server.reply = (400, server.reply[1], "no such model")
    assert "no such model" in failure(endpoint(server)).cause


DEEP = '{"choices": ' + "[" * 100_000 + "]" * 100_000 + "}"
NUMBERS = {
    "huge": {"usage": {"prompt_tokens": 10**400, "completion_tokens": 1}},
    "many": {"usage": {"prompt_tokens": 1, "completion_tokens": 10**13}},
    "negative": {"usage": {"prompt_tokens": -5, "completion_tokens": 1}},
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_that_no_answer_has(kind, server):
    server.reply = (200, {}, json.dumps(completion(**NUMBERS[kind])))
    error = failure(endpoint(server, price=Price(1.0, 1.0)))
    assert error.cause.startswith("usage.") and len(error.cause) < 500


@pytest.mark.parametrize(
    "body",
    [
        DEEP,
        '{"usage": 1e999}',
        '{"usage": ' + "9" * 5000 + "}",
        json.dumps(completion(model=10**400)),
        json.dumps(completion(choices=[[[]]])),
    ],
    ids=["deep", "infinite", "digits", "model", "lists"],
)
def test_json_at_its_limits_is_a_chat_error(body, server):
    server.reply = (200, {}, body)
    assert len(failure(endpoint(server)).cause) < 500


ECHOES = {
    "plain": KEY,
    "slashes": KEY.replace("/", "\\/"),
    "unicode": KEY.replace("+", "\\u002B").replace("=", "\\u003d"),
    "url": KEY.replace("+", "%2B").replace("/", "%2f").replace("=", "%3D"),
    "html": KEY.replace("+", "&#43;").replace("/", "&#x2F;"),
}


@pytest.mark.parametrize("kind", ECHOES)
@pytest.mark.parametrize("status", [200, 400])
def test_an_echoed_key_is_in_no_error(kind, status, server):
    """In the body, the type of the body and the address of a redirect."""
    echo = ECHOES[kind]
    server.reply = (status, {"content-type": f"text/{echo}"}, f"<b>{echo}</b>")
    check_secret(str(failure(endpoint(server, api_key=KEY))))
    server.reply = (200, {}, '{"choices": [{"message": "' + echo + '"}]}')
    check_secret(str(failure(endpoint(server, api_key=KEY))))
    server.reply = (308, {"location": f"https://{echo}.example/"}, "")
    check_secret(str(failure(endpoint(server, api_key=KEY))))


def check_secret(text: str) -> None:
    for part in ("sk-", "Very", "Secret", "0123456789", "very"):
        assert part not in text, text


def test_an_echoed_key_is_in_no_answer_and_no_cache(server, tmp_path):
    body = completion(f"Your key is {KEY}.", model=f"tiny-{KEY}")
    body["choices"][0]["finish_reason"] = KEY
    server.reply = (200, {}, json.dumps(body))
    answer = ask(Cached(endpoint(server, api_key=KEY), tmp_path / "a.db"), REQUEST)
    assert answer.text == "Your key is ***."
    assert (answer.model, answer.finish_reason) == ("tiny-***", "***")
    for path in tmp_path.iterdir():
        assert b"Secret" not in path.read_bytes()


@pytest.mark.parametrize("key", ["EMPTY", "12345678"])
def test_a_placeholder_of_a_key_changes_no_answer(key, server):
    """Local servers want any key; an answer may contain the word."""
    server.reply = (200, {}, json.dumps(completion(f"{key} 4", created=12345678)))
    assert ask(endpoint(server, api_key=key), REQUEST).text == f"{key} 4"
    server.reply = (401, {}, f"wrong key {key}")
    assert key not in str(failure(endpoint(server, api_key=key)))


def test_a_budget_stops_before_the_limit(server, tmp_path):
    """Stored answers cost nothing; a refusal was not billed."""
    price = Price(input=1.0, output=100.0)
    # At most (158 + 100 * 7) / 1e6 each, in truth (12 + 100 * 3) / 1e6.
    requests = [Request(conversation(f"{i:014}"), max_tokens=7) for i in range(20)]
    budget = Budget(0.002)
    model = Cached(
        endpoint(server, price=price, budget=budget), tmp_path / "answers.db"
    )
    found = ask(model, requests, concurrency=1)
    assert len(server.seen) == 4 and usage(found).failed == 16
    assert budget.spent == pytest.approx(4 * 312e-6) and budget.spent < 0.002
    assert all(isinstance(each, CostLimitError) for each in found[4:])
    assert usage(ask(model, requests[:4])).cached == 4
    refusing = Budget(0.0012)
    server.reply = (429, {}, "later")
    found = ask(endpoint(server, price=price, budget=refusing), requests[:3])
    assert [each.attempts for each in found] == [2, 2, 2] and refusing.spent == 0
    unclear = Budget(0.0012)
    server.reply = (200, {}, "<html>")
    error = ask(endpoint(server, price=price, budget=unclear), [REQUEST])[0]
    assert isinstance(error, CostLimitError), "the retry could pass the limit"
    assert unclear.spent == pytest.approx(858e-6)


def test_a_budget_needs_a_price(server):
    with pytest.raises(ValueError, match="price: expected one above 0 beside a budget"):
        endpoint(server, budget=Budget(1.0))


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://u:p@b.example:8443/x?key=1", "https://b.example:8443"),
        ("//b.example/x", "http://b.example"),
        ("/x?y", "another address of the same host"),
        ("http://[::1", "an address that is none"),
        ("http://b:99999/", "an address that is none"),
    ],
)
def test_the_target_of_a_redirect(location, target):
    assert redirect_target(location) == target


def test_small_parsers():
    assert retry_after("Sun, 31 Dec 9999 99:99:99 GMT") == 0.0
    pattern = secret_pattern("a.b")
    assert pattern.sub("***", "a.b axb A.b a%2Eb") == "*** axb *** ***"
