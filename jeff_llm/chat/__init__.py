"""Talking to a language model, local or remote, one question or a hundred thousand.

>>> request = Request(conversation("What is the capital of France?"), max_tokens=20)

Then ``ask(Local(model), request)`` asks a model of this process, ``ask(Cached(
OpenAICompatible("https://host/v1", "name", api_key=key), "answers.db"), requests)`` an
endpoint, many at a time, with each answer kept: a run that is killed goes on where it
was. Everything is asynchronous inside, and `ask` works in a script as in a notebook.
"""

from jeff_llm.chat.answers import Cached, Cassette, Recorder
from jeff_llm.chat.asking import Usage, ask, ask_all, map_async, run, usage
from jeff_llm.chat.endpoint import OpenAICompatible
from jeff_llm.chat.local import Local
from jeff_llm.chat.messages import (
    Answer,
    ChatError,
    ChatModel,
    Message,
    Price,
    Request,
    conversation,
)

__all__ = [
    "Answer",
    "Cached",
    "Cassette",
    "ChatError",
    "ChatModel",
    "Local",
    "Message",
    "OpenAICompatible",
    "Price",
    "Recorder",
    "Request",
    "Usage",
    "ask",
    "ask_all",
    "conversation",
    "map_async",
    "run",
    "usage",
]
