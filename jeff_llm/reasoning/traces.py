"""Your own samples of answers, read from JSON lines and checked.

One sample per line, plain or compressed (``.gz``) ::

    {"question": "q1", "answer": "18", "correct": true, "tokens": 212, "order": 3}

or one question per line, its samples in a field of your choice, as a list or by name ::

    {"question": "q1", "runs": {"full": {"answer": "18", "tokens": 212}, "short": ...}}

``answer`` is text or a number; null or an empty text is no answer and never votes. A
word for no answer, such as lm-eval's ``[invalid]``, would vote: write null for it.
``tokens`` may be left out where every sample has a ``text``: its words are counted.
``correct``, true or false or a score in [0, 1], and ``order``, the rank or time at
which a sample finished, are in all samples or in none. Other fields are ignored. When
two answers are equal is the rule of `jeff_llm.reasoning.answers`.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from jeff_llm.reasoning.answers import answer_key
from jeff_llm.reasoning.trace_lines import Sample, read_samples

__all__ = ["Traces", "from_jsonl"]


class Traces(NamedTuple):
    """Samples in the order of the file, one per row.

    Attributes:
      question: number of each sample's question.
      questions: names of the questions.
      answer: code of each answer, equal for equal answers; -1 for none.
      answers: text of each code, as it first stood in the file.
      length: tokens of each sample, or words.
      unit: "tokens" or "words".
      correct: whether each answer is right, bool, or float for scores; None if unknown.
      order: rank or time at which each sample finished; None if unknown.
      text: of each sample, None where it has none; None if no sample has one.
      run: number of each sample's name; None where samples have no names.
      runs: names of the samples of a question; empty where they have none.
    """

    question: Int[np.ndarray, " samples"]
    questions: tuple[str, ...]
    answer: Int[np.ndarray, " samples"]
    answers: tuple[str, ...]
    length: Float[np.ndarray, " samples"]
    unit: str
    correct: Shaped[np.ndarray, " samples"] | None
    order: Float[np.ndarray, " samples"] | None
    text: list[str | None] | None
    run: Int[np.ndarray, " samples"] | None
    runs: tuple[str, ...]


def from_jsonl(
    path: str | Path,
    *,
    question: str = "question",
    answer: str = "answer",
    correct: str = "correct",
    tokens: str = "tokens",
    text: str = "text",
    order: str = "order",
    samples: str = "",
) -> Traces:
    """Read samples of answers.

    Args:
      path: JSON lines, plain or ``.gz``; empty lines are skipped. Or a Hugging Face
        data set with the same columns, as in `jeff.hub_rows`.
      question: name of the field that identifies the question.
      answer: name of the field with the final answer.
      correct: name of the field with its correctness.
      tokens: name of the field with the length in tokens.
      text: name of the field with the text of the sample.
      order: name of the field with the rank or time at which the sample finished.
      samples: name of the field with the samples of a question, a list or a mapping by
        name; empty where each line is one sample.

    Returns:
      The samples.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: naming file, line and field, the expected and the actual value.
    """
    path = Path(path)
    names = {
        "question": question,
        "answer": answer,
        "correct": correct,
        "tokens": tokens,
        "text": text,
        "order": order,
    }
    found = read_samples(path, names, samples)
    return _traces(path, found, names)


def _traces(path: Path, found: list[Sample], names: dict[str, str]) -> Traces:
    questions: dict[str, int] = {}
    codes: dict[str, int] = {}
    runs: dict[str, int] = {}
    answers: list[str] = []
    for sample in found:
        questions.setdefault(sample.question, len(questions))
        if sample.run is not None:
            runs.setdefault(sample.run, len(runs))
        if sample.answer is not None:
            key = answer_key(sample.answer)
            if key not in codes:
                codes[key] = len(codes)
                answers.append(sample.answer)
    known = {
        field: _all_or_none(path, names[field], found, field)
        for field in ("correct", "order", "tokens")
    }
    unit = "words" if known["tokens"] is None else "tokens"
    length = _words(names, found) if unit == "words" else known["tokens"]
    correct = known["correct"]
    if correct is not None and set(correct) <= {0.0, 1.0}:
        correct = correct > 0
    texts = [sample.text for sample in found]
    return Traces(
        np.array([questions[sample.question] for sample in found]),
        tuple(questions),
        np.array(
            [-1 if s.answer is None else codes[answer_key(s.answer)] for s in found]
        ),
        tuple(answers),
        np.asarray(length, np.float32),
        unit,
        correct,
        known["order"],
        texts if any(text is not None for text in texts) else None,
        np.array([runs[str(s.run)] for s in found]) if runs else None,
        tuple(runs),
    )


def _all_or_none(
    path: Path, name: str, found: list[Sample], field: str
) -> np.ndarray | None:
    """A column, None where no sample has it; some with and some without is an error."""
    values = [getattr(sample, field) for sample in found]
    present = [value is not None for value in values]
    if not any(present):
        return None
    # A missing mark is not a wrong answer, and a missing length is not 0.
    if not all(present):
        raise ValueError(
            f"{found[present.index(False)].place}: expected {name!r} in every sample "
            f"of {path.name} or in none, got it in {sum(present)} of {len(present)}; "
            "this is the first without"
        )
    # A time of finishing in seconds since 1970 needs more digits than float32 has.
    return np.array(values, np.float64 if field == "order" else np.float32)


def _words(names: dict[str, str], found: list[Sample]) -> list[int]:
    for sample in found:
        if sample.text is None:
            raise ValueError(
                f"{sample.place}: expected {names['tokens']!r}, or {names['text']!r} "
                "to count, got neither; name yours with the option tokens or text"
            )
    return [len((sample.text or "").split()) for sample in found]
