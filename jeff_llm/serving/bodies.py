"""Responses in OpenAI's form: whole answers, chunks of a stream, errors."""

import secrets
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from jeff_llm.models.tokenizer import Tokenizer
from jeff_llm.serving.rows import Piece
from jeff_llm.serving.text import Token

__all__ = ["Form", "Head", "error_body", "fault_body", "joined", "usage_of"]

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Head(NamedTuple):
    """What all parts of one response share.

    Attributes:
      chat: whether it is a chat completion, or one of plain text.
      name: the model that answers.
      id: of the response.
      created: seconds since 1970.
      more: further fields of the response.
    """

    chat: bool
    name: str
    id: str
    created: int
    more: dict[str, Any]

    @classmethod
    def new(cls, *, chat: bool, name: str, **more: Any) -> "Head":
        """Begin a response.

        Args:
          chat: whether it is a chat completion.
          name: the model that answers.
          **more: further fields.

        Returns:
          The head, with an id of its own.
        """
        kind = "chatcmpl" if chat else "cmpl"
        number = f"{kind}-{secrets.token_hex(12)}"
        return cls(chat, name, number, int(time.time()), more)


class Form(NamedTuple):
    """How the parts of one response are written.

    Attributes:
      head: what they share.
      tokenizer: spells tokens beside their log-probabilities.
      logprobs: whether log-probabilities are reported.
    """

    head: Head
    tokenizer: Tokenizer
    logprobs: bool

    def whole(
        self, answers: Sequence[Piece], usage: dict[str, int] | None
    ) -> dict[str, Any]:
        """A response with all answers.

        Args:
          answers: each in one piece.
          usage: as `usage_of` gives it.

        Returns:
          The body.
        """
        choices = []
        for index, piece in enumerate(answers):
            said: dict[str, Any] = {"text": piece.text}
            if self.head.chat:
                message = {"role": "assistant", "content": piece.text, "refusal": None}
                said = {"message": message}
            choices.append(self._choice(index, said, piece))
        kind = "chat.completion" if self.head.chat else "text_completion"
        return self._body(kind, choices) | {"usage": usage}

    def opening(self, index: int) -> dict[str, Any]:
        """The first chunk of a chat's answer, which names the role.

        Args:
          index: of the choice.

        Returns:
          The chunk.
        """
        delta = {"role": "assistant", "content": "", "refusal": None}
        return self._chunk([self._choice(index, {"delta": delta}, Piece(""))])

    def chunk(self, index: int, piece: Piece) -> dict[str, Any]:
        """A piece of an answer.

        Args:
          index: of the choice.
          piece: the piece.

        Returns:
          The chunk.
        """
        said: dict[str, Any] = {"text": piece.text}
        if self.head.chat:
            said = {"delta": {"content": piece.text} if piece.text else {}}
        return self._chunk([self._choice(index, said, piece)])

    def ending(self, usage: dict[str, int] | None) -> dict[str, Any]:
        """The last chunk, with the numbers of tokens.

        Args:
          usage: as `usage_of` gives it.

        Returns:
          The chunk, without choices.
        """
        return self._chunk([]) | {"usage": usage}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self.head.chat else "text_completion"
        return self._body(kind, choices)

    def _body(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        head = self.head
        return {
            "id": head.id,
            "object": kind,
            "created": head.created,
            "model": head.name,
            "choices": choices,
        } | head.more

    def _choice(self, index: int, said: dict[str, Any], piece: Piece) -> dict[str, Any]:
        scores = None
        if self.logprobs:
            write = self._chat_scores if self.head.chat else self._plain_scores
            scores = write(piece.tokens)
        end = {"logprobs": scores, "finish_reason": piece.finish}
        return {"index": index} | said | end

    def _chat_scores(self, tokens: Sequence[Token]) -> dict[str, Any]:
        content = [
            self._score(token.number, token.log_prob)
            | {"top_logprobs": [self._score(*each) for each in token.likeliest]}
            for token in tokens
        ]
        return {"content": content, "refusal": None}

    def _plain_scores(self, tokens: Sequence[Token]) -> dict[str, Any]:
        return {
            "tokens": [self._spelled(token.number) for token in tokens],
            "token_logprobs": [token.log_prob for token in tokens],
            "top_logprobs": [
                {self._spelled(number): value for number, value in token.likeliest}
                for token in tokens
            ],
            "text_offset": [token.offset for token in tokens],
        }

    def _score(self, number: int, log_prob: float) -> dict[str, Any]:
        text = self._spelled(number)
        # Part of a character has bytes, but the decoder does not tell them.
        known = None if _REPLACEMENT in text else list(text.encode())
        return {"token": text, "logprob": log_prob, "bytes": known}

    def _spelled(self, number: int) -> str:
        return self.tokenizer.decode([number], skip_special_tokens=False)


def joined(pieces: Sequence[Piece]) -> Piece:
    """An answer in one piece.

    Args:
      pieces: all of them, in order.

    Returns:
      The answer.
    """
    last = pieces[-1]
    tokens = tuple(token for piece in pieces for token in piece.tokens)
    text = "".join(piece.text for piece in pieces)
    return Piece(text, tokens, last.finish, last.completion_tokens, last.error)


def usage_of(
    prompt_tokens: int | None, completion_tokens: int | None
) -> dict[str, int] | None:
    """Numbers of tokens.

    Args:
      prompt_tokens: tokens read.
      completion_tokens: tokens drawn.

    Returns:
      Both, and their sum; None where the large model did not report them.

    >>> usage_of(3, 4)
    {'prompt_tokens': 3, 'completion_tokens': 4, 'total_tokens': 7}
    """
    if prompt_tokens is None or completion_tokens is None:
        return None
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def error_body(
    message: str, *, kind: str, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """An error in OpenAI's form.

    Args:
      message: what is wrong, and what to do.
      kind: "invalid_request_error", "server_error" and the like.
      code: names the error for programs.
      param: name of the field.

    Returns:
      The body.
    """
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def fault_body() -> dict[str, Any]:
    """The error of a request on which the model failed.

    Returns:
      The body; what the model raised is for the server's log alone.
    """
    message = "the model failed on this request; the server's log has the cause"
    return error_body(message, kind="server_error", code="internal_error")
