"""Ask any chat model several times, and stop as soon as a rule is satisfied.

The samples of a question are requested in windows: those of a window at the same time,
each with its own seed. After each window the rule sees all answers so far. Through
`jeff_llm.chat.Cached` a run that is killed resumes where it was, and samples that were
already paid for cost nothing under another rule.
"""

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Int
from scipy.special import betainc

from jeff_llm.chat import (
    Answer,
    AskError,
    ChatModel,
    Request,
    ask_all,
    conversation,
    run,
    usage,
)
from jeff_llm.reasoning.prompts import parse_answer, step_by_step

__all__ = [
    "Asked",
    "Rule",
    "WinnerRule",
    "adaptive_consistency_rule",
    "all_samples_rule",
    "ask",
    "ask_until",
    "early_stopping_rule",
]

# Codes of the answers so far -> whether to stop. Equal answers have equal codes,
# numbered in order of appearance; -1 is a sample without an answer.
Rule: TypeAlias = Callable[[Int[np.ndarray, " samples"]], bool]


@runtime_checkable
class WinnerRule(Protocol):
    """A rule that also says which answer wins; of other rules the majority wins."""

    def __call__(self, codes: Int[np.ndarray, " samples"]) -> bool:
        """Whether to stop.

        Args:
          codes: the answers so far.

        Returns:
          True to stop.
        """
        ...

    def winner(self, codes: Int[np.ndarray, " samples"]) -> int:
        """The answer of the vote.

        Args:
          codes: all answers.

        Returns:
          A code; -1 for none.
        """
        ...


class Asked(NamedTuple):
    """The vote on a question.

    Attributes:
      answer: the answer that the rule names, else the most frequent one, of equally
        frequent ones the first; None if no sample has one.
      votes: how often each answer was given.
      samples: samples that were requested.
      stopped: whether the rule stopped before the largest number.
      tokens: tokens that the model wrote; None if its endpoint does not report them.
      cost: their cost, and that of the prompts, see `jeff_llm.chat.Price`; None if it
        is not known.
      answers: all answers, in the order of their seeds.
    """

    answer: Hashable | None
    votes: dict[Hashable, int]
    samples: int
    stopped: bool
    tokens: int | None
    cost: float | None
    answers: tuple[Answer, ...]


def ask(chat_model: ChatModel, question: str, *, rule: Rule, **options: Any) -> Asked:
    """Vote on a question, and wait; in a script or in a notebook.

    Args:
      chat_model: any model of `jeff_llm.chat`: local, an endpoint, cached, recorded.
      question: the question.
      rule: when to stop.
      **options: as in `ask_until`.

    Returns:
      The vote.

    Raises:
      AskError: as `ask_until` does.
      ValueError: as `ask_until` does.
    """
    return run(ask_until(chat_model, question, rule=rule, **options))


