"""Prompts that ask for short thoughts, and the reading of answers.

Each builder takes a question and returns the text of the user's turn, with the wording
of its paper in our own form. `search_budget` is TALE's search for the smallest budget,
`route` chooses between a short and a long prompt by confidence.

An answer is read by a fixed rule, which `parse_answer` states.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float

from jeff_llm.confidence.router import Router

__all__ = [
    "Budget",
    "chain_of_draft",
    "concise",
    "number_of",
    "parse_answer",
    "parse_budget",
    "route",
    "search_budget",
    "step_by_step",
    "tale_budget",
    "tale_estimate",
]

_FORM = 'End with a line of the form "The answer is X."'
_NUMBER = re.compile(r"-?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|(?<![\w.])\.\d+)")
# A number with signs before it and words behind it, such as a unit.
_ONE_NUMBER = re.compile(rf"(?:[\s$]|\\\$)*({_NUMBER.pattern})\D*")
_VALUE = re.compile(rf"{_NUMBER.pattern}(?:/\d+)?")
_FRACTION = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")
# A minus before a sign of dollars.
_DEBT = re.compile(r"-(\\?\$)")
_MARK = re.compile(r"answer\s+is|answer:|####", re.IGNORECASE)


class Budget(NamedTuple):
    """Result of `search_budget`.

    Attributes:
      budget: the smallest budget that was right and cheaper than those before; None if
        not even the first was right.
      tokens: tokens that the answer under it took; of the first one if none was right.
      tried: budgets in the order in which they were tried.
    """

    budget: int | None
    tokens: int
    tried: tuple[int, ...]


def step_by_step(question: str) -> str:
    """Plain chain of thought.

    Args:
      question: the question.

    Returns:
      The prompt.

    References:
      Kojima et al., "Large Language Models are Zero-Shot Reasoners", NeurIPS 2022.
    """
    return f"{question}\nThink step by step. {_FORM}"


def concise(question: str) -> str:
    """Concise chain of thought: the same steps in as few words as possible.

    Args:
      question: the question.

    Returns:
      The prompt.

    References:
      Renze and Guven, "The Benefits of a Concise Chain of Thought on Problem-Solving in
      Large Language Models", 2024, arXiv 2401.05618.
    """
    return f"{question}\nThink step by step, and be concise. {_FORM}"


def chain_of_draft(question: str, *, words: int = 5) -> str:
    """Chain of draft: each step is a draft of a few words.

    Args:
      question: the question.
      words: words that a step may have, at least 1.

    Returns:
      The prompt.

    Raises:
      ValueError: if ``words`` is below 1.

    References:
      Xu et al., "Chain of Draft: Thinking Faster by Writing Less", 2025, arXiv
      2502.18600.
    """
    if words < 1:
        raise ValueError(f"words: expected at least 1, got {words}")
    return (
        f"{question}\nThink step by step, but write only a draft of each step, with at "
        f"most {words} words. {_FORM}"
    )


def tale_estimate(question: str) -> str:
    """TALE, first turn: ask how many tokens the question needs.

    Args:
      question: the question.

    Returns:
      The prompt; `parse_budget` reads the reply.

    References:
      Han et al., "Token-Budget-Aware LLM Reasoning", ACL Findings 2025, arXiv
      2412.18547 (TALE-EP).
    """
    return (
        "How many tokens would you need to answer the question below step by step? Do "
        "not answer it. Reply with the number of tokens alone, in the form "
        f"[[number]].\n\nQuestion: {question}"
    )


def tale_budget(question: str, budget: int) -> str:
    """TALE, second turn: state a token budget.

    Args:
      question: the question.
      budget: tokens that the answer may use, at least 1.

    Returns:
      The prompt.

    Raises:
      ValueError: if ``budget`` is below 1.

    References:
      Han et al., "Token-Budget-Aware LLM Reasoning", ACL Findings 2025, arXiv
      2412.18547.
    """
    if budget < 1:
        raise ValueError(f"budget: expected at least 1, got {budget}")
    return f"{question}\nThink step by step and use less than {budget} tokens. {_FORM}"


def search_budget(
    ask: Callable[[int], tuple[bool, int]], *, start: int, least: int = 1
) -> Budget:
    """Halve a token budget while the answer stays right and its cost falls.

    Too small a budget makes the answer longer again, since the model gives up on it;
    the search stops there. This is TALE's search for the optimal budget, which starts
    at the length of the answer without a budget.

    Args:
      ask: ``budget -> (right, tokens)``: answers with this budget in the prompt, says
        whether the answer is right and how many tokens it took.
      start: the first budget.
      least: budgets below it are not tried, at least 1.

    Returns:
      The budget that was found.

    Raises:
      ValueError: if ``start`` is below ``least``, or ``least`` is below 1.

    References:
      Han et al., "Token-Budget-Aware LLM Reasoning", ACL Findings 2025, arXiv
      2412.18547, algorithms 1 and 2.

    >>> search_budget(lambda budget: (budget >= 20, budget + 3), start=100)
    Budget(budget=25, tokens=28, tried=(100, 50, 25, 12))
    """
    if not 1 <= least <= start:
        raise ValueError(
            f"start: expected at least {max(least, 1)}, and least at least 1, got "
            f"{start} and {least}"
        )
    best: int | None = None
    budget, cost, tried = start, 0, []
    while budget >= least:
        tried.append(budget)
        right, tokens = ask(budget)
        if len(tried) == 1:
            cost = tokens
        elif tokens >= cost:
            break
        if not right:
            break
        best, cost = budget, tokens
        budget //= 2
    return Budget(best, cost, tuple(tried))


def route(
    confidence: Float[Array | np.ndarray, " questions"], threshold: float
) -> Bool[np.ndarray, " questions"]:
    """Questions that get the long prompt: those with little confidence.

    A thin use of `jeff_llm.confidence.router`, whose functions choose the threshold
    from a log of answers to the short prompt (the small model) and to the long one.

    Args:
      confidence: in the answer to the short prompt.
      threshold: confidence from which the short prompt is enough.

    Returns:
      True for the long prompt; also where the confidence is NaN.

    >>> route(np.array([0.9, 0.2]), 0.5)
    array([False,  True])
    """
    return np.asarray(Router(threshold)(confidence))


def parse_budget(text: str, *, least: int = 1, most: int = 100_000) -> int | None:
    """The token budget in a reply to `tale_estimate`.

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
    kind, without punctuation around them.

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
        plain = re.sub(r"^\W+|\W+$", "", said).casefold() or None
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
