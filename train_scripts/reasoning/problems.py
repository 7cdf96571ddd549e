"""Word problems with a number as their answer: GSM8K, or some written here."""

import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jeff import assets, files
from jeff_llm.reasoning.prompts import parse_answer

__all__ = ["Problem", "load", "write"]

FILE = "gsm8k/gsm8k_test.jsonl"

_NAMES = ("Ana", "Ben", "Chen", "Dora", "Emil", "Fatou", "Goran", "Hana")
_THINGS = ("apples", "books", "coins", "stamps", "shells", "pencils")


class Problem(NamedTuple):
    """A word problem.

    Attributes:
      question: the question.
      answer: the number, as `jeff_llm.reasoning.prompts.parse_answer` writes it.
    """

    question: str
    answer: str


def load(count: int) -> tuple[list[Problem], str]:
    """The first test questions of GSM8K, or as many written ones without the file.

    Args:
      count: number of questions.

    Returns:
      ``(problems, source)``; fewer where GSM8K has fewer.

    Raises:
      ValueError: if the file is not as expected.

    References:
      Cobbe et al., "Training Verifiers to Solve Math Word Problems", 2021, arXiv
      2110.14168.
    """
    try:
        path = assets.shared_file(FILE)
    except FileNotFoundError:
        return write(count, seed=0), "written problems"
    return _read(path, count), "GSM8K"


def write(count: int, *, seed: int) -> list[Problem]:
    """Problems from a template, with two to four steps.

    Args:
      count: number of questions.
      seed: seed of the numbers and names.

    Returns:
      The problems.
    """
    rng = np.random.default_rng(seed)
    return [_written(rng) for _ in range(count)]


def _written(rng: np.random.Generator) -> Problem:
    name, other = rng.choice(_NAMES, 2, replace=False)
    thing = rng.choice(_THINGS)
    boxes, each, gift = (int(rng.integers(2, high)) for high in (8, 12, 4))
    total, text = boxes * each, f"{name} has {boxes} boxes with {each} {thing} each."
    if rng.random() < 0.7:
        total -= gift
        text += f" {name} gives {gift} {thing} to {other}."
    if rng.random() < 0.7:
        found = int(rng.integers(2, 20))
        total += found
        text += f" Then {name} finds {found} more."
    if rng.random() < 0.3:
        total *= 2
        text += f" {other} has twice as many {thing} as {name} has then."
        return Problem(f"{text} How many {thing} does {other} have?", str(total))
    return Problem(f"{text} How many {thing} does {name} have now?", str(total))


def _read(path: Path, count: int) -> list[Problem]:
    found = []
    for place, row in itertools.islice(files.json_lines(path), count):
        question, solution = row.get("question"), row.get("answer")
        if not isinstance(question, str) or not isinstance(solution, str):
            raise ValueError(
                f"{place}: expected question and answer as texts, got {row!r:.80}"
            )
        answer = parse_answer(solution)
        if answer is None:
            raise ValueError(f"{place}: expected a number as answer")
        found.append(Problem(question, answer))
    return found
