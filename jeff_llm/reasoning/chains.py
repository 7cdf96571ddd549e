"""The parts of a chain of thought, and the tokens that mark them.

A chain is a prompt, the markers that open a thought, the thought, the markers that
close it, and an answer. A model without such tokens is driven in the same way: nothing
opens the thought, the model's own end token ends it, and the text "The answer is"
closes it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Int, Key

from jeff_llm.generate import batching
from jeff_llm.generate.sampling import GREEDY, Sampling
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.reasoning.continuing import continue_rows

__all__ = ["Markers", "Thoughts", "finish", "opened", "thought_ends"]


class Markers(NamedTuple):
    """Token ids that mark the parts of a chain.

    Attributes:
      open: what opens a thought; added to a prompt that does not end with it. Empty if
        the prompt already asks for a thought.
      close: what closes a thought. It is written behind each thought, also where the
        thought ended by itself.
      wait: what continues a thought that would end, for
        `jeff_llm.reasoning.thinking.force_budget`.
      transitions: single tokens that begin another step of thought, such as "Wait" or
        the end of a line; chains are probed behind them.
      ends: tokens with which the model ends a thought by itself; the first token of
        ``close`` if empty. The model's stop tokens end it too.
    """

    open: tuple[int, ...]
    close: tuple[int, ...]
    wait: tuple[int, ...] = ()
    transitions: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()


class Thoughts(NamedTuple):
    """Chains that have come to an answer.

    Attributes:
      tokens: tokens of each thought, without those that open and close it.
      answers: tokens of each answer, without its end token.
      lengths: tokens behind the opened thought: thought, closing tokens, answer and its
        end token. Forced tokens count like written ones; prompt and opening tokens do
        not.
      closed: whether the model ended the thought by itself; else it was cut.
      finished: whether the answer met an end token; else it was cut.
    """

    tokens: list[list[int]]
    answers: list[list[int]]
    lengths: Int[np.ndarray, " chains"]
    closed: Bool[np.ndarray, " chains"]
    finished: Bool[np.ndarray, " chains"]


def finish(
    model: LanguageModel,
    rows: Sequence[list[int]],
    thoughts: Sequence[list[int]],
    closed: Bool[np.ndarray, " chains"],
    markers: Markers,
    *,
    max_answer_tokens: int,
    sampling: Sampling = GREEDY,
    keys: Key[Array, " chains"] | None = None,
    stop_ids: Sequence[int] | None = None,
    batch_size: int = 128,
) -> Thoughts:
    """Close thoughts and let the model answer.

    Args:
      model: the model.
      rows: opened prompts, as `opened` gives them.
      thoughts: tokens of each thought.
      closed: whether the model ended each by itself.
      markers: tokens that mark the parts.
      max_answer_tokens: longest answer, its end token included.
      sampling: as in `think`.
      keys: one random key per chain; needed unless greedy.
      stop_ids: as in `think`.
      batch_size: as in `think`.

    Returns:
      The chains.
    """
    found = continue_rows(
        model,
        [
            row + thought + [*markers.close]
            for row, thought in zip(rows, thoughts, strict=True)
        ],
        max_new_tokens=max_answer_tokens,
        stop_ids=model.stop_ids if stop_ids is None else stop_ids,
        sampling=sampling,
        keys=keys,
        batch_size=batch_size,
    )
    finished = found.ends >= 0
    spoken = np.array([len(answer) for answer in found.tokens]) + finished
    thought = np.array([len(each) for each in thoughts])
    return Thoughts(
        tokens=[list(each) for each in thoughts],
        answers=found.tokens,
        lengths=thought + len(markers.close) + spoken,
        closed=closed,
        finished=finished,
    )


def opened(
    model: LanguageModel,
    prompts: Sequence[batching.Prompt],
    markers: Markers,
    *,
    room: int,
) -> list[list[int]]:
    """Token ids of prompts with an opened thought.

    Args:
      model: the model.
      prompts: texts or token ids.
      markers: tokens that mark the parts.
      room: tokens that will follow each.

    Returns:
      The rows.

    Raises:
      ValueError: if a marker is not in the vocabulary, ``close`` is empty, or a prompt
        is empty or too long.
    """
    if not markers.close:
        raise ValueError("markers.close: expected at least one token, got none")
    for name, ids in markers._asdict().items():
        batching.check_ids(model, ids, f"markers.{name}")
    begin = [*markers.open]
    rows = batching.encode(model, prompts, room=room + len(begin))
    return [
        row if row[len(row) - len(begin) :] == begin else row + begin for row in rows
    ]


def thought_ends(
    model: LanguageModel, markers: Markers, stop_ids: Sequence[int] | None = None
) -> list[int]:
    """Tokens at which a thought ends: its own ends, and those of the whole text.

    Args:
      model: the model.
      markers: tokens that mark the parts.
      stop_ids: tokens that end an answer; the model's own by default.

    Returns:
      Token ids.
    """
    stops = model.stop_ids if stop_ids is None else stop_ids
    return [*(markers.ends or markers.close[:1]), *stops]
