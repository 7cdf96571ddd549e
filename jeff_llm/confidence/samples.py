"""From texts to arrays: similarity, clusters, and verbalised confidences.

`jeff_llm.confidence.uncertainty` turns the arrays into confidences.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

__all__ = [
    "DASHES",
    "Verbalized",
    "cluster_texts",
    "jaccard",
    "normalise",
    "parse_confidence",
    "verbalized",
]

_NUMBER = re.compile(
    r"(?P<sign>-)?(?P<value>\d+(?:\.\d+)?|\.\d+)\s*"
    r"(?P<unit>%|percent\b|/\s*100\b|out of 100\b|/\s*10\b|out of 10\b)?",
    re.IGNORECASE,
)

# Hyphens, the figure and the en dash, the minus sign, the small and the wide hyphen.
DASHES = "-\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d"
# Marks of writing. Any other sign, as in C++ or 10%, is part of an answer.
_WRITING = (
    ".,;:!?\u2026'\"()_\\-\u2010-\u201f\u00ab\u00bb\u2039\u203a\u00a1\u00bf"
    "\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f\u0964\u0965\u060c\u061b\u061f"
)
# In -5, .5, 1,5, 10:30, 5! and -x marks say which number it is.
_SIGN = r"""(?<![^\s("'$*`])"""
_BETWEEN = re.compile(rf"(?:(?![-.,:]{{1,2}}\d|(?<=\d)!|{_SIGN}-\w)[{_WRITING}]|\s)+")
_MINUS = re.compile(rf"[{DASHES}](?=[.,]?\d)|{_SIGN}[{DASHES}](?=\w)")
_SPACED = re.compile(r" ?([+*/^=<>|%&~]) ?")
# Few marks each time: any number of them would be tried against any other.
_EMPHASIS = re.compile(r"(\*{1,3}|`{1,3}|\${1,2})(.+)\1", re.DOTALL)


class Verbalized(NamedTuple):
    """Verbalised confidences.

    Attributes:
      confidence: in [0, 1]; where nothing could be read, ``missing`` of `verbalized`.
      parsed: whether a number could be read.
      parse_rate: share of the texts in which one could.
    """

    confidence: Float[np.ndarray, " texts"]
    parsed: Bool[np.ndarray, " texts"]
    parse_rate: float


def verbalized(texts: Sequence[str], *, missing: float | int = 0.0) -> Verbalized:
    """Read the confidences that a model verbalised.

    Args:
      texts: its answers, one per question.
      missing: confidence where no number can be read; 0 sends the question on.

    Returns:
      The confidences and the parse rate, NaN of no texts.

    Raises:
      ValueError: if ``missing`` is outside [0, 1].

    References:
      Tian et al., "Just Ask for Calibration", EMNLP 2023.

    >>> verbalized(["90%", "no idea"]).confidence
    array([0.9, 0. ])
    """
    if not 0 <= missing <= 1:
        raise ValueError(f"missing: expected a number in [0, 1], got {missing}")
    found = [parse_confidence(text) for text in texts]
    parsed = np.array([value is not None for value in found], bool)
    values = np.array([missing if value is None else value for value in found], float)
    rate = float(parsed.mean()) if found else float("nan")
    return Verbalized(values, parsed, rate)


def parse_confidence(text: str) -> float | None:
    """The first confidence in a text.

    Args:
      text: such as "85%", "85", "0.85", "85 out of 100", "I am 85 percent sure",
        "8/10".

    Returns:
      A number in [0, 1], or None. A bare number up to 1 is a share, a larger one a
      percentage; one that is negative or above 100 percent is not a confidence.

    >>> parse_confidence("About 85% sure"), parse_confidence("850")
    (0.85, None)
    """
    # The first number that can be a confidence: "850" or "-3" cannot.
    for match in _NUMBER.finditer(text):
        value, unit = float(match["value"]), (match["unit"] or "").lower()
        # Out of ten; every other unit is a percentage.
        if unit.endswith("10"):
            value /= 10
        elif unit or value > 1:
            value /= 100
        if not match["sign"] and value <= 1:
            return value
    return None


def jaccard(texts: Sequence[str]) -> Float[np.ndarray, "texts texts"]:
    """Similarity of texts by the words that they share, ``|A & B| / |A | B|``.

    Args:
      texts: the texts; words are separated by white space and compared without case.

    Returns:
      Symmetric, ones on the diagonal. Two texts without words share none.

    >>> jaccard(["New York", "york"])[0, 1]
    np.float64(0.5)
    """
    plain = [unicodedata.normalize("NFC", text).casefold() for text in texts]
    words = [set(unicodedata.normalize("NFC", text).split()) for text in plain]
    matrix = np.eye(len(words))
    for row, one in enumerate(words):
        for column, other in enumerate(words[:row]):
            union = len(one | other)
            shared = len(one & other) / union if union else 0.0
            matrix[row, column] = matrix[column, row] = shared
    return matrix


def normalise(text: str) -> str:
    """A text in the form for comparison of answers.

    What does not count: case, composed or decomposed characters, white space at the
    ends, between words and around a sign, Markdown's emphasis or dollars of mathematics
    around the whole, and marks of writing (full stops, commas, colons, question and
    exclamation marks, quotes, round brackets, hyphens between words). What tells
    answers apart counts: every other sign (``C++``, ``10%``, ``a<b``), vowel signs, and
    the marks of a number (``-5``, ``-x``, ``.5``, ``10:30``, ``5!``).

    Args:
      text: the text.

    Returns:
      The text in lower case, with one space in place of what does not count.

    >>> normalise(" The  Netherlands. "), normalise("(-5)"), normalise("C++.")
    ('the netherlands', '-5', 'c++')
    """
    # Without one mark another may stand alone, so that equal texts need several rounds.
    while (plain := _plain(text)) != text:
        text = plain
    return plain


def _plain(text: str) -> str:
    text = _MINUS.sub("-", unicodedata.normalize("NFC", text).casefold())
    text = _SPACED.sub(r"\1", _BETWEEN.sub(" ", text).strip())
    while found := _EMPHASIS.fullmatch(text):
        text = found[2].strip()
    # Lower case may decompose a character again, and a space may have parted two.
    return unicodedata.normalize("NFC", text)


def cluster_texts(texts: Sequence[str]) -> Int[np.ndarray, " texts"]:
    """Number texts by meaning, taken to be their normalised words.

    Args:
      texts: the texts.

    Returns:
      Numbers from 0, in order of first appearance.

    >>> cluster_texts(["Peru", "Chile", "peru."])
    array([0, 1, 0])
    """
    seen: dict[str, int] = {}
    return np.array([seen.setdefault(normalise(t), len(seen)) for t in texts], int)
