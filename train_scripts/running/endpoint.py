"""The user's OpenAI-compatible endpoint, its answers stored in the run's folder."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from jeff_llm import chat

__all__ = ["AGAIN", "counted", "naming_failures", "open_endpoint", "priced"]

AGAIN = "the same command goes on from here, and asks for no stored answer again"


def open_endpoint(
    url: str,
    name: str,
    workdir: Path,
    *,
    prices: tuple[float, float] = (0.0, 0.0),
    max_cost: float = 0.0,
) -> chat.Cached:
    """Prepare the model at an endpoint; nothing is asked yet.

    Args:
      url: address of the endpoint.
      name: name of the model there.
      workdir: the run's folder, where each answer is stored, so that a run that is
        killed pays for nothing twice.
      prices: of a million tokens read and of a million written.
      max_cost: most that the answers stored in the folder may cost together, those of
        earlier starts included; 0 sets no limit. A request that could pass it is not
        sent.

    Returns:
      The model. Its key is read from the environment variable ``OPENAI_API_KEY`` and
      goes nowhere but to the endpoint.

    Raises:
      ValueError: if the address of the endpoint is none, or there is a limit without
        prices or beside stored answers of unknown cost.
    """
    if max_cost and not any(prices):
        raise ValueError(
            f"max_cost: expected prices beside a limit of {max_cost}, since no cost is "
            "known without them"
        )
    budget = chat.Budget(max_cost) if max_cost else None
    model = chat.OpenAICompatible(
        url,
        name,
        api_key=os.environ.get("OPENAI_API_KEY") or None,
        price=chat.Price(*prices),
        budget=budget,
    )
    cached = chat.Cached(model, workdir / "answers.db")
    if budget is not None:
        if (spent := cached.spent()) is None:
            raise ValueError(
                f"{cached.path}: expected answers of known cost beside a limit of "
                f"{max_cost}, but {url} did not report the tokens of some; set no "
                "limit, or start in another folder"
            )
        budget.charge(spent)
    return cached


def counted(tokens: int | None) -> str:
    """Words for a number of tokens.

    Args:
      tokens: the number; None if the endpoint did not report it.

    Returns:
      The words.

    >>> counted(12345), counted(None)
    ('12,345 tokens', 'tokens not reported')
    """
    return "tokens not reported" if tokens is None else f"{tokens:,} tokens"


def priced(cost: float | None, prices: tuple[float, float]) -> str:
    """Words for what answers cost.

    Args:
      cost: the sum in the books; None if that of some answer is not known.
      prices: of a million tokens read and of a million written; without them every
        answer costs 0 in the books, which is not what it cost.

    Returns:
      The words.

    >>> priced(0.25, (1.0, 2.0)), priced(0.0, (0.0, 0.0)), priced(None, (1.0, 2.0))
    ('0.2500', 'unknown', 'unknown')
    """
    return f"{cost:.4f}" if any(prices) and cost is not None else "unknown"


@contextlib.contextmanager
def naming_failures(url: str) -> Iterator[None]:
    """Turn requests that failed into one error that names the endpoint.

    Args:
      url: address of the endpoint.

    Yields:
      Nothing; the block asks.

    Raises:
      OSError: if requests failed; its ``__cause__`` holds the answers that came.
    """
    try:
        yield
    except chat.AskError as errors:
        _, faults = errors.split((chat.ChatError, OSError, ValueError))
        if faults is not None:
            raise  # a fault of the program, not of the endpoint
        first = " ".join(str(errors.first).split())
        raise OSError(f"{url}: {first}; {AGAIN}") from errors
