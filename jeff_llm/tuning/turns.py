"""Conversations cut into what a model reads and what it says.

The chat format ``{"messages": [...]}`` is that of TRL and axolotl. TRL finds the tokens
to learn by marks that few templates have (``{% generation %}``); here any template
serves that only adds text for each turn.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jeff_llm.models.tokenizer import Tokenizer

__all__ = ["encode_turns", "split_turns"]

_ROLES = ("system", "user", "assistant")


def encode_turns(
    tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]]
) -> tuple[list[int], list[float]]:
    """Tokens of a conversation, and which of them are learned.

    Args:
      tokenizer: as in `split_turns`.
      messages: likewise.

    Returns:
      The ids, and the weight of each in the loss: 1 in the assistant's turns, with
      their ends, and 0 elsewhere.

    Raises:
      ValueError: as `split_turns`.
    """
    tokens: list[int] = []
    learned: list[float] = []
    for pair in split_turns(tokenizer, messages):
        # Each text by itself: a token across the border would be half read, half said.
        for text, weight in zip(pair, (0.0, 1.0), strict=True):
            ids = tokenizer.encode(text, add_special_tokens=False)
            tokens += ids
            learned += [weight] * len(ids)
    return tokens, learned


def split_turns(
    tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str]]:
    """Cut a conversation, as its chat template writes it, at each assistant turn.

    The template marks no borders. They are found by writing the conversation up to each
    assistant turn, once with the beginning of that turn alone and once with all of it.

    Args:
      tokenizer: with a chat template.
      messages: ``{"role", "content"}`` each, with the assistant's last.

    Returns:
      ``(read, said)`` for each assistant turn: the text since the turn before it, and
      its own text with the template's end of turn. Joined, they are the conversation
      without the white space at its end.

    Raises:
      ValueError: if the messages are no such conversation, or the template writes a
        turn in another way once others follow; names the message.
    """
    _check(messages)
    turns, text = [], ""
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = tokenizer.apply_chat_template(messages[:place])
        after = tokenizer.apply_chat_template(
            messages[: place + 1], add_generation_prompt=False
        ).rstrip()  # a line's end after the end of turn is never generated
        if not (before.startswith(text) and after.startswith(before)):
            raise ValueError(
                f"messages: expected a chat template that only adds text for each "
                f"turn, got one that rewrites text before message {place}; make rows "
                "of prompt and answer"
            )
        turns.append((before[len(text) :], after[len(before) :]))
        text = after
    return turns


def _check(messages: Any) -> None:
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        raise ValueError(f"messages: expected a list, got {messages!r:.80}")
    for place, message in enumerate(messages):
        where = f"message {place}"
        if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
            raise ValueError(
                f"{where}: expected role and content alone, got {message!r:.80}"
            )
        role, content = message["role"], message["content"]
        if role not in _ROLES:
            raise ValueError(f"{where}: expected a role of {_ROLES}, got {role!r}")
        if not isinstance(content, str):
            raise ValueError(f"{where}: expected content as text, got {content!r:.80}")
        if role == "assistant" and not content.strip():
            raise ValueError(f"{where}: expected an answer, got {content!r:.80}")
    roles = [message["role"] for message in messages]
    if "assistant" not in roles:
        raise ValueError(f"messages: expected an assistant's turn, got {roles}")
    if roles[0] == "assistant":
        raise ValueError("message 0: expected what the assistant answers, got a turn")
    if roles[-1] != "assistant":
        # Nothing after the last answer is learned: a row that was cut off.
        raise ValueError(
            f"messages: expected the assistant's turn last, got {roles[-1]!r}"
        )
