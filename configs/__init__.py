"""Configurations: one module per system, with commented fields and presets."""

from typing import Any

__all__ = ["check_asking"]


def check_asking(config: Any) -> None:
    """Check the fields `chat`, `chat_model`, `prices` and `max_cost`.

    Args:
      config: a configuration that has them.

    Raises:
      ValueError: naming the field that does not fit.
    """
    if not all(0 <= each < float("inf") for each in config.prices):
        raise ValueError(
            f"prices: expected finite numbers of at least 0, got {config.prices}"
        )
    limited = 0 < config.max_cost < float("inf") and any(config.prices)
    if config.max_cost and not limited:
        raise ValueError(
            "max_cost: expected 0, or a positive number and `prices`, or else "
            f"no cost is known, got {config.max_cost} and prices {config.prices}"
        )
    if bool(config.chat) != bool(config.chat_model):
        raise ValueError(
            "chat: expected `chat` and `chat_model` together, got "
            f"{config.chat!r} and {config.chat_model!r}"
        )
