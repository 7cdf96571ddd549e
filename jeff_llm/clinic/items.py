"""Clinical questions, and the items that the benchmark makes of them.

An item is a vignette cut into sentences: the first is the background, the last the
question, and those between are the evidence, in the order in which a clinician gathered
it.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from jeff_llm.clinic.kinds import AgeGroup, Kind, Sex, age_group, kind, organs, sex
from jeff_llm.clinic.sentences import plain_text, split_sentences

__all__ = ["LEVELS", "Item", "Items", "Question", "Reject", "make_item", "make_items"]

# Of MuddyMaze: USMLE step 1, steps 2 and 3, case reports.
LEVELS = ("basic", "advance", "challenge")

_ASKS = re.compile(
    r"[?\uff1f\u061f][\"'\u201d\u2019)\]]*$|:$|"
    r"\b(?:which of the following|what is the|most likely)\b",
    re.IGNORECASE,
)


class Question(NamedTuple):
    """A clinical question with its answer.

    Attributes:
      id: name, for reports.
      vignette: the case. It ends with the question if ``question`` is empty.
      answer: text of the right answer.
      question: what is asked.
      options: answers to choose from, with the right one among them, or none.
      level: one of `LEVELS`, or empty.
      simulated: whether the case was made and no clinician wrote it.
    """

    id: str
    vignette: str
    answer: str
    question: str = ""
    options: tuple[str, ...] = ()
    level: str = ""
    simulated: bool = False


class Item(NamedTuple):
    """A vignette cut into sentences.

    Attributes:
      id: name of the question.
      background: the first sentence.
      evidence: the sentences between, in their logical order; at least one.
      question: what is asked; empty if the vignette asks nothing.
      answer: text of the right answer.
      options: as in `Question`.
      level: as in `Question`.
      kinds: kind of each evidence sentence.
      organs: organ systems that background and evidence name.
      age_group: of the patient.
      sex: of the patient.
      simulated: as in `Question`.
    """

    id: str
    background: str
    evidence: tuple[str, ...]
    question: str
    answer: str
    options: tuple[str, ...]
    level: str
    kinds: tuple[Kind, ...]
    organs: frozenset[str]
    age_group: AgeGroup
    sex: Sex
    simulated: bool


class Reject(NamedTuple):
    """A question that makes no item.

    Attributes:
      id: name of the question.
      reason: why.
    """

    id: str
    reason: str


class Items(NamedTuple):
    """Items, and the questions that make none.

    Attributes:
      items: in the order of the questions.
      rejects: the others.
    """

    items: list[Item]
    rejects: list[Reject]


def make_item(question: Question, *, language: str = "en") -> Item:
    """Cut a question into an item.

    Args:
      question: the question.
      language: ISO 639-1 code, for the ends of sentences; kinds, ages and pronouns are
        told in English alone.

    Returns:
      The item. A sentence that occurs twice is evidence once, since a choice between
      equal sentences has no right answer.

    Raises:
      ValueError: if there is no evidence or no answer, or the answer is not an option.
    """
    sentences = split_sentences(question.vignette, language=language)
    asked = " ".join(plain_text(question.question).split())
    if asked:
        # Some data sets end the vignette with the question and give it beside as well.
        repeated = split_sentences(asked, language=language)
        if sentences[-len(repeated) :] == repeated:
            sentences = sentences[: -len(repeated)]
    elif sentences and _ASKS.search(sentences[-1]):
        asked = sentences.pop()
    if len(sentences) < 2:
        raise ValueError(
            f"{question.id}: expected a background and at least one sentence of "
            f"evidence, got {len(sentences)} sentences beside the question"
        )
    answer = " ".join(plain_text(question.answer).split())
    if not answer:
        raise ValueError(f"{question.id}: expected an answer, got none")
    options = tuple(" ".join(plain_text(o).split()) for o in question.options)
    if options and options.count(answer) != 1:
        raise ValueError(
            f"{question.id}: expected the answer among the options once, got "
            f"{answer!r} among {options}"
        )
    background, *rest = sentences
    evidence = tuple(dict.fromkeys(each for each in rest if each != background))
    if not evidence:
        raise ValueError(f"{question.id}: expected evidence, got one repeated sentence")
    return Item(
        question.id,
        background,
        evidence,
        asked,
        answer,
        options,
        question.level,
        tuple(kind(each) for each in evidence),
        organs(" ".join(sentences)),
        age_group(background),
        sex(" ".join(sentences)),
        question.simulated,
    )


def make_items(questions: Iterable[Question], *, language: str = "en") -> Items:
    """Cut questions into items.

    Args:
      questions: the questions.
      language: as in `make_item`.

    Returns:
      Items and rejects.
    """
    items, rejects = [], []
    for question in questions:
        try:
            items.append(make_item(question, language=language))
        except ValueError as error:
            reason = str(error).removeprefix(f"{question.id}: ")
            rejects.append(Reject(question.id, reason))
    return Items(items, rejects)
