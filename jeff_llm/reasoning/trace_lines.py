"""Lines of a file of traces, one sample after the other, each field checked.

The parsing half of `jeff_llm.reasoning.traces`, which says how a file looks.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jeff import hub_rows
from jeff_llm.reasoning.answers import answer_key

__all__ = ["Sample", "read_samples"]


class Sample(NamedTuple):
    """A sample as its line gives it.

    Attributes:
      place: file, line and where needed the sample, for errors.
      question: name of the question.
      run: name of the sample; None where samples have none.
      answer: final answer; None for no answer.
      correct: in [0, 1]; None if absent, as are those below.
      tokens: length.
      order: rank or time of finishing.
      text: the sample's text.
    """

    place: str
    question: str
    run: str | None
    answer: str | None
    correct: float | None
    tokens: float | None
    order: float | None
    text: str | None


def read_samples(path: Path, names: dict[str, str], samples: str) -> list[Sample]:
    """Read the samples of a file in their order.

    Args:
      path: JSON lines, plain or ``.gz``.
      names: names of the fields question, answer, correct, tokens, text and order.
      samples: name of the field with the samples of a question; empty for none.

    Returns:
      The samples.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: naming file, line and field, the expected and the actual value.
    """
    found: list[Sample] = []
    lines: dict[str, str] = {}
    copies: dict[Sample, str] = {}
    for place, row in hub_rows.json_rows(path):
        name = _question(place, names["question"], row)
        if samples and name in lines:
            raise ValueError(
                f"{place}: expected each question once, got {names['question']!r} = "
                f"{name!r} again, as in {lines[name]}"
            )
        lines.setdefault(name, place)
        for where, run, sample in _samples(place, samples, row):
            found.append(_sample(where, name, run, sample, names))
            _refuse_copy(found[-1], copies, names)
    if not found:
        raise ValueError(f"{path}: expected at least 1 sample, got none")
    return found


def _refuse_copy(
    sample: Sample, copies: dict[Sample, str], names: dict[str, str]
) -> None:
    """Refuse a sample that a log has twice, which would vote twice.

    Equal samples are common where answers are short; with the same time of finishing
    as well they are one sample.
    """
    if sample.order is None:
        return
    first = copies.setdefault(sample._replace(place=""), sample.place)
    if first != sample.place:
        raise ValueError(
            f"{sample.place}: expected each sample once, got all fields as in {first}, "
            f"{names['order']!r} = {sample.order:g} among them"
        )


def _samples(
    place: str, name: str, row: dict[str, Any]
) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
    if not name:
        yield place, None, row
        return
    value = row.get(name)
    if not isinstance(value, list | dict) or not value:
        raise ValueError(
            f"{place}: expected {name!r} with at least 1 sample, a list or a mapping "
            f"by name, got {_shown(value)}; the fields are {sorted(row)}"
        )
    named = isinstance(value, dict)
    pairs = value.items() if named else ((str(n), x) for n, x in enumerate(value))
    for key, sample in pairs:
        where = f"{place}: {name}[{key}]"
        if not isinstance(sample, dict):
            raise ValueError(
                f"{where}: expected an object with the fields of a sample, got "
                f"{_shown(sample)}"
            )
        # JSON can escape half of a character, which no report can be written with.
        if named and key != key.encode(errors="replace").decode():
            raise ValueError(f"{where!a}: expected a name that is text in UTF-8")
        yield where, key if named else None, sample


def _sample(
    place: str,
    question: str,
    run: str | None,
    row: dict[str, Any],
    names: dict[str, str],
) -> Sample:
    text = row.get(names["text"])
    if text is not None and not isinstance(text, str):
        raise ValueError(
            f"{place}: expected {names['text']!r} as text, got {_shown(text)}"
        )
    return Sample(
        place,
        question,
        run,
        _answer(place, names["answer"], row),
        _number(place, names["correct"], row, most=1.0, flag=True),
        _number(place, names["tokens"], row),
        _number(place, names["order"], row),
        text,
    )


def _question(place: str, name: str, row: dict[str, Any]) -> str:
    if name not in row:
        raise ValueError(
            f"{place}: expected a field {name!r}, got {sorted(row)}; name "
            "yours with the option question"
        )
    value = row[name]
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise ValueError(
            f"{place}: expected {name!r} as text or a whole number, got {_shown(value)}"
        )
    return str(value)


def _answer(place: str, name: str, row: dict[str, Any]) -> str | None:
    # A field that is null is a sample without an answer; one that is absent is a typo.
    if name not in row:
        raise ValueError(
            f"{place}: expected a field {name!r}, null for no answer, got "
            f"{sorted(row)}; name yours with the option answer"
        )
    value = row[name]
    if value is None or (isinstance(value, str) and not answer_key(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(
            f"{place}: expected {name!r} as text, a number or null, got {_shown(value)}"
        )
    # 1e999 is read as infinity, and would be equal to any other number too large.
    if isinstance(value, float) and math.isinf(value):
        raise ValueError(
            f"{place}: expected {name!r} as text, a number below 1e308 or null, got "
            f"{_shown(value)}; write it as text"
        )
    return str(value)


def _number(
    place: str,
    name: str,
    row: dict[str, Any],
    *,
    most: float = float(np.finfo(np.float32).max),
    flag: bool = False,
) -> float | None:
    """A number from 0 to ``most``, None where the field is missing or null.

    Columns are float32, so a larger number cannot be kept.
    """
    value = row.get(name)
    if value is None or (flag and isinstance(value, bool)):
        return None if value is None else float(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= most:
        kind = "a number of at least 0"
        if flag:
            kind = "true, false or a number in [0, 1]"
        elif is_number and value > most:
            kind = f"a number of at most {most:.1e}"
        raise ValueError(f"{place}: expected {name!r} as {kind}, got {_shown(value)}")
    return float(value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
