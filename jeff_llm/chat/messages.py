"""Requests, answers and prices of a chat: plain values without behaviour.

A `Request` is hashable and holds everything besides the model that determines its
answer, so it can be the key of a cache. A `ChatModel` turns a request into an `Answer`.
The models are in `jeff_llm.chat.local`, `jeff_llm.chat.endpoint`,
`jeff_llm.chat.cached` and `jeff_llm.chat.answers`; import them from `jeff_llm.chat`.
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
      role: the speaker: "system", "user" or "assistant".
      content: the text.

    Raises:
      ValueError: if ``role`` is not one of the three.
    """

    role: str
    content: str

    def __post_init__(self) -> None:
        if self.role not in _ROLES:
            raise ValueError(f"role: expected one of {_ROLES}, got {self.role!r}")


def conversation(*turns: str, system: str | None = None) -> tuple[Message, ...]:
    """Build messages in which user and assistant alternate, starting with the user.

    For a few-shot prompt, pass the examples and their answers as turns.

    Args:
      *turns: the texts.
      system: system message to put first.

    Returns:
      The messages.

    Raises:
      ValueError: if the last turn is the assistant's, so that there is no question.

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
    """Everything besides the model that determines an answer.

    Attributes:
      messages: the conversation so far.
      max_tokens: maximum length of the answer, in tokens; at least 1.
      temperature: divisor of the logits, at least 0; 0 decodes greedily.
      top_p: sample from the smallest set of tokens with this total probability, in
        (0, 1]; None samples from all tokens.
      seed: random seed of the sampling, in [0, 2^32). None leaves it to the endpoint;
        `Local` then uses 0, so equal requests have equal answers. Use different seeds
        for several samples of one prompt.
      stop: the answer ends before the first of these texts.
      schema: JSON schema of the answer, as JSON text; stored in canonical form. Only
        `OpenAICompatible` can ask its endpoint to enforce it;
        `jeff_llm.chat.structured.parse_json` checks it.
      logprobs: request the log-probability of each token.

    Raises:
      TypeError: if ``messages`` or ``stop`` is not a tuple and so not hashable.
      ValueError: if a number is out of its range, there is no message, a stop text is
        empty or the schema is not a JSON object.
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
        # 1 and 1.0 are equal but differ as JSON: without this, equal requests would
        # have different cache keys.
        object.__setattr__(self, "temperature", float(self.temperature))
        if self.top_p is not None:
            object.__setattr__(self, "top_p", float(self.top_p))
        if self.schema is not None:
            object.__setattr__(self, "schema", _canonical_schema(self.schema))


@dataclass(frozen=True)
class Answer:
    """The answer of a model.

    Attributes:
      text: the answer, without the stop text.
      finish_reason: "stop" if the model ended or reached a stop text, "length" if the
        answer was cut at ``max_tokens``; endpoints may give others, such as
        "content_filter".
      prompt_tokens: tokens read; None if the endpoint does not report them.
      completion_tokens: tokens written; None if the endpoint does not report them.
      log_probs: natural log-probability of each token, if requested. `Local` includes
        the token that ends the answer; most endpoints do not.
      cost: cost in the currency of the `Price`; 0 for a local model and for a cached
        answer, None if tokens have a price but were not reported.
      cached: whether the answer came from a cache.
      model: name of the model, as reported by the endpoint.
    """

    text: str
    finish_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None
    log_probs: tuple[float, ...] | None = None
    cost: float | None = 0.0
    cached: bool = False
    model: str = ""


def before_stop(text: str, stop: tuple[str, ...]) -> str:
    """Cut a text before the first stop text.

    Args:
      text: the text.
      stop: the stop texts.

    Returns:
      The beginning of ``text``, or all of it if it contains no stop text.

    >>> before_stop("4. Next: 5", ("Next", "."))
    '4'
    """
    found = [start for each in stop if (start := text.find(each)) >= 0]
    return text[: min(found, default=len(text))]


@runtime_checkable
class ChatModel(Protocol):
    """Interface of a model that answers requests.

    Attributes:
      name: name of the model in caches and error messages.
    """

    name: str

    async def answer(self, request: Request) -> Answer:
        """Answer one request; several calls may run concurrently.

        Args:
          request: the request.

        Returns:
          The answer.
        """
        ...


class ChatError(Exception):
    """Raised when an endpoint gives no usable answer; never contains the API key.

    Attributes:
      model: name of the model.
      attempts: number of attempts.
      cause: cause of the last failure.
    """

    model: str
    attempts: int
    cause: str

    def __init__(self, model: str, attempts: int, cause: str):
        """Create the error.

        Args:
          model: name of the model.
          attempts: number of attempts.
          cause: cause of the last failure.
        """
        # All arguments go to the base class, so that the error can be pickled.
        super().__init__(model, attempts, cause)
        self.model, self.attempts, self.cause = model, attempts, cause

    def __str__(self) -> str:
        times = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        return f"{self.model}: no answer after {times}; the last: {self.cause}"


@dataclass(frozen=True)
class Price:
    """Price of an endpoint's tokens, in any currency.

    Attributes:
      input: price of a million prompt tokens.
      output: price of a million completion tokens.

    Raises:
      ValueError: if one is negative or not finite; a limit could not be kept with it.
    """

    input: int | float
    output: int | float

    def __post_init__(self) -> None:
        for name in ("input", "output"):
            if not 0 <= (value := getattr(self, name)) < math.inf:
                raise ValueError(
                    f"{name}: expected a finite price of at least 0, got {value}"
                )

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

    def reported_cost(
        self, prompt_tokens: int | None, completion_tokens: int | None
    ) -> float | None:
        """Cost of one answer whose tokens an endpoint may not have reported.

        Args:
          prompt_tokens: tokens read; None if not reported.
          completion_tokens: tokens written; None if not reported.

        Returns:
          The cost; None if tokens that have a price were not reported.

        >>> Price(2.0, 8.0).reported_cost(1000, None) is None
        True
        >>> Price(0.0, 0.0).reported_cost(None, None)
        0.0
        """
        pairs = ((self.input, prompt_tokens), (self.output, completion_tokens))
        if any(price and tokens is None for price, tokens in pairs):
            return None
        return self.cost(prompt_tokens or 0, completion_tokens or 0)


def _canonical_schema(text: str) -> str:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"schema: expected JSON text, got {text!r:.80} ({error})"
        ) from error
    if not isinstance(schema, dict):
        raise ValueError(f"schema: expected a JSON object, got {text!r}")
    return json.dumps(schema, sort_keys=True, separators=(",", ":"))
