"""Chat with a language model, local or remote, in one request or in many.

>>> request = Request(conversation("What is the capital of France?"), max_tokens=20)

``ask(Local(model), request)`` asks a model in this process. ``ask(Cached(
OpenAICompatible("https://host/v1", "name", api_key=key), "answers.db"), requests)``
asks an endpoint, several requests at a time, and stores each answer, so a run that is
killed resumes where it stopped. The code is asynchronous inside; `ask` works in scripts
and in notebooks.
"""

from jeff_llm.chat.answers import Cassette, Recorder
from jeff_llm.chat.asking import AskError, ask, ask_all, map_async, run
from jeff_llm.chat.budget import Budget, CostLimitError
from jeff_llm.chat.cached import Cached
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
from jeff_llm.chat.totals import Usage, usage

__all__ = [
    "Answer",
    "AskError",
    "Budget",
    "Cached",
    "Cassette",
    "ChatError",
    "ChatModel",
    "CostLimitError",
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
