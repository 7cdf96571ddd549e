"""Answers and budgets in the text of a model, read by fixed rules.

`parse_answer` states its rule. `jeff_llm.reasoning.answers` then decides which answers
are equal.
"""

import re

from jeff_llm.confidence.samples import normalise

__all__ = ["number_of", "parse_answer", "parse_budget"]

_NUMBER = re.compile(r"-?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|(?<![\w.])\.\d+)")
# A number with signs before it and words behind it, such as a unit.
_ONE_NUMBER = re.compile(rf"(?:[\s$]|\\\$)*({_NUMBER.pattern})\D*")
_VALUE = re.compile(rf"{_NUMBER.pattern}(?:/\d+)?")
_FRACTION = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")
# A minus before a sign of dollars.
_DEBT = re.compile(r"-(\\?\$)")
_MARK = re.compile(r"answer\s+is|answer:|####", re.IGNORECASE)


def parse_budget(text: str, *, least: int = 1, most: int = 100_000) -> int | None:
    """The token budget in a reply to `jeff_llm.reasoning.prompts.tale_estimate`.

    The first number in double brackets, else the first number of the text. It is read
    as a whole number; one outside the range is not a budget.

    Args:
      text: the reply.
      least: smallest budget.
      most: largest budget.

    Returns:
      The budget, or None.

    >>> parse_budget("About [[120]] tokens"), parse_budget("no idea")
    (120, None)
    """
    marked = re.search(rf"\[\[\s*({_NUMBER.pattern})\s*\]\]", text)
    found = marked[1] if marked else (_NUMBER.findall(text) or [None])[0]
    if found is None:
        return None
    value = int(float(found.replace(",", "")))
    return value if least <= value <= most else None


def parse_answer(text: str) -> str | None:
    r"""The final answer in a text, in a form that can be compared.

    The first of these that is there:

    1. the content of the last ``\boxed{...}``: a number if it begins with its only
       number, else all of it without spaces;
    2. what follows the last "answer is", "Answer:" or "####" on its line: behind an
       equals sign, if there is one, the first number or fraction; else all of it;
    3. the last number of the text.

    Numbers are written by `number_of`; other answers in lower case and, of the second
    kind, by `jeff_llm.confidence.samples.normalise`.

    Args:
      text: the model's text.

    Returns:
      The answer, or None if there is none.

    >>> parse_answer("12 boxes, so $1,450.00."), parse_answer("The answer is Yes.")
    ('1450', 'yes')
    """
    text = _DEBT.sub(r"\1-", text.replace("\N{MINUS SIGN}", "-"))
    boxed = _boxed(text)
    if boxed is not None:
        number = _ONE_NUMBER.fullmatch(boxed)
        return number_of(number[1]) if number else _spaceless(boxed)
    behind = [text[mark.end() :].partition("\n")[0] for mark in _MARK.finditer(text)]
    if lines := [line for line in behind if line.strip()]:
        said = _FRACTION.sub(r"\1/\2", lines[-1].rpartition("=")[2])
        plain = normalise(said) or None
        value = _VALUE.search(said)
        return "/".join(map(number_of, value[0].split("/"))) if value else plain
    numbers = _NUMBER.findall(text)
    return number_of(numbers[-1]) if numbers else None


def number_of(text: str) -> str:
    """A number in its shortest form, so that equal numbers are equal texts.

    Args:
      text: digits, with or without sign, thousands separators and decimals.

    Returns:
      The number.

    >>> number_of("1,450.00"), number_of("-0.50"), number_of("007")
    ('1450', '-0.5', '7')
    """
    sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
    whole, _, decimals = digits.replace(",", "").partition(".")
    whole, decimals = whole.lstrip("0") or "0", decimals.rstrip("0")
    value = f"{whole}.{decimals}" if decimals else whole
    return value if value == "0" else sign + value


def _spaceless(text: str) -> str | None:
    return "".join(text.split()).casefold() or None


def _boxed(text: str) -> str | None:
    r"""Content of the last ``\boxed{...}``, whose braces may be nested."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    start += len("\\boxed{")
    depth = 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if not depth:
            return text[start:place]
    return None
