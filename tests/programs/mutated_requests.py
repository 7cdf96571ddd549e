"""What clients send to the server: mutated bodies, answered rightly or with a 4xx."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
from mutate import Format
from mutated_models import CONFIG, params, tokenizer
from mutated_runs import Parrot

from jeff_llm.confidence import Router
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.serving import Batcher
from jeff_llm.serving.app import App
from jeff_llm.serving.measures import from_tokens
from jeff_llm.serving.protocol import Limits
from jeff_llm.serving.routed import Routing

__all__ = ["FORMATS"]

COMMON: dict[str, Any] = {
    "model": "tiny",
    "max_tokens": 4,
    "temperature": 0,
    "top_p": 0.5,
    "top_k": 8,
    "min_p": 0.0,
    "seed": 1,
    "stop": ["AB"],
    "n": 2,
    "stream": False,
    "presence_penalty": 0,
    "user": "me",
}
CHAT = COMMON | {
    "messages": [
        {"role": "system", "content": "A"},
        {"role": "user", "content": [{"type": "text", "text": "AB"}]},
    ],
    "logprobs": True,
    "top_logprobs": 2,
}
STREAM = CHAT | {"stream": True, "stream_options": {"include_usage": True}}
PLAIN = COMMON | {"prompt": ["AB", "A"], "logprobs": 2, "n": 1}
ROUTED = {"messages": CHAT["messages"], "temperature": 0, "max_tokens": 4}
_APPS: dict[bool, App] = {}


def app(*, routed: bool) -> App:
    """A server that answers alone, or one that routes."""
    if not _APPS:
        model = LanguageModel(CONFIG, params(), tokenizer(), "tiny")
        # One batcher for both: its programs are compiled once.
        batcher = Batcher(model, max_batch=4, max_waiting=64, piece=2)
        limits = Limits("tiny", max_tokens=8, max_rows=16)
        # The tiny model is sure of nothing, so answers go on.
        router = Router(0.5, measure="perplexity")
        routing = Routing(router, from_tokens("perplexity"), Parrot())
        for known in (None, routing):
            served = App(model, batcher, limits=limits, routing=known)
            _APPS[known is not None] = served
    return _APPS[routed]


def body(fields: dict[str, Any]) -> Any:
    """Writes a good body."""

    def make(path: Path) -> Path:
        path.write_text(json.dumps(fields))
        return path

    return make


def send(address: str, *, routed: bool = False) -> Any:
    """Posts a file as the body, without a socket between."""

    def read(path: Path) -> Any:
        status, sent = asyncio.run(_post(app(routed=routed), address, path))
        if status == 200:
            return _answer(sent)
        error = json.loads(sent)["error"]
        named = error["param"] or error["message"].startswith(("body", "prompt"))
        if not named or not 400 <= status < 500:
            raise RuntimeError(f"{status}: {error}")
        # A body has no file; its errors name the field.
        raise ValueError(f"{path}: {status} {error['message']}")

    return read


async def _post(server: App, address: str, path: Path) -> tuple[int, bytes]:
    whole = path.read_bytes()
    asked = [{"type": "http.request", "body": whole, "more_body": False}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if asked:
            return asked.pop()
        await asyncio.Event().wait()  # the client stays
        raise AssertionError

    async def take(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": address, "headers": headers}
    scope |= {"query_string": b"", "asgi": {"version": "3.0", "spec_version": "2.4"}}
    await server(scope, receive, take)
    parts = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], parts


def _answer(sent: bytes) -> Any:
    """The parts of an answer, without what differs from call to call."""
    if not sent.startswith(b"data: "):
        return _timeless(json.loads(sent))
    lines = [line for line in sent.decode().split("\n") if line]
    assert lines.pop() == "data: [DONE]"
    return [_timeless(json.loads(line.removeprefix("data: "))) for line in lines]


def _timeless(part: dict[str, Any]) -> dict[str, Any]:
    if "error" in part:
        raise RuntimeError(f"an error after the status: {part}")
    return {name: part[name] for name in part if name not in {"id", "created"}}


def check_answer(path: Path, found: Any) -> None:
    """As many choices as were asked for, each ended, and no number that is none."""
    asked = json.loads(path.read_text("utf-8-sig"))
    prompts = asked.get("prompt")
    several = isinstance(prompts, list) and not isinstance(prompts[0], int)
    count = (asked.get("n") or 1) * (len(prompts) if several else 1)
    parts = found if isinstance(found, list) else [found]
    ended = [
        choice["index"]
        for part in parts
        for choice in part["choices"]
        if choice["finish_reason"]
    ]
    assert sorted(ended) == list(range(count)), (ended, count)
    assert bool(asked.get("stream")) == isinstance(found, list)
    stop = asked.get("stop") or []
    for end in [stop] if isinstance(stop, str) else stop:
        for part in parts:
            assert all(end not in _text(choice) for choice in part["choices"])
    assert np.isfinite(list(_numbers(found))).all()


def _text(choice: dict[str, Any]) -> str:
    said = choice.get("message") or choice.get("delta") or choice
    return said.get("content") or said.get("text") or ""


def _numbers(value: Any) -> Any:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _numbers(each)
    elif isinstance(value, int | float):
        yield value


_CHAT, _PLAIN = "/v1/chat/completions", "/v1/completions"
FORMATS = [
    Format(
        f"request, {name}",
        "a.json",
        body(fields),
        send(address, routed=name == "routed"),
        check_answer,
        needs="starlette",
    )
    for name, fields, address in (
        ("chat", CHAT, _CHAT),
        ("stream", STREAM, _CHAT),
        ("completion", PLAIN, _PLAIN),
        ("routed", ROUTED, _CHAT),
    )
]
