"""Totals over many answers: tokens, cost, failures."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from jeff_llm.chat.messages import Answer

__all__ = ["Usage", "usage"]


@dataclass(frozen=True)
class Usage:
    """Totals over many requests.

    Attributes:
      requests: number of requests.
      cached: number of answers that came from a cache.
      failed: number of requests without an answer.
      prompt_tokens: tokens read, including those of cached answers.
      completion_tokens: tokens written, including those of cached answers.
      cost: total cost; cached answers cost nothing.
    """

    requests: int
    cached: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    cost: float


def usage(answers: Iterable[Answer | Exception]) -> Usage:
    """Add up the tokens and costs of many answers.

    Args:
      answers: answers and errors, as returned by `ask_all`.

    Returns:
      The totals.

    >>> total = usage([Answer("4", "stop", 9, 2, cost=0.5), ValueError("too long")])
    >>> total.requests, total.failed, total.prompt_tokens, total.cost
    (2, 1, 9, 0.5)
    """
    every = list(answers)
    given = [answer for answer in every if isinstance(answer, Answer)]
    return Usage(
        requests=len(every),
        cached=sum(answer.cached for answer in given),
        failed=len(every) - len(given),
        prompt_tokens=sum(answer.prompt_tokens for answer in given),
        completion_tokens=sum(answer.completion_tokens for answer in given),
        cost=math.fsum(answer.cost for answer in given),
    )
