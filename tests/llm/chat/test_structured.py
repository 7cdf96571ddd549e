"""Test JSON of a schema: found in answers, checked, and repaired once."""

import contextlib
import json
import re
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jeff_llm.chat import (
    Answer,
    AskError,
    ChatError,
    CostLimitError,
    Request,
    conversation,
    run,
)
from jeff_llm.chat.structured import (
    Parsed,
    ask_json,
    check_schema,
    parse_json,
)

LABEL = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "enum": ["spam", "ham"]},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
    },
    "required": ["label"],
    "additionalProperties": False,
}
HAM = {"label": "ham"}


@pytest.mark.parametrize(
    "text",
    [
        '{"label": "ham"}',
        ' \n{"label":\t"ham"}\n',
        'Sure! {"label": "ham"} I hope this helps.',
        '```json\n{"label": "ham"}\n```',
        'Here it is:\n```\n{"label": "ham"}\n```\nDone.',
        '```json\n{"label": "ham"}',
        'The set {a, b} and [0, 1) and {x: "y"}: {"label": "ham"}',
        'See [1] and [2, 3]. {"label": "ham"}',
        '{"thought": "it is no spam"} so {"label": "ham"}',
        '{"label": "ham"} or else {"label": "spam"}',
        'First {"label": "spam"}\n```json\n{"label": "ham"}\n```',
        '{"label": "maybe"} no, {"label": "ham"}',
        '{"label": "spam" "ham"} {"label": "ham"}',
        "[" * 200 + ' then {"label": "ham"}',
    ],
)
def test_json_is_found(text):
    assert parse_json(text, LABEL) == HAM


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("[1, 2]", {"type": "array", "items": {"type": "integer"}}, [1, 2]),
        ("ids: [1, 2].", {"type": "array"}, [1, 2]),
        ("```\n7\n```", {"type": "integer"}, 7),
        ("7.0", {"type": "integer"}, 7.0),
        ("null", {"type": ["string", "null"]}, None),
        ('"a"', {"type": ["string", "null"]}, "a"),
        ('{"a": "}{]["}', {}, {"a": "}{]["}),
        ('x {"a": {"b": [{"c": 1}]}} y', {"type": "object"}, {"a": {"b": [{"c": 1}]}}),
        ('{"a": "line\nline"}', {}, {"a": "line\nline"}),
        ('{"a": 1}', {"additionalProperties": {"type": "integer"}}, {"a": 1}),
        ('{"a": 1}', {"additionalProperties": True, "title": "t"}, {"a": 1}),
        ('{"a": 1, "a": 2}', {"description": "the last counts"}, {"a": 2}),
        ("1", {"enum": [1, "x", None]}, 1),
        ("0", {"minimum": 0, "maximum": 0}, 0),
        ("true", {"minimum": 5}, True),
        ('"é😀"', {"type": "string"}, "é😀"),
    ],
)
def test_values_of_a_schema(text, schema, value):
    found = parse_json(text, schema)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "schema", "said"),
    [
        (
            "I do not know.",
            LABEL,
            "text: expected JSON, found none in 'I do not know.'",
        ),
        ("", LABEL, "text: expected JSON, found none in ''"),
        ('{"label": "ham"', LABEL, "text: expected JSON, found none in "),
        ('{"a": {"label": "ham"}, oops}', LABEL, "text: expected JSON, found none in "),
        ('{"a": [{"label": "ham"}, {"la', LABEL, "text: expected JSON, found none in "),
        ("NaN", {}, "text: expected JSON, found none in 'NaN'"),
        ("1e999", {"type": "number"}, "$: expected number, got Infinity"),
        ("[" * 100_000, {}, "text: expected JSON, found none in '[[["),
        ('{"a": ' * 30_000, {}, "text: expected JSON, found none in "),
        ('["ham"]', LABEL, '$: expected object, got ["ham"]'),
        ("{}", LABEL, "$.label: expected, but missing"),
        ('{"label": "x"}', LABEL, '$.label: expected one of "spam", "ham", got "x"'),
        ('{"label": 3}', LABEL, "$.label: expected string, got 3"),
        (
            '{"label": "ham", "score": 1.5}',
            LABEL,
            "$.score: expected at most 1, got 1.5",
        ),
        (
            '{"label": "ham", "score": -1}',
            LABEL,
            "$.score: expected at least 0, got -1",
        ),
        ('{"label": "ham", "x": 1}', LABEL, "$.x: not expected; leave it out"),
        ('{"label": 3} {"x": 1}', LABEL, "$.label: expected string, got 3"),
        (
            '{"a": [[1], [2, "3"]]}',
            {"properties": {"a": {"items": {"items": {"type": ["integer", "null"]}}}}},
            '$.a[1][1]: expected integer or null, got "3"',
        ),
        (
            '{"b": "1"}',
            {"additionalProperties": {"type": "number"}},
            '$.b: expected number, got "1"',
        ),
        ("true", {"type": "integer"}, "$: expected integer, got true"),
        ("1", {"type": "boolean"}, "$: expected boolean, got 1"),
        ("true", {"enum": [1]}, "$: expected one of 1, got true"),
        ("7.5", {"type": "integer"}, "$: expected integer, got 7.5"),
        ("[true]", {"enum": [[1]]}, "$: expected one of [1], got [true]"),
        ("-1e999", {"minimum": 0, "type": "number"}, "$: expected number, got -Inf"),
        (
            '{"a": {"b": 1}}',
            MappingProxyType({"additionalProperties": MappingProxyType(LABEL)}),
            "$.a.label: expected, but missing",
        ),
    ],
)
def test_what_is_said_of_other_values(text, schema, said):
    with pytest.raises(ValueError, match=f"^{re.escape(said)}") as caught:
        parse_json(text, schema)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"pattern": "a+"}, "schema.pattern: expected one of the keywords"),
        (
            {"properties": {"a": {"items": {"oneOf": []}}}},
            "schema.properties.a.items.oneOf: expected one of the keywords",
        ),
        (
            {"additionalProperties": {"format": "date"}},
            "schema.additionalProperties.format: expected one of the keywords",
        ),
        ({"type": "float"}, "schema.type: expected one of object, array, "),
        ({"type": ["string", "any"]}, "schema.type: .* got 'any'"),
        ({"required": "label"}, "schema.required: not a value for it: 'label'"),
        ({"minimum": "0"}, "schema.minimum: not a value for it: '0'"),
        ({"properties": {"a": True}}, "schema.properties.a: expected a JSON object"),
    ],
)
def test_a_schema_that_is_not_understood(schema, said):
    """It is an error up front, also where the answer would do."""
    for check in (check_schema, lambda schema: parse_json("{}", schema)):
        with pytest.raises(ValueError, match=f"^{said}"):
            check(schema)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)
