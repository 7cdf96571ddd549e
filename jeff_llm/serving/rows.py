"""One answer under way: what was asked, and what is handed over piece by piece."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from jeff_llm.models.tokenizer import Tokenizer
from jeff_llm.serving.text import AnswerText, Token

__all__ = ["Deliver", "Job", "Piece", "Row"]


@dataclasses.dataclass(frozen=True)
class Job:
    """What determines one answer, besides the model.

    Attributes:
      prompt: token ids.
      max_tokens: most tokens of the answer.
      temperature: divisor of the logits; 0 takes the likeliest token.
      top_k: as in `jeff_llm.generate.Sampling`, as are the next two.
      top_p: see there.
      min_p: see there.
      seed: of the row's random key, in [0, 2^32).
      stop: the answer ends before the first of these texts.
      num_likeliest: likeliest tokens to report beside each token.
    """

    prompt: tuple[int, ...]
    max_tokens: int
    temperature: float | int = 0.0
    top_k: int | None = None
    top_p: float | int | None = None
    min_p: float | int | None = None
    seed: int = 0
    stop: tuple[str, ...] = ()
    num_likeliest: int = 0


class Piece(NamedTuple):
    """A part of an answer.

    Attributes:
      text: the new text; empty in a last piece that only ends the answer.
      tokens: the tokens of it.
      finish: why the answer ended, "stop" or "length"; None while it goes on.
      completion_tokens: tokens drawn so far, the end token counted in.
      error: why there is no more of the answer, if it failed.
    """

    text: str
    tokens: tuple[Token, ...] = ()
    finish: str | None = None
    completion_tokens: int = 0
    error: Exception | None = None


Deliver = Callable[[Piece], None]


class Row:
    """An answer under way; any thread may cancel it.

    Attributes:
      job: what was asked.
      done: no more tokens are wanted: it has ended, failed or was cancelled.
    """

    job: Job
    done: bool

    def __init__(self, job: Job, tokenizer: Tokenizer, deliver: Deliver):
        """Begin without tokens.

        Args:
          job: what is asked.
          tokenizer: of the model.
          deliver: takes each piece, in the thread of the batcher; must not block.
        """
        self.job = job
        self.done = False
        self._deliver = deliver
        self._text = AnswerText(tokenizer, job.stop)
        self._count = 0
        self._new: list[str] = []

    def cancel(self) -> None:
        """Want no more tokens; nothing more is delivered after the piece under way."""
        self.done = True

    def fail(self, error: Exception) -> None:
        """Deliver an error in place of the rest, unless the row is done.

        Args:
          error: what happened.
        """
        if not self.done:
            self.done = True
            self._deliver(Piece("", completion_tokens=self._count, error=error))

    def push(
        self,
        number: int,
        log_prob: float,
        likeliest: tuple[tuple[int, float], ...],
        *,
        ends: bool,
    ) -> str | None:
        """Add a token; `hand_over` delivers its text.

        Args:
          number: its id.
          log_prob: its log-probability.
          likeliest: ids and log-probabilities of the likeliest tokens in its place.
          ends: whether it is an end token, which has no text.

        Returns:
          Why the answer ends with it, or None.
        """
        self._count += 1
        if ends:
            return "stop"
        self._new.append(self._text.push(number, log_prob, likeliest))
        if self._text.stopped:
            return "stop"
        return "length" if self._count >= self.job.max_tokens else None

    def hand_over(self, finish: str | None) -> None:
        """Deliver what came since the last piece, if there is anything.

        Args:
          finish: why the answer ends here, or None.
        """
        if finish is not None:
            self.done = True
            self._new.append(self._text.finish())
            # The bytes that were held may have completed a stop text.
            finish = "stop" if self._text.stopped else finish
        text = "".join(self._new)
        self._new = []
        tokens = self._text.take(last=finish is not None)
        if text or tokens or finish:
            self._deliver(Piece(text, tokens, finish, self._count))
