"""Send one request or many: concurrency, order, progress and cost.

An answer that came is always handed over. A request that fails stops no other; its
error takes the place of its answer, or, with ``return_errors=False``, an `AskError` is
raised at the end that holds all answers and errors.
"""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar, overload

from jeff_llm.chat.messages import Answer, ChatModel, Request

__all__ = [
    "AskError",
    "ask",
    "ask_all",
    "map_async",
    "run",
]

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]


class AskError(ExceptionGroup[Exception]):
    """Raised when requests failed; holds the answers of the others.

    Attributes:
      results: one per request or item, in their order: the answer, or the error in
        place of one.

    >>> error = AskError("1 of 2 failed", [ValueError("too long")], ["4", None])
    >>> error.results[0]
    '4'
    """

    results: list[Any]

    @property
    def first(self) -> Exception:
        """The first error, taken out of inner groups."""
        error: Exception = self.exceptions[0]
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        return error

    def __new__(
        cls, message: str, errors: Sequence[Exception], results: Sequence[Any]
    ) -> "AskError":
        """Create the error.

        Args:
          message: how many failed.
          errors: what failed.
          results: answers and errors in the order of the requests.

        Returns:
          The error.
        """
        self = super().__new__(cls, message, errors)
        self.results = list(results)
        return self

    def __init__(
        self, message: str, errors: Sequence[Exception], results: Sequence[Any]
    ):
        """Create the error; the arguments are those of ``__new__``.

        Args:
          message: how many failed.
          errors: what failed.
          results: answers and errors in the order of the requests.
        """
        super().__init__(message, errors)

    def derive(self, errors: Sequence[Exception], /) -> "AskError":
        """Make a group of some of the errors, with the same results.

        Args:
          errors: the errors.

        Returns:
          The group; used by ``split``, ``subgroup`` and ``except*``.
        """
        return AskError(self.message, errors, self.results)

    def __reduce__(self) -> tuple[Any, ...]:
        return AskError, (self.message, [*self.exceptions], self.results)


@overload
def ask(model: ChatModel, requests: Request) -> Answer: ...


@overload
def ask(
    model: ChatModel,
    requests: Sequence[Request],
    *,
    concurrency: int = 8,
    progress: Progress | None = None,
    return_errors: bool = True,
) -> list[Any]: ...


def ask(
    model: ChatModel,
    requests: Request | Sequence[Request],
    *,
    concurrency: int = 8,
    progress: Progress | None = None,
    return_errors: bool = True,
) -> Answer | list[Any]:
    """Send one request or many and wait, in a script or in a notebook.

    Args:
      model: the model that answers.
      requests: one request, whose error is raised unchanged; or many, as in `ask_all`.
      concurrency: as in `ask_all`.
      progress: as in `ask_all`.
      return_errors: as in `ask_all`.

    Returns:
      The answer; or the answers and errors in the order of the requests.

    Raises:
      AskError: as in `ask_all`.
    """
    if isinstance(requests, Request):
        return run(model.answer(requests))
    return run(
        ask_all(
            model,
            requests,
            concurrency=concurrency,
            progress=progress,
            return_errors=return_errors,
        )
    )


async def ask_all(
    model: ChatModel,
    requests: Iterable[Request],
    *,
    concurrency: int = 8,
    progress: Progress | None = None,
    return_errors: bool = True,
) -> list[Any]:
    """Send many requests, a limited number at a time.

    A request that fails does not stop the others, and loses none of their answers.

    Args:
      model: the model that answers.
      requests: the requests.
      concurrency: maximum number of requests in flight. Use at least the batch size of
        a `Local` model, otherwise its batches stay small.
      progress: called with the number of finished requests and the total.
      return_errors: put the error of a failed request in place of its answer. If false,
        raise all errors after every request was tried.

    Returns:
      The answers and errors, in the order of the requests.

    Raises:
      AskError: if requests failed and ``return_errors`` is false, or if ``progress``
        raised; its ``results`` are what would have been returned.
      ValueError: if ``concurrency`` is not positive.
    """
    return await map_async(
        model.answer,
        requests,
        concurrency=concurrency,
        progress=progress,
        return_errors=return_errors,
    )


async def map_async(
    function: Callable[[Item], Awaitable[Result]],
    items: Iterable[Item],
    *,
    concurrency: int = 8,
    progress: Progress | None = None,
    return_errors: bool = True,
) -> list[Any]:
    """Apply an asynchronous function to many items, a limited number at a time.

    Use it instead of `ask_all` for functions that send more than one request per item:
    ``map_async(lambda request: ask_json(model, request, schema), requests)``.

    Args:
      function: the function to apply.
      items: its arguments.
      concurrency: maximum number of calls in flight.
      progress: called with the number of finished items and the total.
      return_errors: put the error of a failed item in place of its result. If false,
        raise all errors after every item was tried.

    Returns:
      The results and errors, in the order of the items.

    Raises:
      AskError: as in `ask_all`.
      ValueError: if ``concurrency`` is not positive.
    """
    if concurrency < 1:
        raise ValueError(f"concurrency: expected at least 1, got {concurrency}")
    items = list(items)
    results: list[Any] = [None] * len(items)
    errors: list[Exception] = []
    broken: list[Exception] = []
    queue, done = iter(enumerate(items)), 0

    async def work() -> None:
        nonlocal done
        # All workers take from one iterator. They run in one event loop and switch only
        # at an await, so no lock is needed.
        for index, item in queue:
            try:
                results[index] = await function(item)
            except Exception as error:
                results[index] = error
                errors.append(error)
            done += 1
            # A display that fails must not cost the answers that are on their way.
            if progress is not None and not broken:
                try:
                    progress(done, len(items))
                except Exception as error:
                    broken.append(error)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, len(items))):
            group.create_task(work())
    if broken:
        raise AskError("progress failed", broken + errors, results)
    if errors and not return_errors:
        raise AskError(f"{len(errors)} of {len(items)} failed", errors, results)
    return results


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to completion, in a script or in a notebook.

    If an event loop is already running, as in a notebook cell, the coroutine runs in a
    separate loop in another thread. The caller's loop is blocked until it ends.

    Args:
      coroutine: such as ``ask_json(model, request, schema)``.

    Returns:
      The result of the coroutine.

    Raises:
      KeyboardInterrupt: if the user interrupts; the coroutine is cancelled first.

    >>> run(asyncio.sleep(0, "done"))
    'done'
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        return _run_in_thread(coroutine)
    return asyncio.run(coroutine)


def _run_in_thread(coroutine: Coroutine[Any, Any, Result]) -> Result:
    started: Future[asyncio.Task[Result]] = Future()
    done: Future[Result] = Future()

    async def cancellable() -> Result:
        task = asyncio.ensure_future(coroutine)
        started.set_result(task)
        return await task

    def work() -> None:
        try:
            done.set_result(asyncio.run(cancellable()))
        except BaseException as error:  # raised again in the caller's thread
            done.set_exception(error)

    thread = threading.Thread(target=work, name="asking")
    try:
        thread.start()
        return done.result()
    except KeyboardInterrupt:
        # Python delivers an interrupt to the main thread only, so the task in the other
        # thread must be cancelled through its loop.
        task = started.result()
        with contextlib.suppress(RuntimeError):  # the loop may have closed meanwhile
            task.get_loop().call_soon_threadsafe(task.cancel)
        raise
    finally:
        thread.join()