async def ask_until(
    chat_model: ChatModel,
    question: str,
    *,
    rule: Rule,
    max_samples: int = 40,
    window: int = 5,
    temperature: float | int = 0.7,
    max_tokens: int = 1024,
    prompt: Callable[[str], str] = step_by_step,
    parse: Callable[[str], Hashable | None] = parse_answer,
    seed: int = 0,
) -> Asked:
    """Vote on a question; many questions can be asked at a time.

    Args:
      chat_model: any model of `jeff_llm.chat`.
      question: the question.
      rule: when to stop; called after each window.
      max_samples: samples at most.
      window: samples requested at the same time. A smaller window stops earlier, and
        waits more often.
      temperature: of the sampling; above 0, or all samples are the same.
      max_tokens: longest sample, in tokens. One that is cut still votes if `parse`
        finds an answer in it.
      prompt: from the question to the user's turn.
      parse: from the model's text to its answer; None if there is none.
      seed: seed of the first sample; the next have the next numbers.

    Returns:
      The vote.

    Raises:
      AskError: if a request fails; its ``results`` are all answers and errors so far.
      ValueError: if a number is out of its range.

    References:
      Wang et al., "Self-Consistency Improves Chain of Thought Reasoning in Language
      Models", ICLR 2023, arXiv 2203.11171.
    """
    for name, value in (("max_samples", max_samples), ("window", window)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    if temperature <= 0:
        raise ValueError(f"temperature: expected above 0, got {temperature}")
    messages = conversation(prompt(question))
    answers: list[Answer] = []
    said: list[Hashable | None] = []
    numbers: dict[Hashable, int] = {}
    codes = np.zeros(0, int)
    stopped = False
    while len(answers) < max_samples and not stopped:
        begin = len(answers)
        requests = [
            Request(messages, max_tokens, temperature, seed=seed + number)
            for number in range(begin, min(begin + window, max_samples))
        ]
        given = await ask_all(chat_model, requests, concurrency=window)
        if errors := [each for each in given if isinstance(each, Exception)]:
            message = f"{len(errors)} of {len(given)} samples failed"
            raise AskError(message, errors, [*answers, *given])
        answers += given
        said += [parse(answer.text) for answer in answers[begin:]]
        codes = np.array(
            [-1 if s is None else numbers.setdefault(s, len(numbers)) for s in said]
        )
        stopped = bool(rule(codes)) and len(answers) < max_samples
    winner = rule.winner(codes) if isinstance(rule, WinnerRule) else _majority(codes)
    total = usage(answers)
    return Asked(
        answer=None if winner < 0 else [*numbers][winner],
        votes={each: int(np.sum(codes == number)) for each, number in numbers.items()},
        samples=len(answers),
        stopped=stopped,
        tokens=total.completion_tokens,
        cost=total.cost,
        answers=tuple(answers),
    )


def all_samples_rule() -> Rule:
    """Never stop: the vote of all samples, self-consistency.

    Returns:
      The rule.
    """
    return lambda codes: False


def early_stopping_rule(window: int = 5) -> WinnerRule:
    """Early-stopping self-consistency: stop at a window of equal answers.

    Windows follow each other without overlap; a sample without an answer agrees with
    nothing. The answer of the first such window wins, and without one the majority.
    Where samples are requested in windows of another size, every window that is
    complete counts.

    Args:
      window: samples of a window, at least 2.

    Returns:
      The rule.

    Raises:
      ValueError: if ``window`` is below 2.

    References:
      Li et al., "Escape Sky-high Cost: Early-stopping Self-Consistency for Multi-step
      Reasoning", ICLR 2024, arXiv 2401.10480.

    >>> rule = early_stopping_rule(2)
    >>> rule(np.array([0, 1])), rule(np.array([0, 1, 1, 1]))
    (False, True)
    """
    if window < 2:
        raise ValueError(f"window: expected at least 2, got {window}")

    return _EarlyStopping(window)


def adaptive_consistency_rule(threshold: float = 0.95) -> Rule:
    """Adaptive-Consistency: stop once the leading answer is likely to stay in front.

    ``P(p > 1/2 | Beta(a + 1, b + 1)) >= threshold``, a and b the counts of the two most
    frequent answers.

    Args:
      threshold: in (1/2, 1): with no samples the probability is 1/2.

    Returns:
      The rule.

    Raises:
      ValueError: if the threshold is outside (1/2, 1).

    References:
      Aggarwal et al., "Let's Sample Step by Step: Adaptive-Consistency for Efficient
      Reasoning and Coding with LLMs", EMNLP 2023, arXiv 2305.11860.

    >>> rule = adaptive_consistency_rule(0.95)
    >>> rule(np.array([0, 0, 0])), rule(np.array([0, 0, 0, 0]))
    (False, True)
    """
    if not 0.5 < threshold < 1:
        raise ValueError(f"threshold: expected a number in (0.5, 1), got {threshold}")

    def rule(codes: Int[np.ndarray, " samples"]) -> bool:
        counts = np.sort(np.bincount(codes[codes >= 0], minlength=2))
        first, second = int(counts[-1]), int(counts[-2])
        # The lower tail of Beta(b + 1, a + 1) at 1/2 is the upper one of its mirror.
        return bool(betainc(second + 1, first + 1, 0.5) >= threshold)

    return rule


@dataclasses.dataclass(frozen=True)
class _EarlyStopping:
    window: int

    def __call__(self, codes: Int[np.ndarray, " samples"]) -> bool:
        return self._unanimous(codes) is not None

    def winner(self, codes: Int[np.ndarray, " samples"]) -> int:
        agreed = self._unanimous(codes)
        return _majority(codes) if agreed is None else agreed

    def _unanimous(self, codes: Int[np.ndarray, " samples"]) -> int | None:
        """The answer of the first window of equal answers."""
        whole = codes[: len(codes) // self.window * self.window]
        for window in whole.reshape(-1, self.window).tolist():
            if window[0] >= 0 and len(set(window)) == 1:
                return window[0]
        return None


def _majority(codes: Int[np.ndarray, " samples"]) -> int:
    """The most frequent code, of equally frequent ones the first seen; -1 for none."""
    given = codes[codes >= 0]
    # Codes are numbered in order of appearance, and argmax takes the first.
    return int(np.bincount(given).argmax()) if given.size else -1
