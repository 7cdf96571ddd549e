"""Answers of the batcher in an event loop: pieces in order, and clients that leave."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from jeff_llm.serving.batcher import Batcher
from jeff_llm.serving.bodies import joined
from jeff_llm.serving.rows import Job, Piece

__all__ = ["Answers", "ClientGoneError", "unless_gone"]

Result = TypeVar("Result")
Receive = Callable[[], Coroutine[Any, Any, Any]]


class ClientGoneError(ConnectionError):
    """Raised where the client has closed its connection."""


class Answers:
    """The answers to one request, cancelled together."""

    def __init__(self, batcher: Batcher, jobs: Sequence[Job]):
        """Submit a request; needs a running event loop.

        Args:
          batcher: decodes.
          jobs: one per answer.

        Raises:
          RuntimeError: as `Batcher.submit`; a `BusyError`.
          ValueError: as `Batcher.submit`.
        """
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()
        self._count = len(jobs)
        deliver = [self._deliver(index) for index in range(len(jobs))]
        self._rows = batcher.submit(jobs, deliver)

    def cancel(self) -> None:
        """Want no more of these answers."""
        for row in self._rows:
            row.cancel()

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """The pieces of all answers, in the order in which they are decoded.

        Returns:
          Index of the answer and the piece, one after the other.

        Raises:
          Exception: what the model raised.
        """
        left = self._count
        while left:
            index, piece = await self._pieces.get()
            if piece.error is not None:
                self.cancel()
                raise piece.error
            left -= piece.finish is not None
            yield index, piece

    async def whole(self) -> list[Piece]:
        """Wait for all answers.

        Returns:
          Each in one piece.

        Raises:
          Exception: what the model raised.
        """
        found: list[list[Piece]] = [[] for _ in range(self._count)]
        async for index, piece in self.pieces():
            found[index].append(piece)
        return [joined(pieces) for pieces in found]

    def _deliver(self, index: int) -> Callable[[Piece], None]:
        def deliver(piece: Piece) -> None:
            # A loop that was closed has no client left to hear of it.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._pieces.put_nowait, (index, piece))

        return deliver


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """Do something for a client for as long as it is there.

    Args:
      receive: of the ASGI connection, whose request was read.
      work: what is done; cancelled when the client leaves.

    Returns:
      Its result.

    Raises:
      ClientGoneError: if the client left first.
    """
    doing = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise ClientGoneError("the client has closed its connection")
        return doing.result()
    finally:
        doing.cancel()
        leaving.cancel()
        # What was cancelled ends before its rows are.
        await asyncio.wait({doing, leaving})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
