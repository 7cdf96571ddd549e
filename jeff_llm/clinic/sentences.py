"""Sentences of a clinical vignette.

The package `sentencex` finds the ends of sentences in many languages. This module adds
what vignettes need: markup is taken out, a table of laboratory values stays with the
line that announces it, and a question after a table stands alone.
"""

import html
import re

from jeff.extras import require

__all__ = ["plain_text", "split_sentences"]

# Tags alone: "<" also stands before a number, as in "pH < 7.35".
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
# What a browser does not show.
_HIDDEN = re.compile(r"<!--.*?-->|<(script|style)\b.*?</\1\s*>", re.I | re.S)
_BLOCK = re.compile(r"</?(?:p|br|div|li|ul|ol|tr|table|h[1-6])\b[^<>]*>", re.IGNORECASE)
_SPACE = re.compile(r"[^\S\n]+")
# Full stops of Chinese, Hindi and Arabic beside those of European languages.
_ENDS = tuple(".?!\u3002\uff01\uff1f\u0964\u061f\u2026:")
_QUOTES = "\"'\u201d\u2019\u00bb)]"
# A line of a table is short or holds a value; a sentence has a verb and ends with a
# mark. "Protein: negative." is a row, "He is afebrile." none.
_TABLE_WORDS = 6
_VALUE = re.compile(r"\d|:")
# `sentencex` takes units, and "ill" for Illinois, for abbreviations, and joins what
# follows.
_AFTER_UNIT = re.compile(
    r"(?:(?<=/min\.)|(?<=/h\.)|(?<=/L\.)|(?<=\bmm\.)|(?<=\bill\.))\s+(?=[A-Z])"
)
# "1. He coughs." is one sentence; `sentencex` cuts it behind the number.
_NUMBER = re.compile(r"\(?\d{1,2}[.)]")


def plain_text(text: str) -> str:
    r"""Take out markup and collapse spaces.

    Args:
      text: plain, or with HTML tags and entities.

    Returns:
      The text; ends of blocks become ends of lines, and empty lines are dropped.

    >>> plain_text("<p>A <b>dry</b> cough.</p>pH &lt; 7.35")
    'A dry cough.\npH < 7.35'
    """
    text = _TAG.sub("", _BLOCK.sub("\n", _HIDDEN.sub(" ", text)))
    lines = (_SPACE.sub(" ", line).strip() for line in html.unescape(text).split("\n"))
    return "\n".join(line for line in lines if line)


def split_sentences(text: str, *, language: str = "en") -> list[str]:
    r"""Split a vignette into sentences.

    Args:
      text: the vignette, with or without markup.
      language: ISO 639-1 code, for the abbreviations of the language. Full stops of
        other scripts end a sentence in every language.

    Returns:
      The sentences in order, none empty. A table is part of the sentence before it,
      its lines joined by semicolons.

    Raises:
      ImportError: if the package `sentencex` is missing.

    >>> split_sentences("A man has a cough. Studies show:\nNa+ 138\nK+ 4.2\nWhy?")
    ['A man has a cough.', 'Studies show: Na+ 138; K+ 4.2', 'Why?']
    """
    segment = require("sentencex", extra="llm").segment
    found: list[str] = []
    open_table = False
    for line in plain_text(text).split("\n"):
        if open_table and _is_row(line):
            joint = " " if found[-1].endswith(":") else "; "
            found[-1] += joint + line
            continue
        for part in segment(language, line):
            found += [each.strip() for each in _AFTER_UNIT.split(part)]
        found = _mend(found)
        open_table = bool(found) and found[-1].endswith(":")
    return found


def _is_row(line: str) -> bool:
    end = line.rstrip(_QUOTES)
    if end.endswith("?"):
        return False
    words = len(line.split())
    if end.endswith(_ENDS[:-1]) and words > 2 and not _VALUE.search(line):
        return False
    return words <= _TABLE_WORDS or not end.endswith(_ENDS)


def _mend(sentences: list[str]) -> list[str]:
    """Drop what is empty; join quotes to the sentence before, numbers to the next."""
    found: list[str] = []
    for each in sentences:
        if found and not each.strip(_QUOTES + " "):
            found[-1] += each.strip()
        elif found and each and _NUMBER.fullmatch(found[-1]):
            found[-1] += f" {each}"
        elif each:
            found.append(each)
    return found
