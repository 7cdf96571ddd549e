"""Clinical questions from JSON lines, or from a Hugging Face data set.

A line of your own data has these fields; all but the question and the answer may be
left out:

* ``question``: what is asked; without a ``vignette``, the case that ends with it;
* ``vignette``: the case;
* ``answer``: its text, or a letter or number (from 0) of one of the options;
* ``answer_idx``: letter or number of the option, beside ``answer`` or in its place;
* ``options``: a list of texts, or an object of letters and texts;
* ``id``; ``level``, one of `jeff_llm.clinic.items.LEVELS`; ``meta_info``, as in MedQA;
* ``simulated``: whether no clinician wrote the case.

So the lines of MedQA are read as they are (Jin et al., "What Disease Does This Patient
Have?", 2021, arXiv 2009.13081).
"""

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jeff import hub_rows
from jeff_llm.clinic.items import LEVELS, Question

__all__ = ["Questions", "read_questions"]

_FIELDS = {
    "answer",
    "answer_idx",
    "id",
    "level",
    "meta_info",
    "options",
    "question",
    "simulated",
    "vignette",
}
# Parts of the licensing examination, as MedQA names them.
_MEDQA_LEVELS = {"step1": "basic", "step2&3": "advance"}


class Questions(NamedTuple):
    """Questions of a file.

    Attributes:
      questions: in the order of the file.
      ignored_fields: names of the fields that no question uses, sorted.
    """

    questions: list[Question]
    ignored_fields: tuple[str, ...]


def read_questions(path: str | Path) -> Questions:
    """Read questions from JSON lines, or from a Hugging Face data set.

    Args:
      path: the file, in UTF-8; or a data set, as in `jeff.hub_rows`.

    Returns:
      The questions, and the fields that were ignored. A question without ``id`` is
      named by file and line. A field that is null counts as left out.

    Raises:
      FileNotFoundError: if there is no such file or folder.
      ImportError: if the path is a data set and `datasets` is missing.
      ValueError: if a line is not as expected, an id occurs twice or there is no line;
        names the file and the line.
    """
    path = Path(path)
    questions: list[Question] = []
    places: dict[str, str] = {}
    ignored: set[str] = set()
    for place, row in hub_rows.json_rows(path):
        question = _question(place, row, path)
        if question.id in places:
            raise ValueError(
                f"{place}: expected an id of its own, got {question.id!r}, which is "
                f"that of {places[question.id]}"
            )
        places[question.id] = place
        questions.append(question)
        ignored |= row.keys() - _FIELDS
    if not questions:
        raise ValueError(f"{path}: expected at least one question, got none")
    return Questions(questions, tuple(sorted(ignored)))


def _question(place: str, row: Mapping[str, Any], path: Path) -> Question:
    vignette, asked = (_text(place, row, name) for name in ("vignette", "question"))
    if not asked and not vignette:
        raise ValueError(
            f"{place}: expected a 'question' that is not empty, got {_names(row)}"
        )
    simulated = row.get("simulated")
    if not isinstance(simulated, bool | None):
        raise ValueError(f"{place}: simulated: expected a bool, got {simulated!r:.80}")
    options = _options(place, row.get("options"))
    number = row.get("id")
    if number is None:
        number = f"{path.name}:{place.rpartition(':')[2]}"
    if isinstance(number, bool) or not isinstance(number, str | int) or number == "":
        raise ValueError(f"{place}: id: expected a text or number, got {number!r:.80}")
    return Question(
        id=str(number),
        # The case of MedQA ends with its question, which `make_item` cuts off.
        vignette=vignette or asked,
        answer=_answer(place, row, options),
        question=asked if vignette else "",
        options=tuple(options.values()),
        level=_level(place, row),
        simulated=bool(simulated),
    )


def _names(row: Mapping[str, Any]) -> list[str]:
    return sorted(name for name, value in row.items() if value is not None)


def _text(place: str, row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{place}: {name}: expected a text, got {value!r:.80}")
    return value.strip()


def _options(place: str, value: Any) -> dict[str, str]:
    """Texts by letter."""
    if value is None:
        return {}
    letters = string.ascii_uppercase
    if isinstance(value, list) and len(value) <= len(letters):
        value = dict(zip(letters, value, strict=False))
    elif isinstance(value, dict):
        # A table of `datasets` gives every row all letters.
        value = {k.strip(): text for k, text in value.items() if text is not None}
    else:
        raise ValueError(
            f"{place}: options: expected a list of at most {len(letters)} texts, or an "
            f"object of letters and texts, got {value!r:.80}"
        )
    for letter, text in value.items():
        if not isinstance(text, str) or not text.strip():
            raise ValueError(
                f"{place}: options: expected a text for {letter!r}, got {text!r:.80}"
            )
    return {letter: text.strip() for letter, text in value.items()}


def _answer(place: str, row: Mapping[str, Any], options: dict[str, str]) -> str:
    found = {
        name: _meant(place, name, row[name], options)
        for name in ("answer", "answer_idx")
        if row.get(name) is not None
    }
    if not found:
        raise ValueError(f"{place}: expected an 'answer', got {_names(row)}")
    # A text may look like the letter of another option: MedQA has an answer "B". The
    # second field then decides.
    common = set.intersection(*found.values())
    given = {name: row[name] for name in found}
    if not common:
        raise ValueError(
            f"{place}: expected one answer, got {given}, which are different options"
        )
    if len(common) > 1:
        raise ValueError(
            f"{place}: expected one answer, got {given}, the letter of one option and "
            "the text of another; give the number, from 0, as 'answer_idx'"
        )
    return common.pop()


def _meant(place: str, name: str, value: Any, options: dict[str, str]) -> set[str]:
    """Texts of the options that a text, a letter or a number may mean."""
    texts = list(options.values())
    meant: set[str] = set()
    if isinstance(value, str):
        value = value.strip()
        if value in options:
            meant.add(options[value])
        if name == "answer" and value and (value in texts or not options):
            meant.add(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        meant.update(texts[value : value + 1] if value >= 0 else ())
    if not meant:
        raise ValueError(
            f"{place}: {name}: expected the text, letter or number (from 0) of one of "
            f"{len(options)} options, {list(options.items())!r:.200}, got {value!r:.80}"
        )
    return meant


def _level(place: str, row: Mapping[str, Any]) -> str:
    level, part = (_text(place, row, name) for name in ("level", "meta_info"))
    if level and level not in LEVELS:
        raise ValueError(f"{place}: level: expected one of {LEVELS}, got {level!r}")
    if part and part not in _MEDQA_LEVELS:
        raise ValueError(
            f"{place}: meta_info: expected one of {tuple(_MEDQA_LEVELS)}, got "
            f"{part!r}; name the level in 'level'"
        )
    found = {level, _MEDQA_LEVELS.get(part, "")} - {""}
    if len(found) > 1:
        raise ValueError(
            f"{place}: expected one level, got level {level!r} and meta_info {part!r}"
        )
    return found.pop() if found else ""
