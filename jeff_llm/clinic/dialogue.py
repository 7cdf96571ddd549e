"""Items as chat messages: a dialogue, a multiple choice and a monologue.

"Dialogue is Better Than Monologue" (arXiv 2501.17860) lets a language model turn
static questions into dialogues. Here fixed rules do it: every sentence of the item
stands in the messages word for word, and everything else is one of a few fixed phrases
without a clinical fact. `check` tests both for any messages. The multiple choice and
the monologue are controls, made from the same items.
"""

import json
import string
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from jeff import files
from jeff_llm.clinic.items import Item
from jeff_llm.clinic.kinds import Kind
from jeff_llm.clinic.verbatim import stands_in, uncovered

__all__ = [
    "Dialogue",
    "added_text",
    "check",
    "missing_facts",
    "to_dialogue",
    "to_monologue",
    "to_multiple_choice",
    "write_jsonl",
]

# What the doctor asks before a sentence of a kind; the next one at each repetition.
_ASK: dict[Kind, tuple[str, ...]] = {
    "background": (
        "What else should I know about the patient's background?",
        "Is there more about the patient's history?",
        "Does the history hold anything else?",
    ),
    "symptom": (
        "What has been noticed?",
        "What else has been noticed?",
        "How does the account go on?",
        "Is there anything else to report?",
    ),
    "examination": (
        "What do examination and tests show?",
        "Are there more findings?",
        "What else was found?",
        "Is there another result?",
    ),
    "treatment": (
        "What has been done about it?",
        "Is there more about treatment?",
        "What else was done or given?",
    ),
    "diagnosis": (
        "Does the chart name a diagnosis?",
        "Is another diagnosis named?",
        "What else does the chart say about a diagnosis?",
    ),
}
_NOTE = ("I note:", "I keep in mind:", "I add:")
_KIND: dict[Kind, str] = {
    "background": "This is background.",
    "symptom": "This is a symptom or an observation.",
    "examination": "This is a finding.",
    "treatment": "This is about treatment.",
    "diagnosis": "This is about a diagnosis.",
}
_WELCOME = "Thank you."
_ALL = "That is all the evidence. What is your question?"
_CONCLUDE = "What do you conclude?"
_CHOOSE = "Which of these is right?"
_ANSWER = "My answer:"
_PHRASES = (
    *(phrase for phrases in _ASK.values() for phrase in phrases),
    *_NOTE,
    *_KIND.values(),
    _WELCOME,
    _ALL,
    _CONCLUDE,
    _CHOOSE,
    _ANSWER,
)

Messages = Sequence[dict[str, str]]


class Dialogue(NamedTuple):
    """Chat messages made from an item.

    Attributes:
      id: of the item.
      messages: ``{"role", "content"}``; the user's and the assistant's in turn. In a
        dialogue the user is the patient or the chart, and the assistant the doctor.
    """

    id: str
    messages: list[dict[str, str]]


def to_dialogue(item: Item) -> Dialogue:
    """Turn an item into a dialogue of patient and doctor.

    The patient gives the background. For each sentence of the evidence the doctor asks
    for its kind, the patient or the chart answers with the sentence, and the doctor
    repeats it and says what kind it is. Then the patient asks the question, and the
    doctor answers.

    Args:
      item: the item.

    Returns:
      The dialogue, of ``2 * len(item.evidence) + 4`` messages.
    """
    contents = [item.background]
    doctor = [_WELCOME]
    for place, (sentence, kind) in enumerate(
        zip(item.evidence, item.kinds, strict=True)
    ):
        asked = item.kinds[:place].count(kind)
        contents.append(_join(*doctor, _ASK[kind][asked % len(_ASK[kind])]))
        contents.append(sentence)
        doctor = [_NOTE[place % len(_NOTE)], sentence, _KIND[kind]]
    contents.append(_join(*doctor, _ALL))
    contents.append(item.question or _CONCLUDE)
    contents.append(_join(_ANSWER, item.answer))
    return Dialogue(item.id, _messages(contents))


