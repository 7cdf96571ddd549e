"""Dialogues in natural words: a language model writes them, and rules check them.

"Dialogue is Better Than Monologue" (arXiv 2501.17860) has a language model write its
dialogues. Here no fact is left to it: a dialogue in which a sentence of the evidence
does not stand word for word, or stands out of order, or that holds a number of its own,
is sent back with what is wrong, and dropped and counted if it stays wrong.

The check of numbers finds digits, and English number words from two to ninety. Other
facts that a model adds in its own words are not found.
"""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from jeff_llm.chat.asking import Progress, map_async
from jeff_llm.chat.messages import ChatError, ChatModel, Message, Request, conversation
from jeff_llm.chat.structured import ask_json
from jeff_llm.clinic.dialogue import Dialogue, missing_facts, to_dialogue
from jeff_llm.clinic.items import Item, Reject
from jeff_llm.clinic.verbatim import stands_in

__all__ = ["Rewritings", "Rewritten", "faults", "rewrite", "rewrite_all"]

_SPEAKERS = {"patient": "user", "doctor": "assistant"}
_SCHEMA = {
    "type": "object",
    "properties": {
        "turns": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "speaker": {"enum": list(_SPEAKERS)},
                    "text": {"type": "string"},
                },
                "required": ["speaker", "text"],
            },
        }
    },
    "required": ["turns"],
}
_TASK = """\
Rewrite this conversation of a patient and a doctor so that it sounds natural. Rules:
- The patient speaks first, then the two take turns, and the doctor speaks last.
- The patient says each of the listed sentences, word for word and in this order, with \
or without other words around them.
- The doctor asks for what comes next, and thinks aloud about what was said.
- The last turn states the answer word for word.
- Add no fact and no number.
Answer with JSON alone: {"turns": [{"speaker": "patient" or "doctor", "text": "..."}]}
"""
_NUMBER_WORDS = {
    word: str(number)
    for words, numbers in (
        (
            "two three four five six seven eight nine ten eleven twelve thirteen "
            "fourteen fifteen sixteen seventeen eighteen nineteen",
            range(2, 20),
        ),
        ("twenty thirty forty fifty sixty seventy eighty ninety", range(20, 100, 10)),
    )
    for word, number in zip(words.split(), numbers, strict=True)
}
_NUMBER = re.compile(rf"\d+(?:[.,]\d+)*|\b(?:{'|'.join(_NUMBER_WORDS)})\b", re.I)


class Rewritten(NamedTuple):
    """The result of `rewrite`.

    Attributes:
      messages: ``{"role", "content"}`` each, or None if no rewriting passed.
      attempts: rewritings that were asked for.
      reason: what is wrong with the last one; empty if it passed.
    """

    messages: list[dict[str, str]] | None
    attempts: int
    reason: str


class Rewritings(NamedTuple):
    """The result of `rewrite_all`.

    Attributes:
      dialogues: those that passed, in the order of their items.
      rejects: the other items, in their order.
      attempts: rewritings that were asked for, over all items.
    """

    dialogues: list[Dialogue]
    rejects: list[Reject]
    attempts: int


async def rewrite(
    model: ChatModel, item: Item, *, attempts: int = 2, max_tokens: int = 2048
) -> Rewritten:
    """Let a model rewrite the dialogue of an item in natural words, and check it.

    Args:
      model: the model that writes.
      item: the item.
      attempts: rewritings to ask for until one passes `faults`; at least 1. Each after
        the first is told what is wrong with the one before it. `ask_json` may repair
        the JSON of each once more.
      max_tokens: maximum length of a rewriting, in tokens.

    Returns:
      The messages, or why there are none; a request that fails is a reason too.

    Raises:
      OSError: if nothing more can be asked, such as at a limit on the cost.
      ValueError: if ``attempts`` is not positive.
    """
    if attempts < 1:
        raise ValueError(f"attempts: expected at least 1, got {attempts}")
    messages = conversation(_prompt(item))
    reason = ""
    for attempt in range(1, attempts + 1):
        try:
            parsed = await ask_json(model, Request(messages, max_tokens), _SCHEMA)
        except (ChatError, ValueError) as error:  # the prompt may exceed the context
            return Rewritten(None, attempt, f"the request failed: {error}")
        if parsed.error is None:
            turns = _messages(parsed.value)
            found = faults(item, turns)
            if not found:
                return Rewritten(turns, attempt, "")
            reason = "; ".join(found)
        else:
            reason = parsed.error
        wanted = f"This is not right: {reason}. Write the whole conversation again."
        said = Message("assistant", parsed.answers[-1].text)
        # The last rewriting alone: all of them may not fit into the model's context.
        messages = (*conversation(_prompt(item)), said, Message("user", wanted))
    return Rewritten(None, attempts, reason)


