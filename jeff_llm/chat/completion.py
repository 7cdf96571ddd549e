"""Read the fields that jeff uses from a chat completion, checked by pydantic.

The `openai` client does not check responses. Its completion type requires fields that
many servers leave out, and accepts only OpenAI's own values of ``finish_reason``.
"""

from typing import Annotated, Any

import pydantic
from pydantic import AliasPath, BaseModel, BeforeValidator, Field

__all__ = ["Completion", "Token", "read_completion"]

# Type that pydantic expected, by the type of its error.
_KINDS = {
    "dict_type": "dict",
    "float_type": "float",
    "int_type": "int",
    "list_type": "list",
    "model_type": "dict",
    "string_type": "str",
}


_LOGPROBS = "choices.0.logprobs.content"

# No prompt or answer has so many; a larger number would make its cost infinite.
_MOST_TOKENS = 10**12


def _at(*path: str | int, ge: int | None = None, le: int | None = None) -> Any:
    """Declare a field by its path in the body; a missing field is checked as null."""
    where = AliasPath(*path)  # pyright: ignore[reportArgumentType]
    return Field(
        default=None, validate_default=True, validation_alias=where, ge=ge, le=le
    )


def _count(name: str) -> Any:
    return _at("usage", name, ge=0, le=_MOST_TOKENS)


def _joined(content: Any) -> Any:
    """Text of a message that came in parts."""
    if not isinstance(content, list):
        return content
    for part in content:
        text = part.get("text") if isinstance(part, dict) else None
        if not isinstance(text, str) or part.get("type") != "text":
            # Another kind of part, such as a thought, is no part of the answer.
            raise ValueError(f"expected parts of type 'text', came {part!r:.80}")
    return "".join(part["text"] for part in content)


class Token(BaseModel, strict=True, allow_inf_nan=False):
    """One token of an answer.

    Attributes:
      logprob: its natural log-probability.
    """

    logprob: float


class Completion(BaseModel, strict=True, allow_inf_nan=False):
    """A chat completion as the server sent it.

    Attributes:
      message: the assistant's message, unchanged.
      finish_reason: why the model stopped.
      content: text of the message, its parts joined; None if the model refused or gave
        no answer.
      usage: what the server reported about tokens; None if nothing.
      prompt_tokens: tokens read; None if not reported.
      completion_tokens: tokens written; None if not reported.
      model: name of the model, as reported by the server.
      tokens: the tokens, if log-probabilities were requested.
    """

    message: dict[str, Any] = _at("choices", 0, "message")
    finish_reason: str = _at("choices", 0, "finish_reason")
    content: Annotated[str | None, BeforeValidator(_joined)] = _at(
        "choices", 0, "message", "content"
    )
    usage: dict[str, Any] | None = None
    prompt_tokens: int | None = _count("prompt_tokens")
    completion_tokens: int | None = _count("completion_tokens")
    model: str | None = None
    tokens: Any = None


class _Scored(Completion):
    tokens: list[Token] = _at("choices", 0, "logprobs", "content")


def read_completion(body: Any, *, logprobs: bool) -> Completion:
    """Read a chat completion.

    Args:
      body: the decoded JSON body of the response.
      logprobs: whether log-probabilities of tokens are required.

    Returns:
      The checked fields.

    Raises:
      ValueError: if a field is missing or has another type; names the field's path.

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
    # pydantic reports a missing field by its name and a wrong type by its path; the
    # message always gives the path.
    if (field := kind.model_fields.get(str(path[0]))) and field.validation_alias:
        path = getattr(field.validation_alias, "path", path)
    where = ".".join(map(str, path))
    if first["type"] == "value_error":
        raise ValueError(f"{where}: {first.get('ctx', {}).get('error')}")
    if first["type"] not in _KINDS:
        raise ValueError(f"{where}: {first['msg']}, came {first['input']!r:.80}")
    came = "nothing" if first["input"] is None else type(first["input"]).__name__
    why = _no_logprobs(body) if where == _LOGPROBS and first["input"] is None else ""
    raise ValueError(f"{where}: expected {_KINDS[first['type']]}, came {came}{why}")


def _no_logprobs(body: dict[str, Any]) -> str:
    """Why there may be no log-probabilities, by what came in their place."""
    choice = body["choices"][0]
    if "logprobs" not in choice:
        return (
            "; the answer has no field 'logprobs': this endpoint does not give "
            "log-probabilities; ask another, or without logprobs"
        )
    return (
        f"; the endpoint knows the field, but sent {choice['logprobs']!r:.80} although "
        "logprobs were asked for; see whether it gives them for this model"
    )
