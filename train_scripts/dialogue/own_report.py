"""The report on the user's own questions."""

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from configs.dialogue import Config
from jeff_llm.clinic.dialogue import Dialogue
from jeff_llm.clinic.items import Item, Reject
from train_scripts.dialogue import own_scores
from train_scripts.dialogue.own_scores import Tested
from train_scripts.running.cells import table_cell

__all__ = ["Converted", "numbers", "table"]

_SAMPLE = 400  # characters of a turn of the sample
_SPEAKERS = {"user": "patient or chart", "assistant": "doctor"}


class Converted(NamedTuple):
    """Questions, and what was made of them.

    Attributes:
      questions: number of questions.
      items: those that make an item.
      forms: conversations by the name of their file.
      rejects: what was left out.
      ignored_fields: of the file.
    """

    questions: int
    items: list[Item]
    forms: dict[str, list[Dialogue]]
    rejects: list[Reject]
    ignored_fields: tuple[str, ...]


def numbers(converted: Converted, tested: Tested | None) -> dict[str, float]:
    """Numbers of the result.

    Args:
      converted: questions and conversations.
      tested: scores, if there were mazes.

    Returns:
      Counts, and mean shares of right positions.
    """
    found = {
        "questions": float(converted.questions),
        "items": float(len(converted.items)),
        "rejects": float(len(converted.rejects)),
        **{name: float(len(each)) for name, each in converted.forms.items()},
    }
    return found if tested is None else found | own_scores.numbers(tested)


def table(
    config: Config,
    workdir: Path,
    converted: Converted,
    notes: Sequence[str],
    tested: Tested | None,
) -> str:
    """Write the report.

    Args:
      config: settings of the run.
      workdir: folder of the files.
      converted: questions and conversations.
      notes: what is to be said about the mazes.
      tested: scores, if there were mazes.

    Returns:
      Markdown.
    """
    lines = [
        f"# Dialogues of {table_cell(config.data, most=200)}\n",
        *_files(config, workdir, converted),
        *_training(workdir, converted),
        *_sample(converted),
        *_rejects(converted),
        "\n## Mazes\n",
        *(f"* {table_cell(note, most=400)}" for note in notes),
    ]
    if tested is not None:
        lines += own_scores.table(config, tested)
    return "\n".join(lines) + "\n"


def _files(config: Config, workdir: Path, converted: Converted) -> Iterator[str]:
    total = len(converted.items)
    yield f"{converted.questions} questions make {total} items. In `{workdir}`:\n"
    yield "| file | conversations |"
    yield "|---|---|"
    for name, dialogues in converted.forms.items():
        yield f"| {name}.jsonl | {len(dialogues) or 'not written: none'} |"
    if config.rewrite:
        yield (
            f"\n{table_cell(config.chat_model)} wrote the dialogues. Those that lost a "
            "fact or added one are rejects, and no dialogue by rules stands in their "
            "place; the two other files hold their items."
        )
    if converted.ignored_fields:
        named = ", ".join(table_cell(each) for each in converted.ignored_fields)
        yield f"\nFields that were ignored: {named}."


def _training(workdir: Path, converted: Converted) -> Iterator[str]:
    dialogues = converted.forms["dialogue"]
    if not dialogues:
        return
    longest = max(sum(len(m["content"]) for m in d.messages) for d in dialogues)
    # English has about four characters a token, and the template adds some.
    room = 1 << max(longest // 3, 255).bit_length()
    data = shlex.quote(str(workdir / "dialogue.jsonl"))
    yield "\n## Train on them\n"
    yield "```sh"
    yield f"python -m train_scripts.finetune --data {data} --max-tokens {room}"
    yield "```\n"
    yield (
        "TRL and axolotl read the files too. Multiple choice and monologue are "
        "controls made from the same items: train on each, and compare."
    )


def _sample(converted: Converted) -> Iterator[str]:
    dialogues = converted.forms["dialogue"]
    if not dialogues:
        return
    sample = min(dialogues, key=lambda each: len(each.messages))
    yield f"\n## The shortest dialogue: {table_cell(sample.id)}\n"
    yield "| speaker | text |"
    yield "|---|---|"
    for message in sample.messages:
        text = table_cell(message["content"], most=_SAMPLE)
        yield f"| {_SPEAKERS[message['role']]} | {text} |"


def _rejects(converted: Converted) -> Iterator[str]:
    if not converted.rejects:
        return
    counts = Counter(_reason(each) for each in converted.rejects)
    first = {_reason(each): each.id for each in reversed(converted.rejects)}
    yield "\n## Rejects\n"
    yield "`rejects.jsonl` names each with its reason.\n"
    yield "| reason | number | first |"
    yield "|---|---|---|"
    for reason, count in counts.most_common():
        told = table_cell(reason, most=160)
        yield f"| {told} | {count} | {table_cell(first[reason])} |"


def _reason(reject: Reject) -> str:
    """The part of a reason that does not name the texts of one item."""
    return reject.reason.partition(", got")[0].partition(":")[0]