async def rewrite_all(
    model: ChatModel,
    items: Iterable[Item],
    *,
    attempts: int = 2,
    max_tokens: int = 2048,
    concurrency: int = 8,
    progress: Progress | None = None,
) -> Rewritings:
    """Rewrite the dialogues of many items, a limited number at a time.

    Args:
      model: the model that writes.
      items: the items.
      attempts: as in `rewrite`.
      max_tokens: likewise.
      concurrency: maximum number of items in work.
      progress: called with the number of finished items and the total.

    Returns:
      Dialogues and rejects. An item whose request fails is a reject too.

    Raises:
      ExceptionGroup: if ``attempts`` is not positive, or nothing more can be asked,
        such as at a limit on the cost; the `jeff_llm.chat.AskError` holds what was
        rewritten.
      ValueError: if ``concurrency`` is not positive.
    """
    items = list(items)
    found = await map_async(
        lambda item: rewrite(model, item, attempts=attempts, max_tokens=max_tokens),
        items,
        concurrency=concurrency,
        progress=progress,
        return_errors=False,
    )
    pairs = list(zip(items, found, strict=True))
    return Rewritings(
        [Dialogue(i.id, each.messages) for i, each in pairs if each.messages],
        [Reject(i.id, each.reason) for i, each in pairs if not each.messages],
        sum(each.attempts for each in found),
    )


def faults(item: Item, messages: list[dict[str, str]]) -> list[str]:
    """What is wrong with a dialogue that a model has written.

    Args:
      item: the item.
      messages: ``{"role", "content"}`` each.

    Returns:
      A sentence for each fault: turns that do not alternate, a last turn without the
      answer, sentences of the item that the patient does not say word for word,
      evidence out of order, numbers that are not the item's.
    """
    roles = [message["role"] for message in messages]
    found = []
    if roles != ["user", "assistant"] * (len(roles) // 2) or not roles:
        found.append("the turns must alternate, the patient first and the doctor last")
    if not roles or not stands_in(item.answer, messages[-1]["content"]):
        found.append(
            f"the last turn must state the answer word for word: {item.answer}"
        )
    said = [message for message in messages if message["role"] == "user"]
    # The answer is the doctor's: it was looked for above.
    missing = missing_facts(item._replace(answer=""), said)
    found += [f"the patient must say word for word: {each}" for each in missing]
    if not missing and not _in_order(item.evidence, said):
        found.append("the patient must say the sentences in the order of the list")
    texts = [item.background, *item.evidence, item.question, item.answer]
    added = _numbers(m["content"] for m in messages) - _numbers(texts)
    if added:
        found.append(f"these numbers are not the patient's: {', '.join(sorted(added))}")
    return found


def _prompt(item: Item) -> str:
    speakers = {role: name for name, role in _SPEAKERS.items()}
    draft = [
        f"{speakers[message['role']]}: {message['content']}"
        for message in to_dialogue(item).messages
    ]
    sentences = [item.background, *item.evidence, item.question]
    listed = [f"- {sentence}" for sentence in sentences if sentence]
    return "\n".join(
        (
            f"{_TASK}\nSentences:",
            *listed,
            f"\nAnswer: {item.answer}\n\nConversation:",
            *draft,
        )
    )


def _messages(value: dict[str, Any]) -> list[dict[str, str]]:
    return [
        {"role": _SPEAKERS[turn["speaker"]], "content": turn["text"].strip()}
        for turn in value["turns"]
    ]


def _in_order(evidence: tuple[str, ...], said: list[dict[str, str]]) -> bool:
    """Whether each sentence stands somewhere after the one before it."""
    text, place = "\n".join(message["content"] for message in said), 0
    for sentence in evidence:
        place = text.find(sentence, place)
        if place < 0:
            return False
        place += len(sentence)
    return True


def _numbers(texts: Iterable[str]) -> set[str]:
    """Numbers in texts, as digits without separators of thousands."""
    found = _NUMBER.findall("\n".join(texts))
    return {_NUMBER_WORDS.get(each.lower()) or each.replace(",", "") for each in found}
