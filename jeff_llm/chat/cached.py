"""A cache of answers in SQLite, which many threads and processes may share.

`Cached` wraps a chat model and is itself one. It stores every answer as soon as it
arrives, so a run that is killed resumes where it stopped. If an answer cannot be
stored, it is handed over all the same, and nothing more is asked: later answers would
be paid for and lost with the process.
"""

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import math
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from jeff_llm.chat.answers import known_answer, make_private, not_kept, tighten
from jeff_llm.chat.messages import Answer, ChatModel, Request
from jeff_llm.chat.totals import total

__all__ = ["Cached"]

_APPLICATION = int.from_bytes(b"jeff")  # identifies the database as written by jeff
_VERSION = 1
_QUERY = "SELECT answer FROM answers WHERE key = ?"
_UNUSABLE = (
    "{path}: the answer cache cannot be used ({error}), and nothing is asked without "
    "it; see that its folder has room and can be written, and that no other process "
    "holds it, and run the same again: stored answers are not asked twice"
)
_ALONE_SECONDS = 5.0
_LOCK_SECONDS = 60.0  # a writer holds the lock for milliseconds


class Cached:
    """A chat model whose answers are stored in a SQLite file.

    The key of an answer is the SHA-256 of the whole request and the model's name, as
    canonical JSON. A file remembers the digest of the first `Local` model of a name;
    another one of that name, such as a fine-tune, has its digest in its keys too. Each
    answer is committed when it arrives, so killing the process loses only requests in
    flight. The file is opened for each use (about a millisecond), so threads, forked
    processes and other runs can share it. Only its owner can read it.

    Equal requests in flight in one event loop reach the model once: the others wait
    for its answer, which costs them nothing, or receive its error. Of equal requests in
    other loops or processes each may reach the model, and the first answer is kept.

    Attributes:
      name: name of the model.
      path: the file.
      stopped: why nothing more is asked, once an answer could not be stored; else None.
        Requests that are not in the file then fail with this error.
    """

    name: str
    path: Path
    stopped: OSError | None

    def __init__(self, model: ChatModel, path: str | Path):
        """Open the cache, or create it if it does not exist.

        Args:
          model: answers the requests that are not in the cache. Endpoints with one name
            share answers, so use a different file for each endpoint of a model.
          path: the file.

        Raises:
          OSError: if the file cannot be opened or written.
          ValueError: if the file is not a cache of this version, or is damaged.
        """
        self.name = model.name
        self.path = Path(path).expanduser().absolute()
        self.stopped = None
        self._model = model
        self._alone = threading.Lock()
        self._full = False  # whether an answer was ever looked up alone
        self._flights: dict[tuple[asyncio.AbstractEventLoop, str], _Flight] = {}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _prepare(self.path)
        self._known_as = _known_as(self.path, model)

    def __repr__(self) -> str:
        return f"Cached({self._model!r}, {str(self.path)!r})"

    async def answer(self, request: Request) -> Answer:
        """Answer one request from the file, or ask the model and store its answer.

        Args:
          request: the request.

        Returns:
          The answer. One from the file has ``cached`` set and costs nothing.

        Raises:
          OSError: if the file cannot be read, or an earlier answer could not be stored.
          ValueError: if the file is damaged.
        """
        key = _key(request, self._known_as)
        place = asyncio.get_running_loop(), key
        flight = self._flights.get(place)
        if flight is None:
            flight = _Flight(asyncio.create_task(self._find(request, key)))
            self._flights[place] = flight
        try:
            return await flight.join()
        finally:
            if not flight.waiters:
                self._flights.pop(place, None)
                await flight.end()

    def spent(self) -> float | None:
        """Add up what the stored answers cost when they were asked.

        Returns:
          The cost, over all runs that stored answers of any model in the file; None if
          that of some answer is not known.

        Raises:
          OSError: if the file cannot be read.
          ValueError: if the file is damaged.
        """
        with _database(self.path) as database:
            rows = database.execute("SELECT key, answer FROM answers").fetchall()
        costs = (known_answer(text, f"{self.path}: {key}").cost for key, text in rows)
        return total(costs, math.fsum)

    async def _find(self, request: Request, key: str) -> Answer:
        # In a thread: waiting for the file lock must not block the event loop.
        known = await asyncio.to_thread(self._get, key)
        if known is not None:
            return dataclasses.replace(known, cached=True, cost=0.0)
        if self.stopped is not None:
            raise OSError(*self.stopped.args) from self.stopped.__cause__
        answer = await self._model.answer(request)
        try:
            await asyncio.to_thread(self._put, key, answer)
        except Exception as error:  # whatever it is, the answer is handed over
            self.stopped = self.stopped or not_kept(self.path, error)
        return answer

    def _get(self, key: str) -> Answer | None:
        try:
            with _database(self.path) as database:
                row = database.execute(_QUERY, (key,)).fetchone()
        except OSError as error:
            row = self._get_alone(key, error)
            if row is None:
                raise
        return None if row is None else known_answer(row[0], f"{self.path}: {key}")

    def _get_alone(self, key: str, error: OSError) -> tuple[str] | None:
        """Look up an answer on a full disk, which has no room for a shared index."""
        code = getattr(error.__cause__, "sqlite_errorcode", None)
        busy = code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
        if busy and not self._full:
            return None  # another process holds the file
        # From here on a lock that is met may be that of a thread of ours, which looks
        # up its answer alone: wait for it instead of giving up.
        self._full = True
        with (
            self._alone,  # two that want the file for themselves would wait for ever
            contextlib.suppress(OSError, ValueError),
            _database(self.path, alone=True) as database,
        ):
            return database.execute(_QUERY, (key,)).fetchone()

    def _put(self, key: str, answer: Answer) -> None:
        value = json.dumps(dataclasses.asdict(answer))
        with _database(self.path) as database:
            # IGNORE: another process may have stored an answer meanwhile; keep that one
            # so that every reader sees the same answer.
            database.execute(
                "INSERT OR IGNORE INTO answers VALUES (?, ?)", (key, value)
            )


