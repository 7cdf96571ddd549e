"""The fields of a chat completion that are used, each checked by pydantic.

The `openai` client itself checks nothing of what comes, and its type of a completion
demands fields that many servers leave out, and a ``finish_reason`` among OpenAI's own.
"""

from typing import Any

import pydantic
from pydantic import AliasPath, BaseModel, Field

__all__ = ["Completion", "Token", "read_completion"]

# An error of pydantic by the kind that it expected.
_KINDS = {
    "dict_type": "dict",
    "float_type": "float",
    "int_type": "int",
    "list_type": "list",
    "model_type": "dict",
    "string_type": "str",
}


def _at(*path: str | int) -> Any:
    """A field from a path in the body; a missing one is checked as null is."""
    where = AliasPath(*path)  # pyright: ignore[reportArgumentType]
    return Field(default=None, validate_default=True, validation_alias=where)


class Token(BaseModel, strict=True, allow_inf_nan=False):
    """One token of an answer.

    Attributes:
      logprob: its natural log-probability.
    """

    logprob: float


class Completion(BaseModel, strict=True, allow_inf_nan=False):
    """What a server answered.

    Attributes:
      message: the assistant's message, as it came.
      finish_reason: why the model stopped.
      content: its text; None where it refused or came to no answer.
      prompt_tokens: tokens read.
      completion_tokens: tokens written.
      model: the model's name, by the server's account.
      tokens: the tokens, where log-probabilities were asked for.
    """

    message: dict[str, Any] = _at("choices", 0, "message")
    finish_reason: str = _at("choices", 0, "finish_reason")
    content: str | None = _at("choices", 0, "message", "content")
    prompt_tokens: int = _at("usage", "prompt_tokens")
    completion_tokens: int = _at("usage", "completion_tokens")
    model: str | None = None
    tokens: Any = None


class _Scored(Completion):
    tokens: list[Token] = _at("choices", 0, "logprobs", "content")


def read_completion(body: Any, *, logprobs: bool) -> Completion:
    """Read a chat completion.

    Args:
      body: what the JSON of the server holds.
      logprobs: whether the log-probabilities of tokens must be there.

    Returns:
      Its fields.

    Raises:
      ValueError: if a field is missing or of another kind; names it by its path.

    >>> read_completion({"choices": []}, logprobs=False)
    Traceback (most recent call last):
    ValueError: choices.0.message: expected dict, came nothing
    """
    kind = _Scored if logprobs else Completion
    try:
        return kind.model_validate(body)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
    path = first["loc"] or ("body",)
    # A missing field goes by its name here, one of a wrong kind by its path.
    if (field := kind.model_fields.get(str(path[0]))) and field.validation_alias:
        path = getattr(field.validation_alias, "path", path)
    where = ".".join(map(str, path))
    if first["type"] not in _KINDS:
        raise ValueError(f"{where}: {first['msg']}, came {first['input']!r:.80}")
    came = "nothing" if first["input"] is None else type(first["input"]).__name__
    raise ValueError(f"{where}: expected {_KINDS[first['type']]}, came {came}")
