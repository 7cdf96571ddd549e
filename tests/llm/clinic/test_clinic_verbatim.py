"""Test what stands in a text word for word, and what remains of it."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from jeff_llm.clinic import verbatim
from jeff_llm.clinic.verbatim import stands_in, uncovered


def test_a_part_of_a_word_does_not_stand():
    assert stands_in("iron", "iron.") and stands_in("iron", "(iron)")
    assert not stands_in("iron", "The environment.")
    assert stands_in("a b", "aa b, a b.")
    assert not stands_in("a b", "aa b, a bc")


def test_chinese_has_no_borders_of_words():
    assert stands_in("\u767c\u71d2", "\u4ed6\u767c\u71d2\u4e86\u3002")


def test_the_best_layout_by_hand():
    """A greedy layout with the longest piece, or the first, leaves more."""
    assert uncovered("a b c d", ["a b", "b c d", "a"]) == []
    assert uncovered("a b c d", ["b c", "a b", "c d"]) == []
    assert uncovered("a b x c d y", ["a b", "c d"]) == ["x", "y"]
    assert uncovered("ab", ["a", "b"]) == ["ab"]
    assert uncovered(" \n", []) == uncovered("", ["a"]) == []


def test_many_pieces_in_a_long_text_are_found_in_time(monkeypatch):
    """Work grows with what is found, and not with text times pieces."""
    tried = []
    whole = verbatim._whole

    def counted(piece, text, start):
        tried.append(piece)
        return whole(piece, text, start)

    monkeypatch.setattr(verbatim, "_whole", counted)

    class Text(str):
        def startswith(self, *_):
            raise AssertionError("each place is tried with each piece")

    pieces = [f"Sentence {number}." for number in range(50)]
    text = Text(" ".join(pieces) + " More.")
    assert uncovered(text, pieces) == ["More."] and len(tried) == 50


@given(
    st.lists(st.sampled_from(["a", "b", "a b", "b c", "c"]), max_size=4, unique=True),
    st.lists(st.sampled_from("abcx"), max_size=6),
)
def test_it_leaves_the_fewest(pieces, letters):
    """As few as the best of all choices of words to leave."""
    kept = []
    for count in range(len(letters) + 1):
        for left in itertools.combinations(range(len(letters)), count):
            runs, run = [], []
            for place, letter in enumerate(letters):
                if place in left:
                    runs.append(run)
                    run = []
                else:
                    run.append(letter)
            if all(tiles(run, pieces) for run in [*runs, run]):
                kept.append(count)
    found = uncovered(" ".join(letters), pieces)
    assert len("".join(found).replace(" ", "")) == min(kept)


def tiles(letters, pieces):
    """Whether a row of letters is a row of pieces, by trying all."""
    return not letters or any(
        letters[: len(piece.split())] == piece.split()
        and tiles(letters[len(piece.split()) :], pieces)
        for piece in pieces
    )
