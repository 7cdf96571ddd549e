"""Get JSON that fits a schema from a model's answer.

Small models wrap JSON in a code block, surround it with prose, or write it with errors.
`parse_json` finds the JSON and checks it against a schema. `ask_json` gives the model
one chance to repair an unusable answer.

The package `jsonschema` checks values by draft 2020-12. This module adds:

* The supported keywords: ``type``, ``enum``, ``properties``, ``required``,
  ``additionalProperties``, ``items``, ``minimum``, ``maximum``, ``title`` and
  ``description``. Endpoints that enforce a schema support them too. Any other keyword
  is an error before the request is sent, since `jsonschema` ignores misspelt keywords.
* Error messages that the model can follow.
* A check for infinity, as Python reads ``1e999``: JSON has no such value.
"""

import contextlib
import dataclasses
import functools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jeff.extras import require
from jeff_llm.chat.asking import AskError
from jeff_llm.chat.messages import Answer, ChatError, ChatModel, Message, Request

__all__ = ["Parsed", "ask_json", "check_schema", "parse_json"]

Schema = Mapping[str, Any]

_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_KEYWORDS = {
    "additionalProperties": (bool, Mapping),
    "description": str,
    "enum": list,
    "items": Mapping,
    "maximum": (int, float),
    "minimum": (int, float),
    "properties": Mapping,
    "required": list,
    "title": str,
    "type": (str, list),
}
_OPENING = re.compile(r"[{\[]")
_FENCE = re.compile(r"```[^\n`]*\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Parsed:
    """The result of `ask_json`.

    Attributes:
      value: the JSON value, or None if no answer contained a valid one.
      answers: the first answer, and the second if a repair was requested.
      repaired: whether the value comes from the second answer.
      error: why the last answer is not usable; None if it is.
    """

    value: Any
    answers: tuple[Answer, ...]
    repaired: bool
    error: str | None


async def ask_json(model: ChatModel, request: Request, schema: Schema) -> Parsed:
    """Ask for JSON that fits a schema, and ask once more if the answer does not.

    The prompt is sent unchanged, so it must describe the JSON. The schema is sent in
    ``request.schema``, for endpoints that can enforce it. The second request repeats
    the answer, its error, and the schema.

    Args:
      model: the model that answers.
      request: the request.
      schema: JSON schema of the value.

    Returns:
      The value and its origin. If the answer is still not usable after the repair, or
      the repair request fails, nothing is raised; ``error`` gives the reason.

    Raises:
      ChatError: if the first request fails.
      OSError: likewise, such as at a limit on the cost.
      AskError: if the repair fails with an OSError; ``results`` holds the first answer.
      ValueError: if the schema uses unsupported keywords.
    """
    check_schema(schema)
    request = dataclasses.replace(request, schema=json.dumps(schema))
    first = await model.answer(request)
    try:
        value = parse_json(first.text, schema)
    except ValueError as error:
        return await _repaired(model, request, schema, first, error)
    return Parsed(value, (first,), repaired=False, error=None)


def parse_json(text: str, schema: Schema) -> Any:
    """Find JSON that fits a schema in a text.

    The candidates are, in this order: the whole text; each fenced code block; each
    outermost object or array, from left to right. The first one that fits is returned.

    Args:
      text: the answer of a model.
      schema: JSON schema of the value.

    Returns:
      The value, as decoded by `json`.

    Raises:
      ValueError: if the schema uses unsupported keywords, the text contains no JSON, or
        none of its JSON fits; the message then gives the path in the first value.

    >>> schema = {"type": "object", "properties": {"label": {"enum": ["yes", "no"]}}}
    >>> parse_json('Sure! {"label": "no"} I hope this helps.', schema)
    {'label': 'no'}
    """
    check_schema(schema)
    validator = _validator()(schema)
    errors = []
    for value in _candidates(text):
        if (error := next(validator.iter_errors(value), None)) is None:
            return value
        errors.append(error)
    if errors:
        raise ValueError(_words(errors[0]))
    raise ValueError(f"text: expected JSON, found none in {text.strip()!r:.200}")


def check_schema(schema: Schema) -> None:
    """Check that a schema uses only supported keywords.

    Args:
      schema: a JSON schema.

    Raises:
      ValueError: if a keyword is not supported or its value has the wrong type; names
        the path of the first such keyword.
    """
    _check_schema(schema, "schema")


def _check_schema(schema: Any, path: str) -> None:
    if not isinstance(schema, Mapping):
        raise ValueError(f"{path}: expected a JSON object, got {schema!r:.80}")
    for keyword, value in schema.items():
        if keyword not in _KEYWORDS:
            raise ValueError(
                f"{path}.{keyword}: expected one of the keywords "
                f"{', '.join(sorted(_KEYWORDS))}; leave it out, and check it yourself"
            )
        if not isinstance(value, _KEYWORDS[keyword]):
            raise ValueError(f"{path}.{keyword}: not a value for it: {value!r:.80}")
    for name in _types(schema):
        if name not in _TYPES:
            raise ValueError(
                f"{path}.type: expected one of {', '.join(_TYPES)}, got {name!r}"
            )
    for name, inner in schema.get("properties", {}).items():
        _check_schema(inner, f"{path}.properties.{name}")
    for keyword in ("items", "additionalProperties"):
        if isinstance(inner := schema.get(keyword), Mapping):
            _check_schema(inner, f"{path}.{keyword}")


def _types(schema: Schema) -> list[str]:
    named = schema.get("type", [])
    return [named] if isinstance(named, str) else named


def _candidates(text: str) -> Iterator[Any]:
    for whole in (text, *_FENCE.findall(text)):
        with contextlib.suppress(ValueError, RecursionError):
            yield _DECODER.decode(whole.strip())
    start = 0
    while found := _OPENING.search(text, start):
        try:
            value, start = _DECODER.raw_decode(text, found.start())
        except ValueError as error:
            # Continue after the syntax error: text before it belongs to a broken value
            # or is prose, and its inner brackets are not outermost values.
            start = max(getattr(error, "pos", 0), found.end())
        except RecursionError:
            return
        else:
            yield value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


# Models write line breaks inside strings without escaping them; `strict` rejects them.
_DECODER = json.JSONDecoder(parse_constant=_no_constant, strict=False)


@functools.cache
def _validator() -> Any:
    jsonschema = require("jsonschema", extra="llm")
    draft = jsonschema.Draft202012Validator
    kinds = {
        "number": _is_number,
        "object": lambda _, value: isinstance(value, Mapping),
    }
    types = draft.TYPE_CHECKER.redefine_many(kinds)
    return jsonschema.validators.extend(draft, type_checker=types)


def _is_number(_: Any, value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _words(error: Any) -> str:
    """Describe a schema error and its path in a sentence for the model to follow."""
    path, asked, value = error.json_path, error.validator_value, error.instance
    if error.validator == "required":
        missing = next(name for name in asked if name not in value)
        return f"{path}.{missing}: expected, but missing"
    if error.validator == "additionalProperties":
        surplus = next(n for n in value if n not in error.schema.get("properties", {}))
        return f"{path}.{surplus}: not expected; leave it out"
    expected = {
        "type": lambda: " or ".join(_types(error.schema)),
        "enum": lambda: "one of " + ", ".join(map(json.dumps, asked)),
        "minimum": lambda: f"at least {asked}",
        "maximum": lambda: f"at most {asked}",
    }[error.validator]()
    return f"{path}: expected {expected}, got {json.dumps(value):.80}"


async def _repaired(
    model: ChatModel, request: Request, schema: Schema, first: Answer, error: ValueError
) -> Parsed:
    """Show the model its answer and the error, and ask again."""
    wanted = (
        f"That answer cannot be used: {error}. Answer again with JSON alone, without "
        f"any other text, of this JSON schema:\n{request.schema}"
    )
    turns = (Message("assistant", first.text), Message("user", wanted))
    repair = dataclasses.replace(request, messages=request.messages + turns)
    try:
        second = await model.answer(repair)
    except (
        ChatError,
        ValueError,
    ) as failure:  # the longer prompt may exceed the context
        reason = f"{error}; and the repair failed: {failure}"
        return Parsed(None, (first,), repaired=False, error=reason)
    except OSError as failure:
        # Not the model's fault: counted as one, it would change what is measured.
        raise AskError("the repair failed", [failure], [first, failure]) from failure
    try:
        value = parse_json(second.text, schema)
    except ValueError as still:
        return Parsed(None, (first, second), repaired=False, error=str(still))
    return Parsed(value, (first, second), repaired=True, error=None)
