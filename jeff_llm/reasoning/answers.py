r"""When two final answers are the same answer.

Votes compare answers, so what counts as equal decides them. The rule, in this order:

1. A number is compared as a number: ``18``, ``18.0`` and ``$18``, or ``1/2`` and
   ``0.5``. A dollar sign, thousands separators and a full stop at the end do not count.
   A percentage equals only a percentage.
2. A text with a mathematical sign, one of ``+ - * / ^ = < > \ [ ] { } | %``, is
   compared in lower case without spaces: dropping signs would make ``x-2`` and ``x+2``
   equal.
3. Any other text is compared by `jeff_llm.confidence.samples.normalise`: lower case, no
   punctuation, single spaces. So ``(B)`` is ``b``.

A unit is part of the text: ``18 dollars`` is not ``18``.
"""

import re
from fractions import Fraction

from jeff_llm.confidence.samples import normalise

__all__ = ["answer_key"]

_NUMBER = re.compile(
    r"(?P<sign>[-+]?)(?P<top>\d+(?:\.\d*)?|\.\d+)"
    r"(?:/(?P<bottom>\d+))?(?P<percent>%?)"
)
_THOUSANDS = re.compile(r"(?<!\d)\d{1,3}(?:,\d{3})+(?!\d)")
_SIGNS = set("+-*/^=<>\\[]{}|%")
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
    text = str(answer).strip().replace("\N{MINUS SIGN}", "-")
    number = _number(text)
    if number is not None:
        return number
    signs = _SIGNS & set(text)
    key = "".join(text.casefold().split()) if signs else normalise(text)
    # A number may only show once the punctuation is gone, as in "05,".
    return _number(key) or key


def _number(text: str) -> str | None:
    """A number in lowest terms, or None."""
    plain = text.replace("\\$", "").replace("$", "").replace("\\%", "%").strip()
    plain = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), plain)
    plain = plain.removesuffix(".")
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
