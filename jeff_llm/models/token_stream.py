"""Streaming decoding of tokens; text that was returned never changes."""

from collections.abc import Callable

__all__ = ["TokenStream"]

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class TokenStream:
    """The text of tokens that arrive one at a time.

    The returned pieces, joined, are the text of all tokens together. A character whose
    bytes are spread over several tokens is held back until it is complete.
    """

    def __init__(self, decode: Callable[[list[int]], str]):
        """Begin without tokens.

        Args:
          decode: the text of a list of tokens.
        """
        self._decode = decode
        # The last tokens that gave text, which spaces between words depend on, and the
        # tokens behind them.
        self._shown: list[int] = []
        self._held: list[int] = []

    def push(self, token: int) -> str:
        """Add a token.

        Args:
          token: its id.

        Returns:
          The completed text, often empty.
        """
        held = [*self._held, token]
        text = self._text_of(held)
        if text and not text.endswith(_REPLACEMENT):
            self._shown, self._held = held, []
            return text
        self._held = held
        return ""

    def finish(self) -> str:
        """End the stream; the next token would begin another one.

        Returns:
          The text that was held back, with U+FFFD for bytes that are no character.
        """
        text = self._text_of(self._held)
        self._shown, self._held = [], []
        return text

    def _text_of(self, held: list[int]) -> str:
        before = len(self._decode(self._shown))
        return self._decode(self._shown + held)[before:]
