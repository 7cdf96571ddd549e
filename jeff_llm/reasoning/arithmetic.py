"""A small reasoning task: chained arithmetic, verifiable answers, verbose chains.

A question is a chain of operations modulo 10, read from left to right; letters number
them: ``^3a+4b-2?`` has the answer 5. A worked solution calculates one operation after
another and checks some of them again, up to three times::

    <a3+4=7W3+4=7b7-2=4W7-2=5>5$

The task mimics what the survey finds in long chains of large models. First attempts
are sometimes wrong, a check usually mends them, and most checks are redundant. Three
kinds of examples make the controls of this room meaningful for a trained model:

* plain ones;
* ones with a token budget, ``^E3a+4b-2?``: the letter states the length of the thought
  in steps of eight tokens, as prompts with a budget do for large models;
* interrupted ones: the thought is cut at a random place and the right answer follows.
  Only the answer is learned there, so that a trial answer in the middle of a thought is
  calibrated, and a thought is not closed early.

Nothing here is published; the shares are arguments of `worked`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray, PyTree

from jeff_llm.models import decoder
from jeff_llm.models.config import DecoderConfig
from jeff_llm.tuning.finetune import Example

__all__ = [
    "BUDGET_STEP",
    "CLOSE",
    "END",
    "NO_ANSWER",
    "OPEN",
    "VOCABULARY",
    "WAIT",
    "Questions",
    "Solutions",
    "budget_letter",
    "decode",
    "draw",
    "encode",
    "init",
    "model_config",
    "read",
    "with_budget",
    "worked",
]

# Token 0 is padding, which no text contains.
VOCABULARY = "_0123456789+-*=?^<>$WabcdefghABCDEFGHIJKLMNOPQRST"
OPEN, CLOSE, END, WAIT = (VOCABULARY.index(each) for each in "<>$W")
BUDGET_STEP = 8
# The code of a solution without an answer; it never votes and is never right.
NO_ANSWER = -1
_NUMBERS = "abcdefgh"
_BUDGETS = "ABCDEFGHIJKLMNOPQRST"
_OPERATIONS = {
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


def model_config(width: int = 128, num_layers: int = 4) -> DecoderConfig:
    """Configuration of a decoder for this task.

    Args:
      width: width of the residual stream, a multiple of 32.
      num_layers: blocks.

    Returns:
      The configuration; 0.85 million parameters by default.
    """
    return DecoderConfig(
        vocab_size=len(VOCABULARY),
        num_layers=num_layers,
        width=width,
        mlp_width=3 * width,
        num_heads=max(1, width // 32),
        num_kv_heads=max(1, width // 32),
        head_width=32,
        max_positions=512,
        tied=True,
    )


def init(config: DecoderConfig, *, key: PRNGKeyArray) -> PyTree:
    """Random parameters for a small model: kernels of deviation ``1 / sqrt(fan in)``.

    The decoder's own 0.02 suits wide models; at a width of 128 it needs about three
    times as many steps to learn the task.

    Args:
      config: as `model_config` makes it.
      key: random key.

    Returns:
      Parameters, as `jeff_llm.models.decoder.init` gives them.
    """

    def scale(path: jax.tree_util.KeyPath, leaf: Array) -> Array:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith("kernel"):
            return leaf * (leaf.shape[-2] ** -0.5 / 0.02)
        return leaf * 5 if name == "embedding" else leaf

    return jax.tree_util.tree_map_with_path(scale, decoder.init(config, key=key))


def draw(count: int, *, seed: int, operations: tuple[int, int] = (3, 5)) -> Questions:
    """Draw questions.

    Args:
      count: number of questions.
      seed: of the draw.
      operations: fewest and most operations of a question, drawn uniformly.

    Returns:
      The questions, without a budget.

    Raises:
      ValueError: if a number is not positive, or the range is empty.
    """
    fewest, most = operations
    if count < 1 or not 1 <= fewest <= most <= len(_NUMBERS):
        raise ValueError(
            "count, operations: expected a positive number and a range from 1 to "
            f"{len(_NUMBERS)}, got {count} and {operations}"
        )
    rng = np.random.default_rng(seed)
    texts, answers = [], []
    for length in rng.integers(fewest, most + 1, count):
        first, *rest = rng.integers(0, 10, length + 1).tolist()
        signs = rng.choice(list(_OPERATIONS), length).tolist()
        value, text = first, f"^{first}"
        for number, sign, digit in zip(_NUMBERS, signs, rest, strict=False):
            value = _OPERATIONS[sign](value, digit)
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


def worked(
    questions: Questions,
    *,
    seed: int,
    error_rate: float | int = 0.08,
    check_rate: float | int = 0.7,
    check_error_rate: float | int = 0.03,
    most_checks: int = 3,
    budget_share: float | int = 0.3,
    interrupted_share: float | int = 0.15,
) -> list[Example]:
    """Worked solutions, to train a model on.

    Args:
      questions: questions without a budget.
      seed: of the draws.
      error_rate: probability that a first calculation is wrong.
      check_rate: probability of each further check, whether it is needed or not; drawn
        anew for each example with a budget.
      check_error_rate: probability that a check is wrong.
      most_checks: largest number of checks of a step.
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
        thought, value = _thought(
            rng, text[1:-2], error_rate, rate, check_error_rate, most_checks
        )
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


def _pad(texts: Sequence[str], answers: Sequence[int], width: int) -> Questions:
    tokens = np.zeros((len(texts), width), np.int32)
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = encode(text)
    return Questions(tokens, tokens > 0, np.asarray(answers, np.int32))


def _thought(
    rng: np.random.Generator,
    expression: str,
    error_rate: float | int,
    check_rate: float | int,
    check_error_rate: float | int,
    most_checks: int,
) -> tuple[str, int]:
    """A thought, calculations and checks, and the value that it ends with."""
    value, pieces = int(expression[0]), []
    for number, sign, digit in zip(
        expression[1::3], expression[2::3], expression[3::3], strict=True
    ):
        right = _OPERATIONS[sign](value, int(digit))
        shown = _slip(rng, right, error_rate)
        pieces.append(f"{number}{value}{sign}{digit}={shown}")
        for _ in range(most_checks):
            if rng.random() >= check_rate:
                break
            shown = _slip(rng, right, check_error_rate)
            pieces.append(f"W{value}{sign}{digit}={shown}")
        value = shown
    return "".join(pieces), value


def _slip(rng: np.random.Generator, right: int, rate: float | int) -> int:
    """The right digit, or with a probability another one."""
    if rng.random() >= rate:
        return right
    return (right + int(rng.integers(1, 10))) % 10
