"""Stored answers: how they are read, and cassettes for tests.

A cassette is a text file with one JSON record per line. A `Recorder` writes it; a
`Cassette` replays it without a model. The cache is in `jeff_llm.chat.cached`.
"""

import contextlib
import dataclasses
import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

from jeff import files
from jeff_llm.chat.messages import Answer, ChatModel, Message, Request

__all__ = [
    "Cassette",
    "Recorder",
    "append_line",
    "drop_torn_line",
    "known_answer",
    "make_private",
    "not_kept",
    "tighten",
]

_HOW_TO_RECORD = "to record it, ask Recorder(model, path) the same once"
_CREATING = threading.Lock()
_NOT_OWNER = stat.S_IRWXG | stat.S_IRWXO
_KINDS = {
    "text": str,
    "finish_reason": str,
    # None is what the endpoint did not report.
    "prompt_tokens": int | None,
    "completion_tokens": int | None,
    "cost": int | float | None,
    "model": str,
}


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
    """A chat model whose answers are appended to a cassette as they arrive.

    An answer that cannot be recorded is handed over all the same.

    Attributes:
      name: name of the model.
      path: the file, which only its owner can read.
      stopped: why nothing more is asked, once an answer could not be recorded; else
        None. Every later request fails with this error.
    """

    name: str
    path: Path
    stopped: OSError | None

    def __init__(self, model: ChatModel, path: str | Path):
        """Open a cassette for recording, or create it if it does not exist.

        Args:
          model: the model that answers.
          path: the file. Records are appended. An incomplete last line, left by a run
            that was killed, is removed first.

        Raises:
          OSError: if the file cannot be written.
        """
        self.name = model.name
        self.path = Path(path)
        self.stopped = None
        self._model = model
        self._lock = threading.Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        make_private(self.path)
        drop_torn_line(self.path)

    def __repr__(self) -> str:
        return f"Recorder({self._model!r}, {str(self.path)!r})"

    async def answer(self, request: Request) -> Answer:
        """Ask the model and record its answer.

        Args:
          request: the request.

        Returns:
          The model's answer.

        Raises:
          OSError: if an earlier answer could not be recorded; nothing is asked.
        """
        if self.stopped is not None:
            raise OSError(*self.stopped.args) from self.stopped.__cause__
        answer = await self._model.answer(request)
        record = {
            "model": self.name,
            "request": dataclasses.asdict(request),
            "answer": dataclasses.asdict(answer),
        }
        try:
            with self._lock:
                append_line(self.path, json.dumps(record).encode() + b"\n")
        except Exception as error:  # whatever it is, the answer is handed over
            self.stopped = self.stopped or not_kept(self.path, error)
        return answer


def append_line(path: Path, line: bytes) -> None:
    """Append a whole line or nothing.

    Args:
      path: the file.
      line: the line, with its line break.

    Raises:
      OSError: if it could not be written whole; the file is as before.
    """
    with path.open("ab", buffering=0) as file:
        size = file.tell()
        try:
            written = 0
            while written < len(line):
                written += file.write(line[written:])
        except BaseException:
            # The next record would be appended to a fragment.
            with contextlib.suppress(OSError):
                file.truncate(size)
            raise


def drop_torn_line(path: Path) -> None:
    """Remove an incomplete last line, left by a process that was killed.

    Args:
      path: the file.
    """
    content = path.read_bytes()
    # A record ends with a line break. Without one the write was interrupted, and the
    # next record would be appended to the fragment.
    if not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


def known_answer(text: str, where: str) -> Answer:
    """Read a stored answer.

    Args:
      text: its fields as JSON.
      where: file and key, for the message of an error.

    Returns:
      The answer as it was stored, with its cost.

    Raises:
      ValueError: if it is none.
    """
    try:
        return _answer(files.parse_json(text, "the answer", finite=False))
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{where}: expected an answer, came {text!r:.80} ({error}); the file is "
            "damaged: delete this row, or move the file away"
        ) from error


def make_private(path: Path) -> None:
    """Create a file that only its owner can read, or make an existing one so.

    Args:
      path: the file.

    Raises:
      OSError: if it cannot be created.
    """
    # An existing file is not opened: closing it would release the locks that SQLite
    # holds on it in other threads. The lock keeps them out until a new one is closed.
    with _CREATING, contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    tighten(path)


def tighten(path: Path) -> None:
    """Take the rights of others from a file, if there is one.

    Args:
      path: the file; one of another user stays as they made it.
    """
    with contextlib.suppress(FileNotFoundError, PermissionError):
        mode = path.stat().st_mode
        if stat.S_ISREG(mode) and mode & _NOT_OWNER:
            path.chmod(stat.S_IMODE(mode) & ~_NOT_OWNER)


def not_kept(path: Path, error: Exception) -> OSError:
    """Create the error of a store that no longer asks.

    Args:
      path: the file.
      error: why an answer could not be stored.

    Returns:
      The error; it says that nothing more is asked, and what to do.
    """
    why = str(error).removeprefix(f"{path}: ")
    stop = OSError(
        f"{path}: expected to store each answer, but one could not be stored ({why}); "
        "it was handed over, and nothing more is asked, since answers would be paid "
        "for and lost. Make room or name another file, and run the same again: "
        "stored answers are not asked twice"
    )
    stop.__cause__ = error
    return stop


def _load_record(line: bytes, where: str) -> tuple[str, Request, Answer]:
    try:
        record = files.parse_json(line, "the record", finite=False)
        fields = record["request"]
        messages = tuple(Message(**message) for message in fields["messages"])
        stop = tuple(fields.get("stop", ()))
        request = Request(**(fields | {"messages": messages, "stop": stop}))
        answer = _answer(record["answer"])
        known = dataclasses.replace(answer, cached=True, cost=0.0)
        hash(request)  # it is looked up by its hash; a list in it has none
        if not isinstance(record["model"], str):
            raise TypeError(f"model: expected a name, got {record['model']!r:.40}")
        return record["model"], request, known
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{where}: expected a record of model, request and answer, came "
            f"{line!r:.80} ({type(error).__name__}: {error}); record it again"
        ) from error


def _answer(fields: dict[str, Any]) -> Answer:
    """Rebuild a stored answer, and check the type of each field."""
    log_probs = fields.get("log_probs")
    given: dict[str, Any] = {
        "log_probs": None if log_probs is None else tuple(log_probs)
    }
    answer = Answer(**(fields | given))
    for name, kind in _KINDS.items():
        if not isinstance(value := getattr(answer, name), kind):
            raise TypeError(f"{name}: expected {kind}, got {value!r:.40}")
    if not all(isinstance(each, int | float) for each in answer.log_probs or ()):
        raise TypeError("log_probs: expected numbers")
    return answer
