"""Streams: pieces of answers as server-sent events."""

import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from jeff_llm.serving.answering import unless_gone
from jeff_llm.serving.bodies import Form, fault_body, usage_of
from jeff_llm.serving.protocol import Asked
from jeff_llm.serving.rows import Piece

__all__ = ["EventStream", "events", "finished", "next_piece"]

_LOG = logging.getLogger(__name__)


class EventStream:
    """Server-sent events of one response; an ASGI application.

    Starlette's own stream, from ASGI 2.4 on, notices a client that left at the next
    event alone, and until then its row would be decoded.
    """

    def __init__(
        self, events: AsyncIterator[str], headers: dict[str, str] | None = None
    ):
        """Describe the response.

        Args:
          events: the events, as text.
          headers: further headers.
        """
        head = {"content-type": "text/event-stream", "cache-control": "no-cache"}
        self._events = events
        self._headers = [
            (name.encode(), value.encode())
            for name, value in (head | (headers or {})).items()
        ]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the events for as long as the client is there.

        Args:
          scope: what was asked.
          receive: tells when the client leaves.
          send: takes the response.
        """
        del scope
        # The events' own faults are events; this is the connection's.
        with contextlib.suppress(OSError):
            await unless_gone(receive, self._send(send))

    async def _send(self, send: Any) -> None:
        start = {"type": "http.response.start", "status": 200}
        await send(start | {"headers": self._headers})
        async for event in self._events:
            body = {"type": "http.response.body", "body": event.encode()}
            await send(body | {"more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def events(
    form: Form,
    asked: Asked,
    first: tuple[int, Piece],
    pieces: AsyncIterator[tuple[int, Piece]],
    cancel: Callable[[], None],
) -> AsyncIterator[str]:
    """The events of a stream, from the first piece on.

    Args:
      form: how they are written.
      asked: the request.
      first: index and first piece.
      pieces: those that follow.
      cancel: called at the end, and when the client leaves.

    Returns:
      The events, the last of them ``[DONE]`` or an error.
    """
    drawn: dict[int, int] = {}
    try:
        if form.head.chat:
            for index in range(len(asked.jobs)):
                yield _event(form.opening(index))
        index, piece = first
        while True:
            drawn[index] = piece.completion_tokens
            yield _event(form.chunk(index, piece))
            index, piece = await anext(pieces)
    except StopAsyncIteration:
        if asked.usage:
            usage = usage_of(asked.prompt_tokens, sum(drawn.values()))
            yield _event(form.ending(usage))
        yield "data: [DONE]\n\n"
    except Exception:
        # The status was sent; the error takes the place of the rest.
        _LOG.exception("a stream failed")
        yield _event(fault_body())
    finally:
        cancel()


async def finished(
    form: Form, piece: Piece, usage: dict[str, int] | None
) -> AsyncIterator[str]:
    """The events of one answer that is there already.

    Args:
      form: how they are written.
      piece: the answer.
      usage: numbers of tokens, to be sent at the end.

    Returns:
      The events.
    """
    yield _event(form.opening(0))
    yield _event(form.chunk(0, piece))
    if usage is not None:
        yield _event(form.ending(usage))
    yield "data: [DONE]\n\n"


async def next_piece(pieces: AsyncIterator[tuple[int, Piece]]) -> tuple[int, Piece]:
    """The next piece, as a coroutine.

    Args:
      pieces: the pieces.

    Returns:
      Index and piece.
    """
    return await anext(pieces)


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body)}\n\n"
