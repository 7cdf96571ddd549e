"""JSON of a given schema out of a model's answer.

A small model puts its JSON in a code block, talks around it, or breaks it. `parse_json`
finds it and checks it against a schema; `ask_json` gives the model one chance to repair
what cannot be used. How often neither helps is a result of its own:
`parse_failure_rate`.

The package `jsonschema` checks values, by draft 2020-12. Written here:

* which keywords a schema may have: ``type``, ``enum``, ``properties``, ``required``,
  ``additionalProperties``, ``items``, ``minimum``, ``maximum``, ``title`` and
  ``description``, which endpoints that hold a model to a schema know too. Any other is
  an error before anything is asked, for `jsonschema` passes over a misspelt keyword;
* the words of an error, as they go back to the model;
* infinity, which ``1e999`` is read as, is no number: JSON has no such value.
"""

import contextlib
import dataclasses
import functools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jeff.extras import require
from jeff_llm.chat.messages import Answer, ChatError, ChatModel, Message, Request

__all__ = ["Parsed", "ask_json", "check_schema", "parse_failure_rate", "parse_json"]

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
    """What `ask_json` came to.

    Attributes:
      value: the JSON value, or None where no answer held one.
      answers: the answer, and the second one where a repair was asked for.
      repaired: whether the value is from the second answer.
      error: why the last answer could not be used; None if it could.
    """

    value: Any
    answers: tuple[Answer, ...]
    repaired: bool
    error: str | None


async def ask_json(model: ChatModel, request: Request, schema: Schema) -> Parsed:
    """Ask for JSON of a schema, once more if the first answer cannot be used.

    The prompt is sent as it is, so it must say what is wanted; the schema goes along in
    ``request.schema``, for an endpoint that can hold its answer to it. The second
    question repeats the answer, what is wrong with it, and the schema.

    Args:
      model: whom to ask.
      request: what is asked.
      schema: what the JSON must be.

    Returns:
      The value and how it was come by. An answer that cannot be used, also after the
      repair, or a repair that fails as a request, is no exception: ``error`` says why.

    Raises:
      ChatError: if the first question brings no answer.
      ValueError: if the schema is not understood.
    """
    check_schema(schema)
    request = dataclasses.replace(request, schema=json.dumps(schema))
    first = await model.answer(request)
    try:
        value = parse_json(first.text, schema)
    except ValueError as error:
        return await _repaired(model, request, schema, first, error)
    return Parsed(value, (first,), repaired=False, error=None)


def parse_failure_rate(parsed: Iterable[Parsed]) -> float:
    """Share of requests that brought no usable JSON, after the repair.

    Args:
      parsed: what `ask_json` returned for each request.

    Returns:
      A share in [0, 1].

    Raises:
      ValueError: if there are no requests.
    """
    failed = [each.error is not None for each in parsed]
    if not failed:
        raise ValueError("parsed: expected at least one result, got none")
    return sum(failed) / len(failed)


def parse_json(text: str, schema: Schema) -> Any:
    """Find JSON of a schema in a text.

    Looked at in this order, and the first value of the schema counts: the whole text;
    each fenced code block; each outermost object or array, from left to right.

    Args:
      text: the answer of a model.
      schema: what the JSON must be.

    Returns:
      The value, as `json.loads` gives it.

    Raises:
      ValueError: if the schema is not understood, there is no JSON in the text, or none
        of the schema; then the error is that of the first value, with its path.

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
    """Check that a schema is in the subset that is understood.

    Args:
      schema: a JSON schema.

    Raises:
      ValueError: naming the path of the first keyword that is not understood, or whose
        value is of a wrong kind.
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
            # What was read up to the mistake is a part of something broken, or prose.
            start = max(getattr(error, "pos", 0), found.end())
        except RecursionError:
            return
        else:
            yield value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


# Models leave line breaks in strings as they are, which `strict` would refuse.
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
    """What breaks the schema, with its path: a sentence that a model can follow."""
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
    """Show the model its answer and what is wrong with it, and ask again."""
    wanted = (
        f"That answer cannot be used: {error}. Answer again with JSON alone, without "
        f"any other text, of this JSON schema:\n{request.schema}"
    )
    turns = (Message("assistant", first.text), Message("user", wanted))
    repair = dataclasses.replace(request, messages=request.messages + turns)
    try:
        second = await model.answer(repair)
    except (ChatError, ValueError) as failure:  # the prompt may have become too long
        reason = f"{error}; and the repair failed: {failure}"
        return Parsed(None, (first,), repaired=False, error=reason)
    try:
        value = parse_json(second.text, schema)
    except ValueError as still:
        return Parsed(None, (first, second), repaired=False, error=str(still))
    return Parsed(value, (first, second), repaired=True, error=None)
