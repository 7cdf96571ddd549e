"""Questions of the arithmetic task: their vocabulary, draws and token budgets.

A question is a chain of operations modulo 10, read from left to right; letters number
them: ``^3a+4b-2?`` has the answer 5. ``^E3a+4b-2?`` states a token budget.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

__all__ = [
    "BUDGET_STEP",
    "CLOSE",
    "END",
    "OPEN",
    "OPERATIONS",
    "VOCABULARY",
    "WAIT",
    "Questions",
    "budget_letter",
    "decode",
    "draw",
    "encode",
    "with_budget",
]

# Token 0 is padding, which no text contains.
VOCABULARY = "_0123456789+-*=?^<>$WabcdefghABCDEFGHIJKLMNOPQRST"
OPEN, CLOSE, END, WAIT = (VOCABULARY.index(each) for each in "<>$W")
BUDGET_STEP = 8
_NUMBERS = "abcdefgh"
_BUDGETS = "ABCDEFGHIJKLMNOPQRST"
OPERATIONS = {
    "+": lambda x, y: (x + y) % 10,
    "-": lambda x, y: (x - y) % 10,
    "*": lambda x, y: (x * y) % 10,
}


class Questions(NamedTuple):
    """Questions, padded on the right.

    Attributes:
      tokens: prompts up to the token that opens the thought.
      mask: their real tokens.
      answer: right answers, 0 to 9.
    """

    tokens: Int[np.ndarray, "questions tokens"]
    mask: Bool[np.ndarray, "questions tokens"]
    answer: Int[np.ndarray, " questions"]

    @property
    def prompts(self) -> list[list[int]]:
        """The prompts as lists of token ids, as `jeff_llm.generate` takes them."""
        return [
            row[real].tolist() for row, real in zip(self.tokens, self.mask, strict=True)
        ]


def encode(text: str) -> list[int]:
    """Token ids of a text, one per character.

    Args:
      text: characters of `VOCABULARY`.

    Returns:
      The ids.

    Raises:
      ValueError: if a character is not in the vocabulary.
    """
    unknown = sorted(set(text) - set(VOCABULARY[1:]))
    if unknown:
        raise ValueError(
            f"text: expected characters of {VOCABULARY[1:]!r}, got {unknown}"
        )
    return [VOCABULARY.index(each) for each in text]


def decode(tokens: Sequence[int]) -> str:
    """Text of token ids; padding is left out.

    Args:
      tokens: ids.

    Returns:
      The text.
    """
    return "".join(VOCABULARY[each] for each in tokens if each)


def draw(
    count: int, *, seed: int, operations: tuple[int, int] = (3, 5), signs: str = "+-*"
) -> Questions:
    """Draw questions.

    Args:
      count: number of questions.
      seed: of the draw.
      operations: fewest and most operations of a question, drawn uniformly.
      signs: kinds of operations to draw from.

    Returns:
      The questions, without a budget.

    Raises:
      ValueError: if a number is not positive, the range is empty, or a sign is unknown.
    """
    fewest, most = operations
    if count < 1 or not 1 <= fewest <= most <= len(_NUMBERS):
        raise ValueError(
            "count, operations: expected a positive number and a range from 1 to "
            f"{len(_NUMBERS)}, got {count} and {operations}"
        )
    if not signs or not set(signs) <= set(OPERATIONS):
        raise ValueError(
            f"signs: expected some of {''.join(OPERATIONS)}, got {signs!r}"
        )
    rng = np.random.default_rng(seed)
    texts, answers = [], []
    for length in rng.integers(fewest, most + 1, count):
        first, *rest = rng.integers(0, 10, length + 1).tolist()
        drawn = rng.choice(list(signs), length).tolist()
        value, text = first, f"^{first}"
        for number, sign, digit in zip(_NUMBERS, drawn, rest, strict=False):
            value = OPERATIONS[sign](value, digit)
            text += f"{number}{sign}{digit}"
        texts.append(text + "?<")
        answers.append(value)
    # One width whatever was drawn, so that another draw compiles nothing.
    return _pad(texts, answers, width=3 * most + 5)


def with_budget(questions: Questions, budget: int) -> Questions:
    """State a token budget in each question.

    Args:
      questions: questions without one.
      budget: tokens of the thought.

    Returns:
      The questions with the letter of the budget after their first token.
    """
    letter = budget_letter(budget)
    texts = [decode(row) for row in questions.prompts]
    texts = [text[0] + letter + text[1:] for text in texts]
    return _pad(texts, questions.answer.tolist(), questions.tokens.shape[1])


def budget_letter(tokens: int) -> str:
    """Letter of a thought's length.

    Args:
      tokens: length in tokens; lengths past the last letter share it.

    Returns:
      ``"A"`` for up to 8 tokens, ``"B"`` for up to 16, and so on.
    """
    return _BUDGETS[min(max(-(-tokens // BUDGET_STEP), 1), len(_BUDGETS)) - 1]


def _pad(texts: Sequence[str], answers: Sequence[int], width: int) -> Questions:
    tokens = np.zeros((len(texts), width), np.int32)
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = encode(text)
    return Questions(tokens, tokens > 0, np.asarray(answers, np.int32))
