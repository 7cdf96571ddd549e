"""Requests a second of the server, with 1 to 200 clients at once.

``python -m benchmarks.serving`` starts ``python -m train_scripts.serve`` with SmolLM2,
asks it over loopback through OpenAI's client, and writes
``benchmarks/results/serving-<device>.json``. Each client asks one question after the
other; the last row is a burst of as many clients as requests. No request is retried, so
one that is lost is counted. The peer is ``transformers serve`` with the same weights.
"""

import asyncio
import contextlib
import dataclasses
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import openai
import tyro

from benchmarks import records
from jeff_llm.models import weights

WORDS = ("river", "lamp", "winter", "bread", "music", "engine", "garden", "ocean")


@dataclasses.dataclass(frozen=True)
class Config:
    """What is asked."""

    # Clients at once, and requests of them all together.
    loads: tuple[tuple[int, int], ...] = ((1, 6), (8, 32), (32, 64), (200, 200))
    # The same for transformers' server, which answers one after the other.
    peer_loads: tuple[tuple[int, int], ...] = ((1, 4), (8, 8))
    # Tokens of each answer.
    max_tokens: int = 16
    # Most answers that are decoded together.
    max_batch: int = 8


def question(number: int) -> list[dict[str, str]]:
    word = WORDS[number % len(WORDS)]
    return [{"role": "user", "content": f"Write sentence {number} about a {word}."}]


async def measure(
    client: Any, name: str, config: Config, clients: int, requests: int
) -> dict[str, Any]:
    waiting = iter(range(requests))
    seconds, tokens, lost = [], [], []

    async def ask() -> None:
        for number in waiting:
            began = time.perf_counter()
            try:
                said = await client.chat.completions.create(
                    model=name,
                    messages=question(number),
                    temperature=0,
                    max_tokens=config.max_tokens,
                )
            except openai.OpenAIError as error:
                lost.append(str(error))
            else:
                seconds.append(time.perf_counter() - began)
                tokens.append(said.usage.completion_tokens)

    began = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(clients)))
    whole = time.perf_counter() - began
    return {
        "clients": clients,
        "requests": requests,
        "answered": len(seconds),
        "lost": lost,
        "requests_per_second": round(len(seconds) / whole, 2),
        "tokens_per_second": round(sum(tokens) / whole, 1),
        "median_seconds": round(statistics.median(seconds), 2),
        "longest_seconds": round(max(seconds), 2),
    }


async def measure_all(
    url: str, name: str, config: Config, loads: Sequence[tuple[int, int]]
) -> list[dict[str, Any]]:
    async with openai.AsyncOpenAI(
        base_url=url,
        api_key="none",
        max_retries=0,
        timeout=600,
        http_client=openai.DefaultAsyncHttpxClient(trust_env=False, timeout=600),
    ) as client:
        # Every shape is compiled before anything is timed.
        for clients in {min(load[0], 32) for load in loads}:
            await measure(client, name, config, clients, clients)
        return [await measure(client, name, config, *load) for load in loads]


@contextlib.contextmanager
def served(*words: str) -> Iterator[tuple[str, str]]:
    """Our server: its address, and the name of its model."""
    command = [sys.executable, "-m", "train_scripts.serve", "--port", "0", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            lines = (line.split() for line in server.stdout)
            yield next(words[-1] for words in lines if "listening" in words), "smollm2"
        finally:
            server.terminate()


@contextlib.contextmanager
def peer_served(folder: Path) -> Iterator[tuple[str, str]]:
    """``transformers serve`` with the same weights."""
    weights.save(weights.load("smollm2"), folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve"]
    options = ["--port", str(port), "--device", "cpu", "--dtype", "float32"]
    null = subprocess.DEVNULL
    command += [str(folder), *options]
    with subprocess.Popen(command, stdout=null, stderr=null) as server:
        try:
            wait_for(f"http://127.0.0.1:{port}/health", server)
            yield f"http://127.0.0.1:{port}/v1", str(folder)
        finally:
            server.terminate()


def wait_for(url: str, server: subprocess.Popen) -> None:
    with openai.DefaultHttpxClient(trust_env=False) as client:
        while server.poll() is None:
            with contextlib.suppress(Exception):  # it does not listen yet
                if client.get(url).status_code == 200:
                    return
            time.sleep(0.5)
    raise SystemExit("the peer has ended")


def show(name: str, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        print(
            f"| {name} | {row['clients']} | {row['answered']} of {row['requests']} | "
            f"{row['requests_per_second']} | {row['tokens_per_second']} | "
            f"{row['median_seconds']} | {row['longest_seconds']} |"
        )


def main(config: Config) -> None:
    """Run, print and write."""
    print(
        "| server | clients | answered | requests/s | tokens/s | median s | longest s |"
    )
    print("|---|---|---|---|---|---|---|")
    with served("--max-batch", str(config.max_batch)) as (url, name):
        ours = asyncio.run(measure_all(url, name, config, config.loads))
    show("jeff", ours)
    theirs = []
    if config.peer_loads:
        with tempfile.TemporaryDirectory() as folder, peer_served(Path(folder)) as peer:
            theirs = asyncio.run(measure_all(*peer, config, config.peer_loads))
        show("transformers serve", theirs)
    records.write("serving", {"jeff": ours, "transformers serve": theirs}, config)
    if any(row["lost"] for row in ours):
        raise SystemExit("requests were lost")


if __name__ == "__main__":
    main(tyro.cli(Config))
