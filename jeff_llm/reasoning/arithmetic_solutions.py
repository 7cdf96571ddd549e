"""Solutions of the arithmetic task: worked ones to learn from, and marks for others."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from jeff_llm.reasoning.arithmetic_questions import (
    CLOSE,
    END,
    OPERATIONS,
    VOCABULARY,
    Questions,
    budget_letter,
    decode,
    encode,
)
from jeff_llm.tuning.finetune import Example

__all__ = ["NO_ANSWER", "Solutions", "read", "worked"]

# The code of a solution without an answer; it never votes and is never right.
NO_ANSWER = -1
# A check is wrong less often than a first calculation: checking pays.
_CHECK_ERROR_RATE, _MOST_CHECKS = 0.03, 3


class Solutions(NamedTuple):
    """What generated tokens say.

    Attributes:
      answer: the digit after the thought, or -1 where the solution does not end with
        one digit and the end token.
      correct: whether it is right.
      length: generated tokens, the end token counted in.
      finished: whether the end token was met.
    """

    answer: Int[Array, " samples"]
    correct: Bool[Array, " samples"]
    length: Int[Array, " samples"]
    finished: Bool[Array, " samples"]


def worked(
    questions: Questions,
    *,
    seed: int,
    error_rate: float | int = 0.08,
    check_rate: float | int = 0.7,
    budget_share: float | int = 0.3,
    interrupted_share: float | int = 0.15,
) -> list[Example]:
    """Worked solutions, to train a model on.

    Args:
      questions: questions without a budget.
      seed: of the draws.
      error_rate: probability that a first calculation is wrong.
      check_rate: probability of each of up to three checks of a step, whether needed
        or not; drawn anew for each example with a budget.
      budget_share: share of examples whose question states the budget.
      interrupted_share: share of examples whose thought is cut.

    Returns:
      One example per question. The answer is the thought's own, right or wrong, except
      in an interrupted one.
    """
    rng = np.random.default_rng(seed)
    examples = []
    for prompt, answer in zip(questions.prompts, questions.answer, strict=True):
        text, kind = decode(prompt), rng.random()
        interrupted = kind < interrupted_share
        budgeted = not interrupted and kind < interrupted_share + budget_share
        # Budgets come with every rate of checks, or their letters would say little.
        rate = rng.random() if budgeted else check_rate
        thought, value = _thought(rng, text[1:-2], error_rate, rate)
        if interrupted:
            # Anywhere, also within a step: a forced end may come at any token.
            thought, value = thought[: rng.integers(len(thought) + 1)], answer
        if budgeted:
            text = text[0] + budget_letter(len(thought)) + text[1:]
        if interrupted:
            head, tail = f"{text}{thought}>", f"{value}$"
        else:
            head, tail = text, f"{thought}>{value}$"
        learned = [0.0] * len(head) + [1.0] * len(tail)
        examples.append(Example(encode(head + tail), learned))
    return examples


def read(
    tokens: Int[Array | np.ndarray, "samples new_tokens"],
    lengths: Int[Array | np.ndarray, " samples"],
    finished: Bool[Array | np.ndarray, " samples"],
    answer: Int[Array | np.ndarray, " samples"],
) -> Solutions:
    """Read and mark generated solutions; works inside jit.

    Args:
      tokens: generated tokens, the end token among them.
      lengths: generated tokens of each row, the end token counted in.
      finished: whether a row met the end token.
      answer: the right answers.

    Returns:
      The solutions.
    """

    def token(back: int) -> Array:
        place = jnp.maximum(jnp.asarray(lengths) - back, 0)[:, None]
        return jnp.take_along_axis(jnp.asarray(tokens), place, axis=1)[:, 0]

    digit, zero = token(2), VOCABULARY.index("0")
    # The form "...>7$" and nothing else: a digit inside a thought is no answer.
    given = (
        jnp.asarray(finished)
        & (jnp.asarray(lengths) >= 3)
        & (token(1) == END)
        & (token(3) == CLOSE)
        & (digit >= zero)
        & (digit < zero + 10)
    )
    value = jnp.where(given, digit - zero, NO_ANSWER)
    return Solutions(
        value, value == answer, jnp.asarray(lengths), jnp.asarray(finished)
    )


def _thought(
    rng: np.random.Generator,
    expression: str,
    error_rate: float | int,
    check_rate: float | int,
) -> tuple[str, int]:
    """A thought, calculations and checks, and the value that it ends with."""
    value, pieces = int(expression[0]), []
    for number, sign, digit in zip(
        expression[1::3], expression[2::3], expression[3::3], strict=True
    ):
        right = OPERATIONS[sign](value, int(digit))
        shown = _slip(rng, right, error_rate)
        pieces.append(f"{number}{value}{sign}{digit}={shown}")
        for _ in range(_MOST_CHECKS):
            if rng.random() >= check_rate:
                break
            shown = _slip(rng, right, _CHECK_ERROR_RATE)
            pieces.append(f"W{value}{sign}{digit}={shown}")
        value = shown
    return "".join(pieces), value


def _slip(rng: np.random.Generator, right: int, rate: float | int) -> int:
    """The right digit, or with a probability another one."""
    if rng.random() >= rate:
        return right
    return (right + int(rng.integers(1, 10))) % 10
