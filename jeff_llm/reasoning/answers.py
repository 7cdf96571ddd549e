r"""When two final answers are the same answer.

Votes compare answers, so what counts as equal decides them. The rule, in this order:

1. A number is compared as a number: ``18``, ``18.0`` and ``$18``, or ``1/2``, ``0.5``
   and ``\frac{1}{2}``. A dollar sign, thousands separators and a full stop at the end
   do not count. A percentage equals only a percentage.
2. A text with a mathematical sign, one of ``+ - * / ^ = < > \ [ ] { } | %`` or any
   that Unicode classes as one, is compared in lower case without spaces: dropping signs
   would make ``x-2`` and ``x+2`` equal. Spaces between digits stay, so that ``2 1/2``
   is not ``21/2``.
3. Any other text is compared by `jeff_llm.confidence.samples.normalise`: lower case, no
   marks of writing, single spaces. So ``(B)`` is ``b``.

``\boxed{...}`` and ``\text{...}`` around the whole are taken off first, and hyphens and
en dashes of Unicode are minus signs; composed and decomposed characters are one. A unit
is part of the text: ``18 dollars`` is not ``18``. A word for no answer, such as
``[invalid]``, is an answer like any other.
"""

import re
import unicodedata
from fractions import Fraction

from jeff_llm.confidence.samples import DASHES, normalise

__all__ = ["answer_key"]

_NUMBER = re.compile(
    r"(?P<sign>[-+]?)(?P<top>\d+(?:\.\d*)?|\.\d+)"
    r"(?:/(?P<bottom>\d+))?(?P<percent>%?)"
)
_FRACTION = re.compile(r"([-+]?)\s*\\\s*[dt]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}")
# One level of braces inside, as those of a fraction.
_WRAPPED = re.compile(
    r"\\\s*(?:boxed|text)\s*\{((?:[^{}]|\{[^{}]*\})*)\}", re.IGNORECASE
)
_THOUSANDS = re.compile(r"(?<!\d)\d{1,3}(?:,\d{3})+(?!\d)")
_SIGNS = set("+-*/^=<>\\[]{}|%")
_MINUS = str.maketrans(dict.fromkeys(DASHES, "-"))
# Longer digits are identifiers; Python refuses to read the longest ones.
_MOST_DIGITS = 300


def answer_key(answer: str | float | int) -> str:
    """A text that is the same for equal answers, by the rule of this module.

    Args:
      answer: a final answer, text or number.

    Returns:
      The key; empty for a text without any letter, digit or sign.

    >>> answer_key("$18"), answer_key("18.0"), answer_key(18), answer_key("(B)")
    ('18', '18', '18', 'b')
    """
    text = unicodedata.normalize("NFC", str(answer)).translate(_MINUS).strip()
    while wrapped := _WRAPPED.fullmatch(text):
        text = wrapped[1].strip()
    number = _number(text)
    if number is not None:
        return number
    key = _spaceless(text) if any(map(_is_sign, text)) else normalise(text)
    # A number may only show once the punctuation is gone, as in "05,".
    return _number(key) or key


def _is_sign(character: str) -> bool:
    return character in _SIGNS or unicodedata.category(character) == "Sm"


def _spaceless(text: str) -> str:
    single = " ".join(text.casefold().split())
    # Without its space a mark may join the character before it.
    return unicodedata.normalize("NFC", re.sub(r"(?<!\d) | (?!\d)", "", single))


def _number(text: str) -> str | None:
    """A number in lowest terms, or None."""
    plain = text.replace("\\$", "").replace("$", "").replace("\\%", "%").strip()
    plain = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), plain)
    plain = plain.removesuffix(".")
    if fraction := _FRACTION.fullmatch(plain):
        plain = "{}{}/{}".format(*fraction.groups())
    found = _NUMBER.fullmatch(plain)
    if found is None:
        # What a JSON number with an exponent looks like; its size is bounded.
        if re.fullmatch(r"-?\d(?:\.\d+)?e[-+]?\d{1,3}", plain):
            return str(Fraction(plain))
        return None
    if len(plain) > _MOST_DIGITS or not int(found["bottom"] or 1):
        return None
    value = Fraction(found["sign"] + found["top"]) / int(found["bottom"] or 1)
    return f"{value}{found['percent']}"
