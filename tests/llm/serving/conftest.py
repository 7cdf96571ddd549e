"""A tiny chat model of letters, its batcher, and what it says when asked alone."""

import contextlib
import socket
import threading
from typing import Any

import pytest

# Only letters are tokens: a turn is its words between a capital of the role and an E.
TEMPLATE = (
    "{% for m in messages %}{{ m.role[0] | upper }}{{ m.content }}E{% endfor %}"
    "{% if add_generation_prompt %}A{% endif %}"
)


@pytest.fixture(scope="session")
def talking(lettered: Any) -> Any:
    """The model of letters with a chat template."""
    from jeff_llm.models.tokenizer import Tokenizer

    tokenizer = lettered.tokenizer
    special = {"eos_token": "<end>"}
    return lettered._replace(tokenizer=Tokenizer(tokenizer._backend, special, TEMPLATE))


class Collected:
    """The pieces of one answer, and when it ended."""

    def __init__(self):
        self.pieces = []
        self.ended = threading.Event()

    def __call__(self, piece):
        self.pieces.append(piece)
        if piece.finish or piece.error:
            self.ended.set()

    @property
    def text(self):
        return "".join(piece.text for piece in self.pieces)

    @property
    def tokens(self):
        return [token for piece in self.pieces for token in piece.tokens]

    def wait(self):
        assert self.ended.wait(120)
        return self


@pytest.fixture
def ask_all():
    """``ask_all(batcher, jobs)``: the answers, collected."""

    def ask(batcher, jobs):
        answers = [Collected() for _ in jobs]
        batcher.submit(jobs, answers)
        return [answer.wait() for answer in answers]

    return ask


@pytest.fixture
def collected():
    return Collected


@pytest.fixture(scope="session")
def serving():
    """``serving(app)``: its address, as long as the block lasts."""
    uvicorn = pytest.importorskip("uvicorn")
    pytest.importorskip("starlette")

    @contextlib.contextmanager
    def run(app):
        config = uvicorn.Config(app, log_config=None, lifespan="off")
        server = uvicorn.Server(config)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            thread = threading.Thread(target=server.run, args=([listening],))
            thread.start()
            host, port = listening.getsockname()
            try:
                yield f"http://{host}:{port}"
            finally:
                server.should_exit = True
                thread.join()

    return run
