"""Test kinds of texts, and texts at the door."""

import pytest

from jeff_llm.anomaly.categories import Categories, check_texts


def test_names_and_copies():
    """Normal kinds first; a change of what was given changes nothing."""
    given = {"ham": "a message"}
    found = Categories(given, {"spam": "an advertisement"})
    given["more"] = "else"
    assert found.names == ("ham", "spam")
    assert Categories({"ham": "a message"}).anomalous == {}


@pytest.mark.parametrize(
    ("normal", "anomalous", "error", "message"),
    [
        ({}, {}, ValueError, "normal: expected at least one category, got none"),
        ({"a": "x"}, {"a": "y"}, ValueError, "anomalous: expected other names .*'a'"),
        ({"a": " "}, {}, ValueError, "normal: expected words, got an empty text"),
        ({"a": "x"}, {"": "y"}, ValueError, "anomalous: expected words"),
        ({"a": 3}, {}, TypeError, "normal: expected texts, got 3"),
        ("a message", {}, TypeError, "normal: expected a mapping .* got 'a message'"),
    ],
)
def test_kinds_that_are_refused(unchecked, normal, anomalous, error, message):
    with pytest.raises(error, match=message):
        Categories(normal, anomalous)


def test_texts_at_the_door():
    """Any iterable; halves of surrogate pairs are replaced, all else stays."""
    texts = ["", "{}", "\u2028", "日本", "😀", "a\ud83d", "\ude00"]
    found = check_texts(iter(texts))
    assert found == [*texts[:5], "a\ufffd", "\ufffd"]
    assert "".join(found).encode("utf-8")


def test_what_is_no_texts(unchecked):
    with pytest.raises(
        TypeError, match="texts: expected a sequence of texts, got 'one"
    ):
        check_texts("one text")
    with pytest.raises(TypeError, match="texts: expected a text at 1, got None"):
        check_texts(["a", None])
