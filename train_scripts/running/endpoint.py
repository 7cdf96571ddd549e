"""The user's OpenAI-compatible endpoint, its answers stored in the run's folder."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from jeff_llm import chat

__all__ = ["AGAIN", "naming_failures", "open_endpoint"]

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
        prices.
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
        budget.charge(cached.spent())
    return cached


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