class _Flight:
    """A request on its way, and the equal requests that wait for its answer."""

    def __init__(self, task: asyncio.Task[Answer]):
        self.task = task
        self.waiters = 0
        self.paid = False  # whether a waiter already has the answer at its cost

    async def join(self) -> Answer:
        self.waiters += 1
        try:
            # Shielded: a waiter that gives up must not take the answer from the others.
            answer = await asyncio.shield(self.task)
        finally:
            self.waiters -= 1
        if self.paid:
            return dataclasses.replace(answer, cached=True, cost=0.0)
        self.paid = True
        return answer

    async def end(self) -> None:
        """Give up a request that nobody waits for any more."""
        if not self.task.done():
            self.task.cancel()
            await asyncio.wait([self.task])


def _key(request: Request, model: str) -> str:
    whole = {"model": model, "request": dataclasses.asdict(request)}
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _known_as(path: Path, model: ChatModel) -> str:
    """The name of a model in keys: with its digest, if the file knows another so."""
    digest = getattr(model, "digest", None)
    if digest is None:
        return model.name
    with _database(path) as database:
        database.execute(
            "CREATE TABLE IF NOT EXISTS models (name TEXT PRIMARY KEY, digest TEXT)"
        )
        row = (model.name, digest)
        # IGNORE: the first one stays, so that its answers keep their keys.
        database.execute("INSERT OR IGNORE INTO models VALUES (?, ?)", row)
        query = "SELECT digest FROM models WHERE name = ?"
        first = database.execute(query, (model.name,)).fetchone()[0]
    return model.name if digest == first else f"{model.name} {digest}"


@contextlib.contextmanager
def _database(path: Path, *, alone: bool = False) -> Iterator[sqlite3.Connection]:
    """Open the file with one transaction per statement; errors name the file.

    With ``alone`` no other process can use it meanwhile, and SQLite keeps the index of
    its log in memory.
    """
    try:
        seconds = _ALONE_SECONDS if alone else _LOCK_SECONDS
        connection = sqlite3.connect(path, timeout=seconds, isolation_level=None)
        try:
            if alone:
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            # In WAL mode NORMAL survives a killed process without a flush per answer.
            connection.execute("PRAGMA synchronous = NORMAL")
            yield connection
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        raise OSError(_UNUSABLE.format(path=path, error=error)) from error
    except sqlite3.DatabaseError as error:
        raise ValueError(
            f"{path}: expected an answer cache, but it is damaged or another file "
            f"({error}); move it away, or name another file"
        ) from error


def _prepare(path: Path) -> None:
    """Create the table in a new file, and reject a file of another kind."""
    try:
        make_private(path)
        # SQLite gives these the mode of the file when it creates them.
        for end in ("-wal", "-shm", "-journal"):
            tighten(path.with_name(path.name + end))
    except OSError as error:
        raise OSError(_UNUSABLE.format(path=path, error=error)) from error
    with _database(path) as database:
        # IMMEDIATE takes the write lock before the check, so two processes that open a
        # new file at the same time cannot both create the table.
        database.execute("BEGIN IMMEDIATE")
        found = _pragma(database, "application_id"), _pragma(database, "user_version")
        empty = not database.execute("SELECT 1 FROM sqlite_schema").fetchone()
        if empty and found == (0, 0):
            database.execute("CREATE TABLE answers (key TEXT PRIMARY KEY, answer TEXT)")
            database.execute(f"PRAGMA application_id = {_APPLICATION}")
            database.execute(f"PRAGMA user_version = {_VERSION}")
        elif found != (_APPLICATION, _VERSION):
            raise ValueError(
                f"{path}: expected an answer cache of version {_VERSION}, found a "
                f"database of kind {found[0]:#x}, version {found[1]}; name another file"
            )
        database.execute("COMMIT")
        # This fails while another process holds the file. The mode is stored in the
        # file, so it is enough that some process sets it.
        with contextlib.suppress(sqlite3.OperationalError):
            database.execute("PRAGMA journal_mode = WAL")


def _pragma(database: sqlite3.Connection, name: str) -> int:
    return database.execute(f"PRAGMA {name}").fetchone()[0]
