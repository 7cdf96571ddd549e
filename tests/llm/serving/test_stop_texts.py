"""Test that text is handed over as early as possible, and never a stop text."""

import hypothesis.strategies as st
from hypothesis import given

from jeff_llm.chat.messages import before_stop
from jeff_llm.serving.text import AnswerText, StopCutter


def cut(pieces, stop):
    cutter = StopCutter(stop)
    given = [cutter.push(piece) for piece in pieces]
    return [*given, cutter.finish()], cutter.found


def test_a_stop_text_over_three_pieces_never_leaves():
    assert cut(["one E", "N", "D two"], ("END",)) == (["one ", "", "", ""], True)


def test_a_beginning_that_comes_to_nothing_is_handed_over():
    assert cut(["one E", "N", "d two"], ("END",)) == (
        ["one ", "", "ENd two", ""],
        False,
    )
    assert cut(["one EN"], ("END",)) == (["one ", "EN"], False)


def test_the_first_of_several_counts():
    assert cut(["abcdef"], ("ef", "cd")) == (["ab", ""], True)


@given(
    st.lists(st.text("ab", max_size=4), max_size=8),
    st.lists(st.text("ab", min_size=1, max_size=3), max_size=3),
)
def test_pieces_make_the_text_before_the_stop(pieces, stop):
    given, found = cut(pieces, tuple(stop))
    whole = "".join(pieces)
    assert "".join(given) == before_stop(whole, tuple(stop))
    assert found == (before_stop(whole, tuple(stop)) != whole)


def test_tokens_come_with_their_text(talking):
    """And those of the stop text do not come at all."""
    encode = talking.tokenizer.encode
    text = AnswerText(talking.tokenizer, ("cd",))
    shown, tokens = [], []
    for number in encode("abcd"):
        shown.append(text.push(number, -1.0, ()))
        tokens.append(text.take(last=text.stopped))
    assert shown == ["a", "b", "", ""] and text.stopped
    assert [[t.number for t in each] for each in tokens] == [
        encode("a"),
        encode("b"),
        [],
        [],
    ]
    assert [t.offset for each in tokens for t in each] == [0, 1]
