"""What is said to a language model and what comes back: plain values, nothing runs.

A `Request` is hashable and holds everything that decides its answer besides the model,
so that it can be the key of a cache; a `ChatModel` is whatever turns one into an
`Answer`. The models are in `jeff_llm.chat.local`, `jeff_llm.chat.endpoint` and
`jeff_llm.chat.answers`; `jeff_llm.chat` is the door to all of them.
"""

import json
import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

__all__ = [
    "Answer",
    "ChatError",
    "ChatModel",
    "Message",
    "Price",
    "Request",
    "before_stop",
    "conversation",
]

_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Attributes:
      role: who speaks: "system", "user" or "assistant".
      content: the text.

    Raises:
      ValueError: if ``role`` is none of the three.
    """

    role: str
    content: str

    def __post_init__(self) -> None:
        if self.role not in _ROLES:
            raise ValueError(f"role: expected one of {_ROLES}, got {self.role!r}")


def conversation(*turns: str, system: str | None = None) -> tuple[Message, ...]:
    """Messages in which user and assistant take turns, the user first.

    A few-shot prompt is such a conversation with the examples' answers in it.

    Args:
      *turns: the texts.
      system: a system message to begin with.

    Returns:
      The messages.

    Raises:
      ValueError: if the assistant has the last word, so that nothing is asked.

    >>> [message.role for message in conversation("2 + 2?", "4", "3 + 3?")]
    ['user', 'assistant', 'user']
    """
    if len(turns) % 2 == 0:
        raise ValueError(
            f"turns: expected an odd number, the user's question last, got {len(turns)}"
        )
    start = () if system is None else (Message("system", system),)
    roles = ("user", "assistant")
    return start + tuple(
        Message(roles[index % 2], text) for index, text in enumerate(turns)
    )


@dataclass(frozen=True)
class Request:
    """Everything that decides an answer, besides the model.

    Attributes:
      messages: the conversation so far.
      max_tokens: longest answer, in tokens.
      temperature: 0 is greedy; otherwise logits are divided by it.
      top_p: sample from the smallest set of tokens with this probability, in (0, 1];
        from all of them when it is None.
      seed: of the draws, in [0, 2^32). None leaves it to the endpoint; `Local` takes 0
        then, so that equal requests have equal answers. Ask for several samples of one
        prompt by several seeds.
      stop: the answer ends before the first of these texts.
      schema: JSON schema of the wanted answer, as JSON text; stored in canonical form.
        An endpoint may hold its answer to it (`OpenAICompatible`); nothing else does
        before `jeff_llm.chat.structured.parse_json`.
      logprobs: ask for the log-probability of each token.

    Raises:
      TypeError: if ``messages`` or ``stop`` is no tuple, which a cache could not key.
      ValueError: if a number is out of its range, there is no message, a text to stop
        at is empty or the schema is no JSON object.
    """

    messages: tuple[Message, ...]
    max_tokens: int = 256
    temperature: int | float = 0.0
    top_p: int | float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    schema: str | None = None
    logprobs: bool = False

    def __post_init__(self) -> None:
        for name in ("messages", "stop"):
            if not isinstance(value := getattr(self, name), tuple):
                raise TypeError(f"{name}: expected a tuple, got {type(value).__name__}")
        checks = {
            "messages": (bool(self.messages), "at least one message"),
            "max_tokens": (self.max_tokens >= 1, "at least 1"),
            "temperature": (
                self.temperature >= 0 and math.isfinite(self.temperature),
                "a finite number of at least 0",
            ),
            "top_p": (self.top_p is None or 0 < self.top_p <= 1, "None or (0, 1]"),
            "seed": (self.seed is None or 0 <= self.seed < 2**32, "None or [0, 2^32)"),
            "stop": ("" not in self.stop, "texts that are not empty"),
        }
        for name, (holds, expected) in checks.items():
            if not holds:
                raise ValueError(
                    f"{name}: expected {expected}, got {getattr(self, name)}"
                )
        # 1 and 1.0 are equal, and must be the same text in a cache's key.
        object.__setattr__(self, "temperature", float(self.temperature))
        if self.top_p is not None:
            object.__setattr__(self, "top_p", float(self.top_p))
        if self.schema is not None:
            object.__setattr__(self, "schema", _canonical_schema(self.schema))


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes:
      text: the answer, without the text it stopped at.
      finish_reason: "stop" if the model ended or met a text to stop at, "length" if it
        was cut at ``max_tokens``; an endpoint may have more, such as "content_filter".
      prompt_tokens: tokens read.
      completion_tokens: tokens written.
      log_probs: natural log-probability of each token, where they were asked for.
        `Local` counts the token that ends the answer, endpoints mostly do not.
      cost: what it cost, in the currency of the `Price`; 0 for a local model and for an
        answer that was known already.
      cached: whether it was known already.
      model: the model that said it, by its own account.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    log_probs: tuple[float, ...] | None = None
    cost: float = 0.0
    cached: bool = False
    model: str = ""


def before_stop(text: str, stop: tuple[str, ...]) -> str:
    """Cut a text before the first of some texts that end it.

    Args:
      text: what was written.
      stop: texts to stop at.

    Returns:
      The beginning of ``text``, or all of it where there is none of them.

    >>> before_stop("4. Next: 5", ("Next", "."))
    '4'
    """
    found = [start for each in stop if (start := text.find(each)) >= 0]
    return text[: min(found, default=len(text))]


@runtime_checkable
class ChatModel(Protocol):
    """Whatever answers requests.

    Attributes:
      name: names the model in caches and errors.
    """

    name: str

    async def answer(self, request: Request) -> Answer:
        """Answer one request; many may wait at the same time.

        Args:
          request: what is asked.

        Returns:
          The answer.
        """
        ...


class ChatError(Exception):
    """An endpoint gave no usable answer. No key is in it.

    Attributes:
      model: name of the model.
      attempts: how often it was asked.
      cause: what came the last time.
    """

    model: str
    attempts: int
    cause: str

    def __init__(self, model: str, attempts: int, cause: str):
        """Make the error.

        Args:
          model: name of the model.
          attempts: how often it was asked.
          cause: what came the last time.
        """
        super().__init__(model, attempts, cause)
        self.model, self.attempts, self.cause = model, attempts, cause

    def __str__(self) -> str:
        times = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        return f"{self.model}: no answer after {times}; the last: {self.cause}"


@dataclass(frozen=True)
class Price:
    """Price of an endpoint's tokens, in any currency.

    Attributes:
      input: of a million prompt tokens.
      output: of a million completion tokens.
    """

    input: int | float
    output: int | float

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Cost of one answer.

        ``(input * prompt_tokens + output * completion_tokens) / 10^6``.

        Args:
          prompt_tokens: tokens read.
          completion_tokens: tokens written.

        Returns:
          The cost, in the currency of the price.

        >>> Price(input=2.0, output=8.0).cost(1000, 500)
        0.006
        """
        return (self.input * prompt_tokens + self.output * completion_tokens) / 1e6


def _canonical_schema(text: str) -> str:
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise ValueError(
            f"schema: expected JSON text, got {text!r} ({error})"
        ) from error
    if not isinstance(schema, dict):
        raise ValueError(f"schema: expected a JSON object, got {text!r}")
    return json.dumps(schema, sort_keys=True, separators=(",", ":"))
