"""Asking one thing or many: concurrency, order, progress, what it cost."""

import asyncio
import contextlib
import math
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from jeff_llm.chat.messages import Answer, ChatModel, Request

__all__ = [
    "Usage",
    "ask",
    "ask_all",
    "map_async",
    "run",
    "usage",
]

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]


@overload
def ask(model: ChatModel, requests: Request) -> Answer: ...


@overload
def ask(
    model: ChatModel,
    requests: Sequence[Request],
    *,
    concurrency: int = 8,
    progress: Progress | None = None,
    return_errors: bool = False,
) -> list[Any]: ...


def ask(
    model: ChatModel,
    requests: Request | Sequence[Request],
    *,
    concurrency: int = 8,
    progress: Progress | None = None,
    return_errors: bool = False,
) -> Answer | list[Any]:
    """Ask one thing or many and wait, in a script or in a notebook.

    Args:
      model: whom to ask.
      requests: one request, whose error is raised as it is; or many, as in `ask_all`.
      concurrency: as in `ask_all`.
      progress: as in `ask_all`.
      return_errors: as in `ask_all`.

    Returns:
      The answer, or the answers in the order of the requests.

    Raises:
      ExceptionGroup: as in `ask_all`.
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
    return_errors: bool = False,
) -> list[Any]:
    """Ask many things, some at a time.

    A request that fails does not stop the others. With a `Cached` model all answers
    that came are kept, whatever is raised in the end.

    Args:
      model: whom to ask.
      requests: the requests.
      concurrency: how many are on the way at once; no less than a `Local` model's
        batch size, or its batches stay small.
      progress: called with the number of requests that are done and that of all.
      return_errors: put the error of a request in its answer's place instead of
        raising the errors of all in the end.

    Returns:
      The answers, and errors if wanted, in the order of the requests.

    Raises:
      ExceptionGroup: of the errors of the requests that failed, after all were tried.
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
    return_errors: bool = False,
) -> list[Any]:
    """Apply an asynchronous function to many items, some at a time.

    `ask_all` for whatever takes more than one question:
    ``map_async(lambda request: ask_json(model, request, schema), requests)``.

    Args:
      function: what to apply.
      items: its arguments.
      concurrency: how many are on the way at once.
      progress: called with the number of items that are done and that of all.
      return_errors: put the error of an item in its result's place instead of raising
        the errors of all in the end.

    Returns:
      The results, and errors if wanted, in the order of the items.

    Raises:
      ExceptionGroup: of the errors of the items that failed, after all were tried.
      ValueError: if ``concurrency`` is not positive.
    """
    if concurrency < 1:
        raise ValueError(f"concurrency: expected at least 1, got {concurrency}")
    items = list(items)
    results: list[Any] = [None] * len(items)
    errors: list[Exception] = []
    queue, done = iter(enumerate(items)), 0

    async def work() -> None:
        nonlocal done
        for index, item in queue:
            try:
                results[index] = await function(item)
            except Exception as error:
                results[index] = error
                errors.append(error)
            done += 1
            if progress is not None:
                progress(done, len(items))

    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, len(items))):
            group.create_task(work())
    if errors and not return_errors:
        raise ExceptionGroup(f"{len(errors)} of {len(items)} failed", errors)
    return results


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end, in a script or in a notebook.

    Where an event loop runs already, as in a notebook's cell, the coroutine gets one of
    its own in another thread; the caller's loop stands still meanwhile.

    Args:
      coroutine: such as ``ask_json(model, request, schema)``.

    Returns:
      What it returns.

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


@dataclass(frozen=True)
class Usage:
    """Totals over many requests.

    Attributes:
      requests: how many there were.
      cached: how many were known already.
      failed: how many have no answer.
      prompt_tokens: tokens read, those of known answers too.
      completion_tokens: tokens written, those of known answers too.
      cost: what was paid; known answers cost nothing.
    """

    requests: int
    cached: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    cost: float


def usage(answers: Iterable[Answer | Exception]) -> Usage:
    """Add up what requests took.

    Args:
      answers: answers and errors, as `ask_all` returns them.

    Returns:
      The totals.

    >>> total = usage([Answer("4", "stop", 9, 2, cost=0.5), ValueError("too long")])
    >>> total.requests, total.failed, total.prompt_tokens, total.cost
    (2, 1, 9, 0.5)
    """
    every = list(answers)
    given = [answer for answer in every if isinstance(answer, Answer)]
    return Usage(
        requests=len(every),
        cached=sum(answer.cached for answer in given),
        failed=len(every) - len(given),
        prompt_tokens=sum(answer.prompt_tokens for answer in given),
        completion_tokens=sum(answer.completion_tokens for answer in given),
        cost=math.fsum(answer.cost for answer in given),
    )


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
        except BaseException as error:  # it goes on in the caller's thread
            done.set_exception(error)

    thread = threading.Thread(target=work, name="asking")
    try:
        thread.start()
        return done.result()
    except KeyboardInterrupt:
        task = started.result()
        with contextlib.suppress(RuntimeError):  # its loop may have ended meanwhile
            task.get_loop().call_soon_threadsafe(task.cancel)
        raise
    finally:
        thread.join()
