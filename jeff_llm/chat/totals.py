"""Totals over many answers: tokens, cost, failures."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from jeff_llm.chat.messages import Answer

__all__ = ["Usage", "total", "usage"]


@dataclass(frozen=True)
class Usage:
    """Totals over many requests.

    Attributes:
      requests: number of requests.
      cached: number of answers that came from a cache.
      failed: number of requests without an answer.
      prompt_tokens: tokens read, including those of cached answers; None if an endpoint
        did not report those of some answer.
      completion_tokens: tokens written, likewise.
      cost: total cost; cached answers cost nothing. None if that of some answer is not
        known.
    """

    requests: int
    cached: int
    failed: int
    prompt_tokens: int | None
    completion_tokens: int | None
    cost: float | None

    @property
    def tokens(self) -> int | None:
        """Tokens read and written; None if not known."""
        return total((self.prompt_tokens, self.completion_tokens))


def usage(answers: Iterable[Answer | Exception]) -> Usage:
    """Add up the tokens and costs of many answers.

    Args:
      answers: answers and errors, as returned by `ask_all`.

    Returns:
      The totals.

    >>> found = usage([Answer("4", "stop", 9, 2, cost=0.5), ValueError("too long")])
    >>> found.requests, found.failed, found.prompt_tokens, found.cost
    (2, 1, 9, 0.5)
    """
    every = list(answers)
    given = [answer for answer in every if isinstance(answer, Answer)]
    return Usage(
        requests=len(every),
        cached=sum(answer.cached for answer in given),
        failed=len(every) - len(given),
        prompt_tokens=total(answer.prompt_tokens for answer in given),
        completion_tokens=total(answer.completion_tokens for answer in given),
        cost=total((answer.cost for answer in given), math.fsum),
    )


def total(values: Iterable[Any], add: Callable[[list[Any]], Any] = sum) -> Any:
    """A sum of which a part may not be known.

    Args:
      values: numbers, or None where one is not known.
      add: adds numbers up.

    Returns:
      The sum; None if a value is not known.

    >>> total([1, 2]), total([1, None])
    (3, None)
    """
    every = list(values)
    return None if None in every else add(every)
