"""Test synthetic texts: keywords, copies, and a recorded run of a large model."""

import numpy as np
import pytest

from jeff_llm.anomaly.augment import (
    describe_categories,
    find_copies,
    keyword_request,
    parse_triples,
    synthesise,
    text_request,
)
from jeff_llm.anomaly.categories import Categories
from jeff_llm.chat import Answer, Cassette
from train_scripts.anomaly.augmenting import recorded


class Writer:
    """Gives keywords once a category, and numbered texts."""

    name = "writer"

    def __init__(self, keywords, text="text {}"):
        self.keywords, self.text, self.seen = keywords, text, []

    async def answer(self, request):
        self.seen.append(request)
        prompt = request.messages[-1].content
        asked = "different topics" in prompt
        words = self.keywords if asked else self.text.format(request.seed)
        return Answer(words, "stop", 1, 1)


@pytest.mark.parametrize(
    "line",
    [
        "food; pizza; extra cheese",
        "1. food; pizza; extra cheese",
        "12) food | pizza | extra cheese",
        "(3) food, pizza, extra cheese",
        "- food > pizza > extra cheese",
        "* **food**; `pizza`; _extra cheese_",
        "\u2022 food \u2013 pizza \u2013 extra cheese",
        "\u2014 food \u2014 pizza \u2014 extra cheese.",
        "\u2013 1. food - pizza - extra cheese",
        "food \u2192 pizza \u2192 extra cheese",
        "food\uff1bpizza\uff1bextra cheese",
        '  "food"; "pizza"; "extra cheese";',
    ],
)
def test_a_line_of_keywords(line):
    assert parse_triples(line) == [("food", "pizza", "extra cheese")]


def test_lines_of_keywords():
    """Semicolons come first; more than three words stay together; each once."""
    text = (
        "Here are some topics, as you asked:\n1. food, drink; pizza; size 3.5\n"
        "2. well-known; a - b; c\n3. a; b; c; d\n3. a; b; c; d\n4. a; b\n"
        "5. ;;;\n\n- -\n"
        "3.5 mm; plug; audio\n"
    )
    assert parse_triples(text)[-4:] == [
        ("food, drink", "pizza", "size 3.5"),
        ("well-known", "a - b", "c"),
        ("a", "b", "c; d"),
        ("3.5 mm", "plug", "audio"),
    ]
    for nonsense in ("", "\n\n", "I cannot help.", "{}", "\x00", ";" * 10_000):
        assert parse_triples(nonsense) == []


def test_requests():
    asked = keyword_request("a spam message", 5, ['say "hi"\n'], seed=3)
    words = asked.messages[-1].content
    assert "List 5 different topics that a spam message" in words
    assert r'"say \"hi\"\n"' in words and asked.seed == 3
    words = text_request("a message", ("a", "b", "c"), seed=1).messages[-1].content
    assert words.startswith("Write a message about: a, b, c.")


def test_synthesise():
    """Triples are used in turn, with other seeds; too few are told."""
    model = Writer("a; b; c\nd; e; f", '"text {}"')
    kinds = {"ham": "a message", "note": "a note"}
    found = synthesise(model, kinds, 3)
    assert found.texts == ("text 0", "text 1", "text 2") * 2
    assert found.categories == ("ham",) * 3 + ("note",) * 3
    assert found.triples[:3] == (("a", "b", "c"), ("d", "e", "f"), ("a", "b", "c"))
    assert found.short == {"ham": 2, "note": 2} and found.empty == 0


def test_a_model_that_says_nothing():
    """Without keywords the category is the keyword; empty texts are counted."""
    found = synthesise(Writer("no", " \n"), {"ham": "a message"}, 4)
    assert found.short == {"ham": 0} and found.empty == 4 and found.texts == ()
    model = Writer("no")
    found = synthesise(model, {"ham": "a message"}, 2)
    assert found.triples == (("ham", "a message", "everyday"),) * 2
    assert len({request.seed for request in model.seen[1:]}) == 2
    for kinds, count in (({}, 1), ({"ham": "a"}, 0)):
        with pytest.raises(
            ValueError, match="categories, count: expected at least one"
        ):
            synthesise(model, kinds, count)


def test_descriptions():
    kinds = Categories({"ham": "a message"}, {"spam": "an advertisement"})
    found = describe_categories(Writer("", "It sells things."), kinds)
    assert found.normal == {"ham": "a message: It sells things."}
    assert found.anomalous == {"spam": "an advertisement: It sells things."}
    assert describe_categories(Writer("", "  "), kinds) == kinds


def test_copies():
    """Exact but for case and spaces; repeated; near by their cosine."""
    real = ["See you at 5", "Call me"]
    texts = ["see  YOU at 5", "new", "NEW", "call me now", "other", "other too"]
    half = 2**-0.5
    vectors = np.array(
        [[1, 0, 0], [0, 0, 1], [0, 0, 1], [0, 1, 0], [half, half, 0], [half, half, 0]],
        np.float32,
    )
    found = find_copies(texts, real, vectors, np.eye(3, dtype=np.float32)[:2])
    assert found.exact.tolist() == [True] + [False] * 5
    assert found.repeated.tolist() == [False, False, True, False, False, False]
    assert found.near.tolist() == [False, False, False, True, False, True]
    assert found.kept.tolist() == [False, True, False, False, True, False]
    np.testing.assert_allclose(found.cosine, [1, 0, 0, 1, half, half], atol=1e-6)
    none = find_copies([], real, vectors[:0], vectors[:2])
    assert none.kept.shape == (0,)
    assert find_copies(["a"], [], vectors[:1], vectors[:0]).kept.tolist() == [True]
    with pytest.raises(ValueError, match="embeddings: expected 6 and 2 rows, got 5"):
        find_copies(texts, real, vectors[:5], vectors[:2])


def test_the_recorded_answers_of_a_large_model():
    """Sixty texts, each another; the cassette holds every request."""
    kinds = {"ham": "a ham text message"}
    found = synthesise(Cassette(recorded("sms_spam")), kinds, 60)
    assert len(found.texts) == len(set(found.texts)) == 60
    assert found.short == {} and found.empty == 0 and len(set(found.triples)) == 60
    with pytest.raises(ExceptionGroup):
        synthesise(Cassette(recorded("sms_spam")), kinds, 61)
