"""Decoding tokens as they come, without ever taking text back."""

from collections.abc import Callable

__all__ = ["TokenStream"]

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class TokenStream:
    """The text of tokens that come one at a time.

    All that was returned, joined, is the text of all tokens at once. A character whose
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
          The text that it completes, often empty.
        """
        self._held.append(token)
        text = self._new_text()
        if not text or text.endswith(_REPLACEMENT):
            return ""
        self._shown, self._held = self._held, []
        return text

    def finish(self) -> str:
        """End the stream; the next token would begin another one.

        Returns:
          What was held back; U+FFFD stands for bytes that are no character.
        """
        text = self._new_text()
        self._shown, self._held = [], []
        return text

    def _new_text(self) -> str:
        before = len(self._decode(self._shown))
        return self._decode(self._shown + self._held)[before:]
