"""Sentences that stand in a text word for word, and what else stands there."""

import unicodedata
from collections.abc import Sequence

__all__ = ["stands_in", "uncovered"]


def stands_in(sentence: str, text: str) -> bool:
    """Whether a text holds a sentence word for word, and not as a part of a word.

    Args:
      sentence: the sentence.
      text: the text.

    Returns:
      Whether it does.

    >>> stands_in("iron", "It is iron."), stands_in("iron", "The environment.")
    (True, False)
    """
    start = text.find(sentence)
    while start >= 0:
        if _whole(sentence, text, start):
            return True
        start = text.find(sentence, start + 1)
    return False


def uncovered(text: str, pieces: Sequence[str]) -> list[str]:
    """What remains of a text that is laid out with pieces as well as it can be.

    Pieces may not overlap, and begin and end at the borders of words. Of all layouts
    the one counts that leaves the fewest characters beside white space.

    Args:
      text: the text.
      pieces: texts that may be used any number of times, none empty.

    Returns:
      The runs of characters that no piece covers, in order.

    >>> uncovered("He coughs. He smokes. Why?", ["He coughs.", "Why?"])
    ['He smokes.']
    """
    beginning = _beginnings(text, pieces)
    # From the end: the fewest uncovered characters after each place, and the step that
    # reaches them. A greedy search would fail where one sentence holds another.
    fewest = [0] * (len(text) + 1)
    steps = [(1, False)] * len(text)
    for start in reversed(range(len(text))):
        fewest[start] = fewest[start + 1] + (not text[start].isspace())
        for length in beginning.get(start, ()):
            if fewest[start + length] < fewest[start]:
                fewest[start], steps[start] = fewest[start + length], (length, True)
    runs, place, joined = [], 0, False
    while place < len(text):
        length, covered = steps[place]
        if covered:
            joined = False
        elif joined:
            runs[-1] += text[place]
        elif not text[place].isspace():
            runs.append(text[place])
            joined = True
        place += length
    return [run.strip() for run in runs]


def _beginnings(text: str, pieces: Sequence[str]) -> dict[int, list[int]]:
    """Lengths of the pieces that begin at each place.

    Each is searched in the whole text: to try every piece at every place took minutes
    for a thousand questions.
    """
    found: dict[int, list[int]] = {}
    for piece in dict.fromkeys(pieces):
        start = text.find(piece)
        while start >= 0:
            if _whole(piece, text, start):
                found.setdefault(start, []).append(len(piece))
            start = text.find(piece, start + 1)
    return found


def _whole(piece: str, text: str, start: int) -> bool:
    """Whether the piece at this place of the text begins and ends no word halfway."""
    end = start + len(piece)
    return not (
        (start > 0 and _same_word(text[start - 1], piece[0]))
        or (end < len(text) and _same_word(piece[-1], text[end]))
    )


def _same_word(left: str, right: str) -> bool:
    # Chinese and Japanese set no spaces between words.
    return all(
        each.isalnum() and unicodedata.east_asian_width(each) not in "WF"
        for each in (left, right)
    )
