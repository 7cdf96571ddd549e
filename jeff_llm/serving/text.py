"""Text of an answer while its tokens arrive: whole characters, and no stop text.

What was handed over is never taken back. Text that may be the beginning of a stop text
is held until the next tokens decide, so a stop text never leaves, wherever it is cut
into tokens.
"""

from typing import NamedTuple

from jeff_llm.chat.messages import before_stop
from jeff_llm.models.tokenizer import Tokenizer

__all__ = ["AnswerText", "StopCutter", "Token"]


class Token(NamedTuple):
    """One token of an answer.

    Attributes:
      number: its id.
      log_prob: its natural log-probability under the model itself.
      likeliest: ids and log-probabilities of the likeliest tokens in its place.
      offset: characters of the answer before it.
    """

    number: int
    log_prob: float
    likeliest: tuple[tuple[int, float], ...]
    offset: int


class StopCutter:
    """Cuts a text that arrives in pieces before the first of some stop texts.

    Attributes:
      found: whether a stop text came; all text after it is dropped.
    """

    found: bool

    def __init__(self, stop: tuple[str, ...]):
        """Begin without text.

        Args:
          stop: the stop texts, none of them empty.
        """
        self.found = False
        self._stop = stop
        self._held = ""

    def push(self, text: str) -> str:
        """Add text.

        Args:
          text: the next piece.

        Returns:
          Text that is certainly before any stop text, often empty.
        """
        if self.found:
            return ""
        whole = self._held + text
        before = before_stop(whole, self._stop)
        self.found = before != whole
        kept = 0 if self.found else max(map(self._begun(whole), self._stop), default=0)
        self._held = whole[len(whole) - kept :]
        return before[: len(whole) - kept]

    def finish(self) -> str:
        """End the text.

        Returns:
          What was held: the beginning of a stop text that did not come.
        """
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _begun(text: str):
        """Characters at the end of the text with which a stop text begins."""

        def length(stop: str) -> int:
            sizes = range(min(len(stop) - 1, len(text)), 0, -1)
            return next((n for n in sizes if text.endswith(stop[:n])), 0)

        return length


class AnswerText:
    """Turns the tokens of one answer into text, token by token."""

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...]):
        """Begin without tokens.

        Args:
          tokenizer: of the model.
          stop: texts before which the answer ends.
        """
        self._stream = tokenizer.stream()
        self._cutter = StopCutter(stop)
        self._decoded = self._shown = 0
        self._tokens: list[Token] = []

    @property
    def stopped(self) -> bool:
        """Whether a stop text came."""
        return self._cutter.found

    def push(
        self, number: int, log_prob: float, likeliest: tuple[tuple[int, float], ...]
    ) -> str:
        """Add a token.

        Args:
          number: its id.
          log_prob: its log-probability.
          likeliest: ids and log-probabilities of the likeliest tokens in its place.

        Returns:
          The text that can be handed over.
        """
        self._tokens.append(Token(number, log_prob, likeliest, self._decoded))
        piece = self._stream.push(number)
        self._decoded += len(piece)
        return self._show(self._cutter.push(piece))

    def finish(self) -> str:
        """End the answer.

        Returns:
          The text that was held back.
        """
        # Bytes that were held may be the end of a stop text as well.
        rest = self._cutter.push(self._stream.finish())
        return self._show(rest + self._cutter.finish())

    def take(self, *, last: bool) -> tuple[Token, ...]:
        """Take the tokens whose text was handed over.

        Args:
          last: the answer has ended: without a stop text, tokens without text come too.

        Returns:
          The tokens that were not taken before.
        """
        everything = last and not self.stopped
        ready = [t for t in self._tokens if everything or t.offset < self._shown]
        self._tokens = self._tokens[len(ready) :]
        return tuple(ready)

    def _show(self, text: str) -> str:
        self._shown += len(text)
        return text
