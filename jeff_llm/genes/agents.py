"""Agents of a language model that judge whether a patient's gene can be found.

Each agent is an independent request with a role of its own. `judge` reads yes, maybe or
no from the answers, and joins them by `jeff_llm.genes.solvability.consensus`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from jeff_llm.chat import Answer, ChatModel, Request, ask, conversation, usage
from jeff_llm.genes.profile_texts import ProfileTexts
from jeff_llm.genes.ranking import Phenotypes
from jeff_llm.genes.solvability import LABELS, consensus

__all__ = [
    "ROLES",
    "Judgement",
    "Verdict",
    "judge",
]

ROLES: Mapping[str, str] = MappingProxyType(
    {
        "geneticist": "You are a clinical geneticist who diagnoses rare diseases.",
        "physician": "You are a physician who sees common diseases every day, and who "
        "asks first whether a finding is common in many diseases.",
        "laboratory": "You are the head of a laboratory that sequences genes, and who "
        "sees how often phenotypes alone have named the wrong gene.",
    }
)
_QUESTION = (
    "Do these phenotypes point to one single gene?\n\n{patient}\n\n"
    '"yes": a specific pattern that one gene or very few genes cause. "maybe": several '
    'genes are likely. "no": too common or too few phenotypes to tell.\n'
    "Answer with one of the words yes, maybe, no."
)
_THOUGHT = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
# "No single gene" is no answer, but "yes, one gene" is.
_LABEL = r"\b(yes|maybe|no(?![ \t]+\w))\b"
_STATED = re.compile(
    rf"\b(?:answer|verdict|label|conclusion|judgement)\b\W*(?:is\b\W*)?{_LABEL}",
    re.IGNORECASE,
)
_FIRST = re.compile(rf"\W*{_LABEL}", re.IGNORECASE)
_LAST = re.compile(r"(?:^|\n|[.!?:]\s)\W*(yes|maybe|no)\W*\Z", re.IGNORECASE)


class Verdict(NamedTuple):
    """What the agents say of one patient.

    Attributes:
      labels: label by role; None where the answer is unreadable.
      consensus: label on which more than half agree; see
        `jeff_llm.genes.solvability.consensus`.
    """

    labels: Mapping[str, str | None]
    consensus: str


class Judgement(NamedTuple):
    """Verdicts on all patients, and what they took.

    Attributes:
      verdicts: one for each patient.
      unreadable: answers without a label.
      calls: requests to the model.
      tokens: tokens read and written; None if an endpoint did not report them.
    """

    verdicts: tuple[Verdict, ...]
    unreadable: int
    calls: int
    tokens: int | None


def judge(
    model: ChatModel,
    patients: Sequence[Phenotypes],
    texts: ProfileTexts,
    *,
    roles: Mapping[str, str] = ROLES,
    max_tokens: int = 16,
    temperature: float = 0.0,
    concurrency: int = 8,
) -> Judgement:
    """Ask every agent about every patient.

    Args:
      model: answers the questions.
      patients: observed and excluded terms.
      texts: writes the patients.
      roles: system message by name of the role.
      max_tokens: longest answer; a model that reasons first needs more.
      temperature: as in `jeff_llm.chat.Request`.
      concurrency: requests in flight.

    Returns:
      The verdicts, in the order of the patients.

    Raises:
      ExceptionGroup: if a request fails, after all were tried; the
        `jeff_llm.chat.AskError` holds the answers that came.
      ValueError: if there are no roles.
    """
    if not roles:
        raise ValueError("roles: expected at least one, got none")
    requests = [
        Request(
            conversation(
                _QUESTION.format(patient=texts.patient(patient)), system=system
            ),
            max_tokens=max_tokens,
            temperature=temperature,
        )
        for patient in patients
        for system in roles.values()
    ]
    answers: list[Answer] = ask(
        model, requests, concurrency=concurrency, return_errors=False
    )
    labels = [_parse_label(answer.text) for answer in answers]
    verdicts = []
    for start in range(0, len(labels), len(roles)):
        own = labels[start : start + len(roles)]
        verdicts.append(Verdict(dict(zip(roles, own, strict=True)), consensus(own)))
    tokens = usage(answers).tokens
    return Judgement(tuple(verdicts), labels.count(None), len(answers), tokens)


def _parse_label(text: str) -> str | None:
    """Read yes, maybe or no from an answer.

    A label counts if the answer begins or ends with it, states it ("the answer is no"),
    or gives it in JSON. "There is no such gene" is no label.

    Args:
      text: the answer.

    Returns:
      The label, or None if there is none, or different ones are stated.

    >>> _parse_label("**Maybe.** Several genes fit."), _parse_label("I have no idea")
    ('maybe', None)
    """
    text = _THOUGHT.sub(" ", text)
    stated = {match[1].lower() for match in _STATED.finditer(text)} | _from_json(text)
    if stated:
        return stated.pop() if len(stated) == 1 else None
    match = _FIRST.match(text) or _LAST.search(text)
    return match[1].lower() if match else None


def _from_json(text: str) -> set[str]:
    """Labels among the values of an object in JSON."""
    found: set[str] = set()
    for part in re.findall(r"\{[^{}]*\}", text):
        try:
            values = json.loads(part).values()
        except (ValueError, RecursionError):
            continue
        texts = (each.strip().lower() for each in values if isinstance(each, str))
        found.update(text for text in texts if text in LABELS)
    return found
