"""The user's OpenAI-compatible endpoint, its answers stored in the run's folder."""

import os
from pathlib import Path

from jeff_llm import chat

__all__ = ["open_endpoint"]


def open_endpoint(
    url: str,
    name: str,
    workdir: Path,
    *,
    prices: tuple[float, float] = (0.0, 0.0),
) -> chat.Cached:
    """Prepare the model at an endpoint; nothing is asked yet.

    Args:
      url: address of the endpoint.
      name: name of the model there.
      workdir: the run's folder, where each answer is stored, so that a run that is
        killed pays for nothing twice.
      prices: of a million tokens read and of a million written.

    Returns:
      The model. Its key is read from the environment variable ``OPENAI_API_KEY`` and
      goes nowhere but to the endpoint.

    Raises:
      ValueError: if the address of the endpoint is none.
    """
    key = os.environ.get("OPENAI_API_KEY") or None
    model = chat.OpenAICompatible(url, name, api_key=key, price=chat.Price(*prices))
    return chat.Cached(model, workdir / "answers.db")
