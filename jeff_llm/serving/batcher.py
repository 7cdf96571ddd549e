"""A queue of requests and the thread that decodes them together.

Requests that wait at the same time begin as one batch. Two batches may be under way;
they take turns of a few tokens, so a request that comes later does not wait until long
answers have ended. Rows that end, or whose client left, are masked. The thread ends
when nothing is left to do, so it never keeps a process alive.
"""

import threading
from collections.abc import Sequence

from jeff_llm.generate import batching
from jeff_llm.generate.decoding import MakeCache
from jeff_llm.models.cache import init_cache
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.serving.engine import Batch, Engine
from jeff_llm.serving.rows import Deliver, Job, Piece, Row

__all__ = ["Batcher", "BusyError"]

# How long a first batch waits for others: short compared with the time for one token.
_GATHER_SECONDS = 0.005
# Batches that take turns. More would slow each answer down and hold more caches.
_BATCHES = 2
# Scores of attention, for each head, that the prompts of a batch may have together:
# more of them would not fit a small machine. A single prompt may have more.
_MOST_SCORES = 1 << 25


class BusyError(RuntimeError):
    """Raised when no more requests are taken: too many wait, or the server ends."""


class Batcher:
    """Answers requests in batches; any thread may submit.

    Attributes:
      max_batch: most rows of a batch.
      max_waiting: most rows that wait.
    """

    max_batch: int
    max_waiting: int

    def __init__(
        self,
        model: LanguageModel,
        *,
        max_batch: int = 8,
        max_waiting: int = 256,
        piece: int = 4,
        make_cache: MakeCache = init_cache,
        stop_ids: Sequence[int] | None = None,
    ):
        """Wrap a model.

        Args:
          model: the model, with a tokenizer.
          max_batch: most rows of a batch; two batches may be under way.
          max_waiting: most rows that wait, beside those under way.
          piece: tokens that are decoded before text is handed over.
          make_cache: as in `jeff_llm.generate.generate`.
          stop_ids: tokens that end an answer; the model's own by default.

        Raises:
          ValueError: if the model has no tokenizer, or a number is not positive.
        """
        if model.tokenizer is None:
            raise ValueError("model: expected one with a tokenizer, got none")
        for name, value in (
            ("max_batch", max_batch),
            ("max_waiting", max_waiting),
            ("piece", piece),
        ):
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        stops = tuple(model.stop_ids if stop_ids is None else stop_ids)
        batching.check_ids(model, stops, "stop_ids")
        self.max_batch, self.max_waiting = max_batch, max_waiting
        self._model, self._tokenizer = model, model.tokenizer
        known = model.tokenizer.vocab_size
        self._engine = Engine(model, known, stops, make_cache, piece)
        self._waiting: list[Row] = []
        self._changed = threading.Condition()
        self._working = self._closed = False

    def submit(self, jobs: Sequence[Job], deliver: Sequence[Deliver]) -> list[Row]:
        """Take requests in, all of them or none.

        Args:
          jobs: what is asked.
          deliver: takes the pieces of each answer, in the thread of the batcher; must
            not block.

        Returns:
          The rows, to cancel them.

        Raises:
          BusyError: if too many wait, or the batcher was closed.
          ValueError: if a prompt is empty, has a token that the model lacks, or does
            not fit the context together with its answer.
        """
        for job in jobs:
            if not job.prompt or job.max_tokens < 1:
                raise ValueError(
                    "prompt, max_tokens: expected at least one token each, got "
                    f"{len(job.prompt)} and {job.max_tokens}"
                )
            batching.check_ids(self._model, job.prompt, "prompt")
            batching.check_room(self._model, job.prompt, job.max_tokens, "prompt")
        rows = [
            Row(job, self._tokenizer, each)
            for job, each in zip(jobs, deliver, strict=True)
        ]
        with self._changed:
            if self._closed:
                raise BusyError("the server is ending and takes no more requests")
            if len(self._waiting) + len(rows) > self.max_waiting:
                raise BusyError(
                    f"{len(self._waiting)} requests wait, of at most "
                    f"{self.max_waiting}; ask again later"
                )
            self._waiting += rows
            self._changed.notify_all()
            # Decided under the lock: exactly one thread works.
            idle, self._working = not self._working, True
        if idle:
            threading.Thread(target=self._work, name="batcher").start()
        return rows

    def warm_up(self, *, max_tokens: int) -> None:
        """Compile the programs of short prompts, greedy and sampled, and wait.

        Args:
          max_tokens: most tokens of the answers that will be common.

        Raises:
          Exception: what the model raised, if it cannot answer.
        """
        prompt = (0,)
        room = self._model.config.max_positions - len(prompt)
        rows = 1
        while rows < 2 * self.max_batch:
            for temperature in (0.0, 1.0):
                job = Job(prompt, min(max_tokens, room), temperature)
                self._warm(job, min(rows, self.max_batch))
            rows *= 2

    def close(self) -> None:
        """Take no more requests; those that were taken are answered."""
        with self._changed:
            self._closed = True

    @property
    def closed(self) -> bool:
        """Whether no more requests are taken."""
        return self._closed

    def join(self, timeout: float | int | None = None) -> bool:
        """Wait until nothing is left to do.

        Args:
          timeout: seconds to wait at most; None waits for ever.

        Returns:
          Whether nothing is left.
        """
        with self._changed:
            return self._changed.wait_for(lambda: not self._working, timeout)

    def _warm(self, job: Job, rows: int) -> None:
        """Answer until a whole piece has come, then cancel."""
        faults: list[Exception] = []
        answers: list[Row] = []

        def deliver(piece: Piece) -> None:
            if piece.error is not None:
                faults.append(piece.error)
            if piece.completion_tokens > 1:
                for row in answers:
                    row.cancel()

        answers += self.submit([job] * rows, [deliver] * rows)
        self.join()
        if faults:
            raise faults[0]

    def _work(self) -> None:
        batches: list[Batch] = []
        while (rows := self._take(batches)) is not None:
            if rows:
                batches += self._begin(rows)
            batches = [batch for batch in batches if self._advance(batch)]

    def _begin(self, rows: list[Row]) -> list[Batch]:
        try:
            return [Batch(self._engine, rows)]
        except Exception as error:
            # Whatever the model does, the next batch has its chance.
            _fail(rows, error)
            return []

    def _advance(self, batch: Batch) -> bool:
        """Decode a piece; whether there is more to do."""
        try:
            if not batch.done:
                batch.advance()
        except Exception as error:
            _fail(batch.rows, error)
        return not batch.done

    def _take(self, batches: list[Batch]) -> list[Row] | None:
        """Rows that begin now; None where nothing is left to do."""
        with self._changed:
            if not batches and self._waiting:
                self._changed.wait_for(
                    lambda: len(self._waiting) >= self.max_batch, _GATHER_SECONDS
                )
            self._waiting = [row for row in self._waiting if not row.done]
            if len(batches) >= _BATCHES:
                return []
            rows = _alike(self._waiting[: self.max_batch])
            self._waiting = [row for row in self._waiting if row not in rows]
            if not rows and not batches:
                self._working = False
                self._changed.notify_all()
                return None
            return rows


def _alike(rows: list[Row]) -> list[Row]:
    """The first row and those that are read with it, in the order they came."""
    if not rows:
        return []
    lengths = [len(row.job.prompt) for row in rows]
    group = next(g for g in batching.like_lengths(lengths) if 0 in g)
    longest = max(lengths[place] for place in group)
    most = max(_MOST_SCORES // longest**2, 1)
    return [rows[place] for place in group[:most]]


def _fail(rows: Sequence[Row], error: Exception) -> None:
    for row in rows:
        row.fail(error)
