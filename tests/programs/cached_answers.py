"""Ask questions through a cache and print the answers; can kill itself midway.

usage: cached_answers.py CACHE ASKED FIRST LAST [NUMBER]

The model notes in the file ASKED what it is asked, a line each. With a NUMBER the
process kills itself (kill -9) when it is asked for the last time of so many.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from jeff_llm.chat import Answer, Cached, Request, ask, conversation


class Noted:
    name = "noted"

    def __init__(self, path: str, kill_at: int):
        self.path, self.kill_at, self.asked = Path(path), kill_at, 0

    async def answer(self, request: Request) -> Answer:
        await asyncio.sleep(0.002)
        text = request.messages[-1].content
        with self.path.open("a") as file:
            file.write(text + "\n")
        self.asked += 1
        if self.asked == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return Answer(f"{text}!", "stop", 3, 2, (-0.5, -0.25), 0.5, model="noted-1")


def main(cache: str, asked: str, first: str, last: str, kill_at: str = "0") -> None:
    requests = [
        Request(conversation(f"question {number}"), logprobs=True)
        for number in range(int(first), int(last))
    ]
    model = Cached(Noted(asked, int(kill_at)), cache)
    answers = ask(model, requests, concurrency=4)
    found = [(each.text, each.log_probs, each.cached, each.cost) for each in answers]
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