def to_multiple_choice(item: Item) -> Dialogue:
    """Turn an item into a question with lettered options and one answer.

    Args:
      item: the item.

    Returns:
      Two messages: vignette, question and options; letter and answer.

    Raises:
      ValueError: if the item has no options, more options than letters, or its answer
        is not among them.
    """
    letters = string.ascii_uppercase
    if not 1 <= len(item.options) <= len(letters):
        raise ValueError(
            f"{item.id}: expected 1 to {len(letters)} options for a multiple choice, "
            f"got {len(item.options)}; use to_monologue or to_dialogue"
        )
    if item.answer not in item.options:
        raise ValueError(
            f"{item.id}: expected the answer among the options, got {item.answer!r} "
            f"among {item.options}"
        )
    lettered = [
        f"{letter}. {text}" for letter, text in zip(letters, item.options, strict=False)
    ]
    case = _join(item.background, *item.evidence)
    asked = "\n".join((case, item.question or _CHOOSE, *lettered))
    return Dialogue(
        item.id, _messages([asked, lettered[item.options.index(item.answer)]])
    )


def to_monologue(item: Item) -> Dialogue:
    """Turn an item into a question and one text: the evidence, then the answer.

    The text repeats the evidence, as the doctor of `to_dialogue` does, so the two forms
    differ in their turns alone.

    Args:
      item: the item.

    Returns:
      Two messages: vignette and question; evidence in its order, and answer.
    """
    asked = _join(item.background, *item.evidence, item.question or _CONCLUDE)
    told = _join(*item.evidence, _ANSWER, item.answer)
    return Dialogue(item.id, _messages([asked, told]))


def missing_facts(item: Item, messages: Messages) -> list[str]:
    """Sentences of an item that do not stand in the messages word for word.

    Args:
      item: the item.
      messages: ``{"role", "content"}`` each.

    Returns:
      Those of background, evidence, question and answer that no message holds.
    """
    contents = [message["content"] for message in messages]
    facts = [item.background, *item.evidence, item.question, item.answer]
    return [
        fact
        for fact in facts
        if fact and not any(stands_in(fact, content) for content in contents)
    ]


def added_text(item: Item, messages: Messages) -> list[str]:
    """Text of the messages that comes neither from the item nor from a fixed phrase.

    Each message is laid out with sentences of the item, its options and their letters,
    and fixed phrases, so that as few characters as possible remain.

    Args:
      item: the item.
      messages: ``{"role", "content"}`` each.

    Returns:
      What remains, in order.
    """
    letters = [f"{letter}." for letter in string.ascii_uppercase[: len(item.options)]]
    own = [item.background, *item.evidence, item.question, item.answer, *item.options]
    pieces = [piece for piece in dict.fromkeys((*own, *letters, *_PHRASES)) if piece]
    return [rest for each in messages for rest in uncovered(each["content"], pieces)]


def check(item: Item, messages: Messages) -> None:
    """Check that messages keep every fact of an item and add none.

    Args:
      item: the item.
      messages: ``{"role", "content"}`` each.

    Raises:
      ValueError: if a sentence is missing or text was added; lists all of both.
    """
    missing, added = missing_facts(item, messages), added_text(item, messages)
    if missing or added:
        raise ValueError(
            f"{item.id}: expected every sentence of the item and no other text, got "
            f"{len(missing)} sentences missing: {missing}, and "
            f"{len(added)} texts added: {added}"
        )


def write_jsonl(path: str | Path, dialogues: Iterable[Dialogue]) -> Path:
    """Write dialogues as JSON lines, the chat format of fine-tuning programs.

    Args:
      path: the file; it is replaced once it is complete.
      dialogues: one for each line, as ``{"id", "messages"}``.

    Returns:
      The path.
    """
    # ASCII alone: some readers take U+2028 inside a JSON text for the end of a line.
    lines = [f"{json.dumps(dialogue._asdict())}\n" for dialogue in dialogues]
    return files.write_text(path, "".join(lines))


def _messages(contents: Sequence[str]) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [
        {"role": roles[place % 2], "content": content}
        for place, content in enumerate(contents)
    ]


def _join(*pieces: str) -> str:
    return " ".join(pieces)
