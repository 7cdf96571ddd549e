"""What OpenAI's client says to the server, and what it hears.

``python -m benchmarks.serving_transcript`` starts two servers with SmolLM2, the second
with a router that sends unsure answers on to the first one, which plays the large
model, and prints a transcript as Markdown.
"""

import dataclasses
import tempfile
from pathlib import Path

import openai
import tyro

from benchmarks.serving import served
from jeff_llm.confidence import Router
from train_scripts.routing.logs import write_routers

QUESTIONS = (
    "What is the capital of France?",
    "Which town has the oldest bakery of Normandy?",
)


@dataclasses.dataclass(frozen=True)
class Config:
    """What is asked."""

    # Tokens of each answer at most.
    max_tokens: int = 24
    # The small model answers where its confidence is at least this.
    threshold: float = 0.5


def show(client: openai.OpenAI, config: Config) -> None:
    """Ask each question, and print who answered."""
    for question in QUESTIONS:
        raw = client.chat.completions.with_raw_response.create(
            model="smollm2",
            messages=[{"role": "user", "content": question}],
            temperature=0,
            max_tokens=config.max_tokens,
        )
        said = raw.parse()
        print(f"> {question}\n\n{said.choices[0].message.content}\n")
        headers = {n: v for n, v in raw.headers.items() if n.startswith("x-jeff")}
        usage = said.usage.total_tokens if said.usage else None
        print(f"`model={said.model} tokens={usage} {headers}`\n")


def streamed(client: openai.OpenAI, config: Config) -> None:
    """Ask one question as a stream, and print its parts."""
    parts = client.chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": QUESTIONS[0]}],
        temperature=0,
        max_tokens=config.max_tokens,
        stream=True,
    )
    texts = [part.choices[0].delta.content for part in parts if part.choices]
    print(f"Streamed: `{[text for text in texts if text]}`\n")


def main(config: Config) -> None:
    """Start, ask, print."""
    with tempfile.TemporaryDirectory() as folder, served() as (alone, name):
        print("## Alone\n")
        client = openai.OpenAI(base_url=alone, api_key="none", max_retries=0)
        show(client, config)
        streamed(client, config)
        router = Path(folder) / "router.json"
        write_routers(router, {"own": Router(config.threshold)})
        options = ["--router", str(router), "--policy", "own"]
        options += ["--large", alone, "--large-model", name]
        with served(*options) as (routed, _):
            print("## Routed\n")
            show(openai.OpenAI(base_url=routed, api_key="none"), config)


if __name__ == "__main__":
    main(tyro.cli(Config))
