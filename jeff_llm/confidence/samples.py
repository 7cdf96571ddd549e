"""From texts to arrays: similarity, clusters, and verbalised confidences.

`jeff_llm.confidence.uncertainty` turns the arrays into confidences.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

__all__ = [
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
      texts: the texts; words are separated by white space and compared in lower case.

    Returns:
      Symmetric, ones on the diagonal. Two texts without words share none.

    >>> jaccard(["New York", "york"])[0, 1]
    np.float64(0.5)
    """
    words = [set(text.lower().split()) for text in texts]
    matrix = np.eye(len(words))
    for row, one in enumerate(words):
        for column, other in enumerate(words[:row]):
            union = len(one | other)
            shared = len(one & other) / union if union else 0.0
            matrix[row, column] = matrix[column, row] = shared
    return matrix


def normalise(text: str) -> str:
    """A text in the form for comparison: lower case, no punctuation, single spaces.

    Args:
      text: the text.

    Returns:
      The text.

    >>> normalise(" The  Netherlands. ")
    'the netherlands'
    """
    return " ".join(re.sub(r"[^\w\s]", " ", text.casefold()).split())


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
