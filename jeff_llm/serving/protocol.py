"""OpenAI's requests, checked: each field is applied, or refused by name.

Fields are those of OpenAI's interface, with ``top_k`` and ``min_p`` as other servers
have them. A field that this server cannot apply may have the value that changes
nothing (``presence_penalty`` 0, ``response_format`` text); any other value is an error,
never passed over. Labels of the client (``user``, ``metadata``) change no answer and
are accepted.
"""

import dataclasses
import secrets
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from jeff_llm.chat.messages import Message
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.serving.engine import MOST_LIKELIEST
from jeff_llm.serving.fields import (
    ECHOED,
    NEUTRAL,
    RequestError,
    object_of,
    parse,
    refusal,
    without_neutral,
)
from jeff_llm.serving.rows import Job

__all__ = ["Asked", "Limits", "read_chat", "read_completion"]

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Limits(NamedTuple):
    """What a server takes.

    Attributes:
      name: the model's name in requests.
      max_tokens: most tokens of an answer for which the request names no number.
      max_rows: most answers that one request may ask for.
    """

    name: str
    max_tokens: int = 512
    max_rows: int = 256


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request, checked.

    Attributes:
      jobs: one per answer: the choices of the first prompt, then of the next.
      messages: the conversation; empty for a completion of plain text.
      prompt_tokens: tokens of all prompts; those of one count once for all its choices.
      logprobs: whether log-probabilities are reported.
      stream: whether pieces are sent as they come.
      usage: whether a stream ends with the numbers of tokens.
    """

    jobs: tuple[Job, ...]
    messages: tuple[Message, ...]
    prompt_tokens: int
    logprobs: bool
    stream: bool
    usage: bool


class _StreamOptions(BaseModel):
    model_config = _STRICT
    include_usage: bool = False
    # Padding against eavesdroppers; there is none either way.
    include_obfuscation: Literal[False] = False


class _Common(BaseModel):
    model_config = _STRICT
    model: str | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, ge=1e-6, le=1)
    top_k: int | None = Field(None, ge=1, le=2**31 - 1)
    min_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = Field(None, ge=0, lt=2**32)
    stop: str | list[str] | None = None
    n: int | None = Field(None, ge=1)
    stream: bool | None = None
    stream_options: _StreamOptions | None = None


class _Part(BaseModel):
    model_config = _STRICT
    type: Literal["text"]
    text: str


class _Turn(BaseModel):
    model_config = _STRICT
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Part]


class _Chat(_Common):
    messages: list[_Turn] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_LIKELIEST)


class _Completion(_Common):
    prompt: str | list[str] | list[int] | list[list[int]]
    logprobs: int | None = Field(None, ge=0, le=MOST_LIKELIEST)


def read_chat(body: Any, model: LanguageModel, limits: Limits) -> Asked:
    """Check a request for a chat completion.

    Args:
      body: the decoded JSON.
      model: the model, whose tokenizer has a chat template.
      limits: what the server takes.

    Returns:
      The request.

    Raises:
      RequestError: naming the field, what was expected and what came.
    """
    fields = object_of(body, "body")
    if isinstance(turns := fields.get("messages"), list):
        fields["messages"] = [
            without_neutral(dict(turn), ECHOED, f"messages.{place}.")
            if isinstance(turn, dict)
            else turn
            for place, turn in enumerate(turns)
        ]
    chat = parse(_Chat, without_neutral(fields, NEUTRAL))
    if chat.top_logprobs is not None and not chat.logprobs:
        raise refusal("top_logprobs", "logprobs true beside it", chat.logprobs)
    both = {chat.max_tokens, chat.max_completion_tokens} - {None}
    if len(both) > 1:
        raise refusal("max_tokens", "the same as max_completion_tokens", sorted(both))
    # "developer" is OpenAI's newer name of the system's role.
    messages = tuple(
        Message("system" if turn.role == "developer" else turn.role, _content(turn))
        for turn in chat.messages
    )
    return _asked(
        chat,
        [_chat_prompt(model, messages)],
        model,
        limits,
        max_tokens=max(both) if both else None,
        messages=messages,
        logprobs=bool(chat.logprobs),
        num_likeliest=chat.top_logprobs or 0,
    )


def read_completion(body: Any, model: LanguageModel, limits: Limits) -> Asked:
    """Check a request for a completion of plain text.

    Args:
      body: the decoded JSON.
      model: the model.
      limits: what the server takes.

    Returns:
      The request.

    Raises:
      RequestError: as `read_chat`.
    """
    given = parse(_Completion, without_neutral(object_of(body, "body"), NEUTRAL))
    prompt: list[Any] = (
        [given.prompt] if isinstance(given.prompt, str) else given.prompt
    )
    if prompt and isinstance(prompt[0], int):
        prompt = [prompt]
    if not prompt:
        raise refusal("prompt", "at least one", given.prompt)
    rows = [_encoded(model, each) for each in prompt]
    return _asked(
        given,
        rows,
        model,
        limits,
        max_tokens=given.max_tokens,
        messages=(),
        logprobs=given.logprobs is not None,
        num_likeliest=given.logprobs or 0,
    )


def _asked(
    given: _Common,
    prompts: list[list[int]],
    model: LanguageModel,
    limits: Limits,
    *,
    max_tokens: int | None,
    messages: tuple[Message, ...],
    logprobs: bool,
    num_likeliest: int,
) -> Asked:
    if given.model not in (None, limits.name):
        raise RequestError(
            f"model: expected {limits.name!r}, got {given.model!r:.100}",
            param="model",
            code="model_not_found",
            status=404,
        )
    count = given.n or 1
    if count * len(prompts) > limits.max_rows:
        raise refusal("n", f"at most {limits.max_rows} answers", count * len(prompts))
    if given.stream_options is not None and not given.stream:
        raise refusal("stream_options", "stream true beside it", given.stream)
    stop = (given.stop,) if isinstance(given.stop, str) else tuple(given.stop or ())
    if "" in stop or len(stop) > 16:
        raise refusal("stop", "at most 16 texts, none of them empty", list(stop))
    # Without a seed the client wants any answer; with one, the same again.
    seed = secrets.randbits(32) if given.seed is None else given.seed
    jobs = tuple(
        Job(
            tuple(prompt),
            _room(prompt, max_tokens, model, limits),
            # OpenAI's default; 0 is greedy.
            1.0 if given.temperature is None else given.temperature,
            given.top_k,
            given.top_p,
            given.min_p,
            (seed + choice) % 2**32,
            stop,
            num_likeliest,
        )
        for prompt in prompts
        for choice in range(count)
    )
    usage = bool(given.stream_options and given.stream_options.include_usage)
    read = sum(map(len, prompts))
    return Asked(jobs, messages, read, logprobs, bool(given.stream), usage)


def _room(
    prompt: list[int], max_tokens: int | None, model: LanguageModel, limits: Limits
) -> int:
    """Tokens that the answer may have."""
    limit = model.config.max_positions
    wanted = min(limits.max_tokens, limit - len(prompt))
    wanted = max(wanted, 1) if max_tokens is None else max_tokens
    if len(prompt) + wanted > limit:
        raise RequestError(
            f"prompt: expected at most {limit} tokens together with the answer, the "
            f"model's context length, got {len(prompt)} and {wanted}; shorten it, or "
            "lower max_tokens",
            param="max_tokens" if len(prompt) < limit else None,
            code="context_length_exceeded",
        )
    return wanted


def _chat_prompt(model: LanguageModel, messages: tuple[Message, ...]) -> list[int]:
    if model.tokenizer is None or model.tokenizer.chat_template is None:
        raise RequestError(
            f"{model.name} has no chat template; ask /v1/completions", code="no_chat"
        )
    turns = [dataclasses.asdict(message) for message in messages]
    try:
        text = model.tokenizer.apply_chat_template(turns)
        # The template has already added the special tokens.
        ids = model.tokenizer.encode(text, add_special_tokens=False)
    except (TypeError, ValueError) as error:
        raise RequestError(f"messages: {error}", param="messages") from error
    if not ids:
        raise refusal("messages", "at least one token", "none")
    return ids


def _encoded(model: LanguageModel, prompt: str | list[int]) -> list[int]:
    try:
        ids = model.encode(prompt) if isinstance(prompt, str) else prompt
    except (TypeError, ValueError) as error:
        raise RequestError(f"prompt: {error}", param="prompt") from error
    size = model.config.vocab_size
    if not ids or not all(0 <= number < size for number in ids):
        raise refusal("prompt", f"at least one token, all of them below {size}", prompt)
    return ids


def _content(turn: _Turn) -> str:
    if isinstance(turn.content, str):
        return turn.content
    return "".join(part.text for part in turn.content)