PROSE = st.text(st.characters(exclude_characters="{[]}`"))


@settings(deadline=None)
@given(PROSE, st.dictionaries(st.text(), JSON, max_size=4), PROSE)
def test_any_object_is_found_in_any_prose(before, value, after):
    text = f"{before}\n{json.dumps(value)}\n{after}"
    assert parse_json(text, {"type": "object"}) == value


@settings(deadline=None)
@given(JSON)
def test_any_value_is_found(value):
    assert parse_json(json.dumps(value), {}) == value


@settings(deadline=None)
@given(st.text('{[]}",:1a-e.` \n\\'))
def test_any_text_is_parsed_or_a_value_error(text):
    with contextlib.suppress(ValueError):
        parse_json(text, {})


class Scripted:
    """Says one text after the other; an error is raised."""

    name = "scripted"

    def __init__(self, *says: str | Exception):
        self.says = list(says)
        self.asked: list[Request] = []

    async def answer(self, request: Request) -> Answer:
        self.asked.append(request)
        text = self.says[len(self.asked) - 1]
        if isinstance(text, Exception):
            raise text
        return Answer(text, "stop", 5, 3, model="scripted")


QUESTION = Request(conversation("Spam?", system="Say JSON."), max_tokens=9, seed=1)


def test_a_good_answer_is_not_repaired():
    model = Scripted('{"label": "ham"}')
    parsed = run(ask_json(model, QUESTION, LABEL))
    answer = Answer('{"label": "ham"}', "stop", 5, 3, model="scripted")
    assert parsed == Parsed(HAM, (answer,), repaired=False, error=None)
    assert model.asked[0].messages == QUESTION.messages, "the prompt is the caller's"
    assert json.loads(model.asked[0].schema or "") == LABEL


def test_one_repair():
    model = Scripted("It is ham.", 'Sorry: {"label": "ham"}')
    parsed = run(ask_json(model, QUESTION, LABEL))
    assert (parsed.value, parsed.repaired, parsed.error) == (HAM, True, None)
    assert [answer.text for answer in parsed.answers] == model.says
    first, second = model.asked
    assert second.messages[:2] == first.messages
    assert second.messages[2].role == "assistant"
    assert second.messages[2].content == "It is ham."
    assert second.messages[3].role == "user"
    told = second.messages[3].content
    assert "cannot be used: text: expected JSON, found none in 'It is ham.'. " in told
    assert told.endswith(f"of this JSON schema:\n{first.schema}")
    assert (second.max_tokens, second.seed) == (9, 1)


def test_a_repair_is_tried_once():
    model = Scripted('{"label": "x"}', '{"label": "y"}')
    parsed = run(ask_json(model, QUESTION, LABEL))
    assert (parsed.value, parsed.repaired, len(parsed.answers)) == (None, False, 2)
    assert parsed.error == '$.label: expected one of "spam", "ham", got "y"'
    assert 'got "x"' in model.asked[1].messages[-1].content


@pytest.mark.parametrize("error", [ChatError("m", 1, "status 500"), ValueError("long")])
def test_a_repair_that_fails_does_not_lose_the_answer(error):
    parsed = run(ask_json(Scripted("ham", error), QUESTION, LABEL))
    assert (parsed.value, parsed.repaired) == (None, False)
    assert [answer.text for answer in parsed.answers] == ["ham"]
    assert parsed.error is not None
    assert parsed.error.endswith(f"; and the repair failed: {error}")


def test_errors_that_are_no_answers_come_through():
    with pytest.raises(ChatError):
        run(ask_json(Scripted(ChatError("m", 1, "x")), QUESTION, LABEL))
    with pytest.raises(LookupError):
        run(ask_json(Scripted("ham", LookupError("not recorded")), QUESTION, LABEL))
    model = Scripted("{}")
    with pytest.raises(ValueError, match=r"^schema\.pattern"):
        run(ask_json(model, QUESTION, {"pattern": "a"}))
    assert model.asked == [], "nothing is asked with a schema that is not understood"


def test_null_is_a_value():
    parsed = run(ask_json(Scripted("null"), QUESTION, {"type": "null"}))
    assert parsed.value is None and parsed.error is None


def test_a_repair_that_may_not_be_asked_is_no_failure_of_the_model():
    """At a limit on the cost the first answer is handed over beside the error."""

    limit = CostLimitError("max_cost: expected to spend at most 1")
    with pytest.raises(AskError, match="the repair failed") as caught:
        run(ask_json(Scripted("no JSON", limit), QUESTION, {}))
    assert caught.value.results[0].text == "no JSON"
    assert caught.value.first is limit
