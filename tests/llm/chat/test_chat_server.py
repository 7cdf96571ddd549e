"""Test against a third-party server: ``transformers serve`` with a tiny Llama."""

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from jeff_llm.chat import (
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
from jeff_llm.chat.structured import ask_json

NEEDED = ("openai", "transformers", "tokenizers", "torch", "fastapi", "uvicorn")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
PROGRAM = Path(__file__).parents[2] / "programs" / "tiny_llama.py"
QUESTIONS = ["Who are you?", "2 + 2?", "Write.", "Say it again, and then once more."]
MAX_TOKENS = 24
# A server is of no use to the suite if it takes longer.
START_SECONDS = 120

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}"),
]


class Served(NamedTuple):
    """A running server: its URL, its model, and what that says to each question."""

    url: str
    model: str
    expected: dict[str, tuple[int, str]]


def environment() -> dict[str, str]:
    """No network but loopback, no hub, no GPU."""
    kept = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    return kept | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


def is_healthy(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/health", timeout=5) as response:
            return response.status == 200
    except (OSError, urllib.error.URLError):
        return False


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    model = folder / "tiny"
    made = subprocess.run(
        [sys.executable, PROGRAM, model, str(MAX_TOKENS), *QUESTIONS],
        check=False,
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert made.returncode == 0, made.stderr
    expected = dict(zip(QUESTIONS, map(tuple, json.loads(made.stdout)), strict=True))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve"]
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    url, log = f"http://127.0.0.1:{port}", folder / "log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [*command, str(model), *options],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(),
        )
        try:
            deadline = time.monotonic() + START_SECONDS
            while not is_healthy(url):
                assert server.poll() is None, f"it has ended:\n{log.read_text()}"
                assert time.monotonic() < deadline, f"not healthy:\n{log.read_text()}"
                time.sleep(0.2)
            yield Served(f"{url}/v1", str(model), expected)
        finally:
            server.terminate()
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


@pytest.fixture
def model(served: Served, monkeypatch: pytest.MonkeyPatch) -> OpenAICompatible:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    price = Price(input=1.0, output=2.0)
    return OpenAICompatible(served.url, served.model, retries=0, price=price)


def greedy(text: str, **fields) -> Request:
    return Request(conversation(text), **({"max_tokens": MAX_TOKENS} | fields))


def test_what_it_says_is_what_the_model_says(served, model):
    for question, (length, text) in served.expected.items():
        answer = ask(model, greedy(question))
        assert answer.text == text
        assert answer.finish_reason == "length"
        assert (answer.prompt_tokens, answer.completion_tokens) == (length, MAX_TOKENS)
        assert answer.cost == pytest.approx((length + 2 * MAX_TOKENS) / 1e6, rel=1e-12)
        assert answer.model == served.model


def test_several_at_once(served, model, tmp_path):
    """And through a cache, where the second time nothing is asked."""
    cached = Cached(model, tmp_path / "answers.db")
    requests = [greedy(question) for question in QUESTIONS] * 2
    expected = [text for _, text in served.expected.values()] * 2
    assert [answer.text for answer in ask(cached, requests)] == expected
    again = ask(cached, requests)
    assert [answer.text for answer in again] == expected
    assert usage(again).cached == 8 and usage(again).cost == 0.0


def test_fewer_tokens_and_a_text_to_stop_at(served, model):
    """This server leaves the text it stopped at in its answer; we do not."""
    question = QUESTIONS[0]
    text = served.expected[question][1]
    stop = re.findall("[a-z]{3}", text)[-1]
    short = ask(model, greedy(question, max_tokens=5))
    assert (short.finish_reason, short.completion_tokens) == ("length", 5)
    assert text.startswith(short.text.rstrip("\ufffd"))
    stopped = ask(model, greedy(question, stop=(stop,)))
    assert stopped.finish_reason == "stop"
    assert stopped.text == text[: text.index(stop)]
    assert stopped.completion_tokens < MAX_TOKENS


def test_a_seed_makes_a_sample_again(model):
    sampled = [greedy("Write.", temperature=1.0, seed=seed) for seed in (1, 2, 1)]
    one, two, again = ask(model, sampled, concurrency=1)
    assert one.text == again.text != two.text


def test_an_unknown_model_is_an_error(served):
    nobody = OpenAICompatible(served.url, "nobody/nothing", api_key="sk-secret")
    with pytest.raises(ChatError) as caught:
        ask(nobody, greedy("Hello?"))
    assert caught.value.attempts == 1
    assert caught.value.cause.startswith("status 400: ")
    assert "nobody/nothing" in caught.value.cause


def test_a_server_without_log_probs_is_an_error(model):
    with pytest.raises(ChatError, match=r"logprobs\.content: expected list"):
        ask(model, greedy("Hello?", logprobs=True))


def test_a_random_model_writes_no_json(model):
    parsed = run(ask_json(model, greedy("Hello?"), {"type": "object"}))
    assert parsed.value is None and len(parsed.answers) == 2
    assert parsed.error is not None
