"""Test the endpoint of a run: one limit over all its starts, errors that name it."""

import contextlib
import json
from http.server import BaseHTTPRequestHandler

import pytest

pytest.importorskip("openai", reason="the endpoint needs the openai client")

from configs import anomaly, dialogue, genes, reasoning
from jeff_llm import chat
from train_scripts.running.endpoint import naming_failures, open_endpoint

REQUESTS = [
    chat.Request(chat.conversation(f"{i:02}"), max_tokens=100) for i in range(20)
]
PRICES = (1.0, 10.0)


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append(body)  # pyright: ignore
        choice = {"message": {"role": "assistant", "content": "4"}}
        reply = {
            "choices": [choice | {"finish_reason": "length"}],
            "usage": {"prompt_tokens": 20, "completion_tokens": 100},
        }
        data = json.dumps(reply).encode()
        with contextlib.suppress(ConnectionError):
            self.send_response(200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(serve):
    found = serve(Handler)
    found.seen = []
    return found


def test_one_limit_holds_over_all_starts(server, tmp_path):
    """An answer costs 1,020 millionths, and a request at most 1,146."""
    url = f"http://127.0.0.1:{server.server_port}/v1"

    def start(max_cost: float) -> chat.Usage:
        model = open_endpoint(url, "m", tmp_path, prices=PRICES, max_cost=max_cost)
        return chat.usage(chat.ask(model, REQUESTS, concurrency=1))

    first = start(0.0052)
    assert len(server.seen) == 4 and first.failed == 16
    assert first.cost == pytest.approx(4 * 1020e-6)
    again = start(0.0052)
    assert len(server.seen) == 4, "the same command does not spend the limit again"
    assert (again.cached, again.failed, again.cost) == (4, 16, 0.0)
    assert start(0.0062).cost == pytest.approx(1020e-6), "a higher limit goes on"
    assert start(0.0).failed == 0, "no limit"


def test_failures_name_the_endpoint_and_hold_the_answers(server, tmp_path):
    url = f"http://127.0.0.1:{server.server_port}/v1"
    model = open_endpoint(url, "m", tmp_path, prices=PRICES, max_cost=0.0052)
    with (
        pytest.raises(OSError, match=r"max_cost: expected to spend at most") as caught,
        naming_failures(url),
    ):
        chat.ask(model, REQUESTS, concurrency=1, return_errors=False)
    assert str(caught.value).startswith(f"{url}: max_cost")
    assert "the same command goes on from here" in str(caught.value)
    held = caught.value.__cause__.results
    assert [answer.text for answer in held[:4]] == ["4"] * 4
    fault = chat.AskError("1 of 1 failed", [TypeError("a fault")], [])
    with pytest.raises(chat.AskError), naming_failures(url):
        raise fault


def test_a_limit_without_prices_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"max_cost: expected prices beside a limit"):
        open_endpoint("http://host/v1", "m", tmp_path, max_cost=1.0)


@pytest.mark.parametrize("module", [anomaly, dialogue, genes, reasoning])
@pytest.mark.parametrize(
    "fields",
    [{"max_cost": 1.0}, {"max_cost": -1.0, "prices": PRICES}]
    + [{"max_cost": float(name), "prices": PRICES} for name in ("nan", "inf")],
)
def test_a_limit_in_a_configuration(module, fields):
    with pytest.raises(ValueError, match="max_cost: expected 0, or a positive number"):
        module.Config(**fields)
    assert module.Config(max_cost=1.0, prices=PRICES).max_cost == 1.0
