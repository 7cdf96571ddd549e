"""Stored answers: a cache in SQLite, and cassettes for tests.

`Cached` wraps a chat model and is itself one. It stores every answer as soon as it
arrives, so a run that is killed resumes where it stopped. Many threads and processes
may share its file. A cassette is a text file with one JSON record per line. A
`Recorder` writes it; a `Cassette` replays it without a model.
"""

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jeff_llm.chat.messages import Answer, ChatModel, Message, Request

__all__ = ["Cached", "Cassette", "Recorder"]

_APPLICATION = int.from_bytes(b"jeff")  # identifies the database as written by jeff
_VERSION = 1
_LOCK_SECONDS = 60.0  # a writer holds the lock for milliseconds
_HOW_TO_RECORD = "to record it, ask Recorder(model, path) the same once"


class Cached:
    """A chat model whose answers are stored in a SQLite file.

    The key of an answer is the SHA-256 of the whole request and the model's name, as
    canonical JSON. Each answer is committed when it arrives, so killing the process
    loses only requests in flight. The file is opened for each use (about a
    millisecond), so threads, forked processes and other runs can share it. If two equal
    requests miss at the same time, both reach the model and the first answer is kept.
    """

    def __init__(self, model: ChatModel, path: str | Path):
        """Open the cache, or create it if it does not exist.

        Args:
          model: answers the requests that are not in the cache. Models with one name
            share answers, so use a different file for each endpoint of a model.
          path: the file.

        Raises:
          OSError: if the file cannot be opened or written.
          ValueError: if the file is not a cache of this version, or is damaged.
        """
        self.name = model.name
        self.path = Path(path).expanduser().absolute()
        self._model = model
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _prepare(self.path)

    def __repr__(self) -> str:
        return f"Cached({self._model!r}, {str(self.path)!r})"

    async def answer(self, request: Request) -> Answer:
        """Answer one request from the file, or ask the model and store its answer.

        Args:
          request: the request.

        Returns:
          The answer. One from the file has ``cached`` set and costs nothing.

        Raises:
          OSError: if the file cannot be read or written.
          ValueError: if the file is damaged.
        """
        key = _key(request, self.name)
        # In a thread: waiting for the file lock must not block the event loop.
        known = await asyncio.to_thread(self._get, key)
        if known is not None:
            return known
        answer = await self._model.answer(request)
        await asyncio.to_thread(self._put, key, answer)
        return answer

    def _get(self, key: str) -> Answer | None:
        with _database(self.path) as database:
            query = "SELECT answer FROM answers WHERE key = ?"
            row = database.execute(query, (key,)).fetchone()
        return None if row is None else _load_answer(row[0], f"{self.path}: {key}")

    def _put(self, key: str, answer: Answer) -> None:
        value = json.dumps(dataclasses.asdict(answer))
        with _database(self.path) as database:
            # IGNORE: another process may have stored an answer meanwhile; keep that one
            # so that every reader sees the same answer.
            database.execute(
                "INSERT OR IGNORE INTO answers VALUES (?, ?)", (key, value)
            )


class Cassette:
    """Recorded answers, looked up by request; any other request is an error.

    Answers have ``cached`` set and cost nothing. The file is read once, on opening.
    """

    def __init__(self, path: str | Path):
        """Read a cassette.

        Args:
          path: a file written by a `Recorder`. If it holds a request twice, the later
            answer counts.

        Raises:
          FileNotFoundError: if there is no such file.
          ValueError: if a line is not a record, the file has no records, or the
            records belong to several models.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"{path}: expected a cassette; {_HOW_TO_RECORD}")
        names: set[str] = set()
        self._answers: dict[Request, Answer] = {}
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                name, request, answer = _load_record(line, f"{path}: line {number}")
                names.add(name)
                self._answers[request] = answer
        if len(names) != 1:
            raise ValueError(
                f"{path}: expected answers of one model, of {len(names)} came: "
                f"{', '.join(sorted(names))}"
            )
        self.name = names.pop()

    def __repr__(self) -> str:
        return f"Cassette({str(self.path)!r})"

    async def answer(self, request: Request) -> Answer:
        """Replay the answer to a request.

        Args:
          request: the request.

        Returns:
          The recorded answer.

        Raises:
          LookupError: if this request was not recorded.
        """
        if request not in self._answers:
            words = " ".join(request.messages[-1].content.split()[:12])
            raise LookupError(
                f"{self.path}: no answer to {words!r} with these settings; "
                f"{_HOW_TO_RECORD}"
            )
        return self._answers[request]


class Recorder:
    """A chat model whose answers are appended to a cassette as they arrive."""

    def __init__(self, model: ChatModel, path: str | Path):
        """Open a cassette for recording, or create it if it does not exist.

        Args:
          model: the model that answers.
          path: the file. Records are appended. An incomplete last line, left by a run
            that was killed, is removed first.
        """
        self.name = model.name
        self.path = Path(path)
        self._model = model
        self._lock = threading.Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _drop_torn_line(self.path)

    def __repr__(self) -> str:
        return f"Recorder({self._model!r}, {str(self.path)!r})"

    async def answer(self, request: Request) -> Answer:
        """Ask the model and record its answer.

        Args:
          request: the request.

        Returns:
          The model's answer.
        """
        answer = await self._model.answer(request)
        record = {
            "model": self.name,
            "request": dataclasses.asdict(request),
            "answer": dataclasses.asdict(answer),
        }
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        return answer


def _key(request: Request, model: str) -> str:
    whole = {"model": model, "request": dataclasses.asdict(request)}
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def _database(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the file with one transaction per statement; errors name the file."""
    try:
        connection = sqlite3.connect(path, timeout=_LOCK_SECONDS, isolation_level=None)
        try:
            # In WAL mode NORMAL survives a killed process without a flush per answer.
            connection.execute("PRAGMA synchronous = NORMAL")
            yield connection
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        raise OSError(f"{path}: the answer cache cannot be used ({error})") from error
    except sqlite3.DatabaseError as error:
        raise ValueError(
            f"{path}: expected an answer cache, but it is damaged or another file "
            f"({error}); move it away, or name another file"
        ) from error


def _prepare(path: Path) -> None:
    """Create the table in a new file, and reject a file of another kind."""
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


def _load_answer(text: str, where: str) -> Answer:
    try:
        return _known(json.loads(text))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: expected an answer, came {text!r:.80}") from error


def _load_record(line: bytes, where: str) -> tuple[str, Request, Answer]:
    try:
        record = json.loads(line)
        fields = record["request"]
        messages = tuple(Message(**message) for message in fields["messages"])
        stop = tuple(fields.get("stop", ()))
        request = Request(**(fields | {"messages": messages, "stop": stop}))
        return record["model"], request, _known(record["answer"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{where}: expected a record of model, request and answer, came "
            f"{line!r:.80} ({type(error).__name__}: {error}); record it again"
        ) from error


def _known(fields: dict[str, Any]) -> Answer:
    """Rebuild a stored answer and mark it as cached."""
    log_probs = fields.get("log_probs")
    changed = {
        "log_probs": None if log_probs is None else tuple(log_probs),
        "cached": True,
        "cost": 0.0,
    }
    return Answer(**(fields | changed))


def _drop_torn_line(path: Path) -> None:
    content = path.read_bytes() if path.exists() else b""
    # A record ends with a line break. Without one the write was interrupted, and the
    # next record would be appended to the fragment.
    if content and not content.endswith(b"\n"):
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        part.write_bytes(content[: content.rfind(b"\n") + 1])
        os.replace(part, path)
