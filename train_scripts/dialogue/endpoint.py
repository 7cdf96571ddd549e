"""The model at the user's endpoint: it chooses evidence, and rewrites dialogues."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from configs.dialogue import Config
from jeff_llm import chat
from jeff_llm.chat.totals import total
from jeff_llm.clinic import asking, rewriting
from jeff_llm.clinic.dialogue import to_dialogue
from jeff_llm.clinic.items import Item
from jeff_llm.clinic.maze import Maze
from jeff_llm.clinic.replies import Reason
from train_scripts.running.cells import table_cell
from train_scripts.running.endpoint import (
    AGAIN,
    counted,
    naming_failures,
    open_endpoint,
    priced,
)
from train_scripts.running.stages import say

__all__ = ["Answered", "ask", "rewrite"]

_ATTEMPTS = 2  # rewritings of one dialogue; the JSON of each may be repaired once
_REWRITING_TOKENS = 2048


class Answered(NamedTuple):
    """The choices of the model at the endpoint.

    Attributes:
      picks: of each maze, by rounds and noise; None where a reply could not be read.
      note: a report in Markdown.
    """

    picks: dict[tuple[str, int], list[list[int] | None]]
    note: str


def ask(
    config: Config,
    workdir: Path,
    mazes: Mapping[int, Sequence[Maze]],
    *,
    progress: bool = True,
) -> Answered:
    """Let the model choose the evidence of every maze.

    What it will cost at most is printed before the first call; stored answers cost
    nothing.

    Args:
      config: settings of the run.
      workdir: the run's folder, where each answer is stored.
      mazes: the tasks by noise.
      progress: say what is being done.

    Returns:
      Choices and report.

    Raises:
      OSError: if requests fail for good; what was answered stays stored.
      ValueError: if the address of the endpoint is none.
    """
    model = _open(config, workdir)
    price = chat.Price(*config.prices)
    settings = [(rounds, noise) for rounds in config.rounds for noise in mazes]
    most = [
        asking.estimate(mazes[noise], rounds, price, max_tokens=config.chat_tokens)
        for rounds, noise in settings
    ]
    _state(
        config,
        f"{sum(each.calls for each in most)} calls",
        sum(each.tokens for each in most),
        sum(each.cost for each in most),
    )
    picks: dict[tuple[str, int], list[list[int] | None]] = {}
    failures: Counter[Reason] = Counter()
    tokens: int | None = 0
    for rounds, noise in settings:
        say("dialogue", progress, f"{config.chat_model}: {rounds}, noise {noise}")
        try:
            found = chat.run(
                asking.choose_all(
                    model,
                    mazes[noise],
                    rounds=rounds,
                    max_tokens=config.chat_tokens,
                    concurrency=config.concurrency,
                )
            )
        except OSError as error:
            raise OSError(f"{config.chat}: {error}; {AGAIN}") from error
        picks[rounds, noise] = found.picks
        failures += found.failures
        tokens = total((tokens, found.tokens))
    note = _note(config, picks, failures, tokens, model.spent())
    return Answered(picks, note)


def rewrite(
    config: Config, workdir: Path, items: Sequence[Item], *, progress: bool = True
) -> rewriting.Rewritings:
    """Let the model write the dialogues in its own words.

    Args:
      config: settings of the run.
      workdir: the run's folder, where each answer is stored.
      items: the items.
      progress: say what is being done.

    Returns:
      The dialogues that keep every fact, and the items of the others.

    Raises:
      OSError: if no request is answered, or nothing more can be asked.
      ValueError: if the address of the endpoint is none.
    """
    model = _open(config, workdir)
    calls = 2 * _ATTEMPTS * len(items)
    drafts = [m["content"] for item in items for m in to_dialogue(item).messages]
    # A prompt has the rules, the sentences and the draft, which repeats each sentence;
    # a later one also what the model wrote before. No byte takes more than one token.
    told = 1000 * len(items) + sum(len(draft.encode()) for draft in drafts)
    read = 2 * _ATTEMPTS * told + 2 * calls * _REWRITING_TOKENS
    written = calls * _REWRITING_TOKENS
    cost = chat.Price(*config.prices).cost(read, written)
    _state(config, f"at most {calls} calls for rewriting", read + written, cost)
    say("dialogue", progress, f"{config.chat_model} rewrites {len(items)} dialogues")
    with naming_failures(config.chat):
        found = chat.run(
            rewriting.rewrite_all(
                model,
                items,
                attempts=_ATTEMPTS,
                max_tokens=_REWRITING_TOKENS,
                concurrency=config.concurrency,
            )
        )
    failed = [each for each in found.rejects if "the request failed" in each.reason]
    if items and len(failed) == len(items):
        first = " ".join(failed[0].reason.split())
        raise OSError(f"{config.chat}: {first}; {AGAIN}")
    return found


def _open(config: Config, workdir: Path) -> chat.Cached:
    return open_endpoint(
        config.chat,
        config.chat_model,
        workdir,
        prices=config.prices,
        max_cost=config.max_cost,
    )


def _state(config: Config, calls: str, tokens: int, cost: float) -> None:
    """Print what the calls take at most."""
    stated = f"{cost:.4f} at the given prices" if any(config.prices) else "unknown"
    hint = "" if any(config.prices) else " (--prices tells it)"
    print(
        f"{config.chat_model}: {calls}, at most about {tokens:,} tokens, cost "
        f"{stated}{hint}; stored answers cost nothing"
    )


def _note(
    config: Config,
    picks: Mapping[tuple[str, int], Sequence[list[int] | None]],
    failures: Counter[Reason],
    tokens: int | None,
    cost: float | None,
) -> str:
    asked = sum(map(len, picks.values()))
    spent = priced(cost, config.prices)
    lines = [
        f"{table_cell(config.chat_model)} was asked about {asked} mazes: "
        f"{counted(tokens)}, cost {spent} (of all answers in the run's folder, "
        f"rewritings included). {failures.total()} replies could not be read and "
        "score 0."
    ]
    if failures:
        reasons = ", ".join(f"{why} {n}" for why, n in failures.most_common())
        lines.append(f"Failures by reason: {reasons}.")
    if failures["cut off"]:
        lines.append("Raise `--chat-tokens` for replies that were cut off.")
    return "\n".join(lines) + "\n"
