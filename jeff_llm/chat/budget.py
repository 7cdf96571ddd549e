"""A limit on what requests may cost, kept before they are sent.

Before each attempt the most that it can cost is reserved, and corrected when the
endpoint has reported its tokens. So the sum of what was spent and what is on its way
never passes the limit, as long as the endpoint respects ``max_tokens`` and bills by the
`Price`.

An attempt that ends without a report, after a time-out or with a body that cannot be
read, may or may not have been billed: it counts in full.
"""

import asyncio
import contextlib
import math
import threading
from collections.abc import AsyncIterator, Sequence

from jeff_llm.chat.messages import Message, Price, Request

__all__ = ["Budget", "CostLimitError", "most_cost", "most_prompt_tokens"]

# Tokens of a chat template: around each message, and once, such as the system message
# that some templates add.
_MESSAGE_TOKENS = 16
_REQUEST_TOKENS = 128
# Sums of many small costs are rounded; a limit of three requests must allow three.
_ROUNDING = 1e-9


class CostLimitError(OSError):
    """Raised when a request could pass the limit on the cost; nothing was sent."""


class Budget:
    """A limit on the cost of many requests, of one endpoint or of several.

    Threads and event loops may share it. A request that may not fit waits while others
    are on their way, since most of them cost less than was reserved for them.

    >>> budget = Budget(2.5)
    >>> budget.charge(1.0)
    >>> budget.spent
    1.0
    """

    def __init__(self, max_cost: float | int):
        """Set the limit.

        Args:
          max_cost: most that the requests may cost together, in the currency of the
            `Price`.

        Raises:
          ValueError: if it is not a positive, finite number.
        """
        if not 0 < max_cost < math.inf:
            raise ValueError(
                f"max_cost: expected a positive, finite number, got {max_cost}"
            )
        self.max_cost = max_cost
        self._spent: list[float] = [0.0]
        self._reserved: dict[object, float] = {}
        self._waiting: list[asyncio.Future[None]] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Budget({self.max_cost}, spent={self.spent})"

    @property
    def spent(self) -> float:
        """What was spent, with attempts of unknown cost at the most they can cost."""
        return math.fsum(self._spent)

    def charge(self, cost: float | int) -> None:
        """Count a cost that was spent elsewhere, such as by an earlier run.

        Args:
          cost: the cost.
        """
        with self._lock:
            self._spent = [math.fsum((*self._spent, cost))]

    @contextlib.asynccontextmanager
    async def reserve(self, most: float) -> AsyncIterator[list[float]]:
        """Reserve the most that an attempt can cost, while it is on its way.

        Args:
          most: the most that it can cost.

        Returns:
          A context that gives a list: the attempt puts its cost into it. If it is empty
          at the end, the cost is unknown and ``most`` is spent.

        Raises:
          CostLimitError: if the attempt could pass the limit.
        """
        ticket, cost = object(), list[float]()
        while (wait := self._take(ticket, most)) is not None:
            await wait
        try:
            yield cost
        finally:
            self._settle(ticket, cost[0] if cost else most)

    def _take(self, ticket: object, most: float) -> asyncio.Future[None] | None:
        """Reserve; or return what to wait for before the next try."""
        limit = self.max_cost * (1 + _ROUNDING)
        with self._lock:
            if self.spent + most > limit:
                raise CostLimitError(
                    f"max_cost: expected to spend at most {self.max_cost:g}, but "
                    f"{self.spent:g} is spent and this request may cost {most:g}; it "
                    "was not sent. Raise the limit, or lower max_tokens"
                )
            if math.fsum((self.spent, *self._reserved.values(), most)) <= limit:
                self._reserved[ticket] = most
                return None
            wait = asyncio.get_running_loop().create_future()
            self._waiting.append(wait)
            return wait

    def _settle(self, ticket: object, cost: float) -> None:
        with self._lock:
            del self._reserved[ticket]
            self._spent = [math.fsum((*self._spent, cost))]
            waiting, self._waiting = self._waiting, []
        for wait in waiting:
            with contextlib.suppress(RuntimeError):  # its loop may have closed
                wait.get_loop().call_soon_threadsafe(_wake, wait)


def most_prompt_tokens(messages: Sequence[Message], schema: str | None = None) -> int:
    """Count the tokens of a prompt from above, without its tokenizer.

    No byte of UTF-8 takes more than one token in a tokenizer that falls back to bytes.

    Args:
      messages: the conversation.
      schema: JSON schema that is sent beside it.

    Returns:
      The number of bytes, and what a chat template adds.

    >>> most_prompt_tokens([Message("user", "2 + 2?")])
    150
    """
    texts = [*(message.content for message in messages), schema or ""]
    size = sum(len(text.encode("utf-8", "replace")) for text in texts)
    return size + _MESSAGE_TOKENS * len(messages) + _REQUEST_TOKENS


def most_cost(request: Request, price: Price) -> float:
    """The most that one attempt at a request can cost.

    Args:
      request: the request.
      price: the price of tokens.

    Returns:
      The cost of a prompt of `most_prompt_tokens` and an answer of ``max_tokens``.

    >>> most_cost(Request((Message("user", "2 + 2?"),), max_tokens=50), Price(2.0, 8.0))
    0.0007
    """
    read = most_prompt_tokens(request.messages, request.schema)
    return price.cost(read, request.max_tokens)


def _wake(wait: asyncio.Future[None]) -> None:
    if not wait.done():  # it may have been cancelled
        wait.set_result(None)
