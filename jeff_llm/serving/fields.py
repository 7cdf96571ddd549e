"""Fields of a request that are refused by name, and those that change nothing."""

from typing import Any

import pydantic

__all__ = [
    "ECHOED",
    "NEUTRAL",
    "RequestError",
    "object_of",
    "parse",
    "refusal",
    "without_neutral",
]

# Labels of the client: they change no answer.
_LABELS = ("metadata", "prompt_cache_key", "safety_identifier", "user")
# Values that change nothing, by the name of a field that cannot be applied.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0, 0.0),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "presence_penalty": (0, 0.0),
    "reasoning_effort": (),
    "repetition_penalty": (1, 1.0),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "suffix": (),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "verbosity": (),
    "web_search_options": (),
}
# What clients send back when they repeat an answer as a message.
ECHOED: dict[str, tuple[Any, ...]] = dict.fromkeys(
    ("annotations", "audio", "function_call", "name", "refusal", "tool_calls"), ([],)
)


class RequestError(ValueError):
    """Raised for a request that cannot be answered as it is.

    Attributes:
      status: of the HTTP response.
      code: as OpenAI's errors have it.
      param: name of the field, or None.
    """

    status: int
    code: str
    param: str | None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str = "invalid_value",
        status: int = 400,
    ):
        """Create the error.

        Args:
          message: the field, what was expected and what came.
          param: name of the field.
          code: as OpenAI's errors have it.
          status: of the HTTP response.
        """
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


def object_of(value: Any, name: str) -> dict[str, Any]:
    """A JSON object as a dictionary of its own.

    Args:
      value: the decoded JSON.
      name: its name in the error.

    Returns:
      A copy.

    Raises:
      RequestError: if it is none.
    """
    if not isinstance(value, dict):
        raise refusal(name, "a JSON object", value)
    return dict(value)


def without_neutral(
    fields: dict[str, Any], neutral: dict[str, tuple[Any, ...]], where: str = ""
) -> dict[str, Any]:
    """Take out what changes nothing, and refuse what cannot be applied.

    Args:
      fields: of a request or of a message; changed in place.
      neutral: values that change nothing, by the name of a field.
      where: path of the message; empty for a request, whose labels are taken out too.

    Returns:
      The fields that are left.

    Raises:
      RequestError: naming a field with a value that cannot be applied.
    """
    for name, values in neutral.items():
        value = fields.pop(name, None)
        # By type as well: True equals 1.
        known = any(type(v) is type(value) and v == value for v in values)
        if value is not None and not known:
            allowed = " or ".join(map(repr, (*values, None)))
            raise refusal(
                f"{where}{name}", f"{allowed}, since it is not supported", value
            )
    if not where:
        for name in _LABELS:
            fields.pop(name, None)
    return fields


def parse(kind: type[Any], fields: dict[str, Any]) -> Any:
    """Check fields by a model of pydantic.

    Args:
      kind: the model.
      fields: the fields.

    Returns:
      The checked fields.

    Raises:
      RequestError: naming the first field that is wrong, or not known.
    """
    try:
        return kind.model_validate(fields)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
    # An error names its field: an empty name as JSON writes it, and the whole where a
    # name is no text.
    path = ".".join(str(part) or '""' for part in first["loc"]) or "body"
    if first["type"] == "extra_forbidden":
        raise RequestError(
            f"{path}: expected no such field; leave it out",
            param=path,
            code="unknown_parameter",
        )
    came = "nothing" if first["type"] == "missing" else f"{first['input']!r:.100}"
    raise RequestError(f"{path}: {first['msg']}, got {came}", param=path)


def refusal(name: str, expected: str, value: Any) -> RequestError:
    """The error of a field that cannot be applied.

    Args:
      name: of the field.
      expected: what was expected.
      value: what came.

    Returns:
      The error.
    """
    return RequestError(f"{name}: expected {expected}, got {value!r:.100}", param=name)
