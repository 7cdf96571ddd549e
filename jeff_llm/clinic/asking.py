"""Choice of evidence by any chat model, in free text.

`jeff_llm.clinic.replies` reads what the model writes. A reply that it cannot read fails
and scores 0: it is not asked for again, since a model that gets a second try at the
hard mazes looks better than it is.

References:
  Liu et al., "Dialogue is Better Than Monologue: Instructing Medical LLMs via
  Strategical Conversations", 2025 (arXiv 2501.17860), section 3.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from jeff_llm.chat.asking import AskError, Progress, map_async
from jeff_llm.chat.messages import Answer, ChatError, ChatModel, Message, Price, Request
from jeff_llm.chat.totals import usage
from jeff_llm.clinic import prompts
from jeff_llm.clinic.maze import Maze
from jeff_llm.clinic.prompts import ROUNDS
from jeff_llm.clinic.replies import Reason, parse

__all__ = ["Asked", "Chosen", "Estimate", "choose", "choose_all", "estimate", "parse"]

# Tokenizers that split numbers into digits take a token for every two characters of
# the densest laboratory tables.
_CHARACTERS = 2.0
_MESSAGE_TOKENS = 12  # of a chat template, around each message


class Chosen(NamedTuple):
    """The choice in one maze.

    Attributes:
      picks: places in ``maze.listed``, in order; None if a reply could not be read.
      failure: why it could not be read; None if it could.
      answers: everything that the model said, one answer a turn.
    """

    picks: list[int] | None
    failure: Reason | None
    answers: tuple[Answer, ...]


class Asked(NamedTuple):
    """The choices in many mazes.

    Attributes:
      picks: of each maze; None where a reply could not be read.
      failures: number of those mazes by reason.
      tokens: read and written, those of stored answers included; None if not reported.
      cost: of the answers that were not stored, in the currency of the price; None if
        it is not known.
    """

    picks: list[list[int] | None]
    failures: Counter[Reason]
    tokens: int | None
    cost: float | None


class Estimate(NamedTuple):
    """What a choice takes at most.

    Attributes:
      calls: number of requests.
      tokens: read and written.
      cost: in the currency of the price; 0 without one.
    """

    calls: int
    tokens: int
    cost: float


async def choose(
    model: ChatModel, maze: Maze, *, rounds: str = "one", max_tokens: int = 512
) -> Chosen:
    """Let a chat model choose as many sentences as there is evidence.

    Args:
      model: the model; it is asked greedily, at temperature 0.
      maze: the task.
      rounds: "one" asks for all numbers at once, "several" for one a turn and shows
        what was chosen so far. A turn that fails ends the maze.
      max_tokens: maximum length of a reply, thoughts included, in tokens. Of a reply
        that is cut at it, the whole lines count.

    Returns:
      The choice.

    Raises:
      ChatError: if an endpoint gives no answer.
      ValueError: if ``rounds`` is unknown or ``max_tokens`` is not positive.
    """
    _check_rounds(rounds)
    picks: list[int] = []
    answers: list[Answer] = []
    count = len(maze.gold) if rounds == "one" else 1
    while len(picks) < len(maze.gold):
        messages = _messages(maze, rounds, picks)
        answer = await model.answer(Request(messages, max_tokens))
        answers.append(answer)
        found = _read(answer, maze, count, picks)
        if isinstance(found, str):
            return Chosen(None, found, tuple(answers))
        picks += found
    return Chosen(picks, None, tuple(answers))


async def choose_all(
    model: ChatModel,
    mazes: Sequence[Maze],
    *,
    rounds: str = "one",
    max_tokens: int = 512,
    concurrency: int = 8,
    progress: Progress | None = None,
) -> Asked:
    """Let a chat model choose in many mazes, a limited number at a time.

    Args:
      model: the model; wrap it in `jeff_llm.chat.Cached`, so that a run that is killed
        pays for nothing twice.
      mazes: the tasks.
      rounds: as in `choose`.
      max_tokens: likewise.
      concurrency: maximum number of mazes in work.
      progress: called with the number of finished mazes and the total.

    Returns:
      The choices, in the order of the mazes.

    Raises:
      OSError: if requests fail, after every maze was tried; names the model. Its
        ``__cause__`` is the `AskError` that holds the choices that were made.
      ValueError: if ``rounds`` is unknown, or ``max_tokens`` or ``concurrency`` is not
        positive.
    """
    _check_rounds(rounds)
    if max_tokens < 1:
        raise ValueError(f"max_tokens: expected at least 1, got {max_tokens}")
    try:
        chosen: list[Chosen] = await map_async(
            lambda maze: choose(model, maze, rounds=rounds, max_tokens=max_tokens),
            mazes,
            concurrency=concurrency,
            progress=progress,
            return_errors=False,
        )
    except AskError as errors:
        requests, others = errors.split((ChatError, OSError))
        if requests is None or others is not None:
            raise  # a fault of the program, not of the endpoint
        first = " ".join(str(errors.first).split())
        raise OSError(
            f"{model.name}: expected an answer in each of {len(mazes)} mazes, got none "
            f"in {len(requests.exceptions)}; the first error: {first}"
        ) from errors
    total = usage(answer for each in chosen for answer in each.answers)
    return Asked(
        [each.picks for each in chosen],
        Counter(each.failure for each in chosen if each.failure is not None),
        total.tokens,
        total.cost,
    )


def estimate(
    mazes: Sequence[Maze],
    rounds: str,
    price: Price | None = None,
    *,
    max_tokens: int = 512,
) -> Estimate:
    """Estimate from above what `choose_all` takes, before the first request.

    Every reply is counted at its full length, and in several rounds the longest
    sentences are those that later turns show.

    Args:
      mazes: the tasks.
      rounds: as in `choose`.
      price: of a million tokens read and written.
      max_tokens: as in `choose`.

    Returns:
      Calls, tokens and cost.

    Raises:
      ValueError: if ``rounds`` is unknown.
    """
    _check_rounds(rounds)
    calls = read = 0
    for maze in mazes:
        longest = sorted(range(len(maze.listed)), key=lambda k: -len(maze.listed[k]))
        turns = len(maze.gold) if rounds == "several" else 1
        calls += turns
        for turn in range(turns):
            messages = _messages(maze, rounds, longest[:turn])
            read += sum(_MESSAGE_TOKENS + _most_tokens(m.content) for m in messages)
    written = calls * max_tokens
    cost = 0.0 if price is None else price.cost(read, written)
    return Estimate(calls, read + written, cost)


def _messages(maze: Maze, rounds: str, picks: Sequence[int]) -> tuple[Message, ...]:
    """The conversation up to the next question."""
    if rounds == "one":
        messages = prompts.one_round(maze)
    else:
        messages = prompts.several_rounds(maze)
        for turn, place in enumerate(picks, 1):
            # The number alone: thoughts of earlier turns would be paid for again.
            messages.append({"role": "assistant", "content": str(place + 1)})
            messages.append(prompts.next_turn(maze, picks[:turn]))
    return tuple(Message(each["role"], each["content"]) for each in messages)


def _read(
    answer: Answer, maze: Maze, count: int, picks: Sequence[int]
) -> list[int] | Reason:
    if answer.finish_reason != "length":
        return parse(answer.text, maze, count=count, taken=picks)
    # The last line is not whole: "1" may be the beginning of "12".
    whole, _, _ = answer.text.rpartition("\n")
    found = parse(whole, maze, count=count, taken=picks)
    return "cut off" if isinstance(found, str) else found


def _most_tokens(text: str) -> int:
    # Other scripts may take a token for each byte.
    ascii_only = len(text.encode("ascii", "ignore"))
    others = len(text.encode("utf-8", "replace")) - ascii_only
    return math.ceil(ascii_only / _CHARACTERS) + others


def _check_rounds(rounds: str) -> None:
    if rounds not in ROUNDS:
        raise ValueError(f"rounds: expected one of {ROUNDS}, got {rounds!r}")
